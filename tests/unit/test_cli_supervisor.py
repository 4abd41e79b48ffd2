"""Programs are kept running, ended in order, and never outlive whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from titus_celery.cli.console import Fault
from titus_celery.cli.installation import Plan, programs
from titus_celery.cli.place import Place, claim_port
from titus_celery.cli.supervisor import Child, Program, Restarts, leashed, leashed_script

NOW = timedelta(0)
SECOND = timedelta(seconds=1)


def test_restarts_wait_longer_each_time_up_to_a_bound_and_anew_after_a_healthy_run() -> None:
    restarts = Restarts()
    waits = [restarts.ended(SECOND).total_seconds() for _ in range(7)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert restarts.ended(timedelta(seconds=30)).total_seconds() == 0.2


def child(tmp_path: Path, said: list[str], *command: str) -> Child:
    log = tmp_path / "log"
    program = Program(name="p", command=command, env={"WORD": "hello"}, log=log, stop_within=SECOND)
    return Child(program, said.append)


def wait_for_end(running: Child) -> None:
    assert running.pid is not None
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)


def test_a_program_that_ends_is_told_and_started_again_when_its_wait_is_over(tmp_path: Path) -> None:
    said: list[str] = []
    running = child(tmp_path, said, "sh", "-c", "echo $WORD; exit 7")
    running.tend(NOW)
    wait_for_end(running)
    running.tend(NOW + SECOND)
    assert said == [f"p ended (exit code 7), started again in 0.2 s; see {tmp_path / 'log'}"]
    assert running.pid is None
    running.tend(NOW + SECOND)
    assert running.pid is None, "its wait is not over"
    running.tend(NOW + 2 * SECOND)
    assert running.pid is not None
    wait_for_end(running)
    assert (tmp_path / "log").read_text() == "hello\nhello\n"
    running.kill()


def test_a_program_that_keeps_ending_is_told_three_times(tmp_path: Path) -> None:
    said: list[str] = []
    running = child(tmp_path, said, "false")
    for minute in range(6):
        # Started, then seen to have ended, a second apart; the next minute is past any wait.
        running.tend(timedelta(minutes=minute))
        wait_for_end(running)
        running.tend(timedelta(minutes=minute, seconds=1))
    assert len(said) == 3
    assert "as often as it takes" in said[-1]


def test_a_program_is_told_to_stop_and_its_own_children_go_too(tmp_path: Path) -> None:
    # The program's child ignores TERM and would hold the pipe open for ever.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = "trap 'exit 0' TERM; (trap '' TERM; sleep 1000) & echo up >&3; wait"
    running = child(tmp_path, [], "sh", "-c", f"exec 3>{pipe}; {script}")
    running.tend(NOW)
    with pipe.open("rb") as end:
        assert end.readline() == b"up\n"
        running.stop()
        wait_for_end(running)
        assert running.gone()
        assert end.read() == b"", "the last holder of the pipe is gone"


def test_a_program_that_ended_before_it_was_told_to_stop_is_gone(tmp_path: Path) -> None:
    running = child(tmp_path, [], "true")
    running.tend(NOW)
    wait_for_end(running)
    running.stop()
    assert running.gone()
    assert running.pid is None


def test_a_program_that_somebody_else_reaped_has_ended(tmp_path: Path) -> None:
    running = child(tmp_path, [], "true")
    running.tend(NOW)
    assert running.pid is not None
    os.waitpid(running.pid, 0)
    running.stop()
    assert running.gone()


def test_a_program_dies_with_the_process_that_started_it() -> None:
    parent = (
        "import os, signal, subprocess, sys\n"
        "from titus_celery.cli.supervisor import leashed\n"
        "subprocess.Popen(leashed(['sh', '-c', 'echo up; exec sleep 1000'], signal.SIGKILL))\n"
        "os.read(0, 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b"", "its child closed the pipe, too"


def test_a_program_whose_parent_is_already_gone_does_not_start() -> None:
    [python, *options] = leashed(["echo", "started"], signal.SIGKILL)
    options[options.index(str(os.getpid()))] = "1"
    done = subprocess.run([python, *options], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_leashed_script_hands_its_arguments_on(tmp_path: Path) -> None:
    script = tmp_path / "it's"
    script.write_text(leashed_script(["printf", "<%s>"], signal.SIGTERM))
    script.chmod(0o700)
    done = subprocess.run([str(script), "a b", "c"], capture_output=True, check=True)
    assert done.stdout == b"<a b><c>"


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").write_text("99999999999 and more than the number of a process")
    place = Place.take(tmp_path / "state")
    with pytest.raises(Fault, match=f"in use; by another titus dev, process {os.getpid()}; stop"):
        Place.take(tmp_path / "state")
    place.leave()
    Place.take(tmp_path / "state").leave()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fault, match=r"cannot use .*; choose another with --state-dir"):
        Place.take(tmp_path / "file" / "state")


def test_the_agents_id_stays_with_its_directory(tmp_path: Path) -> None:
    place = Place.take(tmp_path)
    assert place.agent_id() == place.agent_id()
    assert place.agent_id().startswith("dev-")
    assert len(place.agent_id()) == 12
    place.leave()


@pytest.mark.parametrize("left", [b"", b"\n", b"\0\0\0\0", b"dev-1\n\0\0"])
def test_what_a_crash_left_of_the_agents_id_is_replaced(tmp_path: Path, left: bytes) -> None:
    place = Place.take(tmp_path)
    (tmp_path / "agent-id").write_bytes(left)
    id = place.agent_id()
    assert len(id) == 12
    assert place.agent_id() == id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent-id", "lock", "logs"]
    (tmp_path / "agent-id").write_text("mine\n")
    assert place.agent_id() == "mine", "what is an id is kept, whoever wrote it"
    place.leave()


def test_a_port_that_is_taken_is_named_with_the_option_to_change_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Fault, match=rf"cannot use port {port}; another program .*--port"):
            claim_port(port, "--port")
    assert claim_port(port, "--port") == port
    assert claim_port(0, "--port") > 0


def test_the_programs_of_an_installation(tmp_path: Path) -> None:
    place = Place.take(tmp_path)
    plan = Plan(place=place, port=7104, flower_port=None, redis_url=None, keep=False)
    found = {each.name: each for each in programs(plan, "redis://x", "dev-1", timedelta(seconds=10))}
    place.leave()
    assert list(found) == ["gateway", "control", "agent", "beat"]
    assert found["agent"].env["TITUS_ON_STOP"] == "stop"
    assert found["agent"].stop_within == timedelta(seconds=30)
    assert found["agent"].command[-4:] == ["-Q", "titus.agent.dev-1", "-n", "agent-dev-1@%h"]
    assert found["gateway"].env["TITUS_LISTEN"] == "127.0.0.1:7104"
    assert found["control"].env["TITUS_REDIS_URL"] == "redis://x"
