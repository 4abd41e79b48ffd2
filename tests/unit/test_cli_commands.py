"""The other commands against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import json
import os
from pathlib import Path

import grpc
import pytest

from tests.unit.scripted_server import JOB, NEAR, TASK, Server, job, titus
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def test_submit_prints_an_id_for_each_document(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n")
    result = titus(server, "submit", str(file))
    assert result.stdout == f"{JOB}\n{JOB}\n"
    assert result.stderr == ""
    assert [each.containers["main"].image.name for each in server.created] == ["a", "b"]


def test_submit_from_standard_input_and_wait(server: Server) -> None:
    result = titus(server, "submit", "-", "--wait", stdin="image: a")
    assert result.exit_code == 3
    assert result.stdout == f"{JOB}\n", "the output was not asked for"


def test_submit_and_follow_shows_the_output(server: Server) -> None:
    result = titus(server, "submit", "-", "--follow", "--quiet", stdin="image: a")
    assert result.stdout_bytes == JOB.encode() + b"\nout\xff\n"
    assert result.stderr == ""


def test_nothing_is_submitted_when_one_document_is_wrong(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimagee: b\n")
    result = titus(server, "submit", str(file))
    assert result.exit_code == 2
    assert result.stderr == f"titus: {file}:3: 'imagee' is unknown in a job; did you mean 'image'?\n"
    assert not server.created


def test_a_refusal_in_the_middle_says_what_was_submitted_and_what_was_not(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n---\nimage: c\n")
    server.create_refusals = [None, grpc.StatusCode.INVALID_ARGUMENT]
    result = titus(server, "submit", "--wait", str(file))
    assert result.exit_code == 125
    assert result.stdout == f"{JOB}\n"
    assert "document 2 of 3: cannot submit the job; not this one" in result.stderr
    assert f"; submitted: document 1 is job {JOB}; not submitted: document 2, document 3\n" in result.stderr
    assert len(server.created) == 1
    assert not server.observed.is_set()


def test_a_lost_answer_to_a_submission_is_not_called_a_refusal(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n")
    server.create_refusals = [grpc.StatusCode.DEADLINE_EXCEEDED]
    result = titus(server, "submit", str(file))
    assert result.exit_code == 125
    assert "submitted: none; not submitted: document 1 (or it was, and the answer was lost" in result.stderr


@pytest.mark.parametrize("command", ["show", "kill"])
def test_the_help_says_for_which_jobs_the_beginning_of_an_id_is_enough(server: Server, command: str) -> None:
    words = " ".join(titus(server, command, "--help").stdout.split())
    assert "The beginning of a live job's id is enough. A job that is over and a task need" in words


def test_the_help_of_submit_warns_of_output_that_is_gone(server: Server) -> None:
    assert "one after another, so of output" in " ".join(titus(server, "submit", "--help").stdout.split())


def test_a_file_that_is_no_text_is_refused_with_its_line(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"image: a\nname: \xff\n")
    result = titus(server, "submit", str(file))
    assert result.exit_code == 2
    assert f"{file}:2: this is not UTF-8 text" in result.stderr


def test_ls_lists_all_pages_newest_first_without_what_a_terminal_would_obey(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    server.live[1].jobDescriptor.appName = "evil\x1b[31m\n\u202e"
    lines = titus(server, "ls").stdout.splitlines()
    assert lines[0].split() == ["JOB", "NAME", "STATE", "TASKS", "OWNER", "SINCE"]
    assert lines[1].startswith("0b0e7a52-9  evil\\x1b[31m\\n\\u202e  QUEUED   0/1 running")
    assert lines[2].startswith("0b0e7a52-1  hello")
    assert len(lines) == 3


def test_ls_shortens_a_lone_id_to_eight_characters(server: Server) -> None:
    assert titus(server, "ls").stdout.splitlines()[1].startswith("0b0e7a52  hello")


def test_ls_as_json_has_every_field(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    found = json.loads(titus(server, "ls", "-o", "json").stdout)
    assert [each["id"] for each in found] == [NEAR, JOB]
    assert found[0]["jobState"] == {"state": "QUEUED", "reason": ""}


def test_show_a_job_by_the_beginning_of_its_id(server: Server) -> None:
    result = titus(server, "show", "0b0e")
    assert result.exit_code == 0
    assert f"job       {JOB}" in result.stdout
    assert "command   a 'b c'" in result.stdout
    assert "RUNNING  h1" in result.stdout


def test_show_a_task(server: Server) -> None:
    shown = titus(server, "show", TASK).stdout
    assert f"task                 {TASK}" in shown
    assert "agent.host           h1" in shown
    assert json.loads(titus(server, "show", TASK, "-o", "json").stdout)["id"] == TASK


def test_the_beginning_of_two_ids_names_neither(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    result = titus(server, "show", "0b0e")
    assert result.exit_code == 125
    assert JOB in result.stderr
    assert NEAR in result.stderr


def test_a_look_up_that_fails_is_not_an_id_of_nothing(server: Server) -> None:
    server.refusal = (grpc.StatusCode.DATA_LOSS, "a key holds what we never wrote")
    assert "a key holds what we never wrote" in titus(server, "show", "zzz").stderr


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


def test_an_internal_error_is_one_sentence(server: Server) -> None:
    # A server that breaks the contract: a task without an index.
    server.live[0].tasks[0].taskContext.clear()
    result = titus(server, "show", JOB)
    assert result.exit_code == 125
    assert "internal error (ValueError" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.linesep not in result.stderr.strip()
