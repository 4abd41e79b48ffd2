"""Stopping `titus dev` and starting it again on the same directory: jobs go on."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.dev import Dev, developing
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e

#: Waits for the test, then ends well.
WAITING = "while ! [ -e /tmp/go ]; do sleep 0.1; done"


def submitted(dev: Dev, tmp_path: Path) -> str:
    """A job of one task that waits and has no retries."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"image": "titus/hello", "command": ["sh", "-c", WAITING], "retries": 0}))
    return dev.titus("submit", "--quiet", str(file)).out.strip()


def tasks_of(dev: Dev, job_id: str) -> list[dict[str, Any]]:
    """The tasks of a job."""
    tasks: list[dict[str, Any]] = json.loads(dev.titus("show", "-o", "json", job_id).out)["tasks"]
    return tasks


def runs(dev: Dev, task_id: str) -> bool:
    """Whether a task is RUNNING."""
    tasks = tasks_of(dev, task_id.rsplit("-", 2)[0])
    return any(task["id"] == task_id and task["state"]["state"] == "RUNNING" for task in tasks)


def is_over(dev: Dev, job_id: str) -> bool:
    """Whether a job ended well."""
    return bool(json.loads(dev.titus("show", "-o", "json", job_id).out)["jobState"]["state"] == "FINISHED")


def log_of(dev: Dev, name: str) -> str:
    """What a program of the installation logged."""
    return (dev.state / "logs" / f"{name}.log").read_text()


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only its remains that nobody fetched yet."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_ctrl_c_stops_the_containers_and_the_next_start_runs_them_again(tmp_path: Path) -> None:
    with developing(tmp_path, "--no-flower") as dev:
        job_id = submitted(dev, tmp_path)
        first, second = f"{job_id}-0-1", f"{job_id}-0-2"
        until(lambda: runs(dev, first), "it runs")
        assert dev.interrupt() == 0
        assert dev.engine.containers(dev.label) == []
        dev.start()
        until(lambda: runs(dev, second), "it runs again")
        lost, again = tasks_of(dev, job_id)
        assert lost["state"] == {"state": "FAILED", "reason": "lost: installation stopped"}
        # Paid for by our own retries, since the owner granted none.
        assert again["taskContext"]["task.systemResubmitNumber"] == "1"
        assert again["taskContext"]["task.resubmitOf"] == first
        dev.engine.touch(second, "/tmp/go")
        until(lambda: is_over(dev, job_id), "it is over")


def test_keep_leaves_containers_running_and_the_next_start_adopts_them(tmp_path: Path) -> None:
    with developing(tmp_path, "--no-flower", "--keep") as dev:
        job_id = submitted(dev, tmp_path)
        task_id = f"{job_id}-0-1"
        until(lambda: runs(dev, task_id), "it runs")
        before = dev.engine.container(task_id)
        assert before is not None
        assert dev.interrupt() == 0
        kept = dev.engine.container(task_id)
        assert kept is not None
        assert kept["State"]["Running"]
        assert kept["Id"] == before["Id"]
        dev.start()
        assert runs(dev, task_id)
        dev.engine.touch(task_id, "/tmp/go")
        until(lambda: is_over(dev, job_id), "it is over")
        assert [task["id"] for task in tasks_of(dev, job_id)] == [task_id]
        until(lambda: dev.engine.container(task_id) is None, "the container is gone")


def test_a_container_that_ended_while_nothing_ran_is_told_at_the_next_start(tmp_path: Path) -> None:
    with developing(tmp_path, "--no-flower", "--keep") as dev:
        job_id = submitted(dev, tmp_path)
        task_id = f"{job_id}-0-1"
        until(lambda: runs(dev, task_id), "it runs")
        assert dev.interrupt() == 0
        dev.engine.touch(task_id, "/tmp/go")
        dev.start()
        until(lambda: is_over(dev, job_id), "it is over")
        assert [task["state"]["reason"] for task in tasks_of(dev, job_id)] == ["normal"]


def test_a_dev_that_is_killed_takes_its_programs_along_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with developing(tmp_path, "--no-flower") as dev:
        job_id = submitted(dev, tmp_path)
        task_id = f"{job_id}-0-1"
        until(lambda: runs(dev, task_id), "it runs")
        before = dev.engine.container(task_id)
        assert before is not None
        # What was written in the last second of a store that is killed may be lost (P1).
        time.sleep(2)
        pids = {name: dev.pid(name) for name in ("gateway", "control", "agent", "beat", "store")}
        dev.crash()
        for name, pid in pids.items():
            until(partial(is_gone, pid), f"{name} is gone")
        dev.start()
        until(lambda: f"task {task_id}: adopting it" in log_of(dev, "agent"), "it is adopted")
        after = dev.engine.container(task_id)
        assert after is not None
        assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
        dev.engine.touch(task_id, "/tmp/go")
        until(lambda: is_over(dev, job_id), "it is over")
        assert [task["id"] for task in tasks_of(dev, job_id)] == [task_id]


@pytest.mark.parametrize("is_noticed", [False, True])
def test_ctrl_c_stops_the_containers_of_an_agent_that_died_a_moment_before(
    tmp_path: Path, is_noticed: bool
) -> None:
    with developing(tmp_path, "--no-flower") as dev:
        job_id = submitted(dev, tmp_path)
        first, second = f"{job_id}-0-1", f"{job_id}-0-2"
        until(lambda: runs(dev, first), "it runs")
        dev.kill("agent")
        if is_noticed:
            process = dev.process
            assert process is not None
            until(lambda: "agent ended" in process.text(), "the death is noticed")
        assert dev.interrupt() == 0
        assert dev.engine.containers(dev.label) == []
        dev.start()
        until(lambda: runs(dev, second), "it runs again")
        assert tasks_of(dev, job_id)[0]["state"]["reason"] == "lost: installation stopped"
        dev.engine.touch(second, "/tmp/go")
        until(lambda: is_over(dev, job_id), "it is over")
