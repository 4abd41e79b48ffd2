"""What passes between an agent and its engine: orders for containers, and what the engine shows of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from titus_celery.core.descriptor import Demand
from titus_celery.core.model import Address, AgentId, Capacity, EngineId, Exit, JobId, TaskId
from titus_celery.core.parameters import Volume

__all__ = ["ContainerOrder", "EngineFacts", "Phase", "Seen", "Started"]


class Phase(enum.Enum):
    """What the engine knows of a container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOrder:
    """All that an engine needs to make the container of one task."""

    task_id: TaskId
    job_id: JobId
    installation: str
    agent_id: AgentId
    dispatch_number: int
    #: The image's id, never a name that could have moved.
    image_id: str
    entry_point: tuple[str, ...]
    command: tuple[str, ...]
    #: The container's whole environment beyond the image's own.
    env: Mapping[str, str]
    demand: Demand
    #: Which of the host's GPUs, by the ids that its agent gave.
    gpus: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    #: Further labels; ours are added.
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Started:
    """A container runs, since when, and where it can be reached."""

    container_id: str
    at: datetime
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One of our containers as the engine shows it."""

    task_id: TaskId
    container_id: str
    installation: str
    agent_id: AgentId
    dispatch_number: int
    phase: Phase
    exit: Exit | None
    started_at: datetime | None
    address: Address


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine's own id, name, versions and size. *capacity*.slots is 0: slots are the agent's."""

    id: EngineId
    name: str
    version: str
    api_version: str
    capacity: Capacity
