"""The nouns: jobs, tasks and what describes them, as frozen values.

A change of any of them is a new value. Instants are aware UTC datetimes, durations timedeltas,
memory is in bytes, cpu in thousandths of a core.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NewType

from titus_celery.core.reasons import Reason
from titus_celery.core.states import State

__all__ = [
    "Agent",
    "AgentId",
    "BatchSpec",
    "Caller",
    "Capacity",
    "ClusterId",
    "Constraints",
    "Container",
    "Deadline",
    "DeadlineKind",
    "Demand",
    "Dispatch",
    "EngineId",
    "Exit",
    "Holding",
    "Image",
    "Job",
    "JobDescriptor",
    "JobGroup",
    "JobId",
    "JobSummary",
    "KillIntent",
    "Owner",
    "RetryKind",
    "RetryPolicy",
    "StateChange",
    "Task",
    "TaskId",
]

JobId = NewType("JobId", str)
TaskId = NewType("TaskId", str)
ClusterId = NewType("ClusterId", str)
#: One Celery worker that runs containers.
AgentId = NewType("AgentId", str)
#: One Docker Engine, by the id it gives itself; it is what "host" means for placement.
EngineId = NewType("EngineId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who answers for a job (docs/semantics.md A3)."""

    owner_email: str = ""
    team_email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, as its metadata says; both may be empty."""

    id: str = ""
    email: str = ""


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
    """What one task needs of a host."""

    cpu_millis: int
    memory_bytes: int


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
class JobDescriptor:
    """A job as its owner describes it."""

    batch: BatchSpec
    owner: Owner = field(default_factory=Owner)
    app_name: str = ""
    group: JobGroup | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)

    @property
    def container(self) -> Container:
        """The one container of a batch job that passed validation."""
        return self.containers[self.batch.container_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One entry of a history."""

    state: State
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KillIntent:
    """That somebody wants it dead, recorded before anything is done about it."""

    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended. *signal* is zero unless a signal ended it."""

    code: int
    signal: int = 0
    oom: bool = False
    #: What else than its program and its agent ended it, in words; empty if nothing is known of that.
    outside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """The order that an agent got, numbered so that a stale copy of it is known as such."""

    number: int
    agent_id: AgentId
    engine_id: EngineId
    host: str
    zone: str
    region: str
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The wish for one run of a container, and what became of it. Each attempt of a slot has its own."""

    id: TaskId
    job_id: JobId
    slot: int
    #: 1 for the first run of the slot.
    attempt: int
    original_id: TaskId
    resubmit_of: TaskId | None = None
    #: Runs of this slot before this one that ended for reasons of the application.
    user_retries: int = 0
    #: Runs of this slot before this one that the infrastructure spoiled (P7).
    infra_retries: int = 0
    #: How many failures in a row count towards the back-off of the next delay.
    backoff_step: int = 0
    history: tuple[StateChange, ...]
    reason: Reason | None = None
    dispatch: Dispatch | None = None
    #: How often an order for this task went out; the next dispatch gets this plus one.
    dispatches: int = 0
    kill: KillIntent | None = None
    #: Why its agent is to end it, when control found that it must: the agent confirms that it is gone.
    stop_for: Reason | None = None
    exit: Exit | None = None
    #: On a failed task: when its replacement is due. None: there will be none.
    retry_at: datetime | None = None
    replaced_by: TaskId | None = None
    ip: str = ""
    #: Counts the writes of this record, from 1.
    version: int = 1

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self.history[-1].state

    @property
    def is_open(self) -> bool:
        """Whether its slot still waits for it: it lives, or its replacement is due."""
        return not self.state.is_final or self.retry_at is not None

    @property
    def holds(self) -> Dispatch | None:
        """The dispatch whose room it occupies at this moment."""
        return None if self.state.is_final else self.dispatch

    def at(self, state: State) -> datetime | None:
        """When it entered *state*, if it ever did."""
        return next((change.at for change in self.history if change.state is state), None)

    def moved(self, state: State, now: datetime) -> tuple[StateChange, ...]:
        """Its history with *state* entered at *now*, or a moment later: times never decrease."""
        return (*self.history, StateChange(state=state, at=max(now, self.history[-1].at)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and its own record; its tasks are records of their own."""

    id: JobId
    cluster_id: ClusterId
    descriptor: JobDescriptor
    created_by: str
    history: tuple[StateChange, ...]
    reason: Reason | None = None
    kill: KillIntent | None = None
    #: Moves only with kills and changes of the definition; every decision about a task names the
    #: one it saw, so that none of them outruns a kill.
    intent: int = 1
    #: Slots that ended well, and that ended otherwise.
    slots_ok: int = 0
    slots_failed: int = 0
    #: "<task id>: <reason>" of the first slot that failed for good.
    first_failure: str = ""
    #: Counts the writes of this record, from 1.
    version: int = 1

    @property
    def state(self) -> State:
        """The furthest that any task got, or its end (A6)."""
        return self.history[-1].state

    @property
    def created_at(self) -> datetime:
        """When it was accepted."""
        return self.history[0].at

    def with_intent(self, kill: KillIntent) -> Job:
        """This job with a kill recorded, under a new intent version."""
        return replace(self, kill=kill, intent=self.intent + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job together with the tasks that a query asked for."""

    job: Job
    tasks: tuple[Task, ...]


class DeadlineKind(enum.Enum):
    """What is to be looked at when a deadline comes."""

    #: Make the replacement of a failed task (entity: task id).
    RETRY = "retry"
    #: End a run that outlived its limit, if its agent did not (entity: task id).
    LIMIT = "limit"
    #: Send an order again that was not claimed (entity: task id).
    REPUBLISH = "republish"
    #: Give up a start that takes for ever (entity: task id).
    STUCK = "stuck"
    #: Carry a job's kill to its tasks (entity: job id).
    FANOUT = "fanout"
    #: End a job whose slots are all over (entity: job id).
    SETTLE = "settle"
    #: Turn an ended job and its tasks into one compressed record (entity: job id).
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A due time in the store. One per kind and entity: arming it again moves it."""

    kind: DeadlineKind
    entity: str
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an engine (cpu, memory) and an agent on it (Celery slots) can hold."""

    cpu_millis: int
    memory_bytes: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent as it reports itself, and what of it is taken."""

    id: AgentId
    engine_id: EngineId
    host: str
    zone: str
    region: str
    queues: tuple[str, ...]
    capacity: Capacity
    #: What is reserved on it now: cpu and memory of its engine, slots of its own.
    used: Capacity
    #: Until when its lease holds; the store's time.
    lease_until: datetime
    #: Grows each time that a process gets the lease after it was lost, and never repeats.
    epoch: int = 0
    #: Which process has the lease, or had it last.
    holder: str = ""
    #: How long after the end of its lease its containers are gone for sure, because it ends them itself
    #: (docs/semantics.md B3.1). Zero: it promises nothing.
    gone_after: timedelta = timedelta(0)
    #: When its Celery consumer last proved that it consumes.
    proved_at: datetime


@dataclass(frozen=True, slots=True)
class Holding:
    """The right to write as an agent: good for as long as nobody else got its lease."""

    agent_id: AgentId
    epoch: int
