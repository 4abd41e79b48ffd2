"""When a Mantis job is RUNNING, and when it ends by itself (docs/semantics.md A6, A15, B6.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import at, job
from tests.unit.clusters import ID, described, mantis, seconds, up, worker
from titus_celery.core import mantis as deciding
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.decision import Wake
from titus_celery.core.descriptor import JobType
from titus_celery.core.jobs import created, kill_requested, settled
from titus_celery.core.model import Deadline, DeadlineKind, Job, JobId, KillIntent, StateChange
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State


def in_state(one: Job, state: State) -> Job:
    return replace(one, history=(*one.history, StateChange(state=state, at=at(2))))


# ------------------------------------------------------------------------------------------ RUNNING


def test_it_runs_once_every_worker_of_every_stage_does() -> None:
    one = in_state(mantis(2, 1), State.STARTING)
    workers = [up(worker(one, 0, 0)), up(worker(one, 0, 1)), worker(one, 1, 0)]
    assert deciding.moved_on(one, workers, at(9)).is_empty
    decision = deciding.moved_on(one, [*workers[:2], up(workers[2])], at(9))
    assert decision.job is not None
    assert decision.job.history == (*one.history, StateChange(state=State.RUNNING, at=at(9)))
    assert decision.arm == (Deadline(kind=DeadlineKind.KEEP, entity=ID, due=at(9)),)
    assert decision.disarm == ((DeadlineKind.PROGRESS, one.id),)
    assert decision.commands == (Wake(),)


def test_workers_of_one_stage_do_not_stand_for_those_of_another() -> None:
    one = mantis(2, 1)
    assert deciding.moved_on(one, [up(worker(one, 0, slot)) for slot in range(3)], at(9)).is_empty


def test_a_worker_that_ended_well_before_all_ran_is_not_waited_for() -> None:
    one = mantis(2, over={"0": 1})
    assert deciding.moved_on(one, [up(worker(one, 0, 1))], at(9)).job is not None


def test_a_worker_that_is_taken_away_is_not_waited_for() -> None:
    one = mantis(1, made=(2,))
    gone = replace(up(worker(one, 0, 1)), stop_for=Reason(Code.SCALED_DOWN))
    assert deciding.moved_on(one, [up(worker(one, 0, 0)), gone], at(9)).job is not None


def test_it_never_goes_back() -> None:
    one = in_state(mantis(1), State.RUNNING)
    assert deciding.moved_on(one, [up(worker(one, 0, 0))], at(9)).is_empty


def test_its_history_does_not_go_back_if_the_clock_does() -> None:
    one = in_state(mantis(1), State.STARTING)
    moved = deciding.moved_on(one, [up(worker(one, 0, 0))], at(1)).job
    assert moved is not None
    assert moved.history[-1].at == at(2)


def test_only_workers_say_how_far_a_job_is_no_other_tasks() -> None:
    assert deciding.moved_on(job(), [], at(9)).is_empty


def test_who_is_in_a_built_in_cluster_has_none_to_look_after() -> None:
    one = replace(mantis(1), cluster_id=BUILT_IN[JobType.MANTIS].id)
    assert deciding.keep_of(one, at(1)) == ()
    assert deciding.keep_of(replace(job(), cluster_id=ID), at(1)) == ()


# ------------------------------------------------------------------------------------------ by itself


def arms(**spec: Any) -> list[tuple[str, float]]:
    made = created(JobId("j"), described(1, **spec), "ann", at(10)).arm
    return [(each.kind.value, (each.due - at(0)).total_seconds()) for each in made]


def test_a_new_job_is_looked_at_when_it_may_have_to_end() -> None:
    assert arms() == []
    assert arms(agreement={"runtime_limit": seconds(60)}) == [("expire", 70)]
    timeout = {"subscription_timeout": seconds(30)}
    assert arms(agreement={"is_transient": True}, **timeout) == [("idle", 40)]
    assert arms(agreement={"is_transient": True, "min_runtime": seconds(50)}, **timeout) == [("idle", 60)]
    assert arms(agreement={"min_runtime": seconds(50)}) == []
    assert created(JobId("j"), job().descriptor, "ann", at(10)).arm == ()


def test_its_limit_is_no_failure() -> None:
    found = deciding.expired(mantis(1), at(9))
    assert (str(found.reason), found.is_success, found.by) == (
        "runtimeLimitExceeded: runtime limit reached",
        True,
        "titus",
    )


TRANSIENT = mantis(
    1,
    spec={
        "subscription_timeout": seconds(30),
        "agreement": {"is_transient": True, "min_runtime": seconds(50)},
    },
)


@pytest.mark.parametrize(
    ("ran", "lonely", "left"),
    [
        # As long as the longer of both, if it does not run yet.
        (None, 0, 50),
        (None, 900, 50),
        (0, 0, 50),
        (30, 30, 20),
        (45, 5, 25),
        (90, 29.5, 0.5),
        # Nobody is missed before it runs.
        (49, 900, 1),
    ],
)
def test_a_transient_job_is_left_alone_for_so_long(ran: float | None, lonely: float, left: float) -> None:
    span = None if ran is None else seconds(ran)
    assert deciding.idle(TRANSIENT, span, seconds(lonely), at(99)) == seconds(left)


@pytest.mark.parametrize(("ran", "lonely"), [(50, 30), (50, 900), (900, 30)])
def test_then_it_ends_without_subscribers_which_is_no_failure(ran: float, lonely: float) -> None:
    found = deciding.idle(TRANSIENT, seconds(ran), seconds(lonely), at(99))
    assert isinstance(found, KillIntent)
    assert (str(found.reason), found.is_success) == ("normal: no subscriptions for 30 secs", True)


def test_other_jobs_have_no_subscribers_to_miss() -> None:
    with pytest.raises(TypeError):
        deciding.idle(job(), None, seconds(0), at(9))


# ------------------------------------------------------------------------------------------ ends


def test_with_a_worker_that_may_not_be_restarted_the_job_fails() -> None:
    one = replace(mantis(2), first_failure="j-0.1-101: failed: exit code 3")
    found = deciding.abandoned(one, at(9))
    assert (str(found.reason), found.is_success) == (
        "failed: too many worker resubmits; first: j-0.1-101: failed: exit code 3",
        False,
    )
    assert str(deciding.abandoned(mantis(1), at(9)).reason) == "failed: too many worker resubmits"


def ended(one: Job) -> tuple[State, str] | None:
    after = settled(one, False, at(90)).job
    return None if after is None else (after.state, str(after.reason))


def test_it_is_finished_once_all_workers_of_all_stages_ended_well() -> None:
    assert ended(mantis(2, 1, over={"0": 2, "1": 1}, slots_ok=3)) == (State.FINISHED, "normal")
    assert ended(mantis(2, 1, over={"0": 2}, slots_ok=2)) is None
    # One stage cannot stand for the other.
    assert ended(mantis(2, 1, over={"0": 3}, slots_ok=3)) is None


def test_it_fails_for_the_same_reason_if_all_is_over_before_it_is_abandoned() -> None:
    over = mantis(1, over={"0": 1}, slots_failed=1, first_failure="w: failed")
    assert ended(over) == (State.FAILED, "failed: too many worker resubmits; first: w: failed")


def test_killed_by_a_user_it_fails_and_by_its_own_rules_it_does_not() -> None:
    plain = mantis(1, over={"0": 1}, slots_failed=1)
    user = kill_requested(
        plain, replace(deciding.expired(plain, at(9)), by="bob", reason=None, is_success=False)
    )
    assert user.job is not None
    assert ended(user.job) == (State.FAILED, "killed: by bob at 2026-03-01T12:00:09+00:00")
    ours = kill_requested(plain, deciding.expired(plain, at(9)))
    assert ours.job is not None
    assert ended(ours.job) == (State.FINISHED, "runtimeLimitExceeded: runtime limit reached")


def test_its_end_lets_go_of_all_that_stood_for_it_and_looks_after_its_cluster() -> None:
    decision = settled(mantis(1, over={"0": 1}, slots_ok=1), False, at(90))
    assert {kind for kind, _ in decision.disarm} == {
        DeadlineKind.SETTLE,
        DeadlineKind.PROGRESS,
        DeadlineKind.EXPIRE,
        DeadlineKind.IDLE,
        DeadlineKind.ABANDON,
    }
    assert Deadline(kind=DeadlineKind.KEEP, entity=ID, due=at(90)) in decision.arm
