"""Agents that die, freeze, come back and are fewer than before, with containers running.

What the engine itself says happened is checked besides, at the end of every test (witness.py).
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.engines import second_engine
from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import job, shell, states
from tests.e2e.processes import Process, until
from tests.repetition import again
from titus_celery.cli import processes
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: Runs until the test makes the file, and ends as nothing else would.
WAITS = shell("while ! [ -e /tmp/go ]; do sleep 0.1; done; exit 4")
#: A lease, and the patience with who lost it, so short that a test can wait for them (s).
LEASE, LOST_AFTER = 3, 6
#: The exit code of a worker that gives way to another.
GAVE_WAY = 75


def impatient(directory: Path) -> AbstractContextManager[Installation]:
    """An installation that gives agents up soon; without the fence, which a frozen process has not."""
    return installed(
        directory,
        TITUS_AGENT_LEASE=str(LEASE),
        TITUS_AGENT_LOST_AFTER=str(LOST_AFTER),
        TITUS_FENCE_AFTER="0",
    )


def told(log: Path, text: str) -> bool:
    """Whether the log has it."""
    return text in log.read_text()


def identity(installation: Installation, task_id: str) -> tuple[str, str]:
    """Which container the task has, and since when it runs."""
    container: dict[str, Any] | None = installation.engine.container(task_id)
    assert container is not None, installation.witness.story(task_id)
    assert container["State"]["Running"]
    return container["Id"], container["State"]["StartedAt"]


def released(installation: Installation, task_id: str) -> None:
    """Let the task end, and see that it is told as it was."""
    installation.engine.touch(task_id, "/tmp/go")
    ended = installation.reached(task_id, "FAILED")
    assert ended.state.reason == "failed: exit code 4"
    witness = installation.witness
    assert (witness.creates(task_id), witness.starts(task_id)) == (1, 1), witness.story(task_id)


def holder(task: pb.Task) -> str:
    """The agent that has the task."""
    return task.taskContext["agent.instanceId"]


@again(5)
def test_killing_the_agent_leaves_every_container_as_it_is(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        job_id = installation.client.submit(job(*WAITS, instances=3))
        ids = [f"{job_id}-{slot}-1" for slot in range(3)]
        for task_id in ids:
            installation.reached(task_id, "RUNNING")
        before = [identity(installation, task_id) for task_id in ids]
        installation.kill("agent")
        installation.start("agent")
        log = installation.directory / "agent.log"
        for task_id in ids:
            until(partial(told, log, f"task {task_id}: adopting it"), "it is adopted")
        assert [identity(installation, task_id) for task_id in ids] == before
        for task_id in ids:
            released(installation, task_id)


@again(3)
def test_of_three_agents_one_stays_and_no_container_notices(tmp_path: Path) -> None:
    """Plain commands without names: they take the numbered places of their engine."""
    with impatient(tmp_path) as installation:
        installation.stop("agent")
        places = ["place-1", "place-2", "place-3"]
        for name in places:
            installation.start_command(name, processes.agent_command(), TITUS_SLOTS="4")
        until(lambda: len(living(installation)) == len(places), "three agents live")
        job_id = installation.client.submit(job(*WAITS, instances=4 * 3))
        ids = [f"{job_id}-{slot}-1" for slot in range(4 * 3)]
        for task_id in ids:
            installation.reached(task_id, "RUNNING")
        assert len({holder(installation.client.find_task(task_id)) for task_id in ids}) == len(places)
        # The one that stays has room for the others' tasks.
        installation.start_command("place-4", processes.agent_command(), TITUS_SLOTS="40")
        until(lambda: len(living(installation)) == len(places) + 1, "a fourth agent lives")
        before = {task_id: identity(installation, task_id) for task_id in ids}
        # Two end in good order, the third as in a crash; nobody starts them again.
        installation.stop("place-1", "place-2")
        installation.kill("place-3")
        [heir] = [each.id for each in installation.agents() if each.capacity.slots == 40]

        def taken_over() -> bool:
            return all(holder(installation.client.find_task(task_id)) == heir for task_id in ids)

        until(taken_over, "the fourth has all tasks")
        assert {task_id: identity(installation, task_id) for task_id in ids} == before
        time.sleep(LEASE + LOST_AFTER + 2)
        assert {task_id: identity(installation, task_id) for task_id in ids} == before
        for task_id in ids:
            released(installation, task_id)
        assert installation.over(job_id).jobState.state == pb.FAILED
        for each in installation.agents():
            assert (each.used.slots, each.used.memory_bytes, each.used.cpu_millis) == (0, 0, 0), each.id


def living(installation: Installation) -> list[str]:
    """The numbered agents that can be given work."""
    log = [each for each in installation.agents() if each.id != installation.agent_id]
    return [each.id for each in log if each.proved_at >= each.lease_until - timedelta(seconds=20)]


@again(3)
def test_an_agent_that_froze_before_a_start_finds_its_place_taken_and_touches_nothing(tmp_path: Path) -> None:
    """Another process took its place, started the container, and has it running when the first thaws."""
    with impatient(tmp_path) as installation:
        installation.kill("agent")
        installation.start("agent", TITUS_CRASH_AT="created:freeze")
        task_id = f"{installation.client.submit(job(*WAITS))}-0-1"
        until(lambda: installation.witness.creates(task_id), "its container is made")
        frozen = installation.processes.pop("agent")
        # Its lease runs out; the next process of that name takes it, finds the container, starts it.
        installation.start("agent")
        installation.reached(task_id, "RUNNING")
        before = identity(installation, task_id)
        frozen.thaw()
        assert frozen.wait() == GAVE_WAY
        assert identity(installation, task_id) == before
        released(installation, task_id)


@again(3)
def test_an_agent_that_froze_before_a_start_and_was_given_up_starts_nothing(tmp_path: Path) -> None:
    """Its task was replaced on another engine. Thawed, it removes what it had made and leaves the rest."""
    with second_engine() as second, impatient(tmp_path) as installation:
        installation.also_on(second.url)
        installation.kill("agent")
        installation.start("agent", TITUS_CRASH_AT="created:freeze")
        job_id = installation.client.submit(job(*WAITS))
        first, next_one = f"{job_id}-0-1", f"{job_id}-0-2"
        until(lambda: installation.witness.creates(first), "its container is made")
        installation.start_command("other", processes.agent_command("other"), TITUS_ENGINE_URL=second.url)
        installation.reached(next_one, "RUNNING")
        lost = installation.client.find_task(first)
        assert lost.state.reason.startswith("lost: agent ")
        installation.thaw("agent")
        until(lambda: installation.engine.container(first) is None, "what the frozen one made is gone")
        assert installation.witness.starts(first) == 0
        assert installation.client.find_task(first) == lost
        installation.engines[second.url].touch(next_one, "/tmp/go")
        assert installation.reached(next_one, "FAILED").state.reason == "failed: exit code 4"
        assert states(lost.stateChanges) == ["QUEUED", "DISPATCHED", "STARTING", "FAILED"]


def test_two_agents_of_one_name_on_one_engine_are_one(tmp_path: Path) -> None:
    """The second waits for the lease, which the first keeps, and says so."""
    with impatient(tmp_path) as installation:
        log = installation.directory / "second.log"
        command = processes.agent_command(installation.agent_id)
        second = Process(command, installation.settings, log)
        assert second.wait() == 125
        assert f"agent {installation.agent_id} is run by another process" in log.read_text()
        assert installation.over(installation.client.submit(job("true"))).jobState.state == pb.FINISHED
