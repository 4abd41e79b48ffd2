"""The decisions about a whole job: created, killed, settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from tests.builders import at, deadline, job, killed, task
from titus_celery.core import jobs
from titus_celery.core.decision import Decision, Wake
from titus_celery.core.model import ClusterId, Deadline, DeadlineKind, Job, JobId, KillIntent, StateChange
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

BOB: Final = KillIntent(by="bob", at=at(50))


def over(state: State) -> Job:
    plain = job()
    return replace(plain, history=(*plain.history, StateChange(state=state, at=at(9))))


# ------------------------------------------------------------------------------------------ created


def test_a_new_job_has_a_queued_task_in_each_slot_and_wakes_control() -> None:
    descriptor = job(desired=3).descriptor
    decision = jobs.created(JobId("j"), descriptor, "ann", at(1))
    made = Job(
        id=JobId("j"),
        cluster_id=ClusterId("00000000-0000-4000-8000-000000000001"),
        descriptor=descriptor,
        created_by="ann",
        history=(StateChange(state=State.QUEUED, at=at(1)),),
        slots_made=3,
    )
    tasks = tuple(task(made, slot) for slot in range(3))
    assert decision == Decision(job=made, tasks=tasks, commands=(Wake(),))


def test_slots_count_from_zero_and_attempts_from_one() -> None:
    decision = jobs.created(JobId("j"), job(desired=2).descriptor, "ann", at(1))
    assert [(one.id, one.slot, one.attempt, one.version) for one in decision.tasks] == [
        ("j-0-1", 0, 1, 1),
        ("j-1-1", 1, 1, 1),
    ]


# ------------------------------------------------------------------------------------------ killed


def test_a_kill_is_one_record_under_a_new_intent_and_a_deadline_due_at_once() -> None:
    one = replace(job(), intent=4)
    assert jobs.kill_requested(one, BOB) == Decision(
        job=replace(one, kill=BOB, intent=5),
        arm=(Deadline(kind=DeadlineKind.FANOUT, entity=one.id, due=at(50)),),
        commands=(Wake(),),
    )


def test_a_second_kill_changes_nothing() -> None:
    decision = jobs.kill_requested(killed(job()), BOB)
    assert decision == Decision(why=decision.why)


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED])
def test_what_is_over_is_not_killed(state: State) -> None:
    decision = jobs.kill_requested(over(state), BOB)
    assert decision == Decision(why=decision.why)


# ------------------------------------------------------------------------------------------ settled


def test_a_job_whose_slots_all_ended_well_is_finished() -> None:
    one = replace(job(desired=3), slots_ok=3)
    assert jobs.settled(one, False, at(20)) == Decision(
        job=replace(
            one,
            history=(*one.history, StateChange(state=State.FINISHED, at=at(20))),
            reason=Reason(Code.NORMAL),
        ),
        arm=(deadline(DeadlineKind.ARCHIVE, one.id, 20 + 600),),
        disarm=((DeadlineKind.SETTLE, one.id),),
    )


def test_one_failed_slot_makes_the_job_failed_with_its_first_failure() -> None:
    one = replace(job(), slots_ok=2, slots_failed=1, first_failure="j-1-1: failed: exit code 3")
    after = jobs.settled(one, False, at(20)).job
    assert after is not None
    assert (after.state, str(after.reason)) == (
        State.FAILED,
        "failed: 1 of 3 slots failed; first: j-1-1: failed: exit code 3",
    )


def test_a_killed_job_is_failed_as_killed_by_whom_and_when() -> None:
    one = replace(killed(job(), when=5), slots_failed=3, first_failure="j-1-1: killed: by bob")
    after = jobs.settled(one, False, at(20)).job
    assert after is not None
    assert (after.state, str(after.reason)) == (
        State.FAILED,
        "killed: by bob at 2026-03-01T12:00:05+00:00",
    )


def test_a_kill_that_came_after_every_slot_had_ended_well_leaves_the_job_finished() -> None:
    after = jobs.settled(replace(killed(job()), slots_ok=1), False, at(20)).job
    assert after is not None
    assert (after.state, after.reason) == (State.FINISHED, Reason(Code.NORMAL))


def test_a_job_with_an_open_slot_is_not_settled() -> None:
    assert jobs.settled(job(), True, at(20)).is_empty


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED])
def test_a_job_is_settled_once(state: State) -> None:
    assert jobs.settled(over(state), False, at(20)).is_empty


def test_a_job_never_ends_before_its_last_state_began() -> None:
    one = replace(job(), history=(StateChange(state=State.RUNNING, at=at(30)),), slots_ok=1)
    after = jobs.settled(one, False, at(20)).job
    assert after is not None
    assert after.history[-1] == StateChange(state=State.FINISHED, at=at(30))


def test_a_job_is_archived_ten_minutes_after_the_end_on_its_record() -> None:
    one = replace(job(), history=(StateChange(state=State.RUNNING, at=at(30)),), slots_ok=1)
    assert jobs.settled(one, False, at(20)).arm == (deadline(DeadlineKind.ARCHIVE, one.id, 30 + 600),)
