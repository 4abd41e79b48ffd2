"""Agents: their records and leases, what is reserved on them, and the images their engines have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from titus_celery.adapters import ledger as books
from titus_celery.adapters.codec import to_text
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import (
    AtMost,
    Check,
    Delete,
    FieldIs,
    HashAdd,
    HashSet,
    HashSetNew,
    Keyspace,
    Kind,
    ScoreIs,
    SetAdd,
    SetRemove,
    SizeIs,
    Write,
    from_ms,
    to_ms,
)
from titus_celery.adapters.layout import AGENT_EPOCH
from titus_celery.adapters.records import value_of
from titus_celery.adapters.store import read_views
from titus_celery.core.model import Agent, AgentId, Capacity, EngineId, TaskId
from titus_celery.core.placement import LEASE_SPAN_MAX
from titus_celery.errors import Conflict, PlaceTaken, StoreCorrupt
from titus_celery.ports import TaskView

__all__ = ["AGENT_KEPT", "AgentStore"]

_LOG: Final = logging.getLogger(__name__)

#: How long an agent that left is still known, for people who look for it, if nothing is held on it.
AGENT_KEPT: Final = timedelta(days=1)
#: Agents are some thousands at most; all of them are asked for.
_ALL: Final = 1_000_000_000
#: Agents that one renewal may forget, so that it stays short.
_FORGET_MAX: Final = 10
#: Others may change a lease between a look at it and the commit, but not so often in a row.
TRIES_MAX: Final = 20

_T = TypeVar("_T")

_RECORD, _PROVED, _HOLDER = "record", "proved_at", "holder"


@dataclass(frozen=True, slots=True)
class _Lease:
    """What the store says of an agent's lease; epoch 0: nobody ever had it, or that is forgotten."""

    epoch: int
    holder: str
    #: In ms; None: it never began.
    until: int | None
    #: When the agent proved that it consumes, if it ever did.
    proved_at: datetime | None

    def lasts(self, now: datetime) -> bool:
        """Whether somebody has it; what ends too late is from before the store's clock was set back."""
        if not self.epoch or self.until is None:
            return False
        return to_ms(now) < self.until <= to_ms(now + LEASE_SPAN_MAX)

    def next_epoch(self, agent: Agent, now: datetime, is_gone: Callable[[str], bool]) -> int:
        """The epoch under which *agent* may have it now; PlaceTaken if it may not.

        A new one is greater than the last and at least the time in ms, so that none comes twice even if
        the store forgets the agent, or its own last writes.
        """
        if self.lasts(now):
            if self.holder == agent.holder:
                return self.epoch
            if not is_gone(self.holder):
                left = from_ms(self.until or 0) - now
                raise PlaceTaken(agent.id, self.holder, left.total_seconds())
        return max(self.epoch + 1, to_ms(now))


class AgentStore:
    """The AgentRegistry of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)
        #: The inventories as they were read last, by how often they had been reported then.
        self._inventories: Mapping[EngineId, tuple[str, Mapping[str, str]]] = {}

    def hold(self, agent: Agent, span: timedelta, is_gone: Callable[[str], bool]) -> Agent:
        """Get or renew the lease for *agent.holder* (see AgentRegistry); *used* is not looked up.

        ValueError if *span* is longer than any lease may be.
        """
        if span > LEASE_SPAN_MAX:
            raise ValueError(f"a lease of {span} is longer than {LEASE_SPAN_MAX}")

        def take(lease: _Lease, now: datetime) -> Agent:
            held = replace(
                agent,
                epoch=lease.next_epoch(agent, now, is_gone),
                lease_until=from_ms(to_ms(now + span)),
                proved_at=lease.proved_at or agent.proved_at,
            )
            self._keyspace.transact(self._unchanged(agent.id, lease), self._taking(held))
            return held

        held = self._with_lease(agent.id, take)
        try:
            self._forget(held.lease_until - span - AGENT_KEPT)
        except StoreCorrupt as error:
            # Somebody else's record must not cost this agent its lease.
            _LOG.warning("agents that are long gone are not forgotten: %s", error)
        return held

    def prove(self, agent_id: AgentId) -> None:
        """Record that the agent's Celery consumer consumes, now."""
        now = self._keyspace.now()
        self._keyspace.transact([], [HashSet(self._keys.agent(agent_id), {_PROVED: str(to_ms(now))})])

    def leave(self, agent_id: AgentId, holder: str) -> None:
        """Give up the lease if *holder* has it, so that nothing more is placed there."""

        def end(lease: _Lease, now: datetime) -> None:
            if lease.holder == holder and lease.until is not None and lease.until > to_ms(now):
                writes = [SetAdd(self._keys.agents, agent_id, to_ms(now))]
                self._keyspace.transact(self._unchanged(agent_id, lease), writes)

        self._with_lease(agent_id, end)

    def agents(self) -> tuple[Sequence[Agent], datetime]:
        """Every agent whose record is kept, with what is reserved on it, and the store's time."""
        leases, _ = self._keyspace.members(self._keys.agents, 0, _ALL)
        keys = [self._keys.agent(member) for member, _ in leases]
        (ledger, *found), now = self._keyspace.hashes([self._keys.ledger, *keys])
        agents = [
            self._agent(key, fields, ledger, until)
            for key, fields, (_, until) in zip(keys, found, leases, strict=True)
            if _RECORD in fields
        ]
        return sorted(agents, key=lambda agent: agent.id), now

    def tasks_on(self, agent_id: AgentId) -> Sequence[TaskView]:
        """The tasks that hold room on this agent."""
        members, _ = self._keyspace.members(self._keys.agent_tasks(agent_id), 0, _ALL)
        return read_views(self._keyspace, self._keys, [TaskId(member) for member, _ in members])

    def report_images(self, engine_id: EngineId, images: Mapping[str, str]) -> None:
        """Replace the engine's inventory."""
        key = self._keys.images(engine_id)
        writes: list[Write] = [Delete(key, Kind.HASH)]
        if images:
            writes.append(HashSet(key, images))
        # The engine is known even if it has no image at all.
        writes.append(SetAdd(self._keys.engines, engine_id, to_ms(self._keyspace.now())))
        writes.append(HashAdd(self._keys.inventories, engine_id, 1))
        self._keyspace.transact([], writes)

    def images(self) -> Mapping[EngineId, Mapping[str, str]]:
        """The newest inventory of every engine that reported one."""
        members, _ = self._keyspace.members(self._keys.engines, 0, _ALL)
        # In this order: what is reported in between is read now, and once more the next time.
        (counts,), _ = self._keyspace.hashes([self._keys.inventories])
        engines = [EngineId(member) for member, _ in members]
        known = self._inventories
        stale = [engine for engine in engines if known.get(engine, ("",))[0] != counts.get(engine, "")]
        fresh: Mapping[EngineId, Mapping[str, str]] = {}
        if stale:
            found, _ = self._keyspace.hashes([self._keys.images(engine) for engine in stale])
            fresh = dict(zip(stale, found, strict=True))
        read = {
            engine: (counts.get(engine, ""), fresh[engine]) if engine in fresh else known[engine]
            for engine in engines
        }
        self._inventories = read
        return {engine: images for engine, (_, images) in read.items()}

    def _with_lease(self, agent_id: AgentId, act: Callable[[_Lease, datetime], _T]) -> _T:
        """What *act* makes of the lease as it is, and again if that changed before it could commit."""
        for _ in range(TRIES_MAX):
            try:
                return act(*self._lease(agent_id))
            except Conflict:
                continue
        raise Conflict(f"the lease of agent {agent_id}")

    def _lease(self, agent_id: AgentId) -> tuple[_Lease, datetime]:
        key = self._keys.agent(agent_id)
        # In this order: whoever takes the lease after the first look changes the epoch, which a commit
        # checks; the other way round, a new lease would be seen without its end, as one that is over.
        (fields,), now = self._keyspace.hashes([key])
        until = self._keyspace.score(self._keys.agents, agent_id)
        try:
            proved_at = from_ms(int(fields[_PROVED])) if _PROVED in fields else None
            return _Lease(_epoch(fields), fields.get(_HOLDER, ""), until, proved_at), now
        except ValueError as error:
            raise StoreCorrupt(key, f"an agent without proper {error}") from error

    def _unchanged(self, agent_id: AgentId, lease: _Lease) -> list[Check]:
        """That the lease still is as it was read."""
        key, what = self._keys.agent(agent_id), f"the lease of agent {agent_id}"
        checks: list[Check] = []
        if lease.epoch:
            checks.append(FieldIs(key, AGENT_EPOCH, str(lease.epoch), what))
            checks.append(FieldIs(key, _HOLDER, lease.holder, what))
        else:
            checks.append(AtMost(key, AGENT_EPOCH, 0, 0, what))
        if lease.until is not None:
            checks.append(ScoreIs(self._keys.agents, agent_id, lease.until, what))
        return checks

    def _taking(self, held: Agent) -> list[Write]:
        key = self._keys.agent(held.id)
        # What moves by itself has fields of its own.
        record = replace(held, used=_NOTHING, epoch=0, holder="")
        return [
            HashSet(key, {_RECORD: to_text(record), AGENT_EPOCH: str(held.epoch), _HOLDER: held.holder}),
            HashSetNew(key, _PROVED, str(to_ms(held.proved_at))),
            SetAdd(self._keys.agents, held.id, to_ms(held.lease_until)),
        ]

    def _agent(self, key: str, fields: Mapping[str, str], ledger: Mapping[str, str], until: int) -> Agent:
        agent = value_of(Agent, key, fields[_RECORD])
        try:
            used = books.used(ledger, agent)
            proved_at = from_ms(int(fields[_PROVED]))
            return replace(
                agent,
                used=used.capacity,
                engine_tasks=used.tasks,
                engine_exclusive=used.exclusive,
                lease_until=from_ms(until),
                proved_at=proved_at,
                epoch=_epoch(fields),
                holder=fields.get(_HOLDER, ""),
            )
        except (KeyError, ValueError) as error:
            raise StoreCorrupt(key, f"an agent without proper {error}") from error

    def _forget(self, before: datetime) -> None:
        """Drop the records of agents that are long gone and hold nothing, and inventories with them."""
        gone = self._keyspace.members_until(self._keys.agents, to_ms(before), _FORGET_MAX)
        if not gone:
            return
        agents, _ = self.agents()
        for member, until in gone:
            agent_id = AgentId(member)
            writes: list[Write] = [
                SetRemove(self._keys.agents, member),
                Delete(self._keys.agent(agent_id), Kind.HASH),
            ]
            engines = {agent.engine_id: agent for agent in agents if agent.id == agent_id}
            for engine_id in engines:
                if not any(agent.engine_id == engine_id and agent.id != agent_id for agent in agents):
                    writes.append(SetRemove(self._keys.engines, engine_id))
                    writes.append(Delete(self._keys.images(engine_id), Kind.HASH))
            try:
                self._keyspace.transact(
                    [
                        ScoreIs(self._keys.agents, member, until, f"agent {member}"),
                        SizeIs(self._keys.agent_tasks(agent_id), 0, f"agent {member}"),
                    ],
                    writes,
                )
            except Conflict:
                # It came back, or its tasks are not yet given up: another time.
                continue


def _epoch(fields: Mapping[str, str]) -> int:
    """The number, in the one way to write it: it is compared as text."""
    text = fields.get(AGENT_EPOCH, "0")
    epoch = int(text)
    if epoch < 0 or str(epoch) != text:
        raise ValueError(f"epoch: {text}")
    return epoch


_NOTHING: Final = Capacity(cpu_millis=0, memory_bytes=0, slots=0)
