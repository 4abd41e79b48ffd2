"""Where a task or job can stand, and where it can go from there.

This table is the only place that knows. Steps only go forward and may
skip (docs/semantics.md B3.1); FINISHED and FAILED are the end (P4).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["STEPS", "State", "may_step"]


class State(enum.IntEnum):
    """Where a task or a job stands; the numbers are those of the wire."""

    QUEUED = 0
    DISPATCHED = 1
    STARTING = 2
    RUNNING = 3
    FINISHED = 4
    FAILED = 5

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in (State.FINISHED, State.FAILED)


#: From each state, the states that may come next.
STEPS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        # A queued task ends without ever having run when its job or itself is killed.
        State.QUEUED: frozenset({State.DISPATCHED, State.FAILED}),
        # The agent that was chosen may vanish before it claims the order.
        State.DISPATCHED: frozenset({State.STARTING, State.FAILED}),
        # A container that is gone before we looked has run: its exit is the next thing we know.
        State.STARTING: frozenset({State.RUNNING, State.FINISHED, State.FAILED}),
        State.RUNNING: frozenset({State.FINISHED, State.FAILED}),
        State.FINISHED: frozenset(),
        State.FAILED: frozenset(),
    }
)


def may_step(now: State, then: State) -> bool:
    """Whether a task in state *now* may go to *then*."""
    return then in STEPS[now]
