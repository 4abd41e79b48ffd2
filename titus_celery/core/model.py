"""The nouns: jobs, tasks and what describes them, as frozen values.

A change of any of them is a new value. Instants are aware UTC datetimes, durations timedeltas,
memory is in bytes, cpu in thousandths of a core.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NewType

from titus_celery.core.descriptor import Demand, JobDescriptor, JobSpec, MantisSpec
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

__all__ = [
    "NO_ADDRESS",
    "STAGE_SLOTS_MAX",
    "Address",
    "Agent",
    "AgentId",
    "Caller",
    "Capacity",
    "ClusterId",
    "Deadline",
    "DeadlineKind",
    "Dispatch",
    "EngineId",
    "Exit",
    "Holding",
    "Job",
    "JobId",
    "JobSummary",
    "KillIntent",
    "Port",
    "Sent",
    "StageSlots",
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
class Caller:
    """Who makes a request, as its metadata says; both may be empty."""

    id: str = ""
    email: str = ""


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
    #: Of a job that we end by its own rules: what it ends with, and whether that is a success (A7).
    reason: Reason | None = None
    is_success: bool = False


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
    #: The GPUs of the engine that are the task's.
    gpus: tuple[str, ...] = ()
    #: Whether no task of another job may be on the engine meanwhile.
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of a container, and the one of its host by which it is reached."""

    inside: int
    outside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a running container can be reached."""

    #: Empty: it has no address of its own.
    ip: str = ""
    ports: tuple[Port, ...] = ()


NO_ADDRESS: Final = Address()

#: More slots than a stage ever gets, so that stages stand one after the other.
STAGE_SLOTS_MAX: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The wish for one run of a container, and what became of it. Each attempt of a slot has its own."""

    id: TaskId
    job_id: JobId
    slot: int
    #: Of a Mantis job: which of its stages the slot belongs to, counted from 0. Each counts its own slots.
    stage: int | None = None
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
    address: Address = NO_ADDRESS
    #: Counts the writes of this record, from 1.
    version: int = 1

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self.history[-1].state

    @property
    def rank(self) -> int:
        """Where its slot stands among those of its job."""
        return (self.stage or 0) * STAGE_SLOTS_MAX + self.slot

    @property
    def is_open(self) -> bool:
        """Whether its slot still waits for it: it lives, or its replacement is due."""
        return not self.state.is_final or self.retry_at is not None

    @property
    def is_surplus(self) -> bool:
        """Whether its slot went, because its service was made smaller."""
        return self.stop_for is not None and self.stop_for.code is Code.SCALED_DOWN

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
class Sent:
    """Under which idempotency key a job was sent, by whom, and what stands for the request (A19)."""

    caller: str
    key: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSlots:
    """The slots of one stage of a Mantis job, as `Job` counts those of other jobs."""

    made: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and its own record; its tasks are records of their own."""

    id: JobId
    cluster_id: ClusterId
    descriptor: JobDescriptor
    created_by: str
    #: None: without an idempotency key.
    sent: Sent | None = None
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
    #: Slots that were ever made; the next one gets this number, so that none comes twice.
    slots_made: int = 0
    #: Of a service: slots that were over for good and that it was then made smaller by.
    slots_dropped: int = 0
    #: Of a Mantis job: both of them by stage.
    stages: tuple[StageSlots, ...] = ()
    #: Of a Mantis job: how many slots of each stage are over, by its number (none: left out).
    stages_over: Mapping[str, int] = field(default_factory=dict)
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

    @property
    def is_staged(self) -> bool:
        """Whether it is a Mantis job, whose workers belong to stages."""
        return isinstance(self.descriptor.spec, MantisSpec)

    def with_intent(self, kill: KillIntent) -> Job:
        """This job with a kill recorded, under a new intent version."""
        return replace(self, kill=kill, intent=self.intent + 1)

    def with_spec(self, spec: JobSpec) -> Job:
        """This job with another definition, under a new intent version."""
        return replace(self, descriptor=replace(self.descriptor, spec=spec), intent=self.intent + 1)


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
    #: Make as many slots of a job as are wanted, or fewer (entity: job id).
    RESIZE = "resize"
    #: Let go of the oldest ended tasks of a job that has very many (entity: job id).
    PRUNE = "prune"
    #: End a job whose slots are all over (entity: job id).
    SETTLE = "settle"
    #: Turn an ended job and its tasks into one compressed record (entity: job id).
    ARCHIVE = "archive"
    #: See how far a Mantis job got, which its workers say together (entity: job id).
    PROGRESS = "progress"
    #: End a Mantis job that has run for as long as it may (entity: job id).
    EXPIRE = "expire"
    #: End a transient Mantis job that has no subscribers (entity: job id).
    IDLE = "idle"
    #: End a Mantis job one of whose workers may not be restarted any more (entity: job id).
    ABANDON = "abandon"
    #: Start the jobs that a cluster lacks, and end those that are too many (entity: cluster id).
    KEEP = "keep"
    #: Decide a time of a cluster's schedule (entity: cluster id).
    CRON = "cron"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A due time in the store. One per kind and entity: arming it again moves it."""

    kind: DeadlineKind
    entity: str
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an engine and an agent on it (Celery slots) can hold. Of disk and network zero is no limit."""

    cpu_millis: int
    memory_bytes: int
    slots: int
    disk_bytes: int = 0
    network_mbps: int = 0
    #: By the ids that the operator gave them.
    gpus: tuple[str, ...] = ()


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
    #: Tasks on its engine now, and those of them that are to be there without other jobs' tasks.
    engine_tasks: int = 0
    engine_exclusive: int = 0
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
