"""Records: who runs, holds room; and there is never more held than there is."""

from __future__ import annotations

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
from tests.contracts.stores import Bench
from titus_celery.core.model import Capacity
from titus_celery.core.states import State
from titus_celery.errors import Full

ROOM = Capacity(cpu_millis=1_000, memory_bytes=2**30, slots=8)


def test_room_is_held_from_dispatch_to_end(bench: Bench) -> None:
    new, host = job(), agent()
    bench.registry.renew(host, timedelta(seconds=10))
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
