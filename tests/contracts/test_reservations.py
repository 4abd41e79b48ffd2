"""Records: who runs, holds room; and there is never more held than there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import (
    agent,
    commit,
    dispatched,
    job,
    moved,
    replacement,
    saved,
    to_be_retried,
)
from tests.contracts.stores import Bench, nobody
from titus_celery.core.model import Agent, Capacity, Task
from titus_celery.core.states import State
from titus_celery.errors import Full

ROOM = Capacity(cpu_millis=1_000, memory_bytes=2**30, slots=8)


def test_room_is_held_from_dispatch_to_end(bench: Bench) -> None:
    new, host = job(), agent()
    bench.registry.hold(host, timedelta(seconds=10), nobody)
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, cpu=400, memory=512)], room=ROOM)
    assert bench.registry.agents()[0][0].used == Capacity(cpu_millis=400, memory_bytes=512, slots=1)
    assert [view.task for view in bench.registry.tasks_on(host.id)] == [one]
    (one,) = commit(bench.records, new, [one], to=[moved(one, State.STARTING, 2)])
    assert bench.registry.agents()[0][0].used.slots == 1
    (one,) = commit(bench.records, new, [one], to=[to_be_retried(one, due=30)])
    assert bench.registry.agents()[0][0].used == Capacity(cpu_millis=0, memory_bytes=0, slots=0)
    assert bench.registry.tasks_on(host.id) == []
    commit(bench.records, new, [one], to=replacement(one, when=30))
    assert bench.registry.agents()[0][0].used == Capacity(cpu_millis=0, memory_bytes=0, slots=0)


@pytest.mark.parametrize(
    "room",
    [
        Capacity(cpu_millis=999, memory_bytes=200, slots=2),
        Capacity(cpu_millis=1_000, memory_bytes=199, slots=2),
        Capacity(cpu_millis=1_000, memory_bytes=200, slots=1),
    ],
)
def test_who_finds_no_room_reserves_nothing(bench: Bench, room: Capacity) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    commit(bench.records, new, [first], to=[dispatched(first, cpu=500, memory=100)], room=room)
    before = bench.world.dump()
    with pytest.raises(Full, match="host-1"):
        commit(bench.records, new, [second], to=[dispatched(second, cpu=500, memory=100)], room=room)
    assert bench.world.dump() == before


def test_engines_are_shared_by_their_agents_and_slots_are_not(bench: Bench) -> None:
    new, left, right = job(desired=2), agent("left"), agent("right")
    first, second = saved(bench.records, new, 2)
    one_slot = Capacity(cpu_millis=700, memory_bytes=2**30, slots=1)
    commit(bench.records, new, [first], to=[dispatched(first, left, cpu=400)], room=one_slot)
    with pytest.raises(Full, match="right"):
        commit(bench.records, new, [second], to=[dispatched(second, right, cpu=400)], room=one_slot)
    commit(bench.records, new, [second], to=[dispatched(second, right, cpu=300)], room=one_slot)


def handed_on(one: Task, heir: Agent) -> Task:
    """The task, taken over by another agent."""
    assert one.dispatch
    order = replace(one.dispatch, number=one.dispatches + 1, agent_id=heir.id, engine_id=heir.engine_id)
    return replace(one, dispatch=order, dispatches=order.number)


def test_a_full_engine_does_not_refuse_to_hand_on_a_task_between_its_agents(bench: Bench) -> None:
    new, left, right = job(), agent("left"), agent("right")
    bench.registry.hold(right, timedelta(seconds=10), nobody)
    full = Capacity(cpu_millis=400, memory_bytes=512, slots=1)
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, left, cpu=400, memory=512)], room=full)
    (one,) = commit(bench.records, new, [one], to=[handed_on(one, right)], room=full)
    ((heir,), _) = bench.registry.agents()
    assert heir.used == Capacity(cpu_millis=400, memory_bytes=512, slots=1)
    assert bench.keyspace.hashes([bench.keys.ledger])[0][0]["slots:left"] == "0"
    assert bench.registry.tasks_on(left.id) == []
    assert [view.task for view in bench.registry.tasks_on(right.id)] == [one]


def test_an_heir_without_a_slot_is_refused_by_its_name(bench: Bench) -> None:
    new, left, right = job(desired=2), agent("left"), agent("right")
    one_slot = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=1)
    made = saved(bench.records, new, 2)
    (mine,) = commit(bench.records, new, made[:1], to=[dispatched(made[0], left)], room=one_slot)
    commit(bench.records, new, made[1:], to=[dispatched(made[1], right)], room=one_slot)
    with pytest.raises(Full, match="right"):
        commit(bench.records, new, [mine], to=[handed_on(mine, right)], room=one_slot)


def test_a_task_that_goes_to_another_engine_takes_and_leaves_both_in_full(bench: Bench) -> None:
    new, left, far = job(), agent("left"), agent("far", engine="ENGINE:2")
    for host in (left, far):
        bench.registry.hold(host, timedelta(seconds=10), nobody)
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, left, cpu=400, memory=512)], room=ROOM)
    with pytest.raises(Full, match="far"):
        small = Capacity(cpu_millis=399, memory_bytes=2**30, slots=8)
        commit(bench.records, new, [one], to=[handed_on(one, far)], room=small)
    commit(bench.records, new, [one], to=[handed_on(one, far)], room=ROOM)
    used = {host.host: host.used for host in bench.registry.agents()[0]}
    assert used["left"] == Capacity(cpu_millis=0, memory_bytes=0, slots=0)
    assert used["far"] == Capacity(cpu_millis=400, memory_bytes=512, slots=1)


def test_tasks_placed_in_one_commit_are_counted_together(bench: Bench) -> None:
    new = job(desired=2)
    made = saved(bench.records, new, 2)
    with pytest.raises(Full):
        commit(bench.records, new, made, to=[dispatched(one, cpu=600) for one in made], room=ROOM)
    assert len(bench.records.queued(10)) == 2


def test_reserving_without_telling_the_room_is_a_fault(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    with pytest.raises(ValueError, match="room"):
        commit(bench.records, new, [one], to=[dispatched(one)])
