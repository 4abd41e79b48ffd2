"""For how long control and the store have gone along together, and how long things really took.

Records are dated by the store's clock, which somebody may set, and which stands still for everybody
while the store is away. What is destructive must not follow from either. So the store's clock is held
against one of this process that nobody can set, and what cannot be known is taken for less.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

__all__ = ["JUMP_MAX", "STORE_GAP_MAX", "Jump", "News", "Steady"]

#: Whoever watches the store asks it every second. A longer silence was an outage, in which agents
#: could not reach it either, or we were suspended.
STORE_GAP_MAX: Final = timedelta(seconds=5)
#: Between two looks the store's clock and ours differ by less, unless it was set: drift is microseconds
#: a second, and a slow answer two seconds at most.
JUMP_MAX: Final = timedelta(seconds=5)
#: Jumps remembered: a clock that is set so often tells nobody anything.
JUMPS_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Jump:
    """The store's clock was set."""

    #: What it showed when it was last seen before.
    seen: datetime
    #: What it would have shown by now: whatever it dated before the jump is not later than this.
    left: datetime
    #: Positive: it was set forward.
    by: timedelta


@dataclass(frozen=True, slots=True)
class News:
    """What one look told that the one before did not."""

    jump: Jump | None = None
    #: The store restarted or failed over, or this is the first look of all.
    has_new_epoch: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    now: datetime
    own: timedelta
    epoch: str


class Steady:
    """What is known of the store's time. All times are arguments; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: _Look | None = None
        self._since: datetime | None = None
        self._jumps: list[Jump] = []

    def saw(self, now: datetime, own: timedelta, epoch: str) -> News:
        """The store's clock showed *now* and its epoch was *epoch* when our own clock showed *own*."""
        with self._lock:
            last = self._last
            if last is not None and own < last.own:
                # Another thread asked later and was quicker to tell.
                return News()
            self._last = _Look(now, own, epoch)
            if last is None:
                self._since = now
                return News(has_new_epoch=True)
            expected = last.now + (own - last.own)
            jump = Jump(last.now, expected, now - expected) if abs(now - expected) > JUMP_MAX else None
            if jump is not None:
                self._jumps = [*self._jumps[1 - JUMPS_KEPT :], jump]
            news = News(jump, epoch != last.epoch)
            if jump is not None or news.has_new_epoch or own - last.own > STORE_GAP_MAX:
                self._since = now
            return news

    def since(self, now: datetime) -> datetime:
        """From when on the store has been there without a break and kept its clock; *now* at worst."""
        with self._lock:
            return now if self._since is None else self._since

    def is_sure_of(self, now: datetime, own: timedelta) -> bool:
        """Whether a store's time that is read just now fits what was last seen.

        If it does not, the clock was set, or we were suspended, and nothing here knows of it yet.
        """
        with self._lock:
            if self._last is None:
                return False
            passed = own - self._last.own
            return passed <= STORE_GAP_MAX and abs(now - (self._last.now + passed)) <= JUMP_MAX

    def elapsed(self, began: datetime, now: datetime) -> timedelta:
        """For how long, at least, something has gone on that the store's clock dated *began*.

        A jump that came after it is taken out. Where *began* can be a time before a jump and one after
        it, which is so for every hour that the clock showed twice, the later one is taken.
        """
        spans = [now - began] if began <= now else []
        with self._lock:
            set_by = timedelta(0)
            for jump in reversed(self._jumps):
                set_by += jump.by
                if began <= jump.left:
                    spans.append(now - set_by - began)
        return max(min(spans, default=timedelta(0)), timedelta(0))

    def waited(self, began: datetime, now: datetime) -> timedelta:
        """As `elapsed`, but only while the store was there for everybody: since its last unrest."""
        return max(min(self.elapsed(began, now), now - self.since(now)), timedelta(0))
