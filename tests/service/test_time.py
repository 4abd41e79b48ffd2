"""A store whose clock is set by two hours: nothing ends for that, and nothing comes late."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import pytest

from tests.service.world import Store, World, a_job
from titus_celery.adapters.leases import LeaseStore
from titus_celery.core.decision import Change, StopTask
from titus_celery.core.descriptor import RetryKind, RetryPolicy
from titus_celery.core.lifecycle import running, task_id
from titus_celery.core.model import (
    Address,
    DeadlineKind,
    Exit,
    TaskId,
)
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.service.lookout import Lookout

HOURS_2: Final = 7_200.0
#: A host's lease is 10 s, and 60 s without one make its tasks lost.
LEASE: Final = 10
LOST_AFTER: Final = 60.0

either_way = pytest.mark.parametrize("jump", [HOURS_2, -HOURS_2], ids=["forward", "back"])


def later(delay: float) -> RetryPolicy:
    return RetryPolicy(kind=RetryKind.DELAYED, retries=1, delay_first=timedelta(seconds=delay))


def marked(world: World, id: TaskId) -> str:
    """Why control wants the task's agent to end it."""
    return str(world.task(id).stop_for)


def starting(world: World) -> TaskId:
    """A task that an agent claimed, whose process then died."""
    host = world.host()
    _, order = world.placed()
    world.writes.on_task(order.task_id, host.claiming(1))
    return order.task_id


def due_in(world: World, kind: DeadlineKind) -> list[float]:
    """The seconds until each deadline of this kind."""
    found = world.records.due(world.now + timedelta(days=99), 100)
    return [(one.due - world.now).total_seconds() for one in found if one.kind is kind]


# ------------------------------------------------------------------------------------------ the clock is set


@either_way
def test_a_running_task_of_a_live_agent_outlives_a_jump(jump: float) -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started(a_job(limit=100))
    world.sleep(30)
    world.jump(jump)
    # Control sees it before the agent renewed.
    world.sweep()
    world.sleep(LOST_AFTER - 0.001, beating=False)
    host.beat()
    world.sleep(LOST_AFTER - 0.001, beating=False)
    world.sweep()
    assert world.task(task_id(id, 0, 1)).state is State.RUNNING
    world.release(run, task_id(id, 0, 1))


@either_way
def test_an_agent_that_is_dead_is_given_up_a_minute_after_a_jump(jump: float) -> None:
    world = World()
    world.host()
    id, _ = world.started()
    # Its lease is over, and half of the patience with it.
    world.sleep(LEASE + 30, beating=False)
    world.jump(jump)
    world.sweep()
    world.sleep(LOST_AFTER - 0.001, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(0.001, beating=False)
    world.sweep()
    assert world.why(task_id(id, 0, 1)) == "lost: agent host-1 has been silent for 60 s"


@either_way
def test_a_retry_comes_when_its_delay_is_really_over(jump: float) -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=later(9_000)))
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    world.sleep(1_000)
    world.jump(jump)
    world.sweep()
    world.sleep(7_999.999)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    world.sleep(0.001)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "0-2": "DISPATCHED"}


def test_a_retry_of_what_failed_after_the_clock_was_set_back_does_not_wait_for_the_old_time() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=later(10)))
    world.sleep(5)
    world.jump(-HOURS_2)
    world.sleep(5)
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    world.sleep(9.999)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    world.sleep(0.001)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "0-2": "DISPATCHED"}


@either_way
def test_a_start_is_stuck_when_it_really_took_so_long(jump: float) -> None:
    world = World()
    one = starting(world)
    world.sleep(300)
    world.jump(jump)
    world.sweep()
    world.sleep(419.999)
    world.sweep()
    assert marked(world, one) == "None"
    assert world.commands() == []
    world.sleep(0.001)
    world.sweep()
    assert marked(world, one) == "stuckInState: still STARTING after 720 s"
    assert world.commands() == [StopTask(one, world.hosts.popitem()[0])]
    # Its agent says when it is over.
    assert world.task(one).state is State.STARTING


@either_way
def test_a_run_outlives_its_limit_when_it_really_took_so_long(jump: float) -> None:
    """The limit is longer than the jump, so that the hour that came twice is past when it is over."""
    world = World()
    world.host()
    id, _ = world.started(a_job(limit=9_000))
    one = task_id(id, 0, 1)
    world.sleep(300)
    world.jump(jump)
    world.sweep()
    world.sleep(9_000 + 30 - 300 - 0.001)
    world.sweep()
    assert marked(world, one) == "None"
    # A jump back leaves it open for so long at worst which of two hours is on record.
    world.sleep(HOURS_2 + 0.001)
    world.sweep()
    assert marked(world, one) == "runtimeLimitExceeded: ran longer than 9000 s"


def test_a_job_whose_task_ends_after_the_clock_was_set_back_ends_with_it() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    world.sleep(5)
    world.jump(-HOURS_2)
    world.sleep(1)
    world.release(run, task_id(id, 0, 1))
    world.sweep()
    assert world.job(id).state is State.FINISHED


def test_what_started_after_the_clock_was_set_back_has_its_whole_time() -> None:
    """Its record takes the date of the state before, two hours ahead."""
    world = World()
    host = world.host()
    _, order = world.placed()
    world.sleep(1)
    world.jump(-HOURS_2)
    world.sleep(500)
    world.writes.on_task(order.task_id, host.claiming(1))
    world.sleep(300)
    world.jump(HOURS_2)
    world.sweep()
    world.sleep(419.999)
    world.sweep()
    assert marked(world, order.task_id) == "None"
    world.sleep(0.001)
    world.sweep()
    assert marked(world, order.task_id) == "stuckInState: still STARTING after 720 s"


def test_a_retry_that_was_armed_between_a_jump_back_and_its_being_seen_keeps_its_delay() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=later(100)))
    world.sleep(1)
    world.jump(-HOURS_2)
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    world.sweep()
    world.sleep(99.999)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    world.sleep(0.001)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "0-2": "DISPATCHED"}


def test_a_deadline_that_was_armed_between_a_jump_back_and_its_being_seen_ends_nothing_early() -> None:
    """It is pulled with the others, though it was armed by the clock as it is now."""
    world = World()
    host = world.host()
    id, order = world.placed(a_job(limit=9_000))
    world.writes.on_task(order.task_id, host.claiming(1))
    world.sleep(1)
    world.jump(-HOURS_2)
    world.writes.on_task(order.task_id, lambda job, task, now: running(job, task, 1, Address(ip=""), now))
    (before,) = due_in(world, DeadlineKind.LIMIT)
    world.sweep()
    (after,) = due_in(world, DeadlineKind.LIMIT)
    assert before - after == HOURS_2
    world.sleep(9_029.999)
    world.sweep()
    assert marked(world, task_id(id, 0, 1)) == "None"


@either_way
def test_an_order_that_nobody_takes_is_given_up_a_minute_after_a_jump(jump: float) -> None:
    world = World()
    world.host()
    world.create()
    world.sleep(1)
    world.sweep()
    (order,) = world.orders()
    world.sleep(40)
    world.jump(jump)
    world.sweep()
    world.orders()
    for _ in range(19):
        world.sleep(3)
        world.sweep()
    # Sent again all the time, and still waited for.
    assert world.task(order.task_id).state is State.DISPATCHED
    assert len(world.orders()) == 19
    world.sleep(3)
    world.sweep()
    assert world.why(order.task_id) == "stuckInState: agent host-1 did not take it within 60 s"


def test_an_order_that_went_out_after_the_clock_was_set_back_is_waited_for_as_well() -> None:
    """Its record takes the date of the state before, when nobody had it yet."""
    world = World()
    host = world.host()
    host.life.leave()
    id = world.create()
    world.sleep(1, beating=False)
    world.jump(-HOURS_2)
    world.sleep(100, beating=False)
    host.restart()
    host.beat()
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}
    world.sleep(3)
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}
    assert len(world.orders()) == 2


def test_two_controls_that_see_the_clock_set_back_pull_deadlines_once() -> None:
    world = World()
    world.host()
    other = world.new_control()
    world.started(a_job(limit=9_000))
    world.jump(-HOURS_2)
    world.sweep()
    other.run()
    assert due_in(world, DeadlineKind.LIMIT) == [9_030]


class AwayOnce(LeaseStore):
    """Does not answer the first who wants a flag."""

    is_away = True

    def raise_flag(self, name: str, span: timedelta) -> bool:
        if self.is_away:
            self.is_away = False
            raise StoreUnavailable("connection refused")
        return super().raise_flag(name, span)


def test_a_store_that_goes_away_when_its_clock_was_set_back_has_its_deadlines_pulled_later() -> None:
    world = World()
    world.host()
    world.started(a_job(limit=9_000))
    lookout = Lookout(world.records, AwayOnce(world.keyspace), world)
    lookout.look()
    world.jump(-HOURS_2)
    with pytest.raises(StoreUnavailable):
        lookout.look()
    lookout.look()
    lookout.look()
    assert due_in(world, DeadlineKind.LIMIT) == [9_030]


class Slow(Store):
    """Takes its time to answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world.keyspace)
        self._world = world
        self.delay = timedelta(0)

    def now(self) -> datetime:
        found = super().now()
        self._world.now += self.delay
        self._world.passed += self.delay
        return found


def test_an_answer_that_comes_late_is_not_taken_for_a_jump() -> None:
    world = World()
    world.host()
    world.started(a_job(limit=9_000))
    slow = Slow(world)
    lookout = Lookout(slow, LeaseStore(world.keyspace), world)
    lookout.look()
    slow.delay = timedelta(seconds=6)
    lookout.look()
    slow.delay = timedelta(0)
    lookout.look()
    assert due_in(world, DeadlineKind.LIMIT) == [9_030 - 6]
    # But so long nothing was seen.
    assert lookout.steady.since(world.now) == world.now


def test_a_jump_while_control_is_at_work_ends_nothing() -> None:
    """Both orders are to be sent again; between the two, the clock is set."""
    world = World()
    world.host()
    id = world.create(a_job(2))
    world.sweep()
    world.sleep(3)

    def jump(change: Change) -> None:
        world.records.before_commit = None
        world.jump(HOURS_2)

    world.records.before_commit = jump
    world.sweep()
    assert world.records.before_commit is None
    assert world.states(id) == {"0-1": "DISPATCHED", "1-1": "DISPATCHED"}
    world.orders()
    world.sweep()
    assert len(world.orders()) == 2
    assert world.states(id) == {"0-1": "DISPATCHED", "1-1": "DISPATCHED"}
