"""A store whose memory is nearly used up takes in nothing new, and lets everything end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.service.place import Place, Resolver
from tests.service.world import ANN, LIMITS, SameIds, Store, a_job
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import RetryPolicy
from titus_celery.core.lifecycle import ended
from titus_celery.core.model import (
    Job,
    Task,
    TaskId,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import InvalidRequest, StoreFull
from titus_celery.ports import Memory
from titus_celery.service.jobs import Jobs


@pytest.mark.parametrize(
    ("used", "maximum", "is_taken"),
    [(799, 1_000, True), (800, 1_000, False), (1_500, 1_000, False), (10**12, 0, True)],
)
def test_from_four_fifths_of_the_memory_on_nothing_new_is_taken_in(
    used: int, maximum: int, is_taken: bool
) -> None:
    place = Place()
    place.keyspace.used_and_maximum = (used, maximum)
    before = place.keyspace.dump()
    if is_taken:
        assert place.job(place.create()).state is State.QUEUED
        return
    with pytest.raises(StoreFull) as refusal:
        place.create()
    assert (refusal.value.used, refusal.value.maximum) == (used, maximum)
    assert place.keyspace.dump() == before


def test_a_full_store_still_ends_and_kills_and_tries_again() -> None:
    place = Place()
    id = place.create(a_job(2, retry=RetryPolicy(retries=1)))
    place.keyspace.used_and_maximum = (2_000, 1_000)
    place.writes.on_task(TaskId(f"{id}-0-1"), lambda job, task, now: _lost(job, task, place))
    place.later(60)
    assert place.states(id) == {"0-1": "FAILED", "0-2": "QUEUED", "1-1": "QUEUED"}
    place.jobs.kill(id, ANN)
    place.sweep()
    assert place.job(id).state is State.FAILED
    place.later(600)
    assert place.is_archived(id)


def test_what_is_wrong_with_a_request_is_told_also_by_a_full_store() -> None:
    place = Place()
    place.keyspace.used_and_maximum = (1_000, 1_000)
    with pytest.raises(InvalidRequest):
        place.create(a_job(0))


def test_the_memory_is_asked_for_at_most_once_a_second() -> None:
    place = Place()
    asked: list[timedelta] = []
    passed = timedelta(0)

    class Counting(Store):
        def memory(self) -> Memory:
            asked.append(passed)
            return super().memory()

    class Clock:
        def monotonic(self) -> timedelta:
            return passed

    clusters = ClusterStore(place.keyspace)
    jobs = Jobs(Counting(place.keyspace), place.writes, clusters, Resolver(), SameIds(), LIMITS, Clock())
    for milliseconds in (0, 10, 999, 1_000, 1_500, 2_000):
        passed = timedelta(milliseconds=milliseconds)
        jobs.create(a_job(), ANN)
    assert [at.total_seconds() for at in asked] == [0, 1, 2]
    place.keyspace.used_and_maximum = (900, 1_000)
    passed = timedelta(seconds=3)
    with pytest.raises(StoreFull):
        jobs.create(a_job(), ANN)


def _lost(job: Job, task: Task, place: Place) -> Decision:
    return ended(job, task, Reason(Code.LOST, "as told"), place.now)
