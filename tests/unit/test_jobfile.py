"""Job files: what each form means, and where the finger points when one is wrong."""

from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import MessageToJson, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.cli import jobfile, shortform
from titus_celery.cli.nodes import FileInvalid
from titus_celery.cli.submit import submit
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

SHORT = """\
image: titus/hello
command: sh -c 'echo "hello there"'
entryPoint: [/bin/env, -i]
env:
  ON: on
  COUNT: 1
  VERSION: 1.10
  EMPTY: ""
cpu: 0.5
memory: 256Mi
instances: 3
retries: 2
timeout: 1h30m
name: nightly
owner: ann@example.com
labels: {team: blue}
"""

FULL: dict[str, object] = {
    "owner": {"ownerEmail": "ann@example.com", "teamEmail": "ann@example.com"},
    "appName": "nightly",
    "labels": {"team": "blue"},
    "containers": {
        "main": {
            "image": {"name": "titus/hello"},
            "command": ["sh", "-c", 'echo "hello there"'],
            "entryPoint": ["/bin/env", "-i"],
            "env": {"ON": "on", "COUNT": "1", "VERSION": "1.10", "EMPTY": ""},
            "resources": {"cpu": "0.5", "memory": "256Mi"},
        }
    },
    "batch": {
        "instances": {"desired": 3},
        "runtimeLimitSecs": "5400",
        "retryPolicy": {"immediate": {"retries": 2}},
        "containerId": "main",
    },
}


EVERYTHING = """\
image: titus/hello
type: service
instances: {desired: 3, min: 1, max: 9}
retries: {exponential: {retries: 4, initialDelay: 1s, maxDelay: 1m}}
cpu: 2
disk: 2GB
network: 100Mbps
gpu: 1
ports: [8080, 9090]
resources: {allocateIP: true, licence: 1}
hardConstraints: [uniqueHost, host=h1]
softConstraints: {zoneBalance: true}
parameters: {MODE: fast}
volumes: [data:/data, "/srv:/srv:ro"]
securityProfile: {securityGroups: [sg-1, sg-2], iamRole: r}
owner: {ownerEmail: ann@example.com, teamEmail: team@example.com}
jobGroupInfo: {stack: prod, detail: eu, sequence: "001"}
"""

EVERYTHING_FULL: dict[str, object] = {
    "owner": {"ownerEmail": "ann@example.com", "teamEmail": "team@example.com"},
    "jobGroupInfo": {"stack": "prod", "detail": "eu", "sequence": "001"},
    "containers": {
        "main": {
            "image": {"name": "titus/hello"},
            "resources": {
                "cpu": "2",
                "disk": "2GB",
                "network": "100Mbps",
                "gpu": "1",
                "ports": "8080,9090",
                "allocateIP": "true",
                "licence": "1",
            },
            "hardConstraints": {"constraints": {"uniqueHost": "", "host": "h1"}},
            "softConstraints": {"constraints": {"zoneBalance": "true"}},
            "parameters": {"MODE": "fast", "volumes": "data:/data,/srv:/srv:ro"},
            "securityProfile": {"securityGroups": "sg-1,sg-2", "iamRole": "r"},
        }
    },
    "service": {
        "instances": {"desired": 3, "min": 1, "max": 9},
        "retryPolicy": {
            "exponentialBackOff": {"retries": 4, "initialDelayMs": "1000", "maxDelayIntervalMs": "60000"}
        },
        "containerId": "main",
    },
}


def wanted(data: dict[str, object]) -> pb.JobDescriptor:
    return ParseDict(data, pb.JobDescriptor())


def only(content: str) -> pb.JobDescriptor:
    [job] = jobfile.read(content, "job.yaml")
    return job


def test_the_short_form_is_a_descriptor_with_one_container() -> None:
    assert only(SHORT) == wanted(FULL)


def test_the_short_form_has_a_name_for_everything_a_service_may_have() -> None:
    assert only(EVERYTHING) == wanted(EVERYTHING_FULL)
    assert only(json.dumps(EVERYTHING_FULL)) == wanted(EVERYTHING_FULL)


def test_no_name_of_the_short_form_is_left_untold_by_the_help() -> None:
    words = submit.callback.__doc__ or ""
    untold = {name for name in shortform.NAMES if name not in words}
    assert untold == {"appName"}, "another word for name"


def test_a_service_has_one_task_that_is_restarted_without_end() -> None:
    job = only("image: a\ntype: service")
    assert job.service == pb.ServiceJobSpec(instances=pb.TaskInstances(desired=1), containerId="main")
    assert only("image: a\ntype: batch") == only("image: a")
    assert only("image: a\ntype: service\ninstances: 0").service.instances.desired == 0


def test_where_names_stand_does_not_matter() -> None:
    assert only("retries: 2\ninstances: 3\nimage: a\ntype: service") == only(
        "type: service\nimage: a\ninstances: 3\nretries: 2"
    )


def test_restarts_of_a_service_in_a_number_are_some_seconds_apart() -> None:
    assert only("image: a\ntype: service\nretries: 2").service.retryPolicy == ParseDict(
        {
            "exponentialBackOff": {
                "retries": 2,
                "initialDelayMs": "1000",
                "maxDelayIntervalMs": "30000",
            }
        },
        pb.RetryPolicy(),
    )


def test_one_text_is_a_list_of_one() -> None:
    job = only("image: a\nports: 8080\nvolumes: data:/data\nhardConstraints: uniqueHost")
    container = job.containers["main"]
    assert container.resources["ports"] == "8080"
    assert container.parameters["volumes"] == "data:/data"
    assert dict(container.hardConstraints.constraints) == {"uniqueHost": ""}


def test_the_full_form_is_proto3_json() -> None:
    assert only(json.dumps(FULL)) == wanted(FULL)


def test_what_is_printed_as_json_can_be_submitted_again() -> None:
    job = wanted(FULL)
    job.jobGroupInfo.stack = "a"
    job.containers["main"].softConstraints.constraints["zoneBalance"] = "true"
    assert only(MessageToJson(job)) == job


def test_an_image_alone_is_one_task_with_the_defaults_of_the_server() -> None:
    job = only("image: titus/hello")
    assert job.batch.instances.desired == 1
    assert not job.containers["main"].resources
    assert not job.batch.HasField("retryPolicy")
    assert job.batch.runtimeLimitSecs == 0


def test_an_image_by_its_id() -> None:
    assert only("image: sha256:abc").containers["main"].image == pb.Image(imageId="sha256:abc")


def test_every_document_is_a_job_and_empty_ones_are_none() -> None:
    jobs = jobfile.read("---\nimage: a\n---\n---\nimage: b\n", "job.yaml")
    assert [job.containers["main"].image.name for job in jobs] == ["a", "b"]


def test_an_alias_means_what_it_points_to() -> None:
    assert only("image: &a x\nname: *a").appName == "x"


@pytest.mark.parametrize(
    ("retries", "policy"),
    [
        ("0", {"immediate": {}}),
        ("{immediate: {retries: 4}}", {"immediate": {"retries": 4}}),
        (
            "{delayed: {retries: 3, initialDelay: 0s, delay: 1m}}",
            {"delayed": {"retries": 3, "delayMs": 60000}},
        ),
        (
            "{exponential: {retries: 5, initialDelay: 500ms, maxDelay: 30s}}",
            {"exponentialBackOff": {"retries": 5, "initialDelayMs": 500, "maxDelayIntervalMs": 30000}},
        ),
    ],
)
def test_retry_policies(retries: str, policy: dict[str, object]) -> None:
    job = only(f"image: a\nretries: {retries}")
    assert job.batch.retryPolicy == ParseDict(policy, pb.RetryPolicy())


@pytest.mark.parametrize(
    ("content", "place", "why"),
    [
        pytest.param("", "job.yaml", "no job in it", id="empty"),
        pytest.param("image: [a\n", "job.yaml:2:1", "not valid YAML", id="bad-yaml"),
        pytest.param("image: a\n\tcpu: 1\n", "job.yaml:2:1", "not valid YAML", id="tab"),
        pytest.param("[" * 20_000, "job.yaml", "nested more deeply", id="deep"),
        pytest.param("image: \x00", "job.yaml", "not valid YAML", id="control-character"),
        pytest.param("- image: a", "job.yaml:1", "a job must be a mapping", id="list"),
        pytest.param("cpu: 1", "job.yaml:1", "has no `image`", id="no-image"),
        pytest.param("image: a\n\nimagee: b", "job.yaml:3", "did you mean 'image'?", id="unknown"),
        pytest.param("image: a\nzzz: b", "job.yaml:2", "known are image, type, command", id="unknown-far"),
        pytest.param("image: a\nimage: b", "job.yaml:2", "given twice", id="twice"),
        pytest.param("image:", "job.yaml:1", "image must be text, but is nothing", id="null"),
        pytest.param("image: {a: b}", "job.yaml:1", "image must be text, but is a mapping", id="map"),
        pytest.param("image: a\ncommand: 'it''s'", "job.yaml:2", "No closing quotation", id="quote"),
        pytest.param("image: a\ncommand: [a, [b]]", "job.yaml:2", "each word of command", id="nested"),
        pytest.param("image: a\nenv:\n  A: 1\n  B:\n", "job.yaml:4", "env.B must be text", id="env-null"),
        pytest.param("image: a\nenv: [A=1]", "job.yaml:2", "env must be a mapping", id="env-list"),
        pytest.param("image: a\ncpu: lots", "job.yaml:2", "cpu: 'lots'", id="cpu"),
        pytest.param("image: a\nmemory: 1 potato", "job.yaml:2", "memory: ", id="memory"),
        pytest.param("image: a\ninstances: three", "job.yaml:2", "whole number", id="instances"),
        pytest.param("image: a\ninstances: 0", "job.yaml:2", "from 1 to", id="no-instances"),
        pytest.param("image: a\ninstances: " + "9" * 5000, "job.yaml:2", "whole number", id="huge"),
        pytest.param("image: a\nretries: -1", "job.yaml:2", "whole number", id="negative"),
        pytest.param("image: a\nretries: {}", "job.yaml:2", "exactly one of", id="no-kind"),
        pytest.param("image: a\nretries: {slow: {}}", "job.yaml:2", "'slow' is unknown", id="kind"),
        pytest.param("image: a\nretries: {delayed: {delay: 1s}}", "job.yaml:2", "how many", id="count"),
        pytest.param(
            "image: a\nretries: {delayed: {retries: 1, delay: x}}", "job.yaml:2", "no duration", id="delay"
        ),
        pytest.param("image: a\ntimeout: soon", "job.yaml:2", "no duration", id="timeout"),
        pytest.param("image: a\ntimeout: 100ms", "job.yaml:2", "whole number of seconds", id="too-fine"),
        pytest.param("image: a\nname: x\nappName: y", "job.yaml:3", "mean the same", id="two-names"),
        pytest.param("image: a\ntype: cron", "job.yaml:2", "must be one of batch, service", id="type"),
        pytest.param("image: a\ndisk: big", "job.yaml:2", "disk: 'big'", id="disk"),
        pytest.param("image: a\nnetwork: 1GB", "job.yaml:2", "network: ", id="network"),
        pytest.param("image: a\ngpu: half", "job.yaml:2", "gpu: 'half'", id="gpu"),
        pytest.param("image: a\nports: [80, 80]", "job.yaml:2", "names a port twice", id="ports"),
        pytest.param("image: a\nports: [[80]]", "job.yaml:2", "each of ports must be text", id="port-list"),
        pytest.param("image: a\nresources: {disk: big}", "job.yaml:2", "disk: 'big'", id="resource"),
        pytest.param("image: a\ncpu: 1\nresources:\n  cpu: 2", "job.yaml:4", "mean the same", id="two-cpus"),
        pytest.param("image: a\nvolumes:\n- data", "job.yaml:3", "not source:target", id="volume"),
        pytest.param("image: a\nvolumes: [a:/b:x]", "job.yaml:2", "not source:target", id="volume-mode"),
        pytest.param(
            "image: a\nvolumes: [a:/b]\nparameters: {volumes: c:/d}", "job.yaml:3", "mean the same", id="vols"
        ),
        pytest.param(
            "image: a\nparameters: {volumes: c:/d}\nvolumes: [a:/b]", "job.yaml:3", "mean the same", id="slov"
        ),
        pytest.param(
            "image: a\nhardConstraints: [host=a,\n host=b]", "job.yaml:3", "given twice", id="constraint"
        ),
        pytest.param("image: a\nowner: {mail: x}", "job.yaml:2", "'mail' is unknown in owner", id="owner"),
        pytest.param("image: a\njobGroupInfo: {stac: x}", "job.yaml:2", "did you mean 'stack'?", id="group"),
        pytest.param("image: a\ninstances: {min: 1}", "job.yaml:2", "how many are `desired`", id="desired"),
        pytest.param(
            "image: a\ninstances: {desired: 1, max: 2}", "job.yaml:2", "add `type: service`", id="bounds"
        ),
        pytest.param(
            "image: a\ntype: service\ntimeout: 1m", "job.yaml:3", "a service has no run-time", id="no-limit"
        ),
        pytest.param("batch: {}\nimage: a", "job.yaml:2", "'image' is unknown in the job", id="mixed"),
        pytest.param(
            "containers:\n  main:\n    imag: {}", "job.yaml:3", "did you mean 'image'?", id="deep-unknown"
        ),
        pytest.param(
            "batch:\n  instances:\n    desired: x", "job.yaml:3", "desired must be a whole", id="deep-type"
        ),
        pytest.param("batch: {}\nservice: {}", "job.yaml:1", "the job cannot be used", id="oneof"),
        pytest.param("service: {enabled: maybe}", "job.yaml:1", "true or false", id="bool"),
        pytest.param("mantis: {jobSLA: {durationType: X}}", "job.yaml:1", "Perpetual, Transient", id="enum"),
        pytest.param("containers: {a: 1}", "job.yaml:1", "containers.a must be a mapping", id="not-a-map"),
        pytest.param('image: "\\ud800"', "job.yaml:1", "half of a character", id="surrogate"),
        pytest.param('image: a\nenv: {"\\udfff": a}', "job.yaml:2", "half of a", id="surrogate-key"),
        pytest.param("image: a\n---\nimage: b\ncpu: x", "job.yaml:4", "cpu", id="second-document"),
    ],
)
def test_a_mistake_is_named_with_its_line(content: str, place: str, why: str) -> None:
    with pytest.raises(FileInvalid) as caught:
        jobfile.read(content, "job.yaml")
    assert caught.value.place == place
    assert why in caught.value.why


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_whatever_a_file_holds_it_is_read_or_refused(content: str) -> None:
    try:
        jobfile.read(content, "job.yaml")
    except FileInvalid as error:
        assert error.place.startswith("job.yaml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*shortform.NAMES, *pb.JobDescriptor.DESCRIPTOR.fields_by_name])


@given(st.dictionaries(names, values, max_size=5))
def test_any_value_under_a_known_name_is_read_or_refused(data: dict[str, object]) -> None:
    try:
        jobfile.read(json.dumps(data), "job.json")
    except FileInvalid as error:
        assert error.place.startswith("job.json")
