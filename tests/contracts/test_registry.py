"""AgentRegistry: who is there, until when, and with which images."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import START, agent, commit, dispatched, finished, job, saved
from tests.contracts.stores import Bench, MemoryBench, nobody
from titus_celery.adapters.keyspace import Delete, HashSet, Kind
from titus_celery.adapters.registry import AGENT_KEPT
from titus_celery.core.model import AgentId, Capacity, EngineId
from titus_celery.errors import StoreCorrupt

LEASE = timedelta(seconds=10)
ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)


def test_a_registered_agent_is_listed_with_its_lease(bench: Bench) -> None:
    before = bench.records.now()
    held = bench.registry.hold(agent("b", holder="me", gone_after=LEASE), LEASE, nobody)
    bench.registry.hold(agent("a"), LEASE, nobody)
    after = bench.records.now()
    assert before + LEASE <= held.lease_until <= after + LEASE
    (first, second), now = bench.registry.agents()
    assert second == held
    assert held == replace(
        agent("b"), holder="me", gone_after=LEASE, lease_until=held.lease_until, epoch=held.epoch
    )
    assert first.id == "a" and now >= after


def test_renewing_moves_the_lease_and_takes_what_is_new(bench: Bench) -> None:
    first = bench.registry.hold(agent("a"), LEASE, nobody)
    bench.world.let_pass(timedelta(milliseconds=2))
    later = bench.registry.hold(agent("a", queues=("gpu",)), LEASE, nobody)
    assert later.lease_until > first.lease_until
    ((found,), _) = bench.registry.agents()
    assert found == later and found.queues == ("gpu",)


def test_the_proof_that_it_consumes_is_the_agents_last(bench: Bench) -> None:
    bench.registry.hold(agent("a"), LEASE, nobody)
    assert bench.registry.agents()[0][0].proved_at == START
    before = bench.records.now()
    bench.registry.prove(AgentId("a"))
    proved = bench.registry.agents()[0][0].proved_at
    assert before <= proved <= bench.records.now()
    bench.registry.hold(agent("a"), LEASE, nobody)
    assert bench.registry.agents()[0][0].proved_at == proved


def test_a_proof_alone_registers_nobody(bench: Bench) -> None:
    bench.registry.prove(AgentId("a"))
    assert bench.registry.agents()[0] == []
    assert bench.registry.tasks_on(AgentId("a")) == []


def test_agents_of_one_engine_see_its_cpu_and_memory_taken_and_their_own_slots(bench: Bench) -> None:
    left, right, other = agent("left"), agent("right"), agent("other", engine="ENGINE:2")
    for one in (left, right, other):
        bench.registry.hold(one, LEASE, nobody)
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
        bench.registry.hold(agent(name, engine=engine), LEASE, nobody)
        bench.registry.report_images(EngineId(engine), {"x:1": "sha256:1"})
    new = job()
    (one,) = saved(bench.records, new)
    busy = agent("busy", engine="E2")
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, busy)], room=ROOM)
    world.let_pass(AGENT_KEPT)
    bench.registry.hold(agent("other", engine="E3"), LEASE, nobody)
    assert len(bench.registry.agents()[0]) == 4
    world.let_pass(LEASE)
    bench.registry.hold(agent("other", engine="E3"), LEASE, nobody)
    # What holds tasks stays until they are given up, and an engine while an agent of it is known.
    assert [one.id for one in bench.registry.agents()[0]] == ["busy", "other"]
    assert set(bench.registry.images()) == {"E2", "E3"}
    assert bench.keyspace.hashes([bench.keys.images("E1"), bench.keys.agent("gone")])[0] == [{}, {}]
    commit(bench.records, new, [one], to=[finished(one)])
    bench.registry.hold(agent("other", engine="E3"), LEASE, nobody)
    assert [one.id for one in bench.registry.agents()[0]] == ["other"]


def test_an_agent_that_cannot_be_read_is_named(bench: Bench) -> None:
    bench.registry.hold(agent("a"), LEASE, nobody)
    key = bench.keys.agent(AgentId("a"))
    for field, text in (("proved_at", "never"), ("epoch", "007"), ("epoch", "-1"), ("epoch", "one")):
        bench.keyspace.transact([], [HashSet(key, {field: text})])
        for read in (bench.registry.agents, lambda: bench.registry.hold(agent("a"), LEASE, nobody)):
            with pytest.raises(StoreCorrupt) as caught:
                read()
            assert caught.value.key == key
        bench.keyspace.transact([], [HashSet(key, {"proved_at": "0", "epoch": "1"})])


def test_a_gone_agent_that_cannot_be_read_costs_no_other_its_lease(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(world := MemoryBench())
    bench.registry.hold(agent("gone"), LEASE, nobody)
    bench.keyspace.transact([], [HashSet(bench.keys.agent(AgentId("gone")), {"record": "rubbish"})])
    world.let_pass(AGENT_KEPT + LEASE)
    held = bench.registry.hold(agent("a"), LEASE, nobody)
    assert held.lease_until == world.now + LEASE
    assert [line.levelname for line in caplog.records] == ["WARNING"]
    assert "agent:gone" in caplog.text


@pytest.mark.parametrize("spoilt", ["task", "task of another kind", "job", "job of another kind", "no job"])
def test_a_record_that_cannot_be_read_keeps_no_other_from_being_read(
    bench: Bench, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    bad, good = job(), job()
    # Two tasks of the bad job, so that one fault of it is told once.
    waiting = saved(bench.records, bad, 2)
    (one,) = saved(bench.records, good)
    key = bench.keys.task(waiting[0].id) if spoilt.startswith("task") else bench.keys.job(bad.id)
    if spoilt.endswith("kind"):
        bench.spoil(key, Kind.HASH)
    elif spoilt == "no job":
        bench.keyspace.transact([], [Delete(key, Kind.HASH)])
    else:
        bench.keyspace.transact([], [HashSet(key, {"record": "rubbish", "state": "rubbish"})])
    left = [one] if "job" in spoilt else [one, waiting[1]]
    assert [view.task for view in bench.records.queued(10)] == left
    (line,) = caplog.records
    assert line.levelname == "WARNING" and line.getMessage().count(key) == 1


def test_a_task_that_cannot_be_read_keeps_no_other_of_its_agent_from_being_read(bench: Bench) -> None:
    new = job(desired=2)
    made = saved(bench.records, new, 2)
    first, second = commit(bench.records, new, made, to=[dispatched(one) for one in made], room=ROOM)
    bench.keyspace.transact([], [HashSet(bench.keys.task(first.id), {"record": "rubbish"})])
    assert [view.task for view in bench.registry.tasks_on(AgentId("host-1"))] == [second]
