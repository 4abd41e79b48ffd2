"""Records: deadlines are read when due, and go with the commit that acts on them."""

from __future__ import annotations

from tests.builders import (
    at,
    commit,
    deadline,
    job,
    saved,
)
from tests.contracts.stores import Bench
from titus_celery.adapters.keyspace import SetAdd, to_ms
from titus_celery.core.model import DeadlineKind


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
    bench.keyspace.transact([], [SetAdd(bench.keys.deadlines, "cron:x", to_ms(at(1)))])
    assert bench.records.due(at(9), 10) == []
    # Nobody is woken for what nobody here can act on; what is known behind it is found.
    assert bench.records.next_due() is None
    bench.keyspace.transact([], [SetAdd(bench.keys.deadlines, "settle:j", to_ms(at(2)))])
    assert bench.records.next_due() == at(2)
