"""A store that was away, or restarted: agents are heard first, and only then judged and given more."""

from __future__ import annotations

from datetime import timedelta

from tests.service.world import World, a_job
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import RetryKind, RetryPolicy
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import (
    Exit,
)
from titus_celery.core.states import State

LATER = RetryPolicy(kind=RetryKind.DELAYED, retries=1, delay_first=timedelta(seconds=500))


def outage(world: World, seconds: float) -> None:
    """Let time pass in which nobody reaches the store."""
    world.now += timedelta(seconds=seconds)
    world.passed += timedelta(seconds=seconds)


def test_what_came_due_while_the_store_was_away_waits_for_the_agents_word() -> None:
    world = World()
    host = world.host()
    _, order = world.placed()
    world.writes.on_task(order.task_id, host.claiming(1))
    outage(world, 1_000)
    world.sweep()
    world.sleep(9.999)
    world.sweep()
    assert str(world.task(order.task_id).stop_for) == "None"
    world.sleep(0.001)
    world.sweep()
    assert str(world.task(order.task_id).stop_for) == "stuckInState: still STARTING after 720 s"


def test_an_order_that_could_not_be_taken_while_the_store_was_away_is_waited_for() -> None:
    world = World()
    world.host()
    _, order = world.placed()
    outage(world, 1_000)
    world.sweep()
    world.sleep(59.999)
    world.sweep()
    assert world.task(order.task_id).state is State.DISPATCHED
    world.sleep(3)
    world.sweep()
    assert world.why(order.task_id) == "stuckInState: agent host-1 did not take it within 60 s"


def test_a_retry_that_came_due_while_the_store_was_away_is_made_at_once() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=LATER))
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    outage(world, 1_000)
    world.sweep()
    assert world.task(task_id(id, 0, 2)).state is State.QUEUED


# ------------------------------------------------------------------------------------------ restarts


def test_after_a_restart_of_the_store_nothing_is_placed_before_agents_have_told() -> None:
    world = World()
    world.host()
    id = world.create()
    world.keyspace.restart()
    world.sweep()
    # Not what is new either: it is not known what room there is.
    world.create()
    world.sleep(4.999)
    world.sweep()
    assert world.orders() == []
    world.sleep(0.001)
    world.sweep()
    assert len(world.orders()) == 2
    assert world.states(id) == {"0-1": "DISPATCHED"}


def test_control_that_starts_may_have_missed_a_restart_of_the_store() -> None:
    world = World()
    world.host()
    world.create()
    world.control = world.new_control()
    world.sweep()
    assert world.orders() == []
    world.sleep(5)
    world.sweep()
    assert len(world.orders()) == 1


def test_a_restart_of_a_store_without_jobs_holds_nothing_up() -> None:
    world = World()
    world.host()
    world.keyspace.restart()
    world.sweep()
    world.create()
    world.sweep()
    assert len(world.orders()) == 1


def test_a_restart_before_the_queue_was_read_is_noticed_before_anything_is_placed() -> None:
    world = World()
    world.host()
    _, order = world.placed()
    world.sleep(3)
    late = world.create()

    def restart(change: Change) -> None:
        world.records.before_commit = None
        world.keyspace.restart()

    # When the first order is sent again, at the beginning of the sweep.
    world.records.before_commit = restart
    world.sweep()
    assert [one.task_id for one in world.orders()] == [order.task_id]
    assert world.states(late) == {"0-1": "QUEUED"}


def test_nobody_is_lost_for_a_minute_after_the_store_restarted() -> None:
    world = World()
    world.host()
    id, _ = world.started()
    world.sleep(69, beating=False)
    world.keyspace.restart()
    world.sweep()
    world.sleep(59.999, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(0.001, beating=False)
    world.sweep()
    assert world.states(id)["0-1"] == "FAILED"
