"""A queue in front of another one that never keeps its sender waiting.

For those who have a reply to give: a broker that is slow or away costs them nothing. What is lost
this way is what any queue may lose; deadlines and polls say it again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final

from titus_celery.core.decision import Command
from titus_celery.errors import Unavailable
from titus_celery.ports import Queue

__all__ = ["KEPT_MAX", "BackgroundQueue"]

#: Commands waiting for a broker that is away; beyond, the oldest go, as they would be late anyway.
KEPT_MAX: Final = 1_000

_log = logging.getLogger(__name__)


class BackgroundQueue:
    """Hands commands on, in order, from one thread of its own, which ends with the process."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._kept: deque[Command] = deque(maxlen=KEPT_MAX)
        self._changed = threading.Condition()
        self._is_busy = False
        threading.Thread(target=self._hand_on, name="commands", daemon=True).start()

    def send(self, command: Command) -> None:
        """Take the command; it is handed on soon."""
        with self._changed:
            self._kept.append(command)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all that was taken was handed on; whether it was within *seconds*."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._kept and not self._is_busy, seconds)

    def _hand_on(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._kept)
                command = self._kept.popleft()
                self._is_busy = True
            try:
                self._queue.send(command)
            except Unavailable as error:
                _log.warning("could not send %s: %s", type(command).__name__, error)
