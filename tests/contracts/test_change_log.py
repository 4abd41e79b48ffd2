"""ChangeLog: one order for everybody, from any place that it still reaches back to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import at, commit, finished, job, killed, saved, task
from tests.contracts.stores import Bench, MemoryBench, at_once
from titus_celery.adapters.keyspace import NO_ENTRY, Append
from titus_celery.adapters.layout import LOG_KEPT
from titus_celery.adapters.system import SystemClock
from titus_celery.core.decision import JobAdded, JobEnded, TaskUpdated
from titus_celery.core.model import Address, StateChange
from titus_celery.core.states import State
from titus_celery.errors import PositionLost, StoreCorrupt
from titus_celery.ports import Position

NOT_AT_ALL = timedelta(0)
LONG = timedelta(seconds=20)


def test_every_commit_is_told_in_order_with_whole_records(bench: Bench) -> None:
    start = bench.records.end()
    new = job()
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[finished(one)])
    last = bench.records.job(new.id)[0]
    end = replace(last, history=(*last.history, StateChange(state=State.FINISHED, at=at(20))))
    commit(bench.records, last, job=end)
    heard = [what for _, what in bench.records.read(start, 100, NOT_AT_ALL)]
    assert heard == [
        JobAdded(new),
        TaskUpdated(task(new)),
        TaskUpdated(one),
        JobEnded(replace(end, version=2)),
    ]


def test_a_kill_alone_is_no_news(bench: Bench) -> None:
    new = job()
    saved(bench.records, new)
    end = bench.records.end()
    commit(bench.records, new, job=killed(new))
    assert bench.records.end() == end


def test_reading_goes_on_from_any_place_in_it(bench: Bench) -> None:
    start = bench.records.end()
    new = job(desired=5)
    saved(bench.records, new, 5)
    entries = bench.records.read(start, 100, NOT_AT_ALL)
    assert len(entries) == 6
    for count, (position, _) in enumerate(entries, start=1):
        assert bench.records.read(position, 100, NOT_AT_ALL) == entries[count:]
    assert bench.records.read(start, 2, NOT_AT_ALL) == entries[:2]
    assert bench.records.end() == entries[-1][0]


def test_log_order_is_commit_order_for_concurrent_writers(bench: Bench) -> None:
    start = bench.records.end()
    new = job(desired=8)
    made = saved(bench.records, new, 8)

    def write(number: int) -> None:
        one = made[number]
        for count in range(20):
            (one,) = commit(bench.records, new, [one], to=[replace(one, address=Address(ip=str(count)))])

    at_once(8, write)
    entries = bench.records.read(start, 1_000, NOT_AT_ALL)
    for one in made:
        told = [what.task for _, what in entries if isinstance(what, TaskUpdated) and what.task.id == one.id]
        assert [again.version for again in told] == list(range(1, 22))
    assert len(entries) == 1 + 8 * 21


def test_a_waiting_reader_wakes_at_a_commit(bench: Bench) -> None:
    start = bench.records.end()
    new = job()
    waits = threading.Event()

    def wait() -> list[object]:
        waits.set()
        return [what for _, what in bench.records.read(start, 100, LONG)]

    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(wait)
        waits.wait()
        saved(bench.records, new)
        assert heard.result(LONG.total_seconds() / 2) == [JobAdded(new), TaskUpdated(task(new))]


def test_waiting_in_vain_takes_its_time_and_gives_nothing(bench: Bench) -> None:
    saved(bench.records, job())
    end, span = bench.records.end(), timedelta(milliseconds=50)
    start = SystemClock().monotonic()
    assert bench.records.read(end, 10, span) == []
    assert span / 2 < SystemClock().monotonic() - start < LONG


@pytest.mark.parametrize("position", ["", "$", "1", "*", "9" * 40 + "-0", "0-0\n"])
def test_what_is_no_place_is_lost(bench: Bench, position: str) -> None:
    with pytest.raises(PositionLost):
        bench.records.read(Position(position), 10, NOT_AT_ALL)


def test_a_place_of_another_stores_future_is_lost(bench: Bench) -> None:
    saved(bench.records, job())
    with pytest.raises(PositionLost):
        bench.records.read(Position("99999999999999-0"), 10, NOT_AT_ALL)


def test_a_place_before_what_was_let_go_is_lost_and_later_ones_are_not() -> None:
    world = MemoryBench()
    bench = Bench(world)
    start = bench.records.end()
    saved(bench.records, job())
    old = bench.records.end()
    world.let_pass(LOG_KEPT + timedelta(seconds=1))
    assert len(bench.records.read(start, 10, NOT_AT_ALL)) == 2
    saved(bench.records, job())
    with pytest.raises(PositionLost):
        bench.records.read(start, 10, NOT_AT_ALL)
    # It stood at the end of what is gone, and missed nothing.
    assert len(bench.records.read(old, 10, NOT_AT_ALL)) == 2


def test_the_log_lets_go_of_what_is_old(bench: Bench) -> None:
    """Redis lets go of whole nodes of a hundred entries."""
    keep = timedelta(milliseconds=1)
    start = bench.records.end()
    for _ in range(6):
        bench.keyspace.transact([], [Append(bench.keys.log, {"kind": "x"}, LOG_KEPT)] * 100)
    bench.world.let_pass(timedelta(milliseconds=5))
    bench.keyspace.transact([], [Append(bench.keys.log, {"kind": "x"}, keep)])
    assert len(bench.keyspace.entries(bench.keys.log, NO_ENTRY, 1_000, NOT_AT_ALL)) <= 101
    with pytest.raises(PositionLost):
        bench.records.read(start, 10, NOT_AT_ALL)


def test_an_entry_that_is_none_of_ours_is_named(bench: Bench) -> None:
    start = bench.records.end()
    bench.keyspace.transact([], [Append(bench.keys.log, {"kind": "odd"}, LOG_KEPT)])
    with pytest.raises(StoreCorrupt, match="odd"):
        bench.records.read(start, 10, NOT_AT_ALL)


def test_the_log_reaches_back_a_quarter_of_an_hour() -> None:
    """Observers that reconnect within this time miss nothing."""
    assert timedelta(minutes=15) <= LOG_KEPT
