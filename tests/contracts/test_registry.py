"""AgentRegistry: who is there, until when, and with which images."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import START, agent, commit, dispatched, finished, job, saved
from tests.contracts.stores import Bench, MemoryBench
from titus_celery.adapters.keyspace import HashSet
from titus_celery.adapters.registry import AGENT_KEPT
from titus_celery.core.model import AgentId, Capacity, EngineId
from titus_celery.errors import StoreCorrupt

LEASE = timedelta(seconds=10)
ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)


def test_a_registered_agent_is_listed_with_its_lease(bench: Bench) -> None:
    before = bench.records.now()
    until = bench.registry.renew(agent("b"), LEASE)
    bench.registry.renew(agent("a"), LEASE)
    after = bench.records.now()
    assert before + LEASE <= until <= after + LEASE
    (first, second), now = bench.registry.agents()
    assert second == replace(agent("b"), lease_until=until)
    assert first.id == "a" and now >= after


def test_renewing_moves_the_lease_and_takes_what_is_new(bench: Bench) -> None:
    first = bench.registry.renew(agent("a"), LEASE)
    bench.world.let_pass(timedelta(milliseconds=2))
    later = bench.registry.renew(agent("a", queues=("gpu",)), LEASE)
    assert later > first
    ((found,), _) = bench.registry.agents()
    assert (found.lease_until, found.queues) == (later, ("gpu",))


def test_an_agent_that_leaves_has_no_lease_from_then_on(bench: Bench) -> None:
    bench.registry.renew(agent("a"), LEASE)
    bench.registry.renew(agent("b"), LEASE)
    bench.registry.leave(AgentId("a"))
    (gone, there), now = bench.registry.agents()
    assert gone.lease_until <= now < there.lease_until
    bench.world.let_pass(timedelta(milliseconds=2))
    bench.registry.leave(AgentId("a"))
    bench.registry.leave(AgentId("unknown"))
    assert bench.registry.agents()[0][0].lease_until == gone.lease_until
    assert len(bench.registry.agents()[0]) == 2


def test_the_proof_that_it_consumes_is_the_agents_last(bench: Bench) -> None:
    bench.registry.renew(agent("a"), LEASE)
    assert bench.registry.agents()[0][0].proved_at == START
    before = bench.records.now()
    bench.registry.prove(AgentId("a"))
    proved = bench.registry.agents()[0][0].proved_at
    assert before <= proved <= bench.records.now()
    bench.registry.renew(agent("a"), LEASE)
    assert bench.registry.agents()[0][0].proved_at == proved


def test_a_proof_alone_registers_nobody(bench: Bench) -> None:
    bench.registry.prove(AgentId("a"))
    assert bench.registry.agents()[0] == []
    assert bench.registry.tasks_on(AgentId("a")) == []


def test_agents_of_one_engine_see_its_cpu_and_memory_taken_and_their_own_slots(bench: Bench) -> None:
    left, right, other = agent("left"), agent("right"), agent("other", engine="ENGINE:2")
    for one in (left, right, other):
        bench.registry.renew(one, LEASE)
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    (first,) = commit(bench.records, new, [first], to=[dispatched(first, left, cpu=100, memory=7)], room=ROOM)
    (second,) = commit(
        bench.records, new, [second], to=[dispatched(second, right, cpu=30, memory=5)], room=ROOM
    )
    used = {one.host: one.used for one in bench.registry.agents()[0]}
    assert used["left"] == used["right"] == Capacity(cpu_millis=130, memory_bytes=12, slots=1)
    assert used["other"] == Capacity(cpu_millis=0, memory_bytes=0, slots=0)
    assert [view.task for view in bench.registry.tasks_on(left.id)] == [first]
    commit(bench.records, new, [first], to=[finished(first)])
    assert bench.registry.tasks_on(left.id) == []
    assert [view.job.id for view in bench.registry.tasks_on(right.id)] == [new.id]


def test_tasks_on_an_agent_come_by_when_they_were_placed(bench: Bench) -> None:
    new = job(desired=3)
    made = saved(bench.records, new, 3)
    for one, when in zip(made, (3, 1, 2), strict=True):
        commit(bench.records, new, [one], to=[dispatched(one, agent("a"), when=when)], room=ROOM)
    assert [view.task.slot for view in bench.registry.tasks_on(AgentId("a"))] == [1, 2, 0]


def test_an_inventory_is_replaced_whole(bench: Bench) -> None:
    engine = EngineId("AB:CD")
    assert bench.registry.images() == {}
    bench.registry.report_images(engine, {"busybox:latest": "sha256:1", "old:1": "sha256:2"})
    bench.registry.report_images(EngineId("EF"), {"x:1": "sha256:9"})
    bench.registry.report_images(engine, {"busybox:latest": "sha256:3"})
    assert bench.registry.images() == {
        engine: {"busybox:latest": "sha256:3"},
        EngineId("EF"): {"x:1": "sha256:9"},
    }
    bench.registry.report_images(engine, {})
    assert bench.registry.images()[engine] == {}


def test_an_inventory_may_be_large(bench: Bench) -> None:
    """More fields than one Lua call can take."""
    images = {f"image-{number}:latest": f"sha256:{number}" for number in range(9_000)}
    bench.registry.report_images(EngineId("E"), images)
    assert bench.registry.images() == {"E": images}


def test_an_agent_that_is_long_gone_is_forgotten_with_its_engines_images() -> None:
    world = MemoryBench()
    bench = Bench(world)
    for name, engine in (("gone", "E1"), ("busy", "E2"), ("twin", "E3")):
        bench.registry.renew(agent(name, engine=engine), LEASE)
        bench.registry.report_images(EngineId(engine), {"x:1": "sha256:1"})
    new = job()
    (one,) = saved(bench.records, new)
    busy = agent("busy", engine="E2")
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, busy)], room=ROOM)
    world.let_pass(AGENT_KEPT)
    bench.registry.renew(agent("other", engine="E3"), LEASE)
    assert len(bench.registry.agents()[0]) == 4
    world.let_pass(LEASE)
    bench.registry.renew(agent("other", engine="E3"), LEASE)
    # What holds tasks stays until they are given up, and an engine while an agent of it is known.
    assert [one.id for one in bench.registry.agents()[0]] == ["busy", "other"]
    assert set(bench.registry.images()) == {"E2", "E3"}
    assert bench.keyspace.hashes([bench.keys.images("E1"), bench.keys.agent("gone")])[0] == [{}, {}]
    commit(bench.records, new, [one], to=[finished(one)])
    bench.registry.renew(agent("other", engine="E3"), LEASE)
    assert [one.id for one in bench.registry.agents()[0]] == ["other"]


def test_an_agent_that_cannot_be_read_is_named(bench: Bench) -> None:
    bench.registry.renew(agent("a"), LEASE)
    key = bench.keys.agent(AgentId("a"))
    bench.keyspace.transact([], [HashSet(key, {"proved_at": "never"})])
    with pytest.raises(StoreCorrupt) as caught:
        bench.registry.agents()
    assert caught.value.key == key
