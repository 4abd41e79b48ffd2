"""Programs of `titus dev` that are killed in the middle of a run: it goes on as if nothing had been."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.dev import Dev, developing
from tests.e2e.processes import until
from tests.repetition import again

pytestmark = pytest.mark.e2e

#: Prints, waits for the test, and ends with 4.
WAITING = "echo up; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo done; exit 4"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One installation, whose programs come back after each test."""
    with developing(tmp_path_factory.mktemp("crashes"), "--no-flower") as running:
        yield running


def restarted(dev: Dev, name: str, was: int) -> None:
    until(lambda: dev.pid(name) != was, f"{name} was started again")


def tasks_of(dev: Dev, task_id: str) -> list[dict[str, Any]]:
    """The tasks of the job that *task_id* belongs to."""
    shown = dev.titus("show", "-o", "json", task_id.rsplit("-", 2)[0])
    assert shown.code == 0, shown.err
    tasks: list[dict[str, Any]] = json.loads(shown.out)["tasks"]
    return tasks


@again(8)
def test_killing_the_gateway_neither_loses_nor_doubles_a_line(dev: Dev) -> None:
    script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 5"
    running = dev.follow("gateway", "run", "titus/hello", "--", "sh", "-c", script)
    until(lambda: "line 10\n" in running.out, "ten lines")
    was = dev.kill("gateway")
    assert running.wait() == 5
    assert running.out.splitlines() == [f"line {number}" for number in range(60)]
    assert running.err.count("went away; waiting for it") == 1
    assert running.err.count("the server is back") == 1
    restarted(dev, "gateway", was)


@again(8)
@pytest.mark.parametrize("ends", ["while the agent is away", "after the agent is back"])
def test_killing_the_agent_leaves_the_container_alone_and_its_end_is_told(dev: Dev, ends: str) -> None:
    running = dev.follow("agent", "run", "titus/hello", "--", "sh", "-c", WAITING)
    until(lambda: running.out == "up\n", "it runs")
    [task_id] = dev.engine.containers(dev.label)
    before = dev.engine.container(task_id)
    assert before is not None
    was = dev.kill("agent")
    if ends == "while the agent is away":
        dev.engine.touch(task_id, "/tmp/go")
        restarted(dev, "agent", was)
    else:
        restarted(dev, "agent", was)
        log = dev.state / "logs" / "agent.log"
        until(lambda: f"task {task_id}: adopting it" in log.read_text(), "it is adopted")
        after = dev.engine.container(task_id)
        assert after is not None
        assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
        dev.engine.touch(task_id, "/tmp/go")
    assert running.wait() == 4
    assert running.out == "up\ndone\n"
    [task] = tasks_of(dev, task_id)
    assert task["id"] == task_id
    assert task["state"]["reason"] == "failed: exit code 4"
    until(lambda: dev.engine.container(task_id) is None, "the container is gone")


@pytest.mark.parametrize("name", ["control", "beat"])
def test_killing_control_or_beat_delays_a_job_at_most(dev: Dev, name: str) -> None:
    was = dev.kill(name)
    script = "exit $((2 - TITUS_TASK_ATTEMPT))"
    done = dev.titus("run", "--retries", "1", "titus/hello", "--", "sh", "-c", script)
    assert done.code == 0, done.err
    restarted(dev, name, was)


def test_killing_the_store_loses_neither_a_running_job_nor_its_output(tmp_path: Path) -> None:
    with developing(tmp_path, "--no-flower") as dev:
        # They lose their broker, which Celery tells with tracebacks; we must not.
        dev.shaken |= {"agent", "control"}
        running = dev.follow("store", "run", "titus/hello", "--", "sh", "-c", WAITING)
        until(lambda: running.out == "up\n", "it runs")
        [task_id] = dev.engine.containers(dev.label)
        # What was written in the last second of a store that is killed may be lost (P1).
        time.sleep(2)
        was = dev.kill("store")
        restarted(dev, "store", was)
        dev.engine.touch(task_id, "/tmp/go")
        assert running.wait() == 4
        assert running.out == "up\ndone\n"
        assert [task["id"] for task in tasks_of(dev, task_id)] == [task_id]
        assert dev.titus("run", "titus/hello", "--", "true").code == 0
