"""The decisions after something broke: who has what, handed on, told again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from tests.builders import agent, at, dispatched, killed
from tests.unit.slots import BOB, NOW, a_job, due, in_state
from titus_celery.core.decision import Decision, RunTask
from titus_celery.core.model import (
    NO_ADDRESS,
    Address,
    AgentId,
    DeadlineKind,
    Dispatch,
    EngineId,
    Exit,
    StateChange,
    Task,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.recovery import Standing, asserted, ended_again, standing, taken_over
from titus_celery.core.states import State

FAILED: Final = Reason(Code.FAILED, "exit code 3")
LOST: Final = Reason(Code.LOST, "its agent could not reach the store for 46 s")
LIVE: Final = (State.DISPATCHED, State.STARTING, State.RUNNING)
OVER: Final = (State.FINISHED, State.FAILED)
OPEN: Final = (State.QUEUED, *LIVE)


def the_order() -> Dispatch:
    """Order 1, to host-1 on ENGINE:1."""
    order = in_state(State.RUNNING).dispatch
    assert order is not None
    return order


def held_by(one: Task, number: int, host: str, engine: str) -> Task:
    """The task under another order."""
    order = replace(the_order(), number=number, agent_id=AgentId(host), engine_id=EngineId(engine))
    return replace(one, dispatch=order, dispatches=number)


# ------------------------------------------------------------------------------------------ standing


@pytest.mark.parametrize("state", LIVE)
def test_the_order_on_record_is_ours(state: State) -> None:
    assert standing(in_state(state), the_order()) is Standing.OURS


@pytest.mark.parametrize("state", OVER)
def test_what_is_over_is_over_for_everybody(state: State) -> None:
    assert standing(in_state(state), the_order()) is Standing.OVER


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize(
    ("number", "host", "engine", "stands"),
    [
        # Elsewhere a container of it is one too many, whatever the number.
        (1, "host-2", "ENGINE:2", Standing.OVER),
        (2, "host-2", "ENGINE:2", Standing.OVER),
        (0, "host-2", "ENGINE:2", Standing.OVER),
        (1, "host-1", "ENGINE:2", Standing.OVER),
        # Here it is the container of whoever has it now.
        (2, "host-1b", "ENGINE:1", Standing.HANDED_ON),
        (1, "host-1b", "ENGINE:1", Standing.HANDED_ON),
        (2, "host-1", "ENGINE:1", Standing.HANDED_ON),
        # An older order than ours: the store forgot that ours was given.
        (0, "host-1b", "ENGINE:1", Standing.FORGOTTEN),
        (0, "host-1", "ENGINE:1", Standing.FORGOTTEN),
    ],
)
def test_another_order_on_record_tells_whose_the_container_is(
    state: State, number: int, host: str, engine: str, stands: Standing
) -> None:
    assert standing(held_by(in_state(state), number, host, engine), the_order()) is stands


def test_an_order_that_the_store_never_gave_was_forgotten() -> None:
    assert standing(in_state(State.QUEUED), the_order()) is Standing.FORGOTTEN


def test_a_queued_task_that_knows_of_the_order_has_given_it_up() -> None:
    assert standing(replace(in_state(State.QUEUED), dispatches=1), the_order()) is Standing.OVER


# ------------------------------------------------------------------------------------------ handed on


@pytest.mark.parametrize("state", LIVE)
def test_a_task_is_handed_on_under_the_next_number_and_else_as_it_is(state: State) -> None:
    one = in_state(state)
    heir = agent("host-1b", zone="z", region="q")
    decision = taken_over(a_job(), one, heir)
    new = replace(the_order(), number=2, agent_id=heir.id, host="host-1b", zone="z", region="q")
    assert decision == Decision(
        tasks=(replace(one, dispatch=new, dispatches=2),),
        room=heir.capacity,
        commands=(RunTask(one.id, one.job_id, new, "sha256:1", adopt=state is not State.DISPATCHED),),
    )


@pytest.mark.parametrize("state", [State.QUEUED, *OVER])
def test_what_nobody_has_is_not_handed_on(state: State) -> None:
    decision = taken_over(a_job(), in_state(state), agent("host-1b"))
    assert decision == Decision(why=decision.why)


@pytest.mark.parametrize("heir", [agent("host-2", engine="ENGINE:2"), agent("host-1")])
def test_nothing_goes_to_another_engine_or_to_who_has_it(heir: object) -> None:
    assert taken_over(a_job(), in_state(State.RUNNING), heir).is_empty  # type: ignore[arg-type]


def test_a_kill_goes_with_the_task() -> None:
    one = replace(in_state(State.RUNNING), kill=BOB, stop_for=LOST)
    (after,) = taken_over(killed(a_job()), one, agent("host-1b")).tasks
    assert (after.kill, after.stop_for) == (BOB, LOST)


# ------------------------------------------------------------------------------------------ told again


@pytest.mark.parametrize("state", OPEN)
def test_a_container_that_runs_is_told_whatever_was_forgotten(state: State) -> None:
    one = in_state(state)
    if state is State.QUEUED:
        assert one.dispatch is None
    decision = asserted(a_job(limit=100), one, the_order(), Address(ip="10.0.0.9"), NOW)
    if state is State.RUNNING:
        assert decision == Decision(why="the record says so")
        return
    (after,) = decision.tasks
    assert [step.state for step in after.history] == [*OPEN]
    assert after.history[len(one.history) :] == tuple(
        StateChange(state=each, at=NOW) for each in OPEN if each > state
    )
    assert (after.dispatch, after.dispatches, after.address.ip) == (the_order(), 1, "10.0.0.9")
    # 60 + 100 + 30
    assert decision.arm == (due(DeadlineKind.LIMIT, one, 190),)
    assert (
        decision.disarm
        == {
            State.QUEUED: (),
            State.DISPATCHED: ((DeadlineKind.REPUBLISH, one.id),),
            State.STARTING: ((DeadlineKind.STUCK, one.id),),
        }[state]
    )
    assert decision.room is not None
    assert decision.room.slots > 1_000
    assert not decision.commands


def test_a_hand_over_that_was_forgotten_is_told_by_the_heir() -> None:
    """The record still names the agent that is gone, under the number before."""
    heir = replace(the_order(), number=2, agent_id=AgentId("host-1b"))
    (after,) = asserted(a_job(), in_state(State.RUNNING), heir, Address(ip="10.0.0.9"), NOW).tasks
    assert (after.dispatch, after.dispatches, after.state) == (heir, 2, State.RUNNING)


@pytest.mark.parametrize("state", OVER)
def test_what_is_over_stays_over_whatever_runs(state: State) -> None:
    """P4."""
    assert asserted(a_job(), in_state(state), the_order(), NO_ADDRESS, NOW).is_empty
    assert ended_again(a_job(), in_state(state), the_order(), NO_ADDRESS, LOST, None, NOW).is_empty


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize(
    ("number", "host", "engine"),
    [
        (1, "host-2", "ENGINE:2"),
        (2, "host-2", "ENGINE:2"),
        (2, "host-1b", "ENGINE:1"),
        (1, "host-1b", "ENGINE:1"),
    ],
)
def test_who_lost_the_order_says_nothing_about_the_task(
    state: State, number: int, host: str, engine: str
) -> None:
    """A number that was forgotten is given again: it alone does not make the order ours."""
    one = held_by(in_state(state), number, host, engine)
    assert asserted(a_job(), one, the_order(), Address(ip="10.0.0.1"), NOW).is_empty
    assert ended_again(a_job(), one, the_order(), NO_ADDRESS, FAILED, Exit(code=3), NOW).is_empty


@pytest.mark.parametrize("state", OPEN)
def test_an_end_is_told_with_all_that_was_forgotten_before_it(state: State) -> None:
    one = in_state(state)
    decision = ended_again(a_job(), one, the_order(), Address(ip="10.0.0.9"), FAILED, Exit(code=3), NOW)
    (after,) = decision.tasks
    assert [step.state for step in after.history] == [*OPEN, State.FAILED]
    assert (after.reason, after.exit, after.dispatch) == (FAILED, Exit(code=3), the_order())
    # The policy of these jobs: five seconds.
    assert after.retry_at == at(65)
    assert decision.arm == (due(DeadlineKind.RETRY, one, 65),)
    kinds = {State.DISPATCHED: DeadlineKind.REPUBLISH, State.STARTING: DeadlineKind.STUCK}
    if state in kinds:
        assert (kinds[state], one.id) in decision.disarm
    assert (DeadlineKind.LIMIT, one.id) in decision.disarm


def test_a_kill_that_was_not_forgotten_leaves_nothing_to_try_again() -> None:
    one = dispatched(in_state(State.QUEUED), agent())
    decision = ended_again(killed(a_job()), one, the_order_of(one), NO_ADDRESS, FAILED, Exit(code=3), NOW)
    assert decision.tasks[0].retry_at is None


def the_order_of(one: Task) -> Dispatch:
    assert one.dispatch is not None
    return one.dispatch
