"""The decisions about one task, each in every state: what it changes, arms, disarms and sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from tests.builders import agent, at, killed
from tests.unit.slots import BOB, HOST_1, NEED, NOW, SPANS, a_job, due, in_state
from titus_celery.core import lifecycle
from titus_celery.core.decision import Company, Decision, RunTask
from titus_celery.core.model import (
    Address,
    AgentId,
    DeadlineKind,
    Dispatch,
    EngineId,
    Job,
    JobId,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

# ------------------------------------------------------------------------------------------ which apply where

STUCK: Final = Reason(Code.STUCK, "still STARTING after 720 s")
SILENT: Final = timedelta(seconds=60)

_Step = Callable[[Job, Task, datetime], Decision]

STEPS: Final[dict[str, tuple[_Step, set[State]]]] = {
    "dispatched": (
        lambda job, task, now: lifecycle.dispatched(job, task, agent(), NEED, now, SPANS),
        {State.QUEUED},
    ),
    "republished": (
        lambda job, task, now: lifecycle.republished(job, task, now, SPANS, timedelta(0)),
        {State.DISPATCHED},
    ),
    "claimed": (
        lambda job, task, now: lifecycle.claimed(job, task, HOST_1, 1, now, SPANS),
        {State.DISPATCHED},
    ),
    "running": (
        lambda job, task, now: lifecycle.running(job, task, 1, Address(ip="10.0.0.9"), now),
        {State.STARTING},
    ),
    "ended well, by its agent": (
        lambda job, task, now: lifecycle.ended(job, task, Reason(Code.NORMAL), now, number=1),
        {State.STARTING, State.RUNNING},
    ),
    "ended ill, by control": (
        lambda job, task, now: lifecycle.ended(job, task, Reason(Code.LOST), now),
        {State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING},
    ),
    "replaced": (lifecycle.replaced, set()),
    "told to stop": (
        lambda job, task, now: lifecycle.told_to_stop(job, task, STUCK, due(DeadlineKind.STUCK, task, 90)),
        {State.STARTING, State.RUNNING},
    ),
    "lost with its agent": (
        lambda job, task, now: lifecycle.lost(job, task, HOST_1, SILENT, timedelta(0), now),
        {State.DISPATCHED, State.STARTING, State.RUNNING},
    ),
    "killed": (
        lambda job, task, now: lifecycle.killed(job, task, BOB, now),
        {State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING},
    ),
    "waiting": (lambda job, task, now: lifecycle.waiting(task, "no room"), {State.QUEUED}),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("name", STEPS)
def test_a_decision_applies_in_its_states_and_else_does_nothing(name: str, state: State) -> None:
    decide, states = STEPS[name]
    decision = decide(a_job(), in_state(state), at(10))
    if state in states:
        assert not decision.is_empty
    else:
        assert decision == Decision(why=decision.why)
        assert decision.why


# ------------------------------------------------------------------------------------------ ids, first task


def test_task_ids_are_job_slot_attempt() -> None:
    assert lifecycle.task_id(JobId("00000000-0000-4000-8000-000000000007"), 2, 11) == (
        "00000000-0000-4000-8000-000000000007-2-11"
    )


def test_the_job_can_be_told_from_a_task_id() -> None:
    id = JobId("00000000-0000-4000-8000-000000000007")
    assert lifecycle.job_of(lifecycle.task_id(id, 2, 11)) == id


def test_the_first_task_of_a_slot_is_queued_and_is_its_own_original() -> None:
    id = TaskId("j-4-1")
    assert lifecycle.first_task(JobId("j"), 4, NOW) == Task(
        id=id,
        job_id=JobId("j"),
        slot=4,
        attempt=1,
        original_id=id,
        history=(StateChange(state=State.QUEUED, at=NOW),),
    )


# ------------------------------------------------------------------------------------------ waiting


def test_a_waiting_task_says_why() -> None:
    one = in_state(State.QUEUED)
    assert lifecycle.waiting(one, "no room") == Decision(
        tasks=(replace(one, reason=Reason(Code.WAITING, "no room")),)
    )


def test_a_waiting_task_says_a_new_reason_but_the_same_only_once() -> None:
    one = replace(in_state(State.QUEUED), reason=Reason(Code.WAITING, "no room"))
    assert lifecycle.waiting(one, "no room").is_empty
    (after,) = lifecycle.waiting(one, "no agent").tasks
    assert after.reason == Reason(Code.WAITING, "no agent")


# ------------------------------------------------------------------------------------------ dispatched


def test_dispatching_reserves_numbers_arms_and_sends() -> None:
    one = replace(in_state(State.QUEUED), reason=Reason(Code.WAITING, "no room"))
    to = agent("host-2", engine="ENGINE:2", zone="z", region="r")
    order = Dispatch(
        number=1,
        agent_id=AgentId("host-2"),
        engine_id=EngineId("ENGINE:2"),
        host="host-2",
        zone="z",
        region="r",
        demand=NEED.demand,
    )
    after = replace(
        one,
        history=(*one.history, StateChange(state=State.DISPATCHED, at=NOW)),
        reason=None,
        dispatch=order,
        dispatches=1,
    )
    assert lifecycle.dispatched(a_job(), one, to, NEED, NOW, SPANS) == Decision(
        tasks=(after,),
        room=to.capacity,
        company=Company(),
        arm=(due(DeadlineKind.REPUBLISH, one, 63),),
        commands=(RunTask(one.id, one.job_id, order, "sha256:1"),),
    )


def test_each_dispatch_has_the_next_number() -> None:
    one = replace(in_state(State.QUEUED), dispatches=4)
    (after,) = lifecycle.dispatched(a_job(), one, agent(), NEED, NOW, SPANS).tasks
    assert (after.dispatches, after.dispatch and after.dispatch.number) == (5, 5)


def test_no_task_of_a_killed_job_is_dispatched() -> None:
    decision = lifecycle.dispatched(killed(a_job()), in_state(State.QUEUED), agent(), NEED, NOW, SPANS)
    assert decision == Decision(why=decision.why)


# ------------------------------------------------------------------------------------------ republished


def test_an_unclaimed_order_is_sent_again_under_its_number() -> None:
    one = in_state(State.DISPATCHED)
    assert one.dispatch is not None
    assert lifecycle.republished(a_job(), one, at(4), SPANS, timedelta(seconds=3)) == Decision(
        arm=(due(DeadlineKind.REPUBLISH, one, 7),),
        commands=(RunTask(one.id, one.job_id, one.dispatch, "sha256:1"),),
    )


def test_an_order_that_nobody_takes_for_a_minute_is_given_up_at_our_expense() -> None:
    one = in_state(State.DISPATCHED)
    assert not lifecycle.republished(a_job(), one, at(61), SPANS, timedelta(seconds=59.999)).tasks
    decision = lifecycle.republished(a_job(), one, at(61), SPANS, timedelta(seconds=60))
    (after,) = decision.tasks
    assert (after.state, after.reason) == (
        State.FAILED,
        Reason(Code.STUCK, "agent host-1 did not take it within 60 s"),
    )
    assert decision.arm == (due(DeadlineKind.RETRY, one, 62),)
    assert decision.disarm == ((DeadlineKind.REPUBLISH, one.id),)


# ------------------------------------------------------------------------------------------ claimed


def test_a_claim_starts_the_task_and_its_stuck_deadline() -> None:
    one = in_state(State.DISPATCHED)
    after = replace(one, history=(*one.history, StateChange(state=State.STARTING, at=NOW)))
    assert lifecycle.claimed(a_job(), one, HOST_1, 1, NOW, SPANS) == Decision(
        tasks=(after,),
        # 60 + 12 * 60
        arm=(due(DeadlineKind.STUCK, one, 780),),
        disarm=((DeadlineKind.REPUBLISH, one.id),),
    )


@pytest.mark.parametrize(
    ("agent_id", "number"), [("host-1", 0), ("host-1", 2), ("host-2", 1), ("host-2", 2), ("", 1)]
)
def test_a_claim_of_another_agent_or_under_a_stale_number_gives_nothing(agent_id: str, number: int) -> None:
    decision = lifecycle.claimed(a_job(), in_state(State.DISPATCHED), AgentId(agent_id), number, NOW, SPANS)
    assert decision == Decision(why=f"order {number} is not the latest, 1 to host-1")


def test_a_copy_of_a_claimed_order_gives_nothing_and_says_so() -> None:
    decision = lifecycle.claimed(a_job(), in_state(State.STARTING), HOST_1, 1, NOW, SPANS)
    assert decision == Decision(why="it is STARTING: another copy of the order was taken")


def test_nothing_of_a_killed_job_is_claimed() -> None:
    decision = lifecycle.claimed(killed(a_job()), in_state(State.DISPATCHED), HOST_1, 1, NOW, SPANS)
    assert decision == Decision(why="it is being killed")


def test_no_killed_task_is_claimed() -> None:
    one = replace(in_state(State.DISPATCHED), kill=BOB)
    assert lifecycle.claimed(a_job(), one, HOST_1, 1, NOW, SPANS) == Decision(why="it is being killed")


# ------------------------------------------------------------------------------------------ running


def test_from_running_the_limit_counts_and_control_gives_it_half_a_minute_more() -> None:
    one = in_state(State.STARTING)
    after = replace(
        one, history=(*one.history, StateChange(state=State.RUNNING, at=NOW)), address=Address(ip="10.0.0.9")
    )
    assert lifecycle.running(a_job(limit=100), one, 1, Address(ip="10.0.0.9"), NOW) == Decision(
        tasks=(after,),
        # 60 + 100 + 30
        arm=(due(DeadlineKind.LIMIT, one, 190),),
        disarm=((DeadlineKind.STUCK, one.id),),
    )


def test_a_stale_order_makes_nothing_running() -> None:
    assert lifecycle.running(a_job(), in_state(State.STARTING), 2, Address(ip=""), NOW).is_empty


def test_a_container_that_started_before_the_kill_is_running_all_the_same() -> None:
    """It is the truth, and the agent looks for the intent right after."""
    one = replace(in_state(State.STARTING), kill=BOB)
    (after,) = lifecycle.running(a_job(), one, 1, Address(ip=""), NOW).tasks
    assert after.state is State.RUNNING


# ------------------------------------------------------------------------------------------ orders


def test_an_adoption_is_the_same_order_marked_as_such() -> None:
    one = in_state(State.RUNNING)
    assert one.dispatch is not None
    plain = lifecycle.run_order(a_job(), one, one.dispatch)
    assert lifecycle.run_order(a_job(), one, one.dispatch, adopt=True) == replace(plain, adopt=True)
    assert not plain.adopt
