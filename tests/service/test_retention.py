"""What is over: archived, let go, and never in the way of what lives."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import commit, deadline, replacement, to_be_retried
from tests.service.control import ahead
from tests.service.place import EVERYTHING, KEYS, Place
from tests.service.world import ANN, LIMITS, World, a_job
from titus_celery.adapters.archive import Archive
from titus_celery.adapters.keyspace import HashSet
from titus_celery.adapters.leases import LeaseStore
from titus_celery.bootstrap import ControlParts
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import RetryPolicy
from titus_celery.core.lifecycle import killed
from titus_celery.core.model import Address, DeadlineKind, Job, JobId, KillIntent, Task, TaskId
from titus_celery.core.retention import Ended, Freed, Kept
from titus_celery.core.states import State
from titus_celery.errors import (
    FailedPrecondition,
    NotFound,
    PositionLost,
    StoreCorrupt,
)
from titus_celery.service import retention as passes
from titus_celery.service.deadlines import FINISHED_KEPT
from titus_celery.service.retention import Retention
from titus_celery.service.timer import Timer
from titus_celery.tasks import control
from titus_celery.tasks.wired import wire, wired

# ------------------------------------------------------------------------------------------------- archiving


def test_a_job_is_archived_ten_minutes_after_its_end_and_found_as_before() -> None:
    place = Place()
    id = place.over(3)
    before = place.jobs.find(id)
    assert len(before.tasks) == 3
    place.later(9 * 60 + 59)
    assert not place.is_archived(id)
    place.later(1)
    assert place.is_archived(id)
    assert place.jobs.find(id) == before
    assert [place.jobs.find_task(task.id) for task in before.tasks] == list(before.tasks)
    assert place.records.next_due() is None


def test_archiving_that_failed_is_done_by_the_next_sweep() -> None:
    place = Place()
    id = place.over()
    key = KEYS.task(f"{id}-0-1")
    (fields,), _ = place.keyspace.hashes([key])
    place.keyspace.transact([], [HashSet(key, {"record": "rubbish"})])
    with pytest.raises(StoreCorrupt):
        place.later(600)
    assert not place.is_archived(id)
    place.keyspace.transact([], [HashSet(key, fields)])
    place.later(1)
    assert place.is_archived(id)


def test_who_wants_something_of_what_is_archived_hears_that_it_is_over_and_nothing_is_written() -> None:
    place = Place()
    id = place.over()
    task_id = TaskId(f"{id}-0-1")
    place.later(600)
    assert place.is_archived(id)
    before = place.keyspace.dump()
    with pytest.raises(FailedPrecondition, match="FAILED"):
        place.jobs.kill(id, ANN)
    with pytest.raises(FailedPrecondition, match="FAILED"):
        place.jobs.kill_task(task_id, ANN)
    decided: list[Task] = []

    def late(job: Job, task: Task, now: object) -> Decision:
        decided.append(task)
        return killed(job, task, KillIntent(by="late", at=place.now), place.now)

    assert place.writes.on_task(task_id, late).is_empty
    assert [task.reason for task in decided] == [place.task(task_id).reason]
    assert place.keyspace.dump() == before


def test_what_was_decided_before_the_archiving_is_decided_again_and_comes_to_nothing() -> None:
    place = Place()
    id = place.over()
    seen: list[State] = []

    def slow(job: Job, task: Task, now: object) -> Decision:
        if not seen:
            place.later(600)
        seen.append(task.state)
        if len(seen) > 1:
            return Decision(why="it is over")
        return Decision(tasks=(replace(task, address=Address(ip="1.2.3.4")),))

    assert place.writes.on_task(TaskId(f"{id}-0-1"), slow).is_empty
    assert seen == [State.FAILED, State.FAILED]
    assert place.task(TaskId(f"{id}-0-1")).address.ip == ""


def test_a_late_copy_of_the_order_for_an_archived_task_starts_nothing() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()
    run = host.carry(order)
    run.until(State.RUNNING)
    world.release(run, order.task_id)
    world.sweep()
    assert world.job(id).state is State.FINISHED
    world.sleep(600)
    world.sweep()
    assert world.keyspace.blob(KEYS.archive(id)) is not None
    before, found = world.keyspace.dump(), world.jobs.find(id)
    assert host.carry(order).end() is None
    assert host.phase(order.task_id) is None
    assert (world.keyspace.dump(), world.jobs.find(id)) == (before, found)


# ------------------------------------------------------------------------------------------------- retention


def test_a_job_goes_once_it_is_too_old_and_not_before() -> None:
    place = Place()
    id = place.over()
    younger = place.over()
    place.later(600)
    ended = place.job(id).history[-1].at
    place.now = ended + timedelta(days=15) - timedelta(milliseconds=1)
    place.retention().run()
    assert place.is_kept(id)
    place.now += timedelta(milliseconds=1)
    assert place.retention().run() is False
    assert (place.is_kept(id), place.is_kept(younger)) == (False, True)
    with pytest.raises(NotFound):
        place.jobs.find_task(TaskId(f"{id}-0-1"))
    with pytest.raises(NotFound):
        place.jobs.kill(id, ANN)


def test_of_too_many_the_oldest_by_end_go_archived_or_not() -> None:
    place = Place()
    first_created = place.create(a_job())
    ids = [place.over() for _ in range(2)]
    place.later(600)
    ids += [place.over() for _ in range(2)]
    place.jobs.kill(first_created, ANN)
    place.sweep()
    place.retention(jobs=5).run()
    assert all(map(place.is_kept, [*ids, first_created]))
    place.retention(jobs=2).run()
    assert [place.is_kept(id) for id in [*ids, first_created]] == [False, False, False, True, True]


def test_of_too_much_the_oldest_go_until_it_is_little_enough() -> None:
    place = Place()
    ids = [place.over(20) for _ in range(4)]
    place.later(600)
    size = place.archive.kept(0).bytes
    place.retention(bytes=size).run()
    assert all(map(place.is_kept, ids))
    place.retention(bytes=size - 1).run()
    assert [place.is_kept(id) for id in ids] == [False, True, True, True]
    place.retention(bytes=size // 2 + 10).run()
    assert [place.is_kept(id) for id in ids] == [False, False, True, True]
    assert place.archive.kept(0).bytes <= size // 2 + 10


def test_what_lives_is_never_let_go() -> None:
    place = Place()
    alive = place.create(a_job(2))
    over = place.over()
    place.now += timedelta(days=400)
    assert place.retention(jobs=1, bytes=1, age=timedelta(0)).run() is False
    assert (place.is_kept(alive), place.is_kept(over)) == (True, False)
    assert place.states(alive) == {"0-1": "QUEUED", "1-1": "QUEUED"}


def test_a_broken_job_is_passed_over_and_told_of() -> None:
    place = Place()
    ids = [place.over() for _ in range(4)]
    place.keyspace.transact([], [HashSet(KEYS.job(ids[0]), {"head": "rubbish"})])
    with pytest.raises(StoreCorrupt, match=ids[0]):
        place.retention(jobs=2).run()
    assert [place.is_kept(id) for id in ids[1:]] == [False, False, True]


class Counted(Archive):
    """Lets jobs go that never were: so many tasks each, so many jobs in all."""

    def __init__(self, place: Place, jobs: int, tasks: int) -> None:
        super().__init__(place.keyspace)
        self._jobs, self._tasks = jobs, tasks
        self.removed: list[Ended] = []

    def kept(self, limit: int) -> Kept:
        left = self._jobs - len(self.removed)
        now = self._keyspace.now()
        return Kept(oldest=[Ended(JobId("j"), now)] * min(limit, left), jobs=left, bytes=left, now=now)

    def remove(self, ended: Ended) -> Freed:
        self.removed.append(ended)
        return Freed(bytes=1, tasks=self._tasks)


@pytest.mark.parametrize(
    ("jobs", "tasks", "removed"),
    [
        (passes.JOBS_MAX + 1, 0, passes.JOBS_MAX),
        (passes.JOBS_MAX, passes.TASKS_MAX // 10, 10),
        (passes.JOBS_MAX, passes.TASKS_MAX, 1),
    ],
)
def test_a_pass_is_bounded_and_the_next_tick_goes_on(jobs: int, tasks: int, removed: int) -> None:
    place = Place()
    counted = Counted(place, jobs, tasks)
    keep = replace(EVERYTHING, jobs=0)
    retention = Retention(retained=counted, leases=LeaseStore(place.keyspace), keep=keep, log_bytes_max=2**40)
    retention.when_due()
    assert len(counted.removed) == removed < jobs
    retention.when_due()
    assert len(counted.removed) == min(2 * removed, jobs)


def test_while_nothing_is_left_over_all_controls_together_make_a_pass_every_ten_seconds() -> None:
    place = Place()
    ids = [place.over() for _ in range(3)]
    one, other = place.retention(jobs=2), place.retention(jobs=1)
    one.when_due()
    other.when_due()
    one.when_due()
    assert [place.is_kept(id) for id in ids] == [False, True, True]
    place.now += timedelta(seconds=10, milliseconds=1)
    other.when_due()
    assert [place.is_kept(id) for id in ids] == [False, False, True]


def test_a_control_that_finds_another_at_it_leaves_it_the_rest() -> None:
    """Else what it counted before would make it remove more than is too much."""
    place = Place()
    ids = [place.over() for _ in range(4)]

    class Slow(Archive):
        def kept(self, limit: int) -> Kept:
            known = super().kept(limit)
            place.retention(jobs=2).run()
            return known

    retention = Retention(
        retained=Slow(place.keyspace),
        leases=LeaseStore(place.keyspace),
        keep=replace(EVERYTHING, jobs=2),
        log_bytes_max=2**40,
    )
    assert retention.run() is False
    assert [place.is_kept(id) for id in ids] == [False, False, True, True]


def test_a_log_that_takes_too_much_is_trimmed_by_a_pass() -> None:
    place = Place()
    start = place.records.end()
    for _ in range(10):
        place.create(a_job(100))
    place.retention().run()
    assert len(place.records.read(start, 10_000, timedelta(0))) == 1_010
    place.retention(log_bytes_max=50_000).run()
    with pytest.raises(PositionLost):
        place.records.read(start, 1, timedelta(0))


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_tick_also_lets_go_even_if_its_sweep_meets_a_broken_record(is_broken: bool) -> None:
    place = Place()
    id, younger = place.over(), place.over()
    place.later(600)
    if is_broken:
        broken = place.over()
        place.keyspace.transact([], [HashSet(KEYS.job(broken), {"head": "rubbish"})])
        place.sleep(600)
    parts = ControlParts(
        place.control,
        ahead(place.keyspace, place.writes, place.resolver, LIMITS, place),
        place.retention(jobs=2 if is_broken else 1),
        Timer(place.records, place.control),
    )
    wire(control=parts)
    try:
        with pytest.raises(StoreCorrupt) if is_broken else nullcontext():
            control.sweep()
    finally:
        wired().control_parts = None
    assert (place.is_kept(id), place.is_kept(younger)) == (False, True)


# ------------------------------------------------------------------------------------------- long lives


def test_a_job_that_lives_long_lets_go_of_the_oldest_tasks_behind_it() -> None:
    """Control is told so by the commit that replaces a slot's task for the sixteenth time."""
    world = World()
    world.host()
    id = world.create(a_job(retry=RetryPolicy(retries=10_000)))
    new = world.job(id)
    (one,) = world.records.open_tasks(id)
    for _ in range(1_038):
        (one,) = commit(world.records, new, [one], to=[to_be_retried(one, due=1, when=1)])
        _, one = commit(world.records, new, [one], to=replacement(one, when=1))
    retry = deadline(DeadlineKind.RETRY, one.id, due=2)
    commit(world.records, new, [one], to=[to_be_retried(one, due=2, when=1)], arm=(retry,))
    world.sleep(2)
    world.sweep()
    (standing,) = world.records.open_tasks(id)
    assert standing.attempt == 1_040
    # And the last that was replaced, which control cannot tell from what a slot ended with.
    assert len(world.records.finished_tasks(id, 5_000)) == FINISHED_KEPT + 1
