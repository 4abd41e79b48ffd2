"""How a task ends, what follows it in its slot, and what a kill does in each state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.builders import at, killed
from tests.unit.slots import BOB, DUE, HOST_1, KILLED_BY_BOB, NOW, RETRYING, a_job, due, in_state
from titus_celery.core import lifecycle
from titus_celery.core.decision import Decision, StopTask, Wake
from titus_celery.core.model import (
    AgentId,
    DeadlineKind,
    Exit,
    KillIntent,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

STUCK: Final = Reason(Code.STUCK, "still STARTING after 720 s")

# ------------------------------------------------------------------------------------------ ended


def test_a_good_end_leaves_nothing_due_and_wakes_control() -> None:
    one = in_state(State.RUNNING)
    after = replace(
        one,
        history=(*one.history, StateChange(state=State.FINISHED, at=NOW)),
        reason=Reason(Code.NORMAL),
        exit=Exit(code=0),
    )
    assert lifecycle.ended(a_job(), one, Reason(Code.NORMAL), NOW, exit=Exit(code=0), number=1) == Decision(
        tasks=(after,),
        disarm=((DeadlineKind.LIMIT, one.id),),
        commands=(Wake(),),
    )


def test_a_failure_arms_its_retry_at_the_time_on_record() -> None:
    one = in_state(State.RUNNING)
    after = replace(
        one,
        history=(*one.history, StateChange(state=State.FAILED, at=NOW)),
        reason=Reason(Code.FAILED, "exit code 3"),
        exit=Exit(code=3),
        retry_at=at(65),
    )
    assert lifecycle.ended(
        a_job(), one, Reason(Code.FAILED, "exit code 3"), NOW, exit=Exit(code=3), number=1
    ) == Decision(
        tasks=(after,),
        arm=(due(DeadlineKind.RETRY, one, 65),),
        disarm=((DeadlineKind.LIMIT, one.id),),
        commands=(Wake(),),
    )


@pytest.mark.parametrize(
    ("state", "disarmed"),
    [
        (State.QUEUED, ()),
        (State.DISPATCHED, (DeadlineKind.REPUBLISH,)),
        (State.STARTING, (DeadlineKind.STUCK,)),
        (State.RUNNING, (DeadlineKind.LIMIT,)),
    ],
)
def test_an_end_removes_the_deadlines_of_the_state_it_leaves(
    state: State, disarmed: tuple[DeadlineKind, ...]
) -> None:
    one = in_state(state)
    decision = lifecycle.ended(a_job(), one, Reason(Code.LOST), NOW)
    assert decision.disarm == tuple((kind, one.id) for kind in disarmed)


#: Code, whether the slot is tried again without an owner's retries, and with some.
AGAIN: Final = [
    (Code.NORMAL, False, False),
    (Code.FAILED, False, True),
    (Code.CRASHED, False, True),
    (Code.LOST, True, True),
    (Code.KILLED, False, False),
    (Code.SCALED_DOWN, False, False),
    (Code.STUCK, True, True),
    (Code.LIMIT, False, True),
    (Code.OOM, False, True),
    (Code.INVALID, False, True),
    (Code.ERROR, True, True),
]


@pytest.mark.parametrize(("code", "without", "with_retries"), AGAIN)
def test_which_ends_are_tried_again(code: Code, without: bool, with_retries: bool) -> None:
    for retry, expected in ((None, without), (RETRYING, with_retries)):
        (after,) = lifecycle.ended(a_job(retry=retry), in_state(State.RUNNING), Reason(code), NOW).tasks
        assert after.is_open is expected


@pytest.mark.parametrize("code", [code for code, _, with_retries in AGAIN if with_retries])
def test_what_is_being_killed_is_not_tried_again(code: Code) -> None:
    one = in_state(State.RUNNING)
    for of, dying in ((killed(a_job()), one), (a_job(), replace(one, kill=BOB))):
        decision = lifecycle.ended(of, dying, Reason(code), NOW)
        assert decision.arm == ()
        assert not decision.tasks[0].is_open


def test_a_report_under_a_stale_number_is_no_news() -> None:
    decision = lifecycle.ended(a_job(), in_state(State.RUNNING), Reason(Code.NORMAL), NOW, number=2)
    assert decision == Decision(why="order 2 is not the latest")


def test_an_agent_cannot_end_what_was_never_sent_to_it() -> None:
    assert lifecycle.ended(a_job(), in_state(State.QUEUED), Reason(Code.LOST), NOW, number=0).is_empty


def test_times_never_decrease_when_the_clock_is_set_back() -> None:
    one = in_state(State.RUNNING)
    end = lifecycle.ended(a_job(), one, Reason(Code.FAILED), at(-100))
    (after,) = end.tasks
    # Running since 3, so it cannot have ended before. The delay counts by the clock as it is now.
    assert (after.history[-1].at, after.retry_at) == (at(3), at(8))
    assert end.arm == (due(DeadlineKind.RETRY, one, -95),)


# ------------------------------------------------------------------------------------------ replaced


def test_a_replacement_is_a_new_task_in_the_same_slot() -> None:
    id = TaskId(f"{DUE.job_id}-2-2")
    new = Task(
        id=id,
        job_id=DUE.job_id,
        slot=2,
        attempt=2,
        original_id=DUE.id,
        resubmit_of=DUE.id,
        user_retries=1,
        infra_retries=0,
        backoff_step=1,
        history=(StateChange(state=State.QUEUED, at=at(14)),),
    )
    assert lifecycle.replaced(a_job(), DUE, at(14)) == Decision(
        tasks=(replace(DUE, retry_at=None, replaced_by=id), new),
        disarm=((DeadlineKind.RETRY, DUE.id),),
        commands=(Wake(),),
    )


def test_the_original_is_the_first_of_the_slot() -> None:
    third = replace(DUE, id=TaskId("j-2-3"), attempt=3, original_id=TaskId("j-2-1"), user_retries=1)
    _, new = lifecycle.replaced(a_job(), third, at(14)).tasks
    assert (new.attempt, new.original_id, new.resubmit_of) == (4, "j-2-1", "j-2-3")


def test_a_replacement_is_made_whenever_its_deadline_says_so() -> None:
    """The clock may have been set back since it was armed, and the deadline with it."""
    gone, new = lifecycle.replaced(a_job(), DUE, at(-7_000)).tasks
    assert (gone.replaced_by, new.history[0].at) == (new.id, at(9))


def test_a_killed_job_gets_no_replacements() -> None:
    decision = lifecycle.replaced(killed(a_job()), DUE, at(14))
    assert decision == Decision(why=decision.why)


def test_a_task_is_replaced_once() -> None:
    gone, _ = lifecycle.replaced(a_job(), DUE, at(14)).tasks
    assert lifecycle.replaced(a_job(), gone, at(15)).is_empty


# ------------------------------------------------------------------------------------------ killed


@pytest.mark.parametrize(
    ("state", "disarmed"), [(State.QUEUED, ()), (State.DISPATCHED, (DeadlineKind.REPUBLISH,))]
)
def test_what_no_agent_has_ends_at_once(state: State, disarmed: tuple[DeadlineKind, ...]) -> None:
    one = in_state(state)
    after = replace(
        one,
        history=(*one.history, StateChange(state=State.FAILED, at=NOW)),
        reason=KILLED_BY_BOB,
        kill=BOB,
    )
    assert lifecycle.killed(a_job(), one, BOB, NOW) == Decision(
        tasks=(after,),
        disarm=tuple((kind, one.id) for kind in disarmed),
        commands=(Wake(),),
    )


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_what_an_agent_has_is_marked_and_the_agent_asked(state: State) -> None:
    one = in_state(state)
    assert lifecycle.killed(a_job(), one, BOB, NOW) == Decision(
        tasks=(replace(one, kill=BOB),), commands=(StopTask(one.id, HOST_1),)
    )


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_a_second_kill_asks_again_and_changes_nothing(state: State) -> None:
    one = replace(in_state(state), kill=BOB)
    carol = KillIntent(by="carol", at=at(59))
    decision = lifecycle.killed(a_job(), one, carol, NOW)
    assert decision.is_empty
    assert decision.commands == (StopTask(one.id, HOST_1),)


def test_a_kill_takes_back_a_retry_that_is_due() -> None:
    assert lifecycle.killed(a_job(), DUE, BOB, NOW) == Decision(
        tasks=(replace(DUE, retry_at=None, kill=BOB),), disarm=((DeadlineKind.RETRY, DUE.id),)
    )


# ------------------------------------------------------------------------------------------ told to stop


def test_what_outlived_its_time_is_marked_and_its_agent_told() -> None:
    """Nothing ends it: its agent may still have the container."""
    one, again = in_state(State.STARTING), due(DeadlineKind.STUCK, DUE, 90)
    assert lifecycle.told_to_stop(a_job(), one, STUCK, again) == Decision(
        tasks=(replace(one, stop_for=STUCK),), arm=(again,), commands=(StopTask(one.id, HOST_1),)
    )


def test_the_first_reason_to_stop_stands_and_its_agent_is_told_again() -> None:
    one = replace(in_state(State.RUNNING), stop_for=STUCK)
    over = Reason(Code.LIMIT, "ran longer than 3600 s")
    decision = lifecycle.told_to_stop(a_job(), one, over, due(DeadlineKind.LIMIT, one, 90))
    assert decision.tasks == (one,)
    assert decision.commands == (StopTask(one.id, HOST_1),)


# ------------------------------------------------------------------------------------------ lost


@pytest.mark.parametrize(
    ("job_kill", "parts", "ran", "reason"),
    [
        (None, {}, 3_599.999, Reason(Code.LOST, "agent host-1 has been silent for 72 s")),
        (None, {}, 3_600, Reason(Code.LIMIT, "ran longer than 3600 s")),
        (None, {"stop_for": STUCK}, 3_600, STUCK),
        (None, {"stop_for": STUCK, "kill": BOB}, 3_600, KILLED_BY_BOB),
        (BOB, {"stop_for": STUCK}, 0, KILLED_BY_BOB),
    ],
)
def test_a_lost_task_ends_for_the_truest_reason_that_is_known(
    job_kill: KillIntent | None, parts: dict[str, Any], ran: float, reason: Reason
) -> None:
    of, one = replace(a_job(), kill=job_kill), replace(in_state(State.RUNNING), **parts)
    silent = timedelta(seconds=72.9)
    (after,) = lifecycle.lost(of, one, HOST_1, silent, timedelta(seconds=ran), NOW).tasks
    assert (after.state, after.reason) == (State.FAILED, reason)
    assert (after.retry_at is None) == (reason == KILLED_BY_BOB)


def test_a_task_that_another_agent_took_over_is_not_lost() -> None:
    decision = lifecycle.lost(
        a_job(), in_state(State.RUNNING), AgentId("host-2"), timedelta(0), timedelta(0), NOW
    )
    assert decision == Decision(why="it is elsewhere")
