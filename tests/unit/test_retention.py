"""Which of the jobs that are over is to go: exactly at each bound, and by each bound alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.builders import at, job
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.retention import Ended, Freed, Keep, Kept, is_too_much, prunable

KEEP = Keep(age=timedelta(seconds=100), jobs=10, bytes=1_000)


@pytest.mark.parametrize(
    ("age", "jobs", "size", "goes"),
    [
        (99.999, 10, 1_000, False),
        (100, 10, 1_000, True),
        (101, 1, 0, True),
        (99.999, 11, 1_000, True),
        (0, 11, 0, True),
        (99.999, 10, 1_001, True),
        (0, 1, 1_001, True),
        (0, 1, 0, False),
    ],
)
def test_the_oldest_goes_at_the_first_bound_that_is_exceeded(
    age: float, jobs: int, size: int, goes: bool
) -> None:
    oldest = Ended(job().id, at(0))
    kept = Kept(oldest=[oldest], jobs=jobs, bytes=size, now=at(age))
    assert is_too_much(kept, oldest, KEEP) is goes


def test_what_went_counts_no_more() -> None:
    kept = Kept(oldest=[Ended(job().id, at(0))], jobs=11, bytes=1_001, now=at(1))
    assert kept.less(Freed(bytes=400, tasks=3)) == Kept(oldest=kept.oldest, jobs=10, bytes=601, now=at(1))


def ended(*places: tuple[int, int]) -> list[TaskId]:
    return [task_id(JobId("7e1c0d52-0000-4000-8000-000000000007"), slot, attempt) for slot, attempt in places]


def test_of_a_living_job_the_oldest_tasks_that_were_replaced_may_go() -> None:
    tasks = ended((0, 1), (0, 2), (0, 3), (0, 4))
    assert prunable(tasks, 1) == tasks[:2]
    assert prunable(tasks, 3) == []
    assert prunable([], 0) == []


def test_what_a_slot_ended_with_stays_however_old_it_is() -> None:
    tasks = ended((0, 1), (1, 1), (2, 9), (2, 10), (2, 11))
    assert prunable(tasks, 0) == tasks[2:4]
