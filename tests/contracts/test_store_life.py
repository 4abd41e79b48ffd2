"""The store as a server that restarts, fails over, and has only so much memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.builders import commit, dispatched, finished, job, killed, moved, saved
from tests.contracts.stores import Bench, MemoryBench, RedisBench, server_binary
from titus_celery.adapters import keyspace as ks
from titus_celery.adapters.redis_keyspace import script_header
from titus_celery.adapters.redis_server import RedisServer, start_server
from titus_celery.core.model import Capacity
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.ports import Memory

ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)


@pytest.fixture(params=["bundled", "debian"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which server."""
    name: str = request.param
    return name


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may stop."""
    running = start_server(tmp_path, binary=server_binary(kind))
    yield running
    running.stop()


def test_an_epoch_lasts_as_long_as_the_server(server: RedisServer, kind: str, tmp_path: Path) -> None:
    with closing(RedisBench(server.url)) as world, closing(RedisBench(server.url)) as other:
        bench = Bench(world)
        first = bench.records.epoch()
        assert first
        saved(bench.records, job())
        world.raw.client_kill_filter(_type="normal", skipme=True)
        assert first == bench.records.epoch() == Bench(other).records.epoch()
        server.stop()
        with pytest.raises(StoreUnavailable):
            bench.records.epoch()
        again = start_server(tmp_path, binary=server_binary(kind), port=server.port)
        try:
            assert bench.records.epoch() not in {first, ""}
        finally:
            again.stop()


def test_a_replica_that_becomes_the_store_begins_an_epoch(server: RedisServer) -> None:
    """It may lack the last writes, and answers under the address of the server before."""
    with closing(RedisBench(server.url)) as world:
        first = world.keyspace.epoch()
        world.raw.replicaof("127.0.0.1", "1")
        world.raw.replicaof("NO", "ONE")
        assert world.keyspace.epoch() != first


def test_a_store_in_memory_can_begin_an_epoch_and_forget() -> None:
    bench = Bench(world := MemoryBench(undo_max=2))
    first = bench.records.epoch()
    new = job()
    (one,) = saved(bench.records, new)
    before = world.dump()
    (placed,) = commit(bench.records, new, [one], to=[dispatched(one)], room=ROOM)
    (claimed,) = commit(bench.records, new, [placed], to=[moved(placed, State.STARTING, 2)])
    assert bench.records.epoch() == first
    world.keyspace.restart()
    assert bench.records.epoch() != first
    assert bench.records.task(one.id).task == claimed
    with pytest.raises(ValueError, match="1 transactions to forget, but only 0"):
        world.keyspace.restart(forget=1)
    commit(bench.records, new, [claimed], to=[moved(claimed, State.RUNNING, 3)])
    world.keyspace.restart(forget=1)
    assert bench.records.task(one.id).task == claimed
    other = Bench(fresh := MemoryBench(undo_max=2))
    saved(other.records, new)
    (placed,) = commit(other.records, new, [one], to=[dispatched(one)], room=ROOM)
    commit(other.records, new, [placed], to=[moved(placed, State.STARTING, 2)])
    fresh.keyspace.restart(forget=2)
    assert fresh.dump() == before


def test_a_store_in_memory_forgets_times_to_live_too() -> None:
    world = MemoryBench(undo_max=1)
    space, hour = world.keyspace, timedelta(hours=1)
    space.transact([], [ks.TextSet("t", "a", hour)])
    space.transact([], [ks.TextSet("t", "b"), ks.SetAdd("z", "m", 1)])
    space.restart(forget=1)
    assert (space.text("t"), space.score("z", "m"), world.time_left("t")) == ("a", None, hour)


# ----------------------------------------------------------------------------------------------------- memory


def test_when_memory_is_used_up_jobs_end_and_none_begin(bench: Bench) -> None:
    new = job(desired=2)
    first, _ = saved(bench.records, new, 2)
    assert bench.records.memory().maximum == 0
    with bench.world.crowded():
        told: Memory = bench.records.memory()
        assert told.used > told.maximum > 0
        before = bench.world.dump()
        with pytest.raises(StoreUnavailable, match="memory is full"):
            saved(bench.records, job(), 3)
        assert bench.world.dump() == before
        (first,) = commit(bench.records, new, [first], to=[dispatched(first)], room=ROOM)
        (first,) = commit(bench.records, new, [first], to=[moved(first, State.STARTING, 2)])
        commit(bench.records, new, [first], to=[finished(first)])
        commit(bench.records, new, job=killed(new))
        with pytest.raises(StoreUnavailable, match="memory is full"):
            saved(bench.records, job())
    assert bench.records.job(new.id)[0].kill
    saved(bench.records, job())


def test_a_server_that_forgot_its_scripts_still_lets_jobs_end_when_memory_is_used_up(
    server: RedisServer,
) -> None:
    with closing(RedisBench(server.url)) as world:
        bench = Bench(world)
        new = job()
        saved(bench.records, new)
        with world.crowded():
            world.raw.script_flush()
            commit(bench.records, new, job=killed(new))
            world.raw.script_flush()
            with pytest.raises(StoreUnavailable, match="memory is full"):
                saved(bench.records, job())


def test_the_version_of_a_server_is_asked_for_once(server: RedisServer) -> None:
    with closing(RedisBench(server.url)) as world:

        def asked() -> int:
            calls: int = world.raw.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"]
            return calls

        world.keyspace.transact([], [ks.TextSet("t", "a")], grows=True)
        start = asked()
        for _ in range(5):
            world.keyspace.transact([], [ks.TextSet("t", "a")])
        # One of them, and the asking itself.
        assert asked() - start == 2


@pytest.mark.parametrize(
    ("version", "knows"),
    [("6.2.21", False), ("6.9.0", False), ("7.0.0", True), ("7.2.4", True), ("8.0.1", True), ("10.0", True)],
)
def test_a_server_before_redis_7_gets_the_script_without_flags(version: str, knows: bool) -> None:
    header = script_header({"redis_version": version})
    assert header == (b"#!lua flags=allow-oom\n" if knows else b"")
