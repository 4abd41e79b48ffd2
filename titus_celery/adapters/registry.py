"""Agents: their records and leases, what is reserved on them, and the images their engines have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.adapters.codec import to_text
from titus_celery.adapters.keys import Keys, ledger_fields
from titus_celery.adapters.keyspace import (
    Delete,
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
from titus_celery.adapters.records import value_of
from titus_celery.adapters.store import read_views
from titus_celery.core.model import Agent, AgentId, Capacity, EngineId, TaskId
from titus_celery.errors import Conflict, StoreCorrupt
from titus_celery.ports import TaskView

__all__ = ["AGENT_KEPT", "AgentStore"]

#: How long an agent that left is still known, for people who look for it, if nothing is held on it.
AGENT_KEPT: Final = timedelta(days=1)
#: Agents are some thousands at most; all of them are asked for.
_ALL: Final = 1_000_000_000
#: Agents that one renewal may forget, so that it stays short.
_FORGET_MAX: Final = 10

_RECORD, _PROVED = "record", "proved_at"


class AgentStore:
    """The AgentRegistry of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def renew(self, agent: Agent, lease: timedelta) -> datetime:
        """Register or renew; the lease now ends at the returned store time."""
        now = self._keyspace.now()
        until = now + lease
        key = self._keys.agent(agent.id)
        record = replace(agent, lease_until=until, used=_NOTHING)
        self._keyspace.transact(
            [],
            [
                HashSet(key, {_RECORD: to_text(record)}),
                HashSetNew(key, _PROVED, str(to_ms(agent.proved_at))),
                SetAdd(self._keys.agents, agent.id, to_ms(until)),
            ],
        )
        self._forget(now - AGENT_KEPT)
        return from_ms(to_ms(until))

    def prove(self, agent_id: AgentId) -> None:
        """Record that the agent's Celery consumer consumes, now."""
        now = self._keyspace.now()
        self._keyspace.transact([], [HashSet(self._keys.agent(agent_id), {_PROVED: str(to_ms(now))})])

    def leave(self, agent_id: AgentId) -> None:
        """Give up the lease, so that nothing more is placed there."""
        leases, _ = self._keyspace.members(self._keys.agents, 0, _ALL)
        now = to_ms(self._keyspace.now())
        for member, until in leases:
            if member == agent_id and until > now:
                self._keyspace.transact([], [SetAdd(self._keys.agents, agent_id, now)])

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
        self._keyspace.transact([], writes)

    def images(self) -> Mapping[EngineId, Mapping[str, str]]:
        """The newest inventory of every engine that reported one."""
        members, _ = self._keyspace.members(self._keys.engines, 0, _ALL)
        engines = [EngineId(member) for member, _ in members]
        found, _ = self._keyspace.hashes([self._keys.images(engine) for engine in engines])
        return dict(zip(engines, found, strict=True))

    def _agent(self, key: str, fields: Mapping[str, str], ledger: Mapping[str, str], until: int) -> Agent:
        agent = value_of(Agent, key, fields[_RECORD])
        try:
            used = (int(ledger.get(field, "0")) for field in ledger_fields(agent.id, agent.engine_id))
            proved_at = from_ms(int(fields[_PROVED]))
            return replace(
                agent,
                used=Capacity(**dict(zip(_PARTS, used, strict=True))),
                lease_until=from_ms(until),
                proved_at=proved_at,
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


_NOTHING: Final = Capacity(cpu_millis=0, memory_bytes=0, slots=0)
_PARTS: Final = ("cpu_millis", "memory_bytes", "slots")
