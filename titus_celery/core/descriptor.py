"""What an owner describes: a job, its containers and its rules, as frozen values.

A change of any of them is a new value. Durations are timedeltas, memory is in bytes, cpu in
thousandths of a core.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = [
    "BatchSpec",
    "Constraints",
    "Container",
    "Demand",
    "Image",
    "Instances",
    "JobDescriptor",
    "JobGroup",
    "JobSpec",
    "JobType",
    "MantisAgreement",
    "MantisSpec",
    "Owner",
    "RetryKind",
    "RetryPolicy",
    "ScalingPolicy",
    "ServiceSpec",
    "Stage",
    "container_ids",
    "type_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who answers for a job (docs/semantics.md A3)."""

    owner_email: str = ""
    team_email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image by name, by id, or (once resolved) both; only the id is ever run (A20)."""

    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Placement wishes, as the caller wrote them."""

    constraints: Mapping[str, str] = field(default_factory=dict)
    expression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What to run: image, command, surroundings and limits."""

    image: Image = field(default_factory=Image)
    resources: Mapping[str, str] = field(default_factory=dict)
    security_profile: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    soft_constraints: Constraints = field(default_factory=Constraints)
    hard_constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one task needs of a host. Of disk and network zero means without a limit."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int = 0
    network_mbps: int = 0
    gpus: int = 0
    #: The container's ports that are to be reached from outside.
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroup:
    """Free naming of a job within an application."""

    stack: str = ""
    detail: str = ""
    sequence: str = ""


class RetryKind(enum.Enum):
    """The three shapes of a retry policy."""

    IMMEDIATE = "immediate"
    DELAYED = "delayed"
    EXPONENTIAL = "exponentialBackOff"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and after which delays a failed slot is tried again (A8, B3.3).

    *delay* is the later delays of `delayed` and the cap of `exponentialBackOff` (zero: no cap).
    """

    kind: RetryKind = RetryKind.IMMEDIATE
    retries: int = 0
    delay_first: timedelta = timedelta(0)
    delay: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many tasks a job is to have; what is left out is zero."""

    min: int = 0
    desired: int = 0
    max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """A batch job: so many tasks, each to run to its end within the limit."""

    desired: int
    #: Kept as sent; a batch job does not scale.
    min: int = 0
    max: int = 0
    #: Per attempt, from RUNNING (A5); zero until the default is filled in.
    runtime_limit: timedelta = timedelta(0)
    retry: RetryPolicy | None = None
    container_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """When the number of a service's tasks is to change, and how, in the words of B7.1."""

    condition: str
    action: str
    #: For how long the condition must hold.
    duration: timedelta = timedelta(0)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A service job: so many tasks at any time, each replaced when it ends (A13)."""

    desired: int
    min: int = 0
    #: Zero until the default is filled in.
    max: int = 0
    #: Whether scaling policies may change *desired*.
    enabled: bool = False
    scaling: tuple[ScalingPolicy, ...] = ()
    #: None: restarted for ever.
    retry: RetryPolicy | None = None
    container_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a Mantis job: so many workers of one kind (docs/semantics.md B6.5)."""

    desired: int
    min: int = 0
    #: Zero: no bound of its own.
    max: int = 0
    #: None: the ladder of B6.5.
    retry: RetryPolicy | None = None
    container_id: str = ""
    #: Whether a scaling policy came along.
    is_scaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MantisAgreement:
    """How long a Mantis job runs, and that there is one of its type (the API's MantisJobSLA)."""

    #: Since submission; zero: for ever.
    runtime_limit: timedelta = timedelta(0)
    #: How long it runs at least before it may end for want of subscribers.
    min_runtime: timedelta = timedelta(0)
    #: Whether it ends without subscribers.
    is_transient: bool = False
    #: Of one cluster only one job at a time has it; empty: any number.
    user_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MantisSpec:
    """A Mantis job: stages that run side by side, in a lasting order."""

    name: str
    stages: tuple[Stage, ...]
    agreement: MantisAgreement = field(default_factory=MantisAgreement)
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: How long a transient job lives without subscribers; zero until the default is filled in.
    subscription_timeout: timedelta = timedelta(0)
    #: Whether scaling policies may change its stages; the wire shows it nowhere.
    enabled: bool = True


JobSpec = BatchSpec | ServiceSpec | MantisSpec


class JobType(enum.Enum):
    """The kinds of jobs and of their clusters, by the names of the wire."""

    BATCH = "batch"
    SERVICE = "service"
    MANTIS = "mantis"


def type_of(spec: JobSpec) -> JobType:
    """Which kind of job it describes."""
    match spec:
        case BatchSpec():
            return JobType.BATCH
        case ServiceSpec():
            return JobType.SERVICE
        case MantisSpec():
            return JobType.MANTIS


def container_ids(spec: JobSpec) -> tuple[str, ...]:
    """The containers that it names: one, or that of each stage in their order."""
    if isinstance(spec, MantisSpec):
        return tuple(stage.container_id for stage in spec.stages)
    return (spec.container_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDescriptor:
    """A job as its owner describes it."""

    spec: JobSpec
    owner: Owner = field(default_factory=Owner)
    app_name: str = ""
    group: JobGroup | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)
    #: Which cluster it is to join; empty: the built-in one of its type (A2).
    cluster_id: str = ""

    def container_of(self, stage: int | None) -> Container:
        """What the tasks of a stage run (None: of a job without stages), once the job passed validation."""
        return self.containers[container_ids(self.spec)[stage or 0]]

    @property
    def runtime_limit(self) -> timedelta | None:
        """How long an attempt may be RUNNING (A5); None: for ever."""
        return self.spec.runtime_limit if isinstance(self.spec, BatchSpec) else None
