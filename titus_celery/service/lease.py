"""An agent's lease as its own process sees it: by a clock that nobody can set.

The store says who has the place. But whoever is cut off from the store, or was frozen, must know by
itself what it may still do: start containers only while the lease is surely its own, and end what it
runs before somebody else may start it again (its fence).
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from titus_celery.core.model import Holding
from titus_celery.ports import Clock

__all__ = ["FENCE_MARGIN", "Lease", "gone_after"]

#: A start is asked for in the first half of a lease, so that it takes effect in the second.
START_SHARE: Final = 2
#: Between the end of a try to renew and the next one lies a fifth of a lease, 12 s at most: more tells
#: that this process did not run in between.
SUSPENDED_MIN: Final = timedelta(seconds=15)
#: For so long tries must have failed, one after the other, before the fence falls: a process that was
#: frozen asks the store first.
FAILING_MIN: Final = timedelta(seconds=4)
#: From when the fence is due until every container had its grace: the try to renew that is under way
#: (2 s to connect, 10 for the answer), and the engine's own time.
FENCE_MARGIN: Final = timedelta(seconds=15)


def gone_after(span: timedelta, fence_after: timedelta, grace: timedelta) -> timedelta:
    """How long after the end of a lease of *span* its agent's containers are gone; zero: no promise."""
    if not fence_after:
        return timedelta(0)
    return max(fence_after + grace + FENCE_MARGIN - span, timedelta(0))


class Lease:
    """What this process may do under its lease. Safe to use from many threads."""

    def __init__(self, clock: Clock, span: timedelta, fence_after: timedelta) -> None:
        """*fence_after* counts from the last renewal; zero: never."""
        self._clock = clock
        self._span = span
        self._fence_after = fence_after
        self._changed = threading.Condition()
        self._holding: Holding | None = None
        self._renewed_at: timedelta | None = None
        self._steady_since: timedelta | None = None
        self._failing_since: timedelta | None = None
        self._tried_at: timedelta | None = None

    def holding(self) -> Holding | None:
        """Under what this agent writes; None before it ever had its lease."""
        return self._holding

    def renewed(self, holding: Holding, asked_at: timedelta) -> None:
        """The store granted the lease, to who asked for it at *asked_at* (monotonic)."""
        with self._changed:
            self._note_try(asked_at)
            if self._steady_since is None or self._holding != holding:
                self._steady_since = self._clock.monotonic()
            self._holding, self._renewed_at = holding, asked_at
            self._failing_since = None
            self._changed.notify_all()

    def failed(self, asked_at: timedelta) -> None:
        """The renewal that was asked for at *asked_at* (monotonic) did not come about."""
        with self._changed:
            self._note_try(asked_at)
            self._steady_since = None
            if self._failing_since is None:
                self._failing_since = self._tried_at

    def is_fresh(self) -> bool:
        """Whether a container may be started now."""
        with self._changed:
            return self._is_fresh()

    def wait_fresh(self, patience: timedelta) -> bool:
        """Wait, for so long at most, until a container may be started; whether one may."""
        with self._changed:
            return self._changed.wait_for(self._is_fresh, patience.total_seconds())

    def steady_for(self) -> timedelta:
        """For how long it was renewed without a failure or a break; zero if it is not."""
        with self._changed:
            if self._steady_since is None or not self._is_fresh():
                return timedelta(0)
            return self._clock.monotonic() - self._steady_since

    def silence(self) -> timedelta:
        """Since when the store has not been heard; zero before it ever was."""
        with self._changed:
            if self._renewed_at is None:
                return timedelta(0)
            return self._clock.monotonic() - self._renewed_at

    def must_fence(self) -> bool:
        """Whether others may soon start again what this agent runs, so that it must end it."""
        if not self._fence_after:
            return False
        silence = self.silence()
        with self._changed:
            if self._failing_since is None or self._tried_at is None:
                return False
            failing = self._tried_at - self._failing_since
        return silence >= self._fence_after and failing >= FAILING_MIN

    def _is_fresh(self) -> bool:
        if self._renewed_at is None:
            return False
        return self._clock.monotonic() - self._renewed_at < self._span / START_SHARE

    def _note_try(self, asked_at: timedelta) -> None:
        """A try has ended now. How long it took says nothing: looking up a name may take very long."""
        if self._tried_at is not None and asked_at - self._tried_at > SUSPENDED_MIN:
            self._failing_since = self._steady_since = None
        self._tried_at = self._clock.monotonic()
