"""Tasks that wait for room: with a reason on record, and without keeping others from theirs."""

from __future__ import annotations

import pytest

from tests.service.world import Host, World, a_job
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import HashSet
from titus_celery.core.decision import Change
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import JobId
from titus_celery.core.states import State
from titus_celery.errors import StoreCorrupt, StoreUnavailable


def crowded() -> tuple[World, Host]:
    """An installation whose only host has one core."""
    world = World()
    return world, world.host(cores=1)


def test_a_task_waits_with_its_reason_until_there_is_room() -> None:
    world, _ = crowded()
    first, (run,) = world.started()
    second = world.create()
    world.sweep()
    waiting = task_id(second, 0, 1)
    assert world.task(waiting).state is State.QUEUED
    assert world.why(waiting) == "waiting: 1 agent serves queue default: 1 lacks cpu (needs 1 cores)"
    assert world.orders() == []
    world.release(run, task_id(first, 0, 1))
    world.carry_on()
    assert (world.task(waiting).state, world.task(waiting).reason) == (State.RUNNING, None)


def test_a_task_says_when_its_reason_to_wait_changes() -> None:
    world, host = crowded()
    id = world.create(a_job(cpu="2"))
    one = task_id(id, 0, 1)
    world.sweep()
    assert world.why(one).endswith("1 lacks cpu (needs 2 cores)")
    told = world.task(one).version
    world.sweep()
    assert world.task(one).version == told
    host.life.leave()
    world.sweep()
    assert world.why(one) == "waiting: 1 agent serves queue default: 1 lacks a live lease"
    world.sleep(20.001, beating=False)
    host.restart()
    host.life.renew()
    world.sweep()
    assert world.why(one) == "waiting: 1 agent serves queue default: 1 lacks a consumer that answers"


def test_an_agent_that_left_gets_nothing_more() -> None:
    world = World()
    host = world.host()
    host.life.leave()
    id = world.create()
    world.sweep()
    assert world.states(id) == {"0-1": "QUEUED"}
    # A renewal that was under way when it left takes nothing back; its next start does.
    host.beat()
    world.sweep()
    assert world.states(id) == {"0-1": "QUEUED"}
    host.restart()
    host.beat()
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}


def test_tasks_are_packed_and_the_oldest_job_comes_first() -> None:
    world = World()
    world.host("host-1", cores=2)
    world.host("host-2", cores=2)
    first = world.create(a_job(3))
    world.sleep(1)
    second = world.create(a_job(3))
    world.sweep()
    placed = {order.task_id: order.dispatch.agent_id for order in world.orders()}
    assert placed == {
        f"{first}-0-1": "host-1",
        f"{first}-1-1": "host-1",
        f"{first}-2-1": "host-2",
        f"{second}-0-1": "host-2",
    }


def test_what_fits_is_placed_past_what_does_not() -> None:
    world, _ = crowded()
    world.create(a_job(3, cpu="2"))
    world.sleep(1)
    small = world.create(a_job(cpu="0.5"))
    world.sweep()
    assert world.states(small) == {"0-1": "DISPATCHED"}


def test_what_fits_is_found_behind_a_thousand_that_do_not() -> None:
    world, _ = crowded()
    world.create(a_job(1_000, cpu="2"))
    world.sleep(1)
    small = world.create(a_job(cpu="0.5"))
    world.sweep()
    assert world.states(small) == {"0-1": "DISPATCHED"}
    # The far look is not taken at each sweep, but within five seconds.
    late = world.create(a_job(cpu="0.5"))
    world.sweep()
    assert world.states(late) == {"0-1": "QUEUED"}
    world.sleep(5)
    world.sweep()
    assert world.states(late) == {"0-1": "DISPATCHED"}


def test_of_many_that_wait_for_the_same_all_are_told_in_time() -> None:
    world, _ = crowded()
    id = world.create(a_job(250, cpu="2"))
    for told in (100, 200, 250, 250):
        world.sweep()
        assert sum(one.reason is not None for one in world.jobs.find(id).tasks) == told


def test_two_controls_at_once_never_give_a_host_more_than_it_has() -> None:
    """The other places the first core's worth between our look at the agents and our commit."""
    world, _ = crowded()
    id = world.create(a_job(2))
    other = world.new_control()

    def other_is_first(change: Change) -> None:
        other.run()

    world.records.before_commit = other_is_first
    world.sweep()
    world.records.before_commit = None
    orders = world.orders()
    assert len({order.task_id for order in orders}) == 1
    (agent,), _ = world.registry.agents()
    assert (agent.used.cpu_millis, agent.used.slots) == (1_000, 1)
    assert sorted(world.states(id).values()) == ["DISPATCHED", "QUEUED"]
    (queued,) = (one for one in world.jobs.find(id).tasks if one.state is State.QUEUED)
    assert str(queued.reason) == "waiting: 1 agent serves queue default: 1 lacks cpu (needs 1 cores)"


def spoil(world: World, id: JobId) -> None:
    """Make the job's record unreadable."""
    world.keyspace.transact([], [HashSet(Keys("titus").job(id), {"state": "rubbish"})])


def test_a_record_that_cannot_be_read_does_not_keep_deadlines_of_others() -> None:
    world = World()
    world.host()
    bad = world.create()
    good = world.create()
    world.sweep()
    world.orders()
    spoil(world, bad)
    # Both orders are due to be sent again, the bad one first.
    world.sleep(3)
    with pytest.raises(StoreCorrupt, match=bad):
        world.sweep()
    assert [order.task_id for order in world.orders()] == [f"{good}-0-1"]


def test_a_record_that_cannot_be_read_does_not_keep_others_from_being_placed() -> None:
    world = World()
    world.host()
    bad = world.create()
    good = world.create()
    spoil(world, bad)
    world.sweep()
    assert world.states(good) == {"0-1": "DISPATCHED"}


def test_a_record_that_cannot_be_read_does_not_keep_others_from_being_given_up() -> None:
    world = World()
    world.host()
    bad, _ = world.started()
    good, _ = world.started()
    spoil(world, bad)
    world.sleep(70, beating=False)
    world.sweep()
    assert world.states(good)["0-1"] == "FAILED"


def test_what_fits_is_found_in_time_although_the_clock_was_set_back() -> None:
    """The next look behind the head of the queue is not made at a time of the old clock."""
    world, _ = crowded()
    world.create(a_job(1_000, cpu="2"))
    world.sweep()
    world.sleep(1)
    small = world.create(a_job(cpu="0.5"))
    world.jump(-7_200)
    world.sleep(5)
    world.sweep()
    assert world.states(small) == {"0-1": "DISPATCHED"}


def test_a_store_that_goes_away_ends_the_sweep_and_the_next_goes_on() -> None:
    world = World()
    world.host()
    id = world.create(a_job(2))

    def gone(change: Change) -> None:
        raise StoreUnavailable("connection refused")

    world.records.before_commit = gone
    with pytest.raises(StoreUnavailable):
        world.sweep()
    world.records.before_commit = None
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED", "1-1": "DISPATCHED"}
