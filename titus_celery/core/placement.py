"""Which agent gets which queued task, or in one sentence why none does.

Agents that serve the queue, hold a lease, proved that they consume, and have room. Of those the
fullest that still fits is taken (bin-packing), so that large tasks find whole hosts later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.model import Agent, AgentId, Capacity, Demand, EngineId

__all__ = ["DEFAULT_QUEUE", "LEASE_SPAN_MAX", "PROOF_AGE_MAX", "Board", "has_lease"]

#: Where tasks go that name no queue.
DEFAULT_QUEUE: Final = "default"
#: How old the proof of an agent's consuming path may be; it renews it every few seconds.
PROOF_AGE_MAX: Final = timedelta(seconds=20)

#: No lease is longer: one that ends later is from before the store's clock was set back.
LEASE_SPAN_MAX: Final = timedelta(seconds=60)

_GIB: Final = 2**30
_MILLIS: Final = 1_000


@dataclass(slots=True)
class Board:
    """The agents as one placement pass sees them; what it places is taken off the room."""

    _agents: dict[AgentId, Agent]
    _now: datetime

    @classmethod
    def of(cls, agents: Iterable[Agent], now: datetime) -> Board:
        """The board at *now*."""
        return cls({agent.id: agent for agent in agents}, now)

    def pick(self, queue: str, demand: Demand) -> Agent | str:
        """The agent for one task that needs *demand*, or why there is none; nothing is taken yet."""
        serving = [agent for agent in self._agents.values() if queue in agent.queues]
        if not serving:
            return f"no agent serves queue {queue}"
        lacks = [(agent, self._lacks(agent, demand)) for agent in serving]
        fitting = [agent for agent, what in lacks if not what]
        if fitting:
            return min(fitting, key=lambda agent: (_spare(agent), agent.id))
        return _why(queue, [what for _, what in lacks], demand)

    def take(self, agent: Agent, demand: Demand) -> None:
        """Room on *agent* is gone, and cpu and memory of its engine for every agent on it."""
        self._change(agent.engine_id, agent.id, demand)

    def drop(self, agent: Agent) -> None:
        """Somebody else filled *agent* meanwhile: not to be picked again in this pass."""
        self._agents[agent.id] = replace(agent, used=agent.capacity)

    def _lacks(self, agent: Agent, demand: Demand) -> str:
        """What the agent lacks to take *demand*; empty if nothing."""
        if not has_lease(agent, self._now):
            return "a live lease"
        if abs(self._now - agent.proved_at) > PROOF_AGE_MAX:
            return "a consumer that answers"
        return _short_of(agent, demand)

    def _change(self, engine: EngineId, taker: AgentId, demand: Demand) -> None:
        for id, agent in self._agents.items():
            if agent.engine_id == engine:
                used = Capacity(
                    cpu_millis=agent.used.cpu_millis + demand.cpu_millis,
                    memory_bytes=agent.used.memory_bytes + demand.memory_bytes,
                    slots=agent.used.slots + (id == taker),
                )
                self._agents[id] = replace(agent, used=used)


def has_lease(agent: Agent, now: datetime) -> bool:
    """Whether the agent's lease holds at *now*."""
    return now < agent.lease_until <= now + LEASE_SPAN_MAX


def _spare(agent: Agent) -> int:
    return agent.capacity.cpu_millis - agent.used.cpu_millis


def _short_of(agent: Agent, demand: Demand) -> str:
    if agent.capacity.cpu_millis - agent.used.cpu_millis < demand.cpu_millis:
        return "cpu"
    if agent.capacity.memory_bytes - agent.used.memory_bytes < demand.memory_bytes:
        return "memory"
    return "" if agent.used.slots < agent.capacity.slots else "a free slot"


def _why(queue: str, lacks: Sequence[str], demand: Demand) -> str:
    need: Mapping[str, str] = {
        "cpu": f" (needs {demand.cpu_millis / _MILLIS:g} cores)",
        "memory": f" (needs {demand.memory_bytes / _GIB:.3g} GiB)",
    }
    parts = ", ".join(
        f"{count} {'lacks' if count == 1 else 'lack'} {what}{need.get(what, '')}"
        for what, count in sorted(Counter(lacks).items())
    )
    agents = "1 agent serves" if len(lacks) == 1 else f"{len(lacks)} agents serve"
    return f"{agents} queue {queue}: {parts}"
