"""The queue port in memory: for tests, and for running everything in one process.

Commands are kept in order until somebody takes them, or are handed on at once to a receiver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from titus_celery.core.decision import Command
from titus_celery.errors import Unavailable

__all__ = ["MemoryQueue"]


class MemoryQueue:
    """A queue that loses nothing unless told to."""

    def __init__(self, receiver: Callable[[Command], None] | None = None) -> None:
        self._receiver = receiver
        self._lock = threading.Lock()
        self._kept: list[Command] = []
        #: While set, sending fails as with a broker that is away.
        self.is_away = False

    def send(self, command: Command) -> None:
        """Keep the command, or hand it on; Unavailable while the queue is away."""
        if self.is_away:
            raise Unavailable("the broker (in memory)", "it was told to be away")
        if self._receiver is not None:
            self._receiver(command)
            return
        with self._lock:
            self._kept.append(command)

    def take(self) -> list[Command]:
        """All commands kept so far, oldest first; they are gone from the queue."""
        with self._lock:
            kept, self._kept = self._kept, []
        return kept
