"""What committing a decision means: what is written, and what observers hear of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import at, finished, job, killed, task
from titus_celery.core import jobs
from titus_celery.core.decision import (
    NOTHING,
    Change,
    Decision,
    JobAdded,
    JobEnded,
    TaskChange,
    TaskUpdated,
    Wake,
    change_of,
)
from titus_celery.core.model import Capacity, Deadline, DeadlineKind, JobId, KillIntent, StateChange
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State


def test_a_new_job_is_heard_before_its_tasks_in_slot_order() -> None:
    decision = jobs.created(JobId("j"), job(desired=2).descriptor, "ann", at(0))
    assert decision.job is not None
    change = change_of(None, (), decision)
    assert change.notifications == (JobAdded(decision.job), *(TaskUpdated(one) for one in decision.tasks))
    assert [(each.before, each.after.version) for each in change.tasks] == [(None, 1), (None, 1)]
    assert (change.job_before, change.job_after) == (None, decision.job)


def test_a_changed_task_is_written_and_heard_under_its_next_version() -> None:
    of = job()
    before = replace(task(of), version=4)
    after = replace(before, reason=Reason(Code.WAITING, "no room"))
    assert change_of(of, (before,), Decision(tasks=(after,))) == Change(
        job_id=of.id,
        job_before=of,
        job_after=None,
        tasks=(TaskChange(before, replace(after, version=5)),),
        notifications=(TaskUpdated(replace(after, version=5)),),
    )


def test_a_task_that_stays_as_it_was_is_neither_written_nor_heard() -> None:
    of = job()
    one, other = task(of, 0), task(of, 1)
    change = change_of(of, (one, other), Decision(tasks=(one, finished(other))))
    assert [each.after.id for each in change.tasks] == [other.id]
    assert len(change.notifications) == 1


def test_nothing_is_heard_of_a_change_of_deadlines() -> None:
    of = job()
    arm = (Deadline(kind=DeadlineKind.RETRY, entity="j-0-1", due=at(1)),)
    disarm = ((DeadlineKind.LIMIT, "j-0-1"),)
    room = Capacity(cpu_millis=1, memory_bytes=2, slots=3)
    assert change_of(of, (), Decision(arm=arm, disarm=disarm, room=room)) == Change(
        job_id=of.id, job_before=of, job_after=None, arm=arm, disarm=disarm, room=room
    )


def test_a_kill_is_written_under_the_next_version_and_not_heard() -> None:
    of = replace(job(), version=2)
    change = change_of(of, (), jobs.kill_requested(of, KillIntent(by="bob", at=at(1))))
    assert change.job_after is not None
    assert (change.job_after.version, change.job_after.intent) == (3, 2)
    assert change.notifications == ()


def test_a_changed_definition_is_heard_as_the_job_anew() -> None:
    of = job()
    after = replace(of, descriptor=replace(of.descriptor, app_name="other"))
    change = change_of(of, (), Decision(job=after))
    assert change.notifications == (JobAdded(replace(after, version=2)),)


def test_the_end_of_a_job_is_the_last_that_is_heard() -> None:
    of = job()
    last = task(of)
    after = replace(of, history=(*of.history, StateChange(state=State.FAILED, at=at(9))))
    change = change_of(of, (last,), Decision(job=after, tasks=(finished(last),)))
    assert [type(heard) for heard in change.notifications] == [TaskUpdated, JobEnded]
    assert change.notifications[-1] == JobEnded(replace(after, version=2))


def test_a_job_ends_once() -> None:
    of = job()
    ended = replace(of, history=(*of.history, StateChange(state=State.FAILED, at=at(9))))
    assert change_of(ended, (), Decision(job=killed(ended))).notifications == ()


def test_a_job_that_is_created_and_over_at_once_is_heard_as_both() -> None:
    of = job()
    ended = replace(of, history=(*of.history, StateChange(state=State.FAILED, at=at(9))))
    assert change_of(None, (), Decision(job=ended)).notifications == (JobAdded(ended), JobEnded(ended))


def test_tasks_without_their_job_are_refused() -> None:
    with pytest.raises(ValueError, match="job they belong to"):
        change_of(None, (), Decision(tasks=(task(job()),)))


@pytest.mark.parametrize(
    "decision",
    [
        Decision(job=job()),
        Decision(tasks=(task(job()),)),
        Decision(arm=(Deadline(kind=DeadlineKind.RETRY, entity="j-0-1", due=at(1)),)),
        Decision(disarm=((DeadlineKind.LIMIT, "j-0-1"),)),
    ],
)
def test_whatever_must_be_written_makes_a_decision_one(decision: Decision) -> None:
    assert not decision.is_empty


@pytest.mark.parametrize("decision", [NOTHING, Decision(why="it is over"), Decision(commands=(Wake(),))])
def test_words_and_commands_alone_need_no_commit(decision: Decision) -> None:
    assert decision.is_empty
