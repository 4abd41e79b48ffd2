"""Which state may follow which, against a table written out by hand."""

from __future__ import annotations

from typing import Final

import pytest

from titus_celery.core.states import State, may_step

#: Row: from; column: to, in the order Queued, Dispatched, Starting, Running, Finished, faiLed.
GRID: Final = {
    #                   Q D S R F L
    State.QUEUED:     "  . x . . . x",
    State.DISPATCHED: "  . . x . . x",
    State.STARTING:   "  . . . x x x",
    State.RUNNING:    "  . . . . x x",
    State.FINISHED:   "  . . . . . .",
    State.FAILED:     "  . . . . . .",
}  # fmt: skip

PAIRS: Final = [
    (now, then, GRID[now].split()[place] == "x")
    for now in GRID
    for place, then in enumerate(
        (State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING, State.FINISHED, State.FAILED)
    )
]


@pytest.mark.parametrize(("now", "then", "allowed"), PAIRS)
def test_a_step_is_allowed_or_not(now: State, then: State, allowed: bool) -> None:
    assert may_step(now, then) is allowed


def test_the_table_covers_every_pair_of_states() -> None:
    assert {(now, then) for now, then, _ in PAIRS} == {(now, then) for now in State for then in State}


def test_no_step_leads_back_or_stays() -> None:
    assert [(now, then) for now in State for then in State if then <= now and may_step(now, then)] == []


def test_the_numbers_are_those_of_the_wire() -> None:
    assert {state.name: int(state) for state in State} == {
        "QUEUED": 0,
        "DISPATCHED": 1,
        "STARTING": 2,
        "RUNNING": 3,
        "FINISHED": 4,
        "FAILED": 5,
    }


def test_only_finished_and_failed_are_final() -> None:
    assert [state for state in State if state.is_final] == [State.FINISHED, State.FAILED]
