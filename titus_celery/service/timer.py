"""Control's timer: a sweep at each deadline, so that none waits for a tick."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Final

from titus_celery.errors import Unavailable
from titus_celery.ports import Records
from titus_celery.service.sweep import Sweep

__all__ = ["Timer"]

#: How long the timer sleeps at most; a deadline armed by another process is found by then, and the
#: store's clock is looked at.
SLEEP_MAX: Final = timedelta(seconds=1)
#: Sleep after a sweep that failed, so that a broken store is not hammered.
FAILED_SLEEP: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


class Timer:
    """Wakes a sweep at each deadline, so that none waits for a tick."""

    def __init__(self, records: Records, sweep: Sweep) -> None:
        self._records = records
        self._sweep = sweep

    def run(self, stop: threading.Event) -> None:
        """Until *stop* is set, sweep whenever a deadline is due; survives a store that is away."""
        while not stop.is_set():
            try:
                self._sweep.passed.clear()
                left = self._left()
                if left > timedelta(0):
                    self._sweep.passed.wait(min(left, SLEEP_MAX).total_seconds())
                else:
                    self._sweep.run()
                    # At once, unless the pass is another thread's.
                    self._sweep.passed.wait(SLEEP_MAX.total_seconds())
            except Unavailable as error:
                _log.warning("deadlines wait: %s", error)
                stop.wait(FAILED_SLEEP.total_seconds())
            except Exception:
                # A thread that ended here would silently cost every deadline its promptness.
                _log.exception("sweep at a deadline failed; trying again")
                stop.wait(FAILED_SLEEP.total_seconds())

    def _left(self) -> timedelta:
        # In this order: a look may pull deadlines, and then the next one is due sooner.
        now = self._sweep.look()
        due = self._records.next_due()
        return SLEEP_MAX if due is None else due - now
