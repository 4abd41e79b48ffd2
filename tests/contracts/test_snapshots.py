"""All jobs as they stand, in chunks, on every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import at, commit, dispatched, failed, job, replacement, saved, to_be_retried
from tests.contracts.over import over
from tests.contracts.stores import Bench
from titus_celery.adapters.keyspace import HashSet
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.core.model import Capacity, Job, StateChange
from titus_celery.core.shelf import Order
from titus_celery.core.states import State

ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)


def made_at(seconds: float, number: int) -> Job:
    plain = job(number)
    return replace(plain, history=(StateChange(state=State.QUEUED, at=at(seconds)),))


def chunks(bench: Bench, limit: int) -> list[list[str]]:
    """The ids of all live jobs as they come."""
    store = SnapshotStore(bench.keyspace)
    after: Order | None = None
    found: list[list[str]] = []
    while True:
        summaries, after = store.live(after, limit, 10)
        if after is None:
            return found
        found.append([str(each.job.id) for each in summaries])


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_live_jobs_come_once_each_by_creation_then_id(bench: Bench, limit: int) -> None:
    """Several of one moment, too, so that a place is a time and an id."""
    jobs = [made_at(seconds, number) for seconds, number in ((5, 3), (5, 9), (5, 1), (2, 7), (9, 2), (5, 8))]
    for one in jobs:
        saved(bench.records, one)
    order = sorted(jobs, key=lambda one: (one.created_at, one.id))
    assert [id for chunk in chunks(bench, limit) for id in chunk] == [one.id for one in order]


def test_a_job_that_goes_while_one_reads_hides_no_other(bench: Bench) -> None:
    jobs = [made_at(number, number) for number in range(1, 7)]
    made = [saved(bench.records, one) for one in jobs]
    store = SnapshotStore(bench.keyspace)
    first, after = store.live(None, 2, 10)
    end(bench, jobs[0], made[0][0].id)
    rest: list[str] = []
    while after is not None:
        found, after = store.live(after, 2, 10)
        rest += [each.job.id for each in found]
    assert [each.job.id for each in first] + rest == [one.id for one in jobs]


def end(bench: Bench, one: Job, task_id: str) -> None:
    (task,) = bench.records.open_tasks(one.id)
    assert task.id == task_id
    commit(bench.records, one, [task], to=[failed(task)])
    now = bench.records.job(one.id)[0]
    over_at = StateChange(state=State.FAILED, at=at(60))
    commit(bench.records, now, job=replace(now, history=(*now.history, over_at)))


def test_a_job_comes_with_its_open_tasks_and_the_newest_of_the_others(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    ended = []
    for due in (20, 30, 40):
        (first,) = commit(
            bench.records, new, [first], to=[to_be_retried(dispatched(first), due, due - 10)], room=ROOM
        )
        old, first = commit(bench.records, new, [first], to=replacement(first, due))
        ended.append(old)
    ((summary,), _) = SnapshotStore(bench.keyspace).live(None, 10, 2)
    assert summary.job == bench.records.job(new.id)[0]
    assert summary.tasks == (first, second, *reversed(ended[1:]))


def test_jobs_that_are_over_come_by_end_archived_or_not(bench: Bench) -> None:
    jobs = [over(bench)[0] for _ in range(3)]
    bench.records.archive(jobs[1].id)
    store = SnapshotStore(bench.keyspace)
    found: list[Job] = []
    after: Order | None = None
    while True:
        chunk, after = store.over(after, 2)
        if after is None:
            break
        found += chunk
    assert sorted(found, key=lambda one: one.id) == sorted(jobs, key=lambda one: one.id)


def test_a_broken_record_hides_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    first, second = made_at(1, 1), made_at(2, 2)
    for one in (first, second):
        saved(bench.records, one)
    bench.keyspace.transact([], [HashSet(bench.keys.job(first.id), {"head": "{"})])
    assert chunks(bench, 10) == [[second.id]]
    assert first.id in caplog.text


def test_pruning_leaves_the_newest_ended_tasks_and_every_open_one(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    ended = []
    for number in range(250):
        due = 20 + number
        (one,) = commit(bench.records, new, [one], to=[to_be_retried(one, due, due - 1)])
        old, one = commit(bench.records, new, [one], to=replacement(one, due))
        ended.append(old)
    bench.records.prune(new.id, 30)
    assert bench.records.finished_tasks(new.id, 1_000) == ended[-1:-32:-1]
    assert bench.records.open_tasks(new.id) == [one]
    before = bench.world.dump()
    bench.records.prune(new.id, 30)
    assert bench.world.dump() == before
