"""Which agent a starting process becomes: the one it was named for, or the first that is free here.

An agent's name outlives its process: its queue, its containers' labels and its tasks carry it. So a
process takes a place by its lease and gives it up with it, and the next one goes on from there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from titus_celery.core.model import Agent, AgentId, Holding
from titus_celery.core.placement import has_lease
from titus_celery.errors import PlaceTaken
from titus_celery.ports import AgentRegistry, Clock
from titus_celery.service.lease import Lease

__all__ = ["Places"]

#: Between two tries to get a lease that a process before us may have left behind.
WAIT_PAUSE: Final = timedelta(milliseconds=500)
#: Beyond the length of a lease: for the clocks of both sides, and the way there.
WAIT_SLACK: Final = timedelta(seconds=2)

_log = logging.getLogger(__name__)


class Places:
    """Takes a place for an agent's process."""

    def __init__(
        self,
        registry: AgentRegistry,
        clock: Clock,
        lease: Lease,
        span: timedelta,
        is_gone: Callable[[str], bool],
    ) -> None:
        """*lease* is told of the one that was taken, which is held for *span* at first."""
        self._registry = registry
        self._clock = clock
        self._lease = lease
        self._span = span
        self._is_gone = is_gone

    def named(self, agent: Agent) -> Agent:
        """Take the place of this very name; waits for a lease that may be a dead process's.

        PlaceTaken if somebody keeps it, or if tasks of the name are still on another engine.
        """
        until = self._clock.monotonic() + self._span + WAIT_SLACK
        while True:
            try:
                return self._take(agent)
            except PlaceTaken as error:
                if self._clock.monotonic() >= until or self._is_elsewhere(agent):
                    raise
                _log.info("waiting for the place: %s", error)
                threading.Event().wait(WAIT_PAUSE.total_seconds())

    def numbered(self, agent: Agent) -> Agent:
        """Take the first free of the places <name>-1, <name>-2 and so on."""
        for number in count(1):
            candidate = replace(agent, id=AgentId(f"{agent.id}-{number}"))
            try:
                return self._take(candidate)
            except PlaceTaken as error:
                _log.info("next place: %s", error)
        raise AssertionError("numbers do not end")

    def _take(self, agent: Agent) -> Agent:
        other = self._namesake(agent)
        if other is not None:
            now = self._registry.agents()[1]
            raise PlaceTaken(agent.id, f"on another engine, host {other.host}", _left(other, now))
        asked_at = self._clock.monotonic()
        taken = self._registry.hold(agent, self._span, self._is_gone)
        self._lease.renewed(Holding(taken.id, taken.epoch), asked_at)
        return taken

    def _is_elsewhere(self, agent: Agent) -> bool:
        return self._namesake(agent) is not None

    def _namesake(self, agent: Agent) -> Agent | None:
        """An agent of this name on another engine that lives, or whose tasks are not given up yet.

        The two would share a queue, and each would take the other's containers for vanished.
        """
        agents, now = self._registry.agents()
        for other in agents:
            is_namesake = other.id == agent.id and other.engine_id != agent.engine_id
            if is_namesake and (has_lease(other, now) or self._registry.tasks_on(other.id)):
                return other
        return None


def _left(agent: Agent, now: datetime) -> float:
    return max((agent.lease_until - now).total_seconds(), 0.0)
