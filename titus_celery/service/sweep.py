"""What control does when it is woken: act on due deadlines, give up lost agents, place tasks.

Every step is idempotent, so any number of sweeps may run at once, on any number of hosts.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.lifecycle import Spans
from titus_celery.errors import TitusError
from titus_celery.ports import AgentRegistry, Clock, Leases, Records, Subscribers
from titus_celery.service.ahead import Ahead
from titus_celery.service.change import WritePath
from titus_celery.service.deadlines import Deadlines
from titus_celery.service.keeper import Keeper
from titus_celery.service.lookout import Lookout
from titus_celery.service.losing import Losing
from titus_celery.service.placing import Placing

__all__ = ["WAKE_FLAG", "Sweep"]

#: Raised by who wakes control, lowered by the sweep: many wakes in a row cost one message.
WAKE_FLAG: Final = "wake"


class Sweep:
    """One pass over all that is due. `run` may be called from any thread at any time."""

    def __init__(
        self,
        *,
        records: Records,
        registry: AgentRegistry,
        leases: Leases,
        writes: WritePath,
        spans: Spans,
        lost_after: timedelta,
        clock: Clock,
        subscribers: Subscribers,
        keeper: Keeper,
        ahead: Ahead,
    ) -> None:
        self._registry = registry
        self._leases = leases
        lookout = Lookout(records, leases, clock)
        self._lookout = lookout
        self._deadlines = Deadlines(
            records=records,
            writes=writes,
            lookout=lookout,
            spans=spans,
            subscribers=subscribers,
            keeper=keeper,
            ahead=ahead,
        )
        self._losing = Losing(registry=registry, writes=writes, lookout=lookout, lost_after=lost_after)
        self._placing = Placing(
            records=records, registry=registry, writes=writes, lookout=lookout, clock=clock, spans=spans
        )
        self._wanted = threading.Event()
        self._running = threading.Lock()
        #: Set after each pass: there may be new deadlines.
        self.passed = threading.Event()

    def run(self) -> None:
        """Sweep now; if a sweep is under way in this process, it goes round once more instead."""
        self._wanted.set()
        while self._wanted.is_set() and self._running.acquire(blocking=False):
            try:
                self._wanted.clear()
                self._once()
            finally:
                self._running.release()
                self.passed.set()

    def look(self) -> datetime:
        """Look at the store's clock, which must be done every second; what it shows."""
        return self._lookout.look()

    def _once(self) -> None:
        # Lowered first: whoever commits from here on wakes us again.
        self._leases.lower_flag(WAKE_FLAG)
        faults: list[TitusError] = []
        self._deadlines.act_on_due(self._lookout.look(), faults)
        agents, now = self._registry.agents()
        self._losing.give_up(agents, now, faults)
        self._placing.place(agents, now, faults)
        if faults:
            # Only now: what is broken must not keep the rest from going on.
            raise faults[0]
