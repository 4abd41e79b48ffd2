"""What is reserved where: the fields of the one hash in which all engines and agents are counted. Pure.

Every field is a number that a dispatch adds to and its end takes away from again: cpu, memory, disk and
network of its engine, one for each of its GPUs, how many tasks the engine has, and slots of the agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from titus_celery.core.model import Agent, Capacity, Dispatch, EngineId

__all__ = ["Used", "exclusive_field", "limit", "taken", "tasks_field", "used"]

_CPU, _MEMORY, _DISK, _NETWORK, _GPU = "cpu", "memory", "disk", "network", "gpu"
_TASKS, _EXCLUSIVE, _SLOTS = "tasks", "exclusive", "slots"

#: A GPU is one task's.
_OF_ONE: Final = 1


@dataclass(frozen=True, slots=True)
class Used:
    """What is reserved of an agent and its engine, and how many tasks the engine has."""

    capacity: Capacity
    tasks: int
    exclusive: int


def tasks_field(engine_id: EngineId) -> str:
    """Where the engine's tasks are counted."""
    return f"{_TASKS}:{engine_id}"


def exclusive_field(engine_id: EngineId) -> str:
    """Where those of them are counted that suffer no other job's."""
    return f"{_EXCLUSIVE}:{engine_id}"


def taken(dispatch: Dispatch) -> Mapping[str, int]:
    """What a dispatch takes, by field."""
    engine, demand = dispatch.engine_id, dispatch.demand
    amounts = {
        f"{_CPU}:{engine}": demand.cpu_millis,
        f"{_MEMORY}:{engine}": demand.memory_bytes,
        f"{_DISK}:{engine}": demand.disk_bytes,
        f"{_NETWORK}:{engine}": demand.network_mbps,
        tasks_field(engine): 1,
        exclusive_field(engine): int(dispatch.is_exclusive),
        f"{_SLOTS}:{dispatch.agent_id}": 1,
        **{f"{_GPU}:{engine}:{gpu}": _OF_ONE for gpu in dispatch.gpus},
    }
    return {field: amount for field, amount in amounts.items() if amount}


def limit(room: Capacity, field: str) -> int | None:
    """The most that a field may come to in this room; None: there is no such bound."""
    match field.partition(":")[0]:
        case "cpu":
            return room.cpu_millis
        case "memory":
            return room.memory_bytes
        case "slots":
            return room.slots
        case "disk":
            return room.disk_bytes or None
        case "network":
            return room.network_mbps or None
        case "gpu" if room.gpus:
            return _OF_ONE
    return None


def used(ledger: Mapping[str, str], agent: Agent) -> Used:
    """What the ledger says of an agent; ValueError if that is no number."""
    engine = agent.engine_id

    def number(field: str) -> int:
        return int(ledger.get(field, "0"))

    return Used(
        capacity=Capacity(
            cpu_millis=number(f"{_CPU}:{engine}"),
            memory_bytes=number(f"{_MEMORY}:{engine}"),
            slots=number(f"{_SLOTS}:{agent.id}"),
            disk_bytes=number(f"{_DISK}:{engine}"),
            network_mbps=number(f"{_NETWORK}:{engine}"),
            gpus=tuple(_gpus(ledger, f"{_GPU}:{engine}:")),
        ),
        tasks=number(tasks_field(engine)),
        exclusive=number(exclusive_field(engine)),
    )


def _gpus(ledger: Mapping[str, str], prefix: str) -> Iterator[str]:
    return (
        field.removeprefix(prefix)
        for field, count in ledger.items()
        if field.startswith(prefix) and int(count) > 0
    )
