"""Control's eye on the store: asks it at least once a second, and acts when its clock was set back.

Everything in control that gives up an agent, a start or a run asks here first whether the store's time
can be believed, and everything that places tasks, whether the store may have forgotten some.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from titus_celery.ports import Clock, Leases, Records
from titus_celery.service.steady import Jump, Steady

__all__ = ["PLACING_HELD", "Lookout"]

#: After a new epoch agents first tell what they run, within a renewal of their lease (2 s): a store
#: that restarted may have forgotten it, and would have it placed a second time.
PLACING_HELD: Final = timedelta(seconds=5)
#: A store that takes longer to answer tells too little about when its clock showed what it says.
ANSWER_MAX: Final = timedelta(seconds=2)
#: While control is at work it looks as often as while it waits.
LOOK_PERIOD: Final = timedelta(seconds=1)
#: Raised by who pulls deadlines, after the clock was set: all control processes see a jump within
#: STORE_GAP_MAX, and nobody sets a clock back twice within a minute.
SET_BACK_FLAG: Final = "clock-set-back"
SET_BACK_SPAN: Final = timedelta(seconds=60)
#: How long deadlines may have been due by the old clock without being acted on. Earlier ones are taken
#: for armed by the new clock, before its jump was seen.
BACKLOG_MAX: Final = timedelta(seconds=60)

_log = logging.getLogger(__name__)


class Lookout:
    """What this process knows of the store's time. Threads may share it."""

    def __init__(self, records: Records, leases: Leases, clock: Clock) -> None:
        self._records = records
        self._leases = leases
        self._clock = clock
        self.steady = Steady()
        self._looked_at: timedelta | None = None
        self._held_until = timedelta(0)
        self._to_pull: Jump | None = None

    def look(self) -> datetime:
        """Ask the store for its time and epoch; its time."""
        asked = self._clock.monotonic()
        now, own = self._records.now(), self._clock.monotonic()
        epoch = self._records.epoch()
        if self._clock.monotonic() - asked > ANSWER_MAX:
            return now
        self._looked_at = own
        news = self.steady.saw(now, own, epoch)
        if news.jump is not None:
            how = "forward" if news.jump.by > timedelta(0) else "back"
            _log.warning("the store's clock was set %s by %s", how, abs(news.jump.by))
            if news.jump.by < timedelta(0):
                self._to_pull = news.jump
        if news.has_new_epoch:
            self._hold_placing(own)
        self._pull()
        return now

    def look_if_due(self) -> None:
        """Look, unless it was done within the last second: for passes that take long."""
        if self._looked_at is None or self._clock.monotonic() - self._looked_at >= LOOK_PERIOD:
            self.look()

    def is_sure_of(self, now: datetime) -> bool:
        """Whether the store's time that was just read can be gone by (see Steady)."""
        return self.steady.is_sure_of(now, self._clock.monotonic())

    def is_placing_held(self) -> bool:
        """Whether the store may still lack what agents are about to tell it."""
        return self._clock.monotonic() < self._held_until

    def _hold_placing(self, own: timedelta) -> None:
        self._held_until = own + PLACING_HELD
        if self._records.live_jobs(0, 0)[1] == 0:
            # What was placed of a job that is not there cannot be placed again.
            self._held_until = own

    def _pull(self) -> None:
        """Deadlines armed before the clock was set back would come late by that."""
        jump = self._to_pull
        if jump is None:
            return
        is_ours = self._leases.raise_flag(SET_BACK_FLAG, SET_BACK_SPAN)
        self._to_pull = None
        if is_ours:
            now = jump.left + jump.by
            self._records.pull_deadlines(max(now, jump.seen - BACKLOG_MAX), -jump.by)
