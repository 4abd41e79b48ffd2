"""Points at which a process may be made to die or to freeze, so that tests see what that leaves behind.

Off unless somebody arms one: nothing is armed but by TITUS_CRASH_AT, in the composition root.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["POINTS", "arm", "reached"]

#: The points, in the order of a task's life.
POINTS: Final = (
    # A change is committed, and what follows from it is not sent yet.
    "committed",
    # An agent has claimed an order and not yet made the container.
    "claimed",
    # The container is made and not yet started.
    "created",
    # The container is started and not yet reported.
    "started",
    # The container has ended and that is not yet reported.
    "ended",
    # The end is reported and the container not yet removed.
    "reported",
)

_armed: dict[str, Callable[[], None]] = {}


def arm(point: str, act: Callable[[], None]) -> None:
    """Call *act* the next time that *point* is reached, once."""
    _armed[point] = act


def reached(point: str) -> None:
    """This is that point."""
    if (act := _armed.pop(point, None)) is not None:
        act()
