"""Giving up agents that were silent too long, and what they held (docs/semantics.md A8, B3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import lost
from titus_celery.core.model import Agent, Job, Task
from titus_celery.core.placement import LEASE_SPAN_MAX, has_lease
from titus_celery.core.states import State
from titus_celery.errors import TitusError
from titus_celery.ports import AgentRegistry
from titus_celery.service.change import WritePath
from titus_celery.service.faults import put_off
from titus_celery.service.lookout import Lookout

__all__ = ["Losing"]

#: How much longer tasks are waited for that another agent of their engine should have taken over.
SHARED_PATIENCE: Final = 2


class Losing:
    """Patience with agents, and its end."""

    def __init__(
        self, *, registry: AgentRegistry, writes: WritePath, lookout: Lookout, lost_after: timedelta
    ) -> None:
        self._registry = registry
        self._writes = writes
        self._lookout = lookout
        self._lost_after = lost_after

    def give_up(self, agents: Sequence[Agent], now: datetime, faults: list[TitusError]) -> None:
        """End the tasks of those *agents*, as they were at *now*, that are lost."""
        if not self._lookout.is_sure_of(now):
            return
        for agent in agents:
            silent = self._silence(agent, now)
            if has_lease(agent, now) or silent < self._patience(agent, agents, now):
                continue
            for view in self._registry.tasks_on(agent.id):
                with put_off(faults, f"task {view.task.id}"):
                    self._lose(view.task, agent, silent)

    def _patience(self, agent: Agent, agents: Sequence[Agent], now: datetime) -> timedelta:
        """How long the agent's tasks are waited for."""
        # One that promises to end its containers itself is waited for until it has.
        patience = max(self._lost_after, agent.gone_after)
        engine = agent.engine_id
        if any(each.engine_id == engine and has_lease(each, now) for each in agents):
            # Another agent sees its containers, and takes its tasks over or ends them: only if that
            # one fails, too, are they given up.
            patience *= SHARED_PATIENCE
        return patience

    def _silence(self, agent: Agent, now: datetime) -> timedelta:
        """How long the agent could have renewed its lease, and did not."""
        since = self._lookout.steady.since(now)
        if agent.lease_until > now + LEASE_SPAN_MAX:
            # Of a clock that was set back: it ended at some time in that clock's past.
            return now - since
        # An agent could not renew while the store was away, or all of us were suspended.
        return now - max(agent.lease_until, since)

    def _lose(self, known: Task, agent: Agent, silent: timedelta) -> None:
        def decide(job: Job, task: Task, now: datetime) -> Decision:
            began = task.at(State.RUNNING)
            ran = self._lookout.steady.elapsed(began, now) if began else timedelta(0)
            return lost(job, task, agent.id, silent, ran, now)

        self._writes.on_task(known.id, decide)
