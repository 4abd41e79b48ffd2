"""The other commands against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import grpc
import pytest

from tests.unit.scripted_server import JOB, NEAR, TASK, Server, job, titus
from titus_celery.cli.main import cli
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
    assert f"; submitted: document 1 is job {JOB}; not submitted: document 2, document 3; " in result.stderr
    assert len(server.created) == 1
    key = server.keys[0]
    assert result.stderr.endswith(f"`titus submit --key {key} {file}` goes on there and makes no job twice\n")
    assert not server.observed.is_set()


def test_a_lost_answer_to_a_submission_is_not_called_a_refusal(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n")
    server.create_refusals = [grpc.StatusCode.DEADLINE_EXCEEDED]
    result = titus(server, "submit", str(file))
    assert result.exit_code == 125
    assert "submitted: none; not submitted: document 1 (or it was, and the answer was lost)" in result.stderr


def test_a_file_that_is_submitted_again_under_its_key_sends_each_document_under_the_same_one(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n")
    titus(server, "submit", "--key", "k", str(file))
    assert server.keys == ["k", "k-2"]
    titus(server, "submit", "-", stdin="image: a\n---\nimage: b\n")
    assert server.keys[3] == f"{server.keys[2]}-2", "without one it is a new one"
    assert server.keys[2] != "k"


def test_a_server_that_is_not_ready_is_waited_for_and_that_is_said_once(server: Server) -> None:
    server.create_refusals = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
    result = titus(server, "submit", "-", stdin="image: a")
    assert result.stdout == f"{JOB}\n"
    assert result.stderr == "titus: not this one; trying again for some seconds\n"
    assert len(set(server.keys)) == 1, "every time under the same key"
    server.create_refusals = [grpc.StatusCode.UNAVAILABLE]
    assert titus(server, "submit", "--quiet", "-", stdin="image: a").stderr == ""


def test_a_submission_whose_end_is_not_known_can_go_on_under_its_key(server: Server) -> None:
    server.create_refusals = [grpc.StatusCode.DEADLINE_EXCEEDED]
    result = titus(server, "run", "--key", "mine", "i")
    assert result.exit_code == 125
    assert "sent again with the key mine it is made once" in result.stderr


@pytest.mark.parametrize("command", ["show", "kill"])
def test_the_help_says_for_which_jobs_the_beginning_of_an_id_is_enough(server: Server, command: str) -> None:
    words = " ".join(titus(server, command, "--help").stdout.split())
    assert "The beginning of a live job's id is enough. A job that is over and a task need" in words


COMMANDS = cli.list_commands(click.Context(cli))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_teaches_with_an_example_and_tells_the_exit_codes(server: Server, command: str) -> None:
    told = titus(server, command, "--help").stdout
    examples, codes = told.split("Examples:\n")[1].split("Exit codes:\n")
    assert f"titus {command}" in examples
    assert {"0", "2", "125"} <= {line.split()[0] for line in codes.splitlines()}
    assert max(map(len, examples.splitlines())) <= 110, "no terminal is so wide"


def test_the_help_of_submit_warns_of_output_that_is_gone(server: Server) -> None:
    assert "one after another, so of output" in " ".join(titus(server, "submit", "--help").stdout.split())


def test_a_file_that_is_no_text_is_refused_with_its_line(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"image: a\nname: \xff\n")
    result = titus(server, "submit", str(file))
    assert result.exit_code == 2
    assert f"{file}:2: this is not UTF-8 text" in result.stderr


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


def test_an_internal_error_is_one_sentence(server: Server) -> None:
    # A server that breaks the contract: a task without an index.
    server.live[0].tasks[0].taskContext.clear()
    result = titus(server, "show", JOB)
    assert result.exit_code == 125
    assert "internal error (ValueError" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.linesep not in result.stderr.strip()
