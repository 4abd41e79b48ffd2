"""`titus ls` against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.unit.scripted_server import JOB, NEAR, Server, job, titus
from titus_celery.cli.listing import newest
from titus_celery.client import TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def test_ls_lists_all_pages_newest_first_without_what_a_terminal_would_obey(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    server.live[1].jobDescriptor.appName = "evil\x1b[31m\n\u202e"
    lines = titus(server, "ls").stdout.splitlines()
    assert lines[0].split() == ["JOB", "NAME", "TYPE", "STATE", "TASKS", "OWNER", "SINCE"]
    assert lines[1].startswith("0b0e7a52-9  evil\\x1b[31m\\n\\u202e  batch  QUEUED   0/1 running")
    assert lines[2].startswith("0b0e7a52-1  hello")
    assert len(lines) == 3


def test_ls_shortens_a_lone_id_to_eight_characters(server: Server) -> None:
    assert titus(server, "ls").stdout.splitlines()[1].startswith("0b0e7a52  hello")


def test_ls_as_json_has_every_field(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    found = json.loads(titus(server, "ls", "-o", "json").stdout)
    assert [each["id"] for each in found] == [NEAR, JOB]
    assert found[0]["jobState"] == {"state": "QUEUED", "reason": ""}


def asked(server: Server, *options: str) -> dict[str, str]:
    """The criteria that the options become."""
    assert titus(server, "ls", *options).exit_code == 0
    return dict(server.queries[-1].fiterlingCriteria)


@pytest.mark.parametrize(
    ("options", "criteria"),
    [
        ([], {}),
        (["--type", "SERVICE"], {"jobType": "service"}),
        (["--state", "running"], {"jobState": "RUNNING"}),
        (["--owner", "ann@example.com"], {"owner": "ann@example.com"}),
        (["--name", "web"], {"appName": "web"}),
        (["--app", "web"], {"appName": "web"}),
        (["--image", "a/b:1"], {"imageName": "a/b:1"}),
        (["--stack", "prod"], {"jobGroupStack": "prod"}),
        (["--label", "a=1", "-l", "b"], {"labels.a": "1", "labels.b": ""}),
        (["--label", "a=1", "--label", "a=2", "--label", "a=3"], {"labels.a": "1", "labels": "a=2,a=3"}),
        (["--label", "op=1"], {"labels": "op=1"}),
        (["--filter", "taskStates=QUEUED,RUNNING"], {"taskStates": "QUEUED,RUNNING"}),
        (["--type", "batch", "--filter", "labels.op=or"], {"jobType": "batch", "labels.op": "or"}),
    ],
)
def test_options_become_criteria(server: Server, options: list[str], criteria: dict[str, str]) -> None:
    assert asked(server, *options) == criteria


def test_the_caller_is_no_criterion(server: Server) -> None:
    assert "owner" not in asked(server), "who asks is not whose jobs are asked for"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--all", "--state", "FAILED"], "--all is about every state"),
        (["--all", "--filter", "jobState=FAILED"], "--all is about every state"),
        (["--type", "batch", "--filter", "jobType=service"], "jobType is given twice"),
        (["--filter", "jobIds=1", "--filter", "jobIds=2"], "jobIds is given twice"),
        (["--filter", "jobIds"], "'jobIds' is not NAME=VALUE"),
        (["--label", "=1"], "'=1' names no label"),
        (["--label", "a=1", "--label", "a=2,3"], "cannot be asked for as one of several"),
        (["--state", "GONE"], "'GONE' is not one of"),
        (["--limit", "-1"], "'-1' is not a whole number"),
        (["--limit", "4294967296"], "is not a whole number from 0 to 4294967295"),
    ],
)
def test_options_that_cannot_be_asked_for(server: Server, options: list[str], words: str) -> None:
    result = titus(server, "ls", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not server.queries


def over(id: str, state: pb.State.ValueType, second: int) -> pb.Job:
    ended = job(state, id)
    ended.stateChanges[0].timestamp = f"2026-01-02T03:04:{second:02}.000Z"
    ended.ClearField("tasks")
    return ended


def test_with_all_come_those_that_are_over_with_their_whole_ids(server: Server) -> None:
    server.over = [over("f" * 36, pb.FINISHED, 1), over("e" * 36, pb.FAILED, 9)]
    lines = titus(server, "ls", "--all").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["e" * 36, JOB[:8], "f" * 36], "the newest first"
    assert lines[1].split()[3:5] == ["FAILED", "1"], "nothing of it runs"
    assert [query.fiterlingCriteria["jobState"] for query in server.queries] == ["", "FINISHED", "FAILED"]


def test_quiet_prints_whole_ids_alone(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    result = titus(server, "ls", "-q")
    assert (result.stdout, result.stderr) == (f"{NEAR}\n{JOB}\n", "")
    server.live = []
    assert titus(server, "ls", "-q").stdout == ""


def test_a_table_asks_for_no_more_than_it_shows(server: Server) -> None:
    titus(server, "ls")
    assert "tasks.state" in server.queries[-1].fields
    titus(server, "ls", "-o", "json")
    assert not server.queries[-1].fields


def many(server: Server, count: int, page_size: int) -> list[str]:
    """So many live jobs, oldest first."""
    ids = [f"{number:08}-2222-4222-8333-444455556666" for number in range(count)]
    server.live, server.page_size = [job(pb.QUEUED, id) for id in ids], page_size
    return ids


def test_of_very_many_jobs_the_newest_are_listed_and_the_rest_is_counted(server: Server) -> None:
    ids = many(server, 250, 100)
    result = titus(server, "ls")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [id[:8] for id in ids[:149:-1]]
    assert result.stderr == "titus: these are the newest 100 of 250 jobs; --limit 0 lists all of them\n"
    assert [query.page.pageNumber for query in server.queries] == [0, 2, 1]


@pytest.mark.parametrize("options", [["--limit", "0"], ["-o", "json"], ["-q"]])
def test_all_are_listed_for_who_asks_or_reads_by_machine(server: Server, options: Sequence[str]) -> None:
    ids = many(server, 250, 100)
    result = titus(server, "ls", *options)
    assert all(id[:8] in result.stdout for id in ids)
    assert result.stderr == ""


@pytest.mark.parametrize(("count", "limit"), [(0, 5), (4, 5), (5, 5), (6, 5), (11, 5), (12, 1)])
def test_the_newest_come_first_whatever_the_size_of_the_pages(server: Server, count: int, limit: int) -> None:
    ids = many(server, count, limit)
    with TitusClient(f"127.0.0.1:{server.port}") as client:
        jobs, total = newest(client, {}, ["id"], limit)
    assert ([each.id for each in jobs], total) == (ids[::-1][:limit], count)
