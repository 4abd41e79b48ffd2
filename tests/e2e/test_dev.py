"""`titus dev` and the commands beside it, as a user sees them."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.dev import Dev, developing, titus
from tests.e2e.installation import free_port
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One installation for the tests that leave it alone."""
    with developing(tmp_path_factory.mktemp("dev")) as running:
        yield running


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["titus/hello", "--", "true"], 0),
        (["titus/hello", "--", "sh", "-c", "exit 3"], 3),
        (["titus/hello", "--", "/etc/passwd"], 126),
        (["titus/hello", "--", "/no/such/program"], 127),
        (["--memory", "16MiB", "--cpu", "0.5", "titus/workloads", "--", "oom.sh"], 137),
        (["--timeout", "1s", "titus/hello", "--", "sleep", "600"], 124),
    ],
    ids=["ends well", "fails", "not executable", "not found", "out of memory", "too long"],
)
def test_run_exits_with_the_code_of_the_container(dev: Dev, arguments: list[str], code: int) -> None:
    done = dev.titus("run", *arguments)
    assert done.code == code, done.err


def test_run_says_that_memory_ran_out(dev: Dev) -> None:
    done = dev.titus("run", "--memory", "16MiB", "--cpu", "0.5", "titus/workloads", "--", "oom.sh")
    assert "out of memory (limit 16MiB)" in done.err


def test_run_keeps_the_two_streams_apart_and_loses_nothing(dev: Dev) -> None:
    done = dev.titus("run", "--quiet", "titus/workloads", "--", "chatty.sh", "3000")
    assert done.code == 0
    assert done.out.splitlines() == [f"line {number}" for number in range(2, 3001, 2)]
    assert done.err.splitlines() == [f"line {number}" for number in range(1, 3001, 2)]


def test_run_of_an_unknown_image_says_so_and_exits_with_125(dev: Dev) -> None:
    done = dev.titus("run", "nobody/has-this")
    assert done.code == 125
    assert "nobody/has-this" in done.err
    assert len(done.err.splitlines()) == 1


def test_run_of_several_instances_marks_every_line_with_its_slot(dev: Dev) -> None:
    script = "echo first; echo I am $TITUS_TASK_INDEX; exit $((TITUS_TASK_INDEX * 2))"
    done = dev.titus("run", "--quiet", "--instances", "3", "titus/hello", "--", "sh", "-c", script)
    # The code of the first slot that failed.
    assert done.code == 2
    for slot in range(3):
        mine = [line for line in done.out.splitlines() if line.startswith(f"{slot} | ")]
        assert mine == [f"{slot} | first", f"{slot} | I am {slot}"]


def test_ctrl_c_during_run_ends_the_job(dev: Dev) -> None:
    running = dev.follow("ctrl-c", "run", "titus/hello", "--", "sh", "-c", "echo up; exec sleep 600")
    until(lambda: running.out == "up\n", "its first line")
    [task_id] = dev.engine.containers(dev.label)
    running.interrupt()
    assert running.wait() == 130
    until(lambda: dev.engine.container(task_id) is None, "the container is gone")
    shown = json.loads(dev.titus("show", "-o", "json", task_id).out)
    assert shown["state"]["reason"].startswith("killed: by dev@example.com at ")


def test_a_job_file_is_submitted_listed_shown_and_killed(dev: Dev, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: titus/hello\ncommand: sleep 600\nname: sleeper\n")
    submitted = dev.titus("submit", "--quiet", str(file))
    job_id = submitted.out.strip()
    until(lambda: "RUNNING" in dev.titus("show", job_id).out, "it runs")
    assert "sleeper" in dev.titus("ls").out
    assert dev.titus("kill", job_id).code == 0
    until(lambda: job_id not in dev.titus("ls", "-q").out, "it is over")
    assert job_id in dev.titus("ls", "--all", "--name", "sleeper").out


def test_a_service_is_run_reached_restarted_scaled_and_ended(dev: Dev) -> None:
    script = "echo up >&2; while :; do echo hi | nc -l -p 8080; done"
    options = ["--service", "--instances", "2", "-p", "8080", "--label", "kind=greeter", "--name", "greeter"]
    started = dev.titus("run", *options, "titus/hello", "--", "sh", "-c", script)
    assert started.code == 0, started.err
    job_id = started.out.strip()

    def listed() -> str:
        return dev.titus("ls", "--type", "service", "--label", "kind=greeter").out

    until(lambda: "2/2 running" in listed(), "both run")
    task = json.loads(dev.titus("show", "-o", "json", f"{job_id}-0").out)
    inside, _, outside = task["taskContext"]["task.ports"].partition("=")
    assert inside == "8080"
    assert outside in dev.titus("show", job_id).out
    with closing(
        socket.create_connection(("127.0.0.1", int(outside.rpartition(":")[2])), timeout=10)
    ) as line:
        assert line.recv(10) == b"hi\n"
    assert dev.titus("kill", f"{job_id}-0").out == f"{job_id}-0-1\n"
    until(lambda: f"{job_id}-0-2" in dev.titus("show", f"{job_id}-0", "-o", "json").out, "it is replaced")
    scaled = dev.titus("scale", job_id, "1", "--max", "2")
    assert scaled.out == f"{job_id}  tasks 2 -> 1, min 0, max unbounded -> 2\n"
    until(lambda: "1/1 running" in listed(), "one runs")
    ended = dev.titus("kill", "--wait", job_id, "no-such-job")
    assert (ended.code, ended.out) == (125, f"{job_id}\n")
    assert "no job or task is called 'no-such-job'" in ended.err
    until(lambda: not dev.engine.containers(dev.label), "its containers are gone")


def test_a_job_under_a_key_is_made_once(dev: Dev) -> None:
    first, second = (dev.titus("run", "-d", "--key", "once", "titus/hello", "--", "true") for _ in range(2))
    assert (first.code, first.out) == (0, second.out)
    other = dev.titus("run", "-d", "--key", "once", "titus/hello", "--", "false")
    assert other.code == 125
    assert first.out.strip() in other.err


def test_a_job_file_with_a_mistake_is_refused_naming_its_line(dev: Dev, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: titus/hello\ncommand: echo\nmemory: lots\n")
    done = dev.titus("submit", str(file))
    assert done.code == 2
    assert f"{file}:3" in done.err
    assert "memory" in done.err
    assert done.out == ""


def test_flower_shows_the_runs_to_who_opens_it_in_a_browser(dev: Dev) -> None:
    """Without any setting of Flower's: what its page of tasks asks for."""
    done = dev.titus("run", "titus/hello", "--", "true")
    job_id = done.err.splitlines()[0].removeprefix("titus: job ")
    order = "order[0][column]=0&order[0][dir]=desc&columns[0][data]=received&search[value]="
    page = f"http://127.0.0.1:{dev.flower_port}/tasks/datatable?draw=1&start=0&length=100&{order}"

    def shown() -> bool:
        with urllib.request.urlopen(page, timeout=10) as answer:
            rows = json.load(answer)["data"]
        return any(row["uuid"] == f"{job_id}-0-1" and row["state"] == "SUCCESS" for row in rows)

    until(shown, "Flower shows the run")


def test_a_second_dev_on_the_same_directory_names_the_first(dev: Dev) -> None:
    assert dev.process is not None
    done = titus("dev", "--port", "0", "--no-flower", "--state-dir", str(dev.state))
    assert done.code == 125
    assert f"process {dev.process.pid}" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--port", "--flower-port"])
def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path, option: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--flower-port": "0", option: str(port)}
        words = [word for pair in ports.items() for word in pair]
        done = titus("dev", *words, "--state-dir", str(tmp_path / "state"))
    assert done.code == 125
    assert f"cannot use port {port}" in done.err
    assert option in done.err
    assert len(done.err.splitlines()) == 1


def test_a_missing_engine_is_one_clear_line(tmp_path: Path) -> None:
    done = titus("dev", "--port", "0", "--state-dir", str(tmp_path), DOCKER_HOST="tcp://127.0.0.1:1")
    assert done.code == 125
    assert "Connection refused" in done.err
    assert "DOCKER_HOST" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_missing_server_is_one_clear_line() -> None:
    server = f"127.0.0.1:{free_port()}"
    done = titus("ls", server=server)
    assert done.code == 125
    assert f"no Titus server answers at {server}" in done.err
    assert len(done.err.splitlines()) == 1
