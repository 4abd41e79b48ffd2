"""Whether this worker is deaf: alive and connected, yet no message reaches it any more.

Celery has lost its consumer over a broker that came back more than once, and a worker that then goes on
looking healthy keeps its containers from being reported and its orders from being taken. So each worker
sends itself a message every now and then, and one that does not hear them any more must end: whoever
keeps it running starts it again, and the next process adopts its containers.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from titus_celery.ports import Clock

__all__ = ["Watchdog"]

#: A pause between two messages of more than this part of the time tells nothing about who listens: the
#: broker was away, or this process did not run. So it takes three messages at least.
PAUSE_SHARE: Final = 2


class Watchdog:
    """Counts for how long the messages of a worker to itself have gone unheard: *deaf_after* is too long.

    Safe to use from many threads.
    """

    def __init__(self, clock: Clock, deaf_after: timedelta) -> None:
        self._clock = clock
        self._deaf_after = deaf_after
        self._lock = threading.Lock()
        self._sent_at: timedelta | None = None
        self._unheard_since: timedelta | None = None

    def sent(self, *, is_full: bool = False) -> timedelta | None:
        """The broker has taken a message to this worker; for how long it has been deaf, if it is.

        A worker that *is_full* takes no message because no thread is free for it: that is not deaf.
        """
        with self._lock:
            now, before = self._clock.monotonic(), self._sent_at
            self._sent_at = now
            paused = before is not None and now - before > self._deaf_after / PAUSE_SHARE
            if is_full or paused or self._unheard_since is None:
                self._unheard_since = now
            unheard = now - self._unheard_since
        return unheard if unheard >= self._deaf_after else None

    def heard(self) -> None:
        """One of them arrived."""
        with self._lock:
            self._unheard_since = None
