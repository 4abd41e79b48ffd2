"""What control does about agents that do not do their part: told to end a task, or given up with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from tests.service.world import ANN, World, a_job
from titus_celery.core.lifecycle import task_id
from titus_celery.core.states import State

#: A host's lease is 10 s, and 60 s without one make its tasks lost.
LEASE: Final = 10
LOST_AFTER: Final = 60


def test_an_agent_that_does_not_end_what_it_should_is_told_again_and_again() -> None:
    world = World()
    world.host()
    id, _ = world.started(a_job(limit=100))
    one = task_id(id, 0, 1)
    told = []
    for _ in range(4):
        world.sleep(30)
        world.sweep()
        told.append(len(world.commands()))
    world.sleep(10)
    for _ in range(3):
        world.sweep()
        told.append(len(world.commands()))
        world.sleep(30)
    assert told == [0, 0, 0, 0, 1, 1, 1]
    assert world.task(one).state is State.RUNNING
    assert str(world.task(one).stop_for) == "runtimeLimitExceeded: ran longer than 100 s"


def test_a_run_that_its_agent_ends_for_control_fails_for_controls_reason() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started(a_job(limit=100))
    one = task_id(id, 0, 1)
    world.sleep(130)
    world.sweep()
    host.life.poll()
    run.end()
    assert world.why(one) == "runtimeLimitExceeded: ran longer than 100 s"
    assert host.phase(one) is None


@pytest.mark.parametrize(
    ("limit", "is_killed", "why"),
    [
        (3_600, False, "lost: agent host-1 has been silent for 60 s"),
        (50, False, "runtimeLimitExceeded: ran longer than 50 s"),
        (50, True, "killed: by ann"),
    ],
)
def test_a_task_lost_with_its_agent_ends_for_the_truest_reason(
    limit: float, is_killed: bool, why: str
) -> None:
    world = World()
    world.host()
    id, _ = world.started(a_job(limit=limit))
    if is_killed:
        world.jobs.kill(id, ANN)
    world.sleep(LEASE + LOST_AFTER, beating=False)
    world.sweep()
    assert world.why(task_id(id, 0, 1)).startswith(why)


def test_an_agent_that_promises_to_clean_up_later_is_waited_for() -> None:
    world = World()
    host = world.host()
    slow = replace(world.registry.agents()[0][0], gone_after=timedelta(seconds=100))
    world.registry.hold(slow, timedelta(seconds=LEASE), lambda holder: False)
    id, _ = world.started()
    assert host.id == slow.id
    world.sleep(LEASE + 99.999, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(0.001, beating=False)
    world.sweep()
    assert world.states(id)["0-1"] == "FAILED"
