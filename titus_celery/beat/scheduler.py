"""A beat scheduler that ticks only while it holds the lease, so that two beats tick like one.

A second beat takes over once the first has not renewed for the length of the lease. A beat that
froze and thawed finds the lease gone; a tick too many would do no harm either, as sweeps are
idempotent.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, Final

from celery.beat import Scheduler

from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.bootstrap import process_settings
from titus_celery.errors import Unavailable

__all__ = ["BEAT_LEASE", "LeasedScheduler"]

BEAT_LEASE: Final = "beat"
#: Seconds until a follower looks again.
FOLLOW_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class LeasedScheduler(Scheduler):  # type: ignore[misc]
    """Fixed entries, in memory, behind a lease."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._settings = process_settings()
        self._leases = LeaseStore(RedisKeyspace(self._settings.redis_url, self._settings.namespace))
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._leads = False
        self._is_away = False
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """The entries of the application's configuration; none of Celery's own."""
        self.merge_inplace(self.app.conf.beat_schedule)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Tick if this beat leads; seconds until it wants to be asked again."""
        try:
            leads = self._leases.hold(BEAT_LEASE, self._holder, self._settings.beat_lease)
            self._is_away = False
        except Unavailable as error:
            if not self._is_away:
                _log.warning("not ticking until the store is back: %s", error)
            self._is_away = True
            leads = False
        if leads != self._leads:
            _log.info("this beat %s", "leads" if leads else "follows")
            self._leads = leads
        if not leads:
            return FOLLOW_SECONDS
        return min(float(super().tick(*args, **kwargs)), FOLLOW_SECONDS)

    def close(self) -> None:
        """Let the next beat lead at once."""
        try:
            self._leases.release(BEAT_LEASE, self._holder)
        except Unavailable as error:
            _log.warning("the lease runs out by itself: %s", error)
        super().close()
