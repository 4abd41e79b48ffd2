"""Calls that others need not wait for, in threads that end with the process whatever they wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["BackgroundCalls"]


class BackgroundCalls:
    """Makes calls, the first ones first, so many at a time. They must not raise."""

    def __init__(self, name: str, count: int) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._make, name=f"{name}-{number}", daemon=True).start()

    def begin(self, call: Callable[[], None]) -> None:
        """Take the call; it is made soon."""
        self._calls.put(call)

    def _make(self) -> None:
        while True:
            self._calls.get()()
