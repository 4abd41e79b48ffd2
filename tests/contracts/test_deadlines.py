"""Records: deadlines are read when due, and go with the commit that acts on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tests.builders import (
    at,
    commit,
    deadline,
    job,
    saved,
)
from tests.contracts.stores import Bench
from titus_celery.adapters.keyspace import Check, Keyspace, SetAdd, SetRemove, Write, to_ms
from titus_celery.adapters.store import RecordStore
from titus_celery.core.model import Deadline, DeadlineKind


def test_deadlines_stay_until_a_commit_removes_them(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    late, soon = deadline(DeadlineKind.STUCK, one.id, 60), deadline(DeadlineKind.REPUBLISH, one.id, 3)
    commit(bench.records, new, arm=(late, soon))
    assert bench.records.next_due() == at(3)
    assert bench.records.due(at(2.999), 10) == []
    assert bench.records.due(at(3), 10) == [soon] == bench.records.due(at(3), 10)
    assert bench.records.due(at(60), 10) == [soon, late]
    assert bench.records.due(at(60), 1) == [soon]
    commit(bench.records, new, disarm=((DeadlineKind.REPUBLISH, one.id),))
    assert bench.records.due(at(60), 10) == [late]


def test_arming_again_moves_a_deadline_also_when_the_same_commit_removes_it(bench: Bench) -> None:
    new = job()
    saved(bench.records, new)
    commit(bench.records, new, arm=(deadline(DeadlineKind.FANOUT, new.id, 5),))
    moved_on = deadline(DeadlineKind.FANOUT, new.id, 8)
    commit(bench.records, new, arm=(moved_on,), disarm=((DeadlineKind.FANOUT, new.id),))
    assert bench.records.due(at(99), 10) == [moved_on]


def test_a_deadline_that_was_moved_is_not_disarmed(bench: Bench) -> None:
    new = job()
    saved(bench.records, new)
    old, again = deadline(DeadlineKind.FANOUT, new.id, 5), deadline(DeadlineKind.FANOUT, new.id, 8)
    commit(bench.records, new, arm=(again,))
    bench.records.disarm(old)
    assert bench.records.next_due() == at(8)
    bench.records.disarm(again)
    assert bench.records.next_due() is None
    bench.records.disarm(again)


def test_a_deadline_of_a_later_release_is_left_for_it(bench: Bench) -> None:
    bench.keyspace.transact([], [SetAdd(bench.keys.deadlines, "sundial:x", to_ms(at(1)))])
    assert bench.records.due(at(9), 10) == []
    # Nobody is woken for what nobody here can act on; what is known behind it is found.
    assert bench.records.next_due() is None
    bench.keyspace.transact([], [SetAdd(bench.keys.deadlines, "settle:j", to_ms(at(2)))])
    assert bench.records.next_due() == at(2)


# --------------------------------------------------------------------------------------------------- pulled


def armed(bench: Bench, count: int, due: float) -> list[Deadline]:
    """So many deadlines, all due at once."""
    made = [deadline(DeadlineKind.FANOUT, f"job-{number:03}", due) for number in range(count)]
    members = [SetAdd(bench.keys.deadlines, f"fanout:{one.entity}", to_ms(one.due)) for one in made]
    bench.keyspace.transact([], members)
    return made


def test_deadlines_are_pulled_that_are_later_than_an_instant(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    on_time, late = deadline(DeadlineKind.RETRY, one.id, 60), deadline(DeadlineKind.STUCK, one.id, 60.001)
    last = deadline(DeadlineKind.LIMIT, one.id, 7_000)
    commit(bench.records, new, arm=(on_time, late, last))
    bench.records.pull_deadlines(at(60), timedelta(seconds=60))
    assert bench.records.due(at(9_999), 10) == [
        deadline(DeadlineKind.STUCK, one.id, 0.001),
        on_time,
        deadline(DeadlineKind.LIMIT, one.id, 6_940),
    ]


def test_each_deadline_is_pulled_once_however_many_there_are(bench: Bench) -> None:
    """Several pages of one due time, and of others that are still later than the instant when pulled."""
    made = armed(bench, 250, 100)
    more = [deadline(DeadlineKind.SETTLE, f"job-{number:03}", 101 + number) for number in range(250)]
    bench.keyspace.transact(
        [], [SetAdd(bench.keys.deadlines, f"settle:{one.entity}", to_ms(one.due)) for one in more]
    )
    bench.records.pull_deadlines(at(50), timedelta(seconds=7))
    found = bench.records.due(at(9_999), 1_000)
    assert {(one.kind, one.entity): one.due for one in found} == {
        (one.kind, one.entity): one.due - timedelta(seconds=7) for one in (*made, *more)
    }


class Meddling:
    """A keyspace in which others are at work between the reading of deadlines and their being moved."""

    def __init__(self, inner: Keyspace, meanwhile: Sequence[Write]) -> None:
        self._inner = inner
        self._meanwhile = list(meanwhile)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def transact(self, checks: Sequence[Check], writes: Sequence[Write], *, grows: bool = False) -> str:
        """First what the others do, then this."""
        self._inner.transact([], self._meanwhile)
        self._meanwhile.clear()
        return self._inner.transact(checks, writes, grows=grows)


def test_what_is_moved_or_gone_meanwhile_is_not_pulled(bench: Bench) -> None:
    gone, moved, stays = armed(bench, 3, 100)
    key = bench.keys.deadlines
    meanwhile: list[Write] = [
        SetRemove(key, f"fanout:{gone.entity}"),
        SetAdd(key, f"fanout:{moved.entity}", to_ms(at(5))),
    ]
    records = RecordStore(Meddling(bench.keyspace, meanwhile))
    records.pull_deadlines(at(50), timedelta(seconds=90))
    assert bench.records.due(at(9_999), 10) == [
        deadline(DeadlineKind.FANOUT, moved.entity, 5),
        deadline(DeadlineKind.FANOUT, stays.entity, 10),
    ]
