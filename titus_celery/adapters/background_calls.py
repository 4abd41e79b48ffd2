"""Calls that others need not wait for, in threads that end with the process whatever they wait for.

Each call is somebody's, such as a registry's. Nobody has more than a share of the threads, and all take their
turns, so that one who never answers does not keep the others' calls waiting.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

__all__ = ["BackgroundCalls"]


class BackgroundCalls:
    """Makes calls, the first ones of each first. They must not raise. Safe to use from many threads."""

    def __init__(self, name: str, *, at_once: int, of_each: int) -> None:
        """So many calls *at_once* in all, and *of_each* whose they are."""
        self._name = name
        self._at_once = at_once
        self._of_each = of_each
        self._lock = threading.Lock()
        #: In the order in which it is their turn.
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._under_way: Counter[str] = Counter()
        self._threads = 0

    def begin(self, whose: str, call: Callable[[], None]) -> None:
        """Take the call; it is made soon. RuntimeError, and not taken, if no thread can be had for it."""
        with self._lock:
            load = self._under_way[whose] + len(self._waiting.get(whose, ()))
            if self._threads < self._at_once and load < self._of_each:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
            self._waiting.setdefault(whose, deque()).append(call)

    def _work(self) -> None:
        """Make calls until none may be made: then others make those of whoever has some left."""
        while (taken := self._take()) is not None:
            whose, call = taken
            call()
            with self._lock:
                self._under_way[whose] -= 1
                # Drops those with none.
                self._under_way = +self._under_way

    def _take(self) -> tuple[str, Callable[[], None]] | None:
        with self._lock:
            for whose, calls in self._waiting.items():
                if self._under_way[whose] < self._of_each:
                    del self._waiting[whose]
                    call = calls.popleft()
                    if calls:
                        # It had its turn.
                        self._waiting[whose] = calls
                    self._under_way[whose] += 1
                    return whose, call
            self._threads -= 1
            return None
