"""Which agent gets which queued task, or in one sentence why none does.

Agents that serve the queue, hold a lease, proved that they consume, have room and the image, and meet
what the owner insists on. Of those the ones that meet most of the other wishes come first, and of these
the fullest that still fits is taken (bin-packing), so that large tasks find whole hosts later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.constraints import NONE, Wishes, wishes
from titus_celery.core.descriptor import Container, Demand
from titus_celery.core.model import Agent, AgentId, Capacity, EngineId
from titus_celery.core.resources import demand

__all__ = [
    "DEFAULT_QUEUE",
    "LEASE_SPAN_MAX",
    "NOWHERE",
    "PROOF_AGE_MAX",
    "Board",
    "Need",
    "Spread",
    "free_gpus",
    "has_lease",
    "need_of",
]

#: Where tasks go that name no queue.
DEFAULT_QUEUE: Final = "default"
#: How old the proof of an agent's consuming path may be; it renews it every few seconds.
PROOF_AGE_MAX: Final = timedelta(seconds=20)

#: No lease is longer: one that ends later is from before the store's clock was set back.
LEASE_SPAN_MAX: Final = timedelta(seconds=60)

_GIB: Final = 2**30
_GIGA: Final = 10**9
_MILLIS: Final = 1_000

#: How many tasks of a job each engine has.
Spread = Mapping[EngineId, int]
#: That of a job which has none anywhere.
NOWHERE: Final[Spread] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one task asks of the place where it is to run."""

    demand: Demand
    queue: str = DEFAULT_QUEUE
    hard: Wishes = NONE
    soft: Wishes = NONE
    #: The engines that have its image; None: any can get it.
    engines: frozenset[EngineId] | None = None

    @property
    def looks_at_others(self) -> bool:
        """Whether it matters where the other tasks of its job are."""
        return any(
            wish.zone_balance or wish.unique_host or wish.exclusive_host for wish in (self.hard, self.soft)
        )


def need_of(container: Container, inventories: Mapping[EngineId, Collection[str]]) -> Need:
    """What a (valid) container needs, where engines have the images that *inventories* say."""
    hard, soft = wishes(container.hard_constraints), wishes(container.soft_constraints)
    image = container.image.id
    # What is known by its digest in a registry can be had everywhere (A20).
    engines = None if "@" in image else frozenset(id for id, known in inventories.items() if image in known)
    return Need(
        demand=demand(container.resources),
        queue=hard.queue or DEFAULT_QUEUE,
        hard=hard,
        soft=soft,
        engines=engines,
    )


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why an agent will not do, said of one and of several."""

    of_one: str
    of_many: str


def _lacks(what: str) -> _Lack:
    return _Lack(f"lacks {what}", f"lack {what}")


_NO_LEASE: Final = _lacks("a live lease")
_NO_PROOF: Final = _lacks("a consumer that answers")
_NO_IMAGE: Final = _lacks("the image")
_NO_SLOT: Final = _lacks("a free slot")
_NOT_UNIQUE: Final = _Lack("has a task of this job", "have a task of this job")
_NOT_ALONE: Final = _Lack("has tasks of other jobs", "have tasks of other jobs")
_TAKEN: Final = _Lack("is kept by a job for itself", "are kept by jobs for themselves")
_UNBALANCED: Final = _Lack("is in a zone that has more", "are in a zone that has more")


@dataclass(slots=True)
class Board:
    """The agents as one placement pass sees them; what it places is taken off the room."""

    _agents: dict[AgentId, Agent]
    _now: datetime
    _full: set[AgentId] = field(default_factory=set)

    @classmethod
    def of(cls, agents: Iterable[Agent], now: datetime) -> Board:
        """The board at *now*."""
        return cls({agent.id: agent for agent in agents}, now)

    def pick(self, need: Need, spread: Spread = NOWHERE) -> Agent | str:
        """The agent for one task, or why there is none; nothing is taken yet.

        *spread* is of the task's job; it may be left out if the need does not look at others.
        """
        serving = [agent for agent in self._agents.values() if need.queue in agent.queues]
        if not serving:
            return f"no agent serves queue {need.queue}"
        zones = _zones(serving, spread, self._now)
        lacks = [(agent, self._lack(agent, need, spread, zones)) for agent in serving]
        fitting = [agent for agent, lack in lacks if lack is None]
        if fitting:
            return min(fitting, key=lambda agent: _rank(agent, need, spread, zones))
        return _why(need.queue, [lack for _, lack in lacks if lack])

    def take(
        self, agent: Agent, demand: Demand, gpus: Sequence[str] = (), *, exclusive: bool = False
    ) -> None:
        """Room on *agent* is gone, and of its engine for every agent on it."""
        for id, other in self._agents.items():
            if other.engine_id == agent.engine_id:
                self._agents[id] = replace(
                    other,
                    used=_added(other.used, demand, gpus, slots=id == agent.id),
                    engine_tasks=other.engine_tasks + 1,
                    engine_exclusive=other.engine_exclusive + exclusive,
                )

    def drop(self, agent: Agent) -> None:
        """Somebody else filled *agent* meanwhile: not to be picked again in this pass."""
        self._full.add(agent.id)

    def _lack(self, agent: Agent, need: Need, spread: Spread, zones: Mapping[str, int]) -> _Lack | None:
        """The first thing for which *agent* will not do."""
        hard, own = need.hard, spread.get(agent.engine_id, 0)
        if not has_lease(agent, self._now):
            return _NO_LEASE
        if abs(self._now - agent.proved_at) > PROOF_AGE_MAX:
            return _NO_PROOF
        if hard.host and agent.host != hard.host:
            return _Lack(f"is not host {hard.host}", f"are not host {hard.host}")
        if need.engines is not None and agent.engine_id not in need.engines:
            return _NO_IMAGE
        if hard.unique_host and own:
            return _NOT_UNIQUE
        if hard.exclusive_host and agent.engine_tasks > own:
            return _NOT_ALONE
        if agent.engine_exclusive > (own if hard.exclusive_host else 0):
            return _TAKEN
        if hard.zone_balance and zones[agent.zone] > min(zones.values()):
            return _UNBALANCED
        return _NO_SLOT if agent.id in self._full else _short_of(agent, need.demand)


def has_lease(agent: Agent, now: datetime) -> bool:
    """Whether the agent's lease holds at *now*."""
    return now < agent.lease_until <= now + LEASE_SPAN_MAX


def free_gpus(agent: Agent, count: int) -> tuple[str, ...]:
    """So many of the engine's GPUs that are nobody's."""
    return tuple(gpu for gpu in agent.capacity.gpus if gpu not in agent.used.gpus)[:count]


def _zones(serving: Sequence[Agent], spread: Spread, now: datetime) -> Mapping[str, int]:
    """How many tasks of the job each zone has in which it could have one."""
    homes = {agent.engine_id: agent.zone for agent in serving}
    counts = Counter({agent.zone: 0 for agent in serving if has_lease(agent, now)})
    for engine, count in spread.items():
        if engine in homes:
            counts[homes[engine]] += count
    return counts


def _rank(agent: Agent, need: Need, spread: Spread, zones: Mapping[str, int]) -> tuple[int | str, ...]:
    """Lower is better: wishes that are not met first, then what would be left of the engine."""
    soft, own = need.soft, spread.get(agent.engine_id, 0)
    unmet = (
        bool(soft.host and agent.host != soft.host)
        + bool(soft.queue and soft.queue not in agent.queues)
        + bool(soft.unique_host and own)
        + bool(soft.exclusive_host and agent.engine_tasks > own)
    )
    crowd = zones[agent.zone] if soft.zone_balance or need.hard.zone_balance else 0
    return (unmet, crowd, agent.capacity.cpu_millis - agent.used.cpu_millis, agent.id)


def _added(used: Capacity, demand: Demand, gpus: Sequence[str], *, slots: int) -> Capacity:
    return Capacity(
        cpu_millis=used.cpu_millis + demand.cpu_millis,
        memory_bytes=used.memory_bytes + demand.memory_bytes,
        slots=used.slots + slots,
        disk_bytes=used.disk_bytes + demand.disk_bytes,
        network_mbps=used.network_mbps + demand.network_mbps,
        gpus=(*used.gpus, *gpus),
    )


def _short_of(agent: Agent, demand: Demand) -> _Lack | None:
    size, used = agent.capacity, agent.used
    if size.cpu_millis - used.cpu_millis < demand.cpu_millis:
        return _lacks(f"cpu (needs {demand.cpu_millis / _MILLIS:g} cores)")
    if size.memory_bytes - used.memory_bytes < demand.memory_bytes:
        return _lacks(f"memory (needs {demand.memory_bytes / _GIB:.3g} GiB)")
    if size.disk_bytes and size.disk_bytes - used.disk_bytes < demand.disk_bytes:
        return _lacks(f"disk (needs {demand.disk_bytes / _GIGA:.3g} GB)")
    if size.network_mbps and size.network_mbps - used.network_mbps < demand.network_mbps:
        return _lacks(f"network (needs {demand.network_mbps} Mbps)")
    if len(free_gpus(agent, demand.gpus)) < demand.gpus:
        return _lacks(f"GPUs (needs {demand.gpus})")
    return None if used.slots < size.slots else _NO_SLOT


def _why(queue: str, lacks: Sequence[_Lack]) -> str:
    counts = sorted(Counter(lacks).items(), key=lambda item: item[0].of_one)
    parts = ", ".join(f"{count} {lack.of_one if count == 1 else lack.of_many}" for lack, count in counts)
    agents = "1 agent serves" if len(lacks) == 1 else f"{len(lacks)} agents serve"
    return f"{agents} queue {queue}: {parts}"
