"""`titus kill` against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import grpc
import pytest

from tests.unit.scripted_server import JOB, NEAR, TASK, Server, job, titus
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def test_an_id_of_nothing(server: Server) -> None:
    result = titus(server, "kill", "zzz")
    assert result.exit_code == 125
    assert "no job or task is called 'zzz'; `titus ls` lists" in result.stderr


@pytest.mark.parametrize("id", [JOB, TASK])
def test_kill_ends_a_job_or_a_task(server: Server, id: str) -> None:
    result = titus(server, "kill", id)
    assert result.stdout == f"{id}\n"
    assert server.killed == [id]
    assert not server.observed.is_set()
    assert not server.offsets


def test_kill_waits_for_the_end_when_asked_to(server: Server) -> None:
    assert titus(server, "kill", JOB, "--wait").exit_code == 0
    assert server.observed.is_set()
    assert titus(server, "kill", TASK, "--wait").exit_code == 0
    assert server.offsets == [0]


def test_every_id_is_tried_and_each_failure_is_told(server: Server) -> None:
    server.live.append(job(pb.RUNNING, NEAR))
    server.unkillable = {NEAR}
    result = titus(server, "kill", "zzz", NEAR, TASK, JOB[:10])
    assert result.exit_code == 125
    assert result.stdout == f"{TASK}\n{JOB}\n"
    assert result.stderr.splitlines() == [
        "titus: no job or task is called 'zzz'; `titus ls` lists the jobs that live",
        f"titus: cannot end {NEAR}; job {NEAR}: it is over",
    ]
    assert server.killed == [TASK, JOB]


def test_an_id_that_is_given_twice_is_ended_once(server: Server) -> None:
    result = titus(server, "kill", JOB, JOB[:8])
    assert (result.exit_code, result.stdout) == (0, f"{JOB}\n")
    assert server.killed == [JOB]


def test_what_could_not_be_ended_is_not_waited_for(server: Server) -> None:
    server.unkillable = {JOB}
    assert titus(server, "kill", "--wait", JOB).exit_code == 125
    assert not server.observed.is_set()


def test_a_task_that_lives_is_named_by_its_job_and_slot(server: Server) -> None:
    assert titus(server, "kill", f"{JOB}-0").stdout == f"{TASK}\n"
    result = titus(server, "kill", f"{JOB}-1")
    assert f"no job or task is called '{JOB}-1'" in result.stderr
    assert titus(server, "kill", f"{NEAR}-0").exit_code == 125


def test_without_a_server_the_others_are_not_tried(server: Server) -> None:
    server.refusal = (grpc.StatusCode.UNAVAILABLE, "the store (Redis) is unavailable")
    result = titus(server, "kill", JOB, NEAR, TASK)
    assert result.exit_code == 125
    assert result.stderr.splitlines() == [
        f"titus: cannot find job {JOB}; the store (Redis) is unavailable; try again in a moment",
        f"titus: not tried for that reason: {NEAR}, {TASK}",
    ]
