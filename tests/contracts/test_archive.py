"""Archive: a job that is over becomes one record, and is read as before."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.builders import (
    commit,
    failed,
    finished,
    job,
    killed,
    saved,
)
from tests.contracts.over import behind, ended, forgets_archive, kept_bytes, keys_of, over, told
from tests.contracts.stores import Bench, at_once
from tests.repetition import again
from titus_celery.adapters.archive import CHUNK, Archive
from titus_celery.adapters.keyspace import (
    HashAdd,
    HashSet,
    Keyspace,
    Kind,
    TextSet,
    to_ms,
)
from titus_celery.core.model import Address, JobId
from titus_celery.errors import Conflict, NotFound, StoreCorrupt, StoreUnavailable


def test_an_archived_job_and_its_tasks_are_read_as_before(bench: Bench) -> None:
    one, known = over(bench, 5)
    before = told(bench, one, known)
    assert len(bench.records.finished_tasks(one.id, 100)) == 6
    bench.records.archive(one.id)
    assert told(bench, one, known) == before


def test_jobs_that_are_over_are_read_together_archived_or_not(bench: Bench) -> None:
    early, late = over(bench)[0], over(bench)[0]
    alive = job()
    saved(bench.records, alive)
    bench.records.archive(late.id)
    assert bench.records.jobs_over([late.id, alive.id, job().id, early.id]) == [late, early]
    assert bench.records.jobs_over([]) == []


def test_one_that_cannot_be_read_hides_none_of_the_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    whole, torn, broken = over(bench)[0], over(bench)[0], over(bench)[0]
    bench.records.archive(torn.id)
    bench.keyspace.transact(
        [],
        [
            TextSet(bench.keys.archive(torn.id), b"torn"),
            HashSet(bench.keys.job(broken.id), {"head": "{"}),
        ],
    )
    assert bench.records.jobs_over([torn.id, broken.id, whole.id]) == [whole]
    assert torn.id in caplog.text and broken.id in caplog.text


def test_an_archived_job_is_read_whole(bench: Bench) -> None:
    one, known = over(bench, 5)
    assert bench.records.archived(one.id) is None
    bench.records.archive(one.id)
    found = bench.records.archived(one.id)
    assert found is not None
    assert found[0] == one
    assert found[1][::-1] == bench.records.finished_tasks(one.id, 100)
    assert {each.id for each in found[1]} == {each.id for each in known}


def test_what_is_archived_is_one_record_and_nothing_else(bench: Bench) -> None:
    one, known = over(bench)
    assert len(keys_of(bench, one)) == 2 + len(known)
    bench.records.archive(one.id)
    assert keys_of(bench, one) == [bench.keys.archive(one.id)]
    packed = bench.keyspace.blob(bench.keys.archive(one.id))
    assert packed is not None and kept_bytes(bench) == len(packed)
    assert bench.keyspace.score(bench.keys.over, one.id) == to_ms(one.history[-1].at)


def test_archiving_again_changes_nothing(bench: Bench) -> None:
    one, _ = over(bench)
    bench.records.archive(one.id)
    before = bench.world.dump()
    bench.records.archive(one.id)
    assert bench.world.dump() == before


@again(25)
def test_who_archives_at_once_with_others_does_the_same(bench: Bench) -> None:
    one, known = over(bench)
    before = told(bench, one, known)
    at_once(4, lambda _: bench.records.archive(one.id))
    assert told(bench, one, known) == before
    assert keys_of(bench, one) == [bench.keys.archive(one.id)]
    packed = bench.keyspace.blob(bench.keys.archive(one.id))
    assert packed is not None and kept_bytes(bench) == len(packed)


def test_a_job_that_lives_is_not_archived(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    commit(bench.records, new, [first, second], to=[finished(first), failed(second)])
    before = bench.world.dump()
    bench.records.archive(new.id)
    bench.records.archive(job().id)
    assert bench.world.dump() == before


def test_an_id_that_cannot_be_is_not_archived(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.records.archive(JobId("a/b"))


def test_a_job_that_changed_since_it_was_read_is_not_archived(bench: Bench) -> None:
    one, known = over(bench)
    key = bench.keys.job(one.id)

    def change(what: str, number: int) -> None:
        if (what, number) == ("transact", 1):
            bench.keyspace.transact([], [HashAdd(key, "version", 1)])

    records, _ = behind(bench, change)
    with pytest.raises(Conflict, match=one.id):
        records.archive(one.id)
    assert bench.records.job(one.id)[0] == replace(one, version=one.version + 1)
    assert [bench.records.task(each.id).task for each in known] == known
    assert kept_bytes(bench) == 0


@pytest.mark.parametrize("last", [1, 2, 3])
def test_archiving_that_a_crash_interrupted_loses_nothing_and_is_brought_to_its_end(
    bench: Bench, last: int
) -> None:
    one, known = over(bench, 2 * CHUNK)
    some = known[::99]
    before = told(bench, one, some)

    def crash(what: str, number: int) -> None:
        if what == "transact" and number > last:
            raise StoreUnavailable("pulled")

    records, _ = behind(bench, crash)
    with pytest.raises(StoreUnavailable):
        records.archive(one.id)
    assert told(bench, one, some) == before
    assert len(keys_of(bench, one)) == 1 + len(known) - (last - 1) * CHUNK
    bench.records.archive(one.id)
    assert told(bench, one, some) == before
    assert keys_of(bench, one) == [bench.keys.archive(one.id)]


def test_a_store_that_forgot_the_archive_keeps_what_it_stood_for(bench: Bench) -> None:
    """It restarted between the two writes, and lost its last second."""
    one, known = over(bench)
    before = told(bench, one, known)
    records, _ = behind(bench, forgets_archive(bench, one, 2))
    with pytest.raises(Conflict, match=one.id):
        records.archive(one.id)
    assert told(bench, one, known) == before


def test_a_reader_is_not_disturbed_by_archiving(bench: Bench) -> None:
    """Which tasks there are, and the tasks themselves, are read one after the other."""
    one, known = over(bench)
    before = bench.records.finished_tasks(one.id, 100)

    def archive(what: str, number: int) -> None:
        if (what, number) == ("hashes", 1):
            bench.records.archive(one.id)

    reader, _ = behind(bench, archive)
    assert reader.finished_tasks(one.id, 100) == before and len(before) == len(known)


def test_a_task_is_read_between_the_two_steps_of_archiving(bench: Bench) -> None:
    one, known = over(bench)

    def look(what: str, number: int) -> None:
        if (what, number) == ("transact", 2):
            seen.extend(bench.records.task(each.id) for each in known)

    seen: list[Any] = []
    behind(bench, look)[0].archive(one.id)
    assert [(view.job, view.task) for view in seen] == [(one, each) for each in known]


def test_no_transaction_of_a_large_job_is_large(bench: Bench) -> None:
    """Each blocks the server for as long as it takes."""
    one, _ = over(bench, 1_000)
    records, door = behind(bench, lambda what, number: None)
    records.archive(one.id)
    Archive(cast(Keyspace, door)).remove(ended(one))
    assert keys_of(bench, one) == []
    assert max(len(writes) for writes in door.written) == CHUNK


def test_what_was_decided_before_the_archiving_is_refused(bench: Bench) -> None:
    one, known = over(bench)
    bench.records.archive(one.id)
    before = bench.world.dump()
    for late in ({"to": [replace(known[0], address=Address(ip="1.1.1.1"))]}, {"job": killed(one)}):
        with pytest.raises(Conflict, match=one.id):
            commit(bench.records, one, known[:1], **cast(Any, late))
    assert bench.world.dump() == before


def test_an_id_next_to_an_archived_job_is_not_found(bench: Bench) -> None:
    one, known = over(bench)
    bench.records.archive(one.id)
    for id in (f"{one.id}-0-3", f"{one.id}-9-1", f"{known[0].id}1", f"{job().id}-0-1"):
        with pytest.raises(NotFound):
            bench.records.task(cast(Any, id))


@pytest.mark.parametrize("packed", [b"", b"rubbish", zlib.compress(b"{}" * 99)[:-2], zlib.compress(b"{}")])
def test_an_archive_that_cannot_be_read_is_named(bench: Bench, packed: bytes) -> None:
    one, _ = over(bench)
    bench.records.archive(one.id)
    key = bench.keys.archive(one.id)
    bench.keyspace.transact([], [TextSet(key, packed)])
    reads: list[Callable[[], object]] = [
        lambda: bench.records.job(one.id),
        lambda: Archive(bench.keyspace).remove(ended(one)),
    ]
    for read in reads:
        before = bench.world.dump()
        with pytest.raises(StoreCorrupt) as caught:
            read()
        assert caught.value.key == key
        assert bench.world.dump() == before
    bench.spoil(key, Kind.TEXT)
    with pytest.raises(StoreCorrupt) as caught:
        bench.records.job(one.id)
    assert caught.value.key == key
