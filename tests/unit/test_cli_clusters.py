"""The commands about clusters against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import grpc
import pytest

from tests.unit.scripted_clusters import CLUSTER, DEFAULT, OTHER, nightly, plain
from tests.unit.scripted_server import JOB, Server, titus
from titus_celery.cli.cluster import cluster
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

COMMANDS = cluster.list_commands(click.Context(cluster))


@pytest.fixture(autouse=True)
def in_new_york() -> Iterator[None]:
    """Where these commands run: a zone of its own, so that none is mistaken for another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_teaches_with_an_example_and_tells_the_exit_codes(server: Server, command: str) -> None:
    told = titus(server, "cluster", command, "--help").stdout
    examples, codes = told.split("Examples:\n")[1].split("Exit codes:\n")
    assert f"titus cluster {command}" in examples
    assert {"0", "2", "125"} <= {line.split()[0] for line in codes.splitlines()}
    assert max(map(len, examples.splitlines())) <= 110, "no terminal is so wide"


# ------------------------------------------------------------------------------------------- create


def test_create_from_a_file_prints_the_id(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text("name: nightly\ncron: 0 2 * * 1\njob: {image: a}\n")
    result = titus(server, "cluster", "create", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{CLUSTER}\n", "")
    [made] = server.created_clusters
    assert (made.name, made.mantis.cronSpec, made.mantis.enabled) == ("nightly", "0 2 * * 1", True)


def test_create_from_standard_input_that_is_disabled_says_so(server: Server) -> None:
    result = titus(server, "cluster", "create", "-", stdin='{"name": "a", "mantis": {"max": 2}}')
    assert result.stdout == f"{CLUSTER}\n"
    assert result.stderr == f"titus: it makes no jobs until `titus cluster enable {CLUSTER}`\n"
    assert not server.created_clusters[0].mantis.enabled


def test_a_mistake_in_a_file_is_named_with_its_line(server: Server) -> None:
    result = titus(server, "cluster", "create", "-", stdin="name: a\ncronn: x")
    assert (result.exit_code, server.created_clusters) == (2, [])
    assert result.stderr == "titus: -:2: 'cronn' is unknown in a cluster; did you mean 'cron'?\n"


def test_create_by_options_makes_a_mantis_job_of_one_stage(server: Server) -> None:
    options = [
        "--cron",
        "0_0_2_*_*_?",
        "--keep-new",
        "--zone",
        "Europe/Berlin",
        "--catch-up",
        "--retries",
        "3",
        "--timeout",
        "1h",
    ]
    args = [option.replace("_", " ") for option in options]
    result = titus(
        server, "cluster", "create", "--name", "nightly", *args, "-e", "A=1", "a:1", "--", "./work", "-x"
    )
    assert (result.exit_code, result.stdout) == (0, f"{CLUSTER}\n"), result.stderr
    [made] = server.created_clusters
    assert made.mantis == pb.MantisClusterSpec(enabled=True, cronSpec="0 0 2 * * ?", cronPolicy="KEEP_NEW")
    job = made.jobDescriptor
    assert dict(job.mantis.parameters) == {"cron.timeZone": "Europe/Berlin", "cron.catchUp": "once"}
    assert (job.mantis.name, job.mantis.jobSLA.runtimeLimitSecs) == ("nightly", 3600)
    [stage] = job.mantis.stages
    container = job.containers[stage.containerId]
    assert (container.image.name, list(container.command)) == ("a:1", ["./work", "-x"])
    assert dict(container.env) == {"A": "1"}
    assert stage.instances == pb.TaskInstances(desired=1)
    assert stage.retryPolicy.exponentialBackOff.retries == 3


def test_create_by_options_with_a_floor_and_disabled(server: Server) -> None:
    titus(server, "cluster", "create", "--name", "a", "--min", "1", "--max", "2", "--disabled", "i")
    assert server.created_clusters[0].mantis == pb.MantisClusterSpec(min=1, max=2)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["a.yaml", "b.yaml"], "IMAGE and COMMAND go with --name"),
        (["--cron", "0 2 * * 1", "a.yaml"], "--cron goes with --name"),
        (["-e", "A=1", "a.yaml"], "--env goes with --name"),
        (["--name", " ", "i"], "a cluster needs a name"),
        (["--name", "a", "--keep-new", "i"], "--keep-new goes with --cron"),
        (["--name", "a", "--zone", "UTC", "i"], "--zone goes with --cron"),
        (["--name", "a", "--catch-up", "i"], "--catch-up goes with --cron"),
        (["--name", "a", "--min", "2", "i"], "--max must be given"),
        (["--name", "a", "--cron", "0 2 * * 1", "--max", "2", "i"], "one job runs at a time"),
        (["--name", "a", "--instances", "0", "i"], "one task at least"),
        (["--name", "a"], "Missing argument"),
        (["--name", "a", "i", "sh", "-x"], "Write -- before the command"),
        (["nowhere.yaml"], "No such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(server: Server, args: list[str], why: str) -> None:
    result = titus(server, "cluster", "create", *args)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
    assert server.created_clusters == []


def test_a_cluster_is_sent_again_under_its_key_while_the_server_is_away(server: Server) -> None:
    server.cluster_refusals[""] = (grpc.StatusCode.UNAVAILABLE, "a restart")
    result = titus(server, "cluster", "create", "--key", "k", "--name", "a", "i")
    assert (result.exit_code, result.stdout) == (0, f"{CLUSTER}\n")
    assert server.cluster_keys == ["k", "k"]
    assert "trying again for some seconds" in result.stderr


# ------------------------------------------------------------------------------------------- change


def test_update_replaces_the_description_and_leaves_it_as_enabled_as_it_was(server: Server) -> None:
    server.clusters[1].descriptor.mantis.enabled = False
    text = "name: nightly\ncron: 0 3 * * 1\njob: {image: a}\n"
    result = titus(server, "cluster", "update", "nightly", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (0, f"{CLUSTER}\n")
    assert titus(server, "cluster", "update", "nightly", "-", stdin=text + "enabled: true").exit_code == 0
    kept, said = server.updated_clusters
    assert (kept.id, kept.descriptor.mantis.cronSpec) == (CLUSTER, "0 3 * * 1")
    assert (kept.descriptor.mantis.enabled, said.descriptor.mantis.enabled) == (False, True)


def test_a_file_is_read_before_a_server_is_asked(server: Server) -> None:
    result = titus(server, "cluster", "update", "no such one", "-", stdin="name: a\nmax: x")
    assert result.exit_code == 2
    assert "-:2: max must be" in result.stderr


@pytest.mark.parametrize(("command", "is_enabled"), [("enable", True), ("disable", False)])
def test_clusters_are_enabled_and_disabled(server: Server, command: str, is_enabled: bool) -> None:
    result = titus(server, "cluster", command, "3f2a", "default batch cluster")
    assert (result.exit_code, result.stdout) == (0, f"{CLUSTER}\n{DEFAULT}\n")
    assert server.statuses == [(CLUSTER, is_enabled), (DEFAULT, is_enabled)]


def test_every_cluster_is_tried_whatever_becomes_of_the_others(server: Server) -> None:
    server.clusters.append(nightly(OTHER, "hourly"))
    server.cluster_refusals[CLUSTER] = (grpc.StatusCode.FAILED_PRECONDITION, "1 of its jobs live")
    result = titus(server, "cluster", "rm", "nightly", "nobody", "hourly")
    assert (result.exit_code, result.stdout) == (125, f"{OTHER}\n")
    assert server.removed == [OTHER]
    assert result.stderr.splitlines() == [
        f"titus: cannot remove cluster {CLUSTER}; 1 of its jobs live",
        "titus: no cluster is called 'nobody'; `titus cluster ls` lists them",
    ]


def test_a_server_that_is_away_is_not_asked_about_each(server: Server) -> None:
    server.cluster_refusals[CLUSTER] = (grpc.StatusCode.UNAVAILABLE, "a restart")
    result = titus(server, "cluster", "disable", "nightly", DEFAULT)
    assert (result.exit_code, server.statuses) == (125, [])
    assert f"not tried for that reason: {DEFAULT}" in result.stderr


@pytest.mark.parametrize("named", ["3f2", "nightly"])
def test_a_name_or_beginning_of_two_clusters_names_neither(server: Server, named: str) -> None:
    server.clusters.append(nightly(OTHER))
    result = titus(server, "cluster", "rm", named)
    assert (result.exit_code, server.removed) == (125, [])
    assert f"'{named}' could be any of 2 clusters; {CLUSTER} (nightly), {OTHER} (nightly)" in result.stderr


# --------------------------------------------------------------------------------------------- look


def test_ls_lists_the_clusters_with_their_rules_and_live_jobs(server: Server) -> None:
    server.clusters.append(plain(OTHER, "web"))
    server.disabled = {OTHER}
    lines = titus(server, "cluster", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "TYPE", "ENABLED", "MIN", "MAX", "LIVE", "JOBS", "SCHEDULE"]
    assert lines[1].split() == ["default", "batch", "cluster", DEFAULT, "batch", "yes", "1"]
    schedule = ["0", "0", "2", "*", "*", "?", "(Europe/Berlin),", "KEEP_EXISTING"]
    assert lines[2].split() == ["nightly", CLUSTER, "mantis", "yes", "0", "1", "1", *schedule]
    assert lines[3].split() == ["web", OTHER, "batch", "no", "1"]
    assert [query.fiterlingCriteria["jobClusterId"] for query in server.queries] == [DEFAULT, CLUSTER, OTHER]


def test_ls_asks_for_what_the_options_say_and_prints_ids_or_json(server: Server) -> None:
    result = titus(server, "cluster", "ls", "-q", "--type", "mantis", "--name", "a", "--owner", "b@c")
    assert result.stdout == f"{DEFAULT}\n{CLUSTER}\n"
    assert server.cluster_queries[0] == {"jobType": "mantis", "name": "a", "owner": "b@c"}
    found = json.loads(titus(server, "cluster", "ls", "-o", "json").stdout)
    assert [each["id"] for each in found] == [DEFAULT, CLUSTER]
    assert found[1]["descriptor"]["mantis"]["cronSpec"] == "0 0 2 * * ?"


FIRINGS = [
    v1.Firing(
        at="2026-11-24T01:00:00Z", until="2026-11-24T01:00:00Z", count=1, outcome=v1.Firing.FIRED, job_id=JOB
    ),
    v1.Firing(
        at="2026-11-23T01:00:00Z",
        until="2026-11-23T01:00:00Z",
        count=1,
        outcome=v1.Firing.SKIPPED,
        why="job x lives",
    ),
    v1.Firing(
        at="2026-11-01T01:00:00Z",
        until="2026-11-22T01:00:00Z",
        count=22,
        outcome=v1.Firing.MISSED,
        why="all was down",
    ),
]


def test_show_has_the_template_the_live_jobs_and_the_nearest_times(server: Server) -> None:
    server.firings = FIRINGS
    facts, template, stage, jobs, coming, past = titus(server, "cluster", "show", "3f2a").stdout.split("\n\n")
    assert f"cluster   {CLUSTER}" in facts
    assert "owner     ann@example.com" in facts
    assert "schedule  0 0 2 * * ? (Europe/Berlin), KEEP_EXISTING" in facts
    assert "jobs      min 0, max 1" in facts
    assert "enabled   yes" in facts
    assert "job parameters  cron.timeZone=Europe/Berlin" in template
    assert "command  work-0" in stage
    assert jobs.splitlines()[1].startswith(f"{JOB}  hello  RUNNING  2026-01-01 22:04:05")
    assert coming.splitlines()[0].split() == ["NEXT", "IN", "Europe/Berlin"]
    assert "FIRED" in past
    assert server.times_asked == [(CLUSTER, 3), (CLUSTER, 5)]


def test_show_a_cluster_without_a_template_says_whether_it_is_enabled(server: Server) -> None:
    shown = titus(server, "cluster", "show", DEFAULT).stdout
    assert "enabled  yes" in shown
    assert server.times_asked == []
    server.disabled = {DEFAULT}
    assert "enabled  no" in titus(server, "cluster", "show", DEFAULT).stdout
    assert json.loads(titus(server, "cluster", "show", "-o", "json", DEFAULT).stdout)["id"] == DEFAULT


def test_next_shows_the_times_here_and_in_the_zone_of_the_schedule(server: Server) -> None:
    result = titus(server, "cluster", "next", "nightly", "-n", "2")
    assert result.stdout.splitlines() == [
        "HERE                           IN Europe/Berlin",
        "Tue 2026-11-24 20:00:00 -0500  Wed 2026-11-25 02:00:00 +0100",
        "Wed 2026-11-25 20:00:00 -0500  Thu 2026-11-26 02:00:00 +0100",
    ]
    assert server.times_asked == [(CLUSTER, 2)]
    assert (
        json.loads(titus(server, "cluster", "next", "3f2a", "-o", "json").stdout)["timeZone"]
        == "Europe/Berlin"
    )


def test_a_zone_that_is_unknown_here_is_shown_in_utc(server: Server) -> None:
    server.coming.time_zone = "Mars/Olympus"
    assert "Wed 2026-11-25 01:00:00 +0000" in titus(server, "cluster", "next", "nightly").stdout


@pytest.mark.parametrize(
    ("cron", "is_enabled", "why"),
    [
        ("", True, "the cluster has no schedule"),
        ("0 0 2 * * ?", False, "the cluster is disabled"),
        ("0 0 2 * * ? 2026", True, "its schedule is over"),
    ],
)
def test_next_says_why_no_time_is_to_come(server: Server, cron: str, is_enabled: bool, why: str) -> None:
    server.coming = v1.ComingTimesReply()
    rules = server.clusters[1].descriptor.mantis
    rules.cronSpec, rules.enabled = cron, is_enabled
    result = titus(server, "cluster", "next", "nightly")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"titus: no times are to come: {why}\n"


def test_history_tells_what_became_of_each_time_and_how_many_a_row_stands_for(server: Server) -> None:
    server.firings = FIRINGS
    result = titus(server, "cluster", "history", "nightly")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert rows == [
        "AT OUTCOME JOB WHY",
        f"2026-11-23 20:00:00 FIRED {JOB}",
        "2026-11-22 20:00:00 SKIPPED job x lives",
        "2026-10-31 21:00:00 to 2026-11-21 20:00:00 (22 times) MISSED all was down",
    ]
    assert result.stderr == ""
    assert server.times_asked == [(CLUSTER, 20)]


def test_history_says_if_there_is_more(server: Server) -> None:
    server.firings = FIRINGS
    result = titus(server, "cluster", "history", "nightly", "-n", "1")
    assert len(result.stdout.splitlines()) == 2
    assert "these are the newest 1 of 3 entries" in result.stderr
    found = json.loads(titus(server, "cluster", "history", "nightly", "-o", "json").stdout)
    assert [each["outcome"] for each in found] == ["FIRED", "SKIPPED", "MISSED"]


@pytest.mark.parametrize("command", ["next", "history"])
@pytest.mark.parametrize("number", ["0", "1001", "x"])
def test_a_number_of_times_that_cannot_be_is_refused(server: Server, command: str, number: str) -> None:
    assert titus(server, "cluster", command, "nightly", "-n", number).exit_code == 2
    assert server.times_asked == []
