"""What is over is kept, counted, and goes as a whole."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import pytest

from tests.builders import (
    at,
    commit,
    finished,
    job,
    saved,
)
from tests.contracts.over import behind, ended, forgets_archive, kept_bytes, keys_of, over, told
from tests.contracts.stores import Bench, at_once
from tests.repetition import again
from titus_celery.adapters.archive import CHUNK, Archive
from titus_celery.adapters.keyspace import (
    HashSet,
    Keyspace,
    SetAdd,
    to_ms,
)
from titus_celery.core import jobs as deciding
from titus_celery.core.retention import Ended
from titus_celery.errors import Conflict, NotFound, PositionLost, StoreCorrupt
from titus_celery.ports import Chunk, Source


def test_what_is_kept_comes_oldest_end_first(bench: Bench) -> None:
    archive = Archive(bench.keyspace)
    assert (archive.kept(5).oldest, archive.kept(5).jobs, archive.kept(5).bytes) == ([], 0, 0)
    ends = []
    for when in (70, 50, 60):
        new = job()
        (one,) = saved(bench.records, new)
        commit(bench.records, new, [one], to=[finished(one, when=5)])
        new = bench.records.job(new.id)[0]
        commit(bench.records, new, job=deciding.settled(new, False, at(when)).job)
        ends.append(Ended(new.id, at(when)))
    last, first, middle = ends
    saved(bench.records, job())
    bench.records.archive(middle.job_id)
    before, kept, after = bench.records.now(), archive.kept(2), bench.records.now()
    packed = bench.keyspace.blob(bench.keys.archive(middle.job_id)) or b""
    assert (kept.oldest, kept.jobs, kept.bytes) == ([first, middle], 3, len(packed)) and packed
    assert before <= kept.now <= after
    assert archive.kept(9).oldest == [first, middle, last]


@pytest.mark.parametrize("is_archived", [True, False])
def test_a_job_that_is_let_go_leaves_nothing_behind(bench: Bench, is_archived: bool) -> None:
    other, others = over(bench)
    bench.records.archive(other.id)
    start = kept_bytes(bench)
    one, known = over(bench)
    if is_archived:
        bench.records.archive(one.id)
    bench.outputs.append(known[1].id, [Chunk(0, Source.STDOUT, b"x")])
    size = kept_bytes(bench) - start
    freed = Archive(bench.keyspace).remove(ended(one))
    assert freed.tasks == len(known) and freed.bytes == size if is_archived else freed.bytes > 0
    assert keys_of(bench, one) == [] and kept_bytes(bench) == start
    assert one.id not in str(Archive(bench.keyspace).kept(10).oldest)
    assert [due.entity for due in bench.records.due(at(10**7), 10)] == [other.id]
    for each in known:
        with pytest.raises(NotFound):
            bench.records.task(each.id)
    with pytest.raises(NotFound):
        bench.records.job(one.id)
    assert bench.records.finished_tasks(one.id, 10) == []
    assert told(bench, other, others)[0] == other


def test_a_job_is_found_until_all_of_it_is_gone(bench: Bench) -> None:
    one, known = over(bench)
    steps: list[list[object]] = []
    before = told(bench, one, known)
    _, door = behind(bench, lambda what, _: steps.append(told(bench, one, known)))
    Archive(cast(Keyspace, door)).remove(ended(one))
    assert len(steps) > 5 and all(step == before for step in steps)


@again(25)
def test_of_those_who_remove_a_job_one_does(bench: Bench) -> None:
    one, _ = over(bench)
    bench.records.archive(one.id)

    def remove(_: int) -> bool:
        try:
            Archive(bench.keyspace).remove(ended(one))
        except Conflict:
            return False
        return True

    assert sum(at_once(4, remove)) == 1
    assert kept_bytes(bench) == 0


def test_a_job_whose_archive_the_store_forgot_meanwhile_is_not_removed(bench: Bench) -> None:
    """It has the job again, which goes at another time."""
    one, known = over(bench)
    at_last = 4
    _, door = behind(bench, forgets_archive(bench, one, at_last))
    with pytest.raises(Conflict, match=one.id):
        Archive(cast(Keyspace, door)).remove(ended(one))
    assert len(door.written) == at_last - 1
    assert bench.records.job(one.id)[0] == one
    assert Archive(bench.keyspace).kept(9).oldest == [ended(one)]
    assert len(known) <= CHUNK


def test_an_entry_for_which_there_is_nothing_goes(bench: Bench) -> None:
    gone = job()
    bench.keyspace.transact([], [SetAdd(bench.keys.over, gone.id, to_ms(at(1)))])
    assert Archive(bench.keyspace).remove(Ended(gone.id, at(1))).tasks == 0
    assert Archive(bench.keyspace).kept(1).jobs == 0


def test_a_job_that_lives_is_never_removed(bench: Bench) -> None:
    new = job(desired=2)
    made = saved(bench.records, new, 2)
    bench.keyspace.transact([], [SetAdd(bench.keys.over, new.id, to_ms(at(1)))])
    before = bench.world.dump()
    with pytest.raises(StoreCorrupt, match="alive"):
        Archive(bench.keyspace).remove(Ended(new.id, at(1)))
    assert bench.world.dump() == before
    assert bench.records.open_tasks(new.id) == list(made)


def test_a_broken_sum_is_named(bench: Bench) -> None:
    bench.keyspace.transact([], [HashSet(bench.keys.kept, {"bytes": "many"})])
    with pytest.raises(StoreCorrupt) as caught:
        Archive(bench.keyspace).kept(1)
    assert caught.value.key == bench.keys.kept


def test_a_log_that_is_too_large_loses_its_beginning_and_readers_hear_of_it(bench: Bench) -> None:
    start = bench.records.end()
    for number in range(40):
        saved(bench.records, job(desired=50, created=number), 50)
    Archive(bench.keyspace).trim_log(2**40)
    assert len(bench.records.read(start, 10_000, timedelta(0))) == 40 * 51
    end = bench.records.end()
    Archive(bench.keyspace).trim_log(100_000)
    with pytest.raises(PositionLost):
        bench.records.read(start, 1, timedelta(0))
    assert bench.records.end() == end and bench.records.read(end, 1, timedelta(0)) == []
    assert bench.keyspace.last_entry(bench.keys.log) is not None
