"""Files that describe clusters: what each form means, and where the finger points when one is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson, ParseDict

from titus_celery.cli import clusterfile
from titus_celery.cli.nodes import FileInvalid
from titus_celery.core.cluster import CATCH_UP, TIME_ZONE
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

NIGHTLY = """\
name: nightly
cron: 0 0 2 * * ?
timeZone: Europe/Berlin
cronPolicy: KEEP_NEW
catchUp: once
owner: ann@example.com
job:
  image: titus/hello
  command: echo hello
  timeout: 1h
  retries: 2
  labels: {team: blue}
"""

FULL: dict[str, object] = {
    "owner": {"ownerEmail": "ann@example.com", "teamEmail": "ann@example.com"},
    "name": "nightly",
    "jobDescriptor": {
        "appName": "nightly",
        "labels": {"team": "blue"},
        "containers": {"main": {"image": {"name": "titus/hello"}, "command": ["echo", "hello"]}},
        "mantis": {
            "name": "nightly",
            "jobSLA": {"runtimeLimitSecs": "3600"},
            "parameters": {TIME_ZONE: "Europe/Berlin", CATCH_UP: "once"},
            "stages": [
                {
                    "instances": {"desired": 1},
                    "containerId": "main",
                    "retryPolicy": {
                        "exponentialBackOff": {
                            "retries": 2,
                            "initialDelayMs": "1000",
                            "maxDelayIntervalMs": "30000",
                        }
                    },
                }
            ],
        },
    },
    "mantis": {"enabled": True, "cronSpec": "0 0 2 * * ?", "cronPolicy": "KEEP_NEW"},
}


def read(content: str, **more: bool) -> pb.JobClusterDescriptor:
    return clusterfile.read(content, "file", **more)


def refused(content: str) -> str:
    with pytest.raises(FileInvalid) as caught:
        read(content)
    return str(caught.value)


def test_the_short_form_means_this_full_form() -> None:
    assert read(NIGHTLY) == ParseDict(FULL, pb.JobClusterDescriptor())


def test_the_full_form_is_what_the_api_prints() -> None:
    wanted = ParseDict(FULL, pb.JobClusterDescriptor())
    assert read(MessageToJson(wanted)) == wanted
    assert read(json.dumps(FULL)) == wanted


def test_the_example_has_a_schedule_and_a_job() -> None:
    file = Path(__file__).parents[2] / "examples" / "nightly.yaml"
    made = read(file.read_text())
    assert (made.mantis.cronSpec, made.mantis.enabled) == ("0 0 2 * * ?", True)
    assert made.jobDescriptor.mantis.stages[0].retryPolicy.exponentialBackOff.retries == 2


def test_the_short_form_is_enabled_unless_it_says_otherwise_and_the_full_form_is_not() -> None:
    short = "name: a\nmax: 2\n"
    assert read(short).mantis.enabled
    assert not read(short + "enabled: no").mantis.enabled
    assert not read(short, is_enabled=False).mantis.enabled
    assert read(short + "enabled: yes", is_enabled=False).mantis.enabled
    assert not read("name: a\nmantis: {max: 2}").mantis.enabled


def test_stages_make_a_cluster_of_mantis_jobs() -> None:
    made = read("name: a\nmin: 1\nmax: 2\nstages: [{image: b}, {image: c, instances: 2, cpu: 0.5}]")
    assert (made.mantis.min, made.mantis.max) == (1, 2)
    job = made.jobDescriptor
    assert job.mantis.name == job.appName == "a"
    assert [job.containers[stage.containerId].image.name for stage in job.mantis.stages] == ["b", "c"]
    assert [stage.instances.desired for stage in job.mantis.stages] == [1, 2]
    assert job.containers["stage-1"].resources["cpu"] == "0.5"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("name: a", "batch"),
        ("name: a\ntype: service", "service"),
        ("name: a\ntype: mantis", "mantis"),
        ("name: a\njob: {image: b}", "batch"),
        ("name: a\njob: {image: b, type: service}", "service"),
        ("name: a\njob: {image: b, type: mantis}", "mantis"),
        ("name: a\njob: {stages: [{image: b}]}", "mantis"),
        ("name: a\njob: {service: {containerId: m}, containers: {m: {}}}", "service"),
        ("name: a\nmax: 3", "mantis"),
        ("name: a\nmax: 3\njob: {image: b, type: batch}", "mantis"),
    ],
)
def test_the_type_is_what_the_file_says_or_what_follows_from_the_rest(content: str, kind: str) -> None:
    made = read(content)
    assert made.WhichOneof("clusterSpec") == kind
    if made.HasField("jobDescriptor"):
        assert made.jobDescriptor.WhichOneof("jobSpec") == kind


def test_a_job_keeps_the_name_that_it_has() -> None:
    assert read("name: a\nmax: 1\njob: {name: b, image: c}").jobDescriptor.mantis.name == "b"


@pytest.mark.parametrize(
    ("content", "where_and_why"),
    [
        ("", "file: there is no cluster in it"),
        ("type: batch", "file:1: the cluster has no `name`"),
        ("name: a\n---\nname: b", "file:3: a second document"),
        ("name: a\nschedule: x", "file:2: 'schedule' is unknown in a cluster"),
        ("name: a\ncrom: x", "file:2: 'crom' is unknown in a cluster; did you mean 'cron'?"),
        ("name: a\ntype: titus", "file:2: type must be one of batch, service, mantis"),
        ("name: a\nenabled: maybe\nmax: 1", "file:2: enabled must be true or false"),
        ("name: a\ntype: batch\ncron: 0 2 * * 1", "file:3: `cron` is for clusters of Mantis jobs"),
        ("name: a\ntype: service\nenabled: no", "file:3: a cluster of type service begins enabled"),
        ("name: a\nmax: 1\ntimeZone: UTC", "file:3: `timeZone` goes with `cron`"),
        ("name: a\nmax: 1\ncatchUp: once", "file:3: `catchUp` goes with `cron`"),
        ("name: a\nmin: 2\njob: {image: b}", "file:2: `max` must be given, and no less than `min`, 2"),
        ("name: a\nmin: 2\nmax: 1\njob: {image: b}", "file:3: `max` must be given"),
        ("name: a\nmax: x", "file:2: max must be a whole number"),
        ("name: a\nmin: 1\nmax: 1", "file:2: `min` needs a `job` or `stages`"),
        ("name: a\ncron: 0 2 * * 1", "file:2: `cron` needs a `job` or `stages`"),
        ("name: a\ncron: ''\njob: {image: b}", "file:2: cron is empty"),
        ("name: a\ncron: 0 2 * * 1\nmax: 2\njob: {image: b}", "file:3: with `cron` one job runs at a time"),
        ("name: a\ncron: 0 2 * * 1\nmin: 1\njob: {image: b}", "file:3: with `cron` one job runs at a time"),
        ("name: a\ncron: 0 2 * * 1\ncronPolicy: x\njob: {image: b}", "file:3: cronPolicy must be one of"),
        (
            "name: a\ncron: 0 2 * * 1\ncatchUp: all\njob: {image: b}",
            "file:3: catchUp must be one of none, once",
        ),
        ("name: a\njob: {image: b}\nstages: [{image: c}]", "file:3: `job` and `stages` are two ways"),
        ("name: a\nmax: 1\njob:\n  image: b\n  type: service", "file:4: the job is of type service"),
        ("name: a\ntype: batch\njob:\n  stages: [{image: b}]", "file:4: the job is of type mantis"),
        ("name: a\nmax: 1\njob:\n  command: b", "file:4: the job has no `image`"),
        ("name: a\nstages: []", "file:1: there is no stage in `stages`"),
        ("name: a\nstages:\n- image: b\n- command: c", "file:4: the stage has no `image`"),
        ("name: a\nmantis: {minimum: 1}", "file:2: 'minimum' is unknown in mantis; did you mean 'min'?"),
        ("name: a\nmantis: {}\nbatch: {}", "file:1: the cluster cannot be used"),
    ],
)
def test_a_mistake_is_named_with_its_line(content: str, where_and_why: str) -> None:
    assert refused(content).startswith(where_and_why)
