"""What a decision is, and what committing it means.

A decision says what should be true next and what must be said once it is. `change_of` derives from
before and after everything that the commit needs, notifications included, so that nobody can
forget to send one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from titus_celery.core.cluster import Cluster, Firing
from titus_celery.core.model import (
    AgentId,
    Capacity,
    ClusterId,
    Deadline,
    DeadlineKind,
    Dispatch,
    Holding,
    Job,
    JobId,
    Task,
    TaskId,
)

__all__ = [
    "NOTHING",
    "Change",
    "ClusterChange",
    "ClusterChanged",
    "ClusterRemoved",
    "Command",
    "Company",
    "Decision",
    "Gate",
    "JobAdded",
    "JobEnded",
    "JobGone",
    "JobMoved",
    "LogEntry",
    "Notification",
    "Prove",
    "RunTask",
    "StopTask",
    "TaskChange",
    "TaskUpdated",
    "Wake",
    "change_of",
]


@dataclass(frozen=True, slots=True)
class RunTask:
    """Order: the agent is to run this task. Safe to repeat: the dispatch number tells.

    *adopt* lets it go on where a run of an earlier process of the agent stopped.
    """

    task_id: TaskId
    job_id: JobId
    dispatch: Dispatch
    image: str
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class StopTask:
    """Order: the agent is to look at this task's kill intent now, not at its next poll."""

    task_id: TaskId
    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class Prove:
    """Order to an agent, from itself: show that its consumer consumes."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class Wake:
    """Order: control is to look for work now, not at the next tick."""


Command = RunTask | StopTask | Prove | Wake


@dataclass(frozen=True, slots=True)
class JobAdded:
    """A job is new, or its definition changed."""

    job: Job


@dataclass(frozen=True, slots=True)
class TaskUpdated:
    """A task is new, or its record changed."""

    task: Task


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job is over. Nothing about it follows."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobGone:
    """A job that was over is not kept any more. Observers of jobs do not hear of it."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A job's own state moved, as that of a Mantis job does. Observers of jobs do not hear of it."""

    job: Job


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    """A cluster is new, or its definition changed."""

    cluster: Cluster


@dataclass(frozen=True, slots=True)
class ClusterRemoved:
    """A cluster is gone. Nothing about it follows."""

    cluster_id: ClusterId


Notification = JobAdded | TaskUpdated | JobEnded
#: What the change log tells.
LogEntry = Notification | JobGone | JobMoved | ClusterChanged | ClusterRemoved


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """What must still be so about the other tasks on an engine when one is dispatched to it (B8.2)."""

    #: Tasks of the job that were on it.
    own: int = 0
    #: There must be no other task of the job.
    is_unique: bool = False
    #: There must be no task of another job.
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must still be so of a cluster when a job is made in it."""

    cluster_id: ClusterId
    #: The gate of its record; it moves with the definition.
    number: int
    #: Its jobs that may be alive then; 0: any number.
    jobs_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What should be true next; whatever is not named stays as it is."""

    #: The job after, if its own record changes (new, kill intent, end).
    job: Job | None = None
    #: Tasks after: new ones, and those whose record changes.
    tasks: tuple[Task, ...] = ()
    arm: tuple[Deadline, ...] = ()
    #: Deadlines that this settles, removed whenever they are due: each belongs to a record whose
    #: version the commit checks, so nobody can have moved it meanwhile.
    disarm: tuple[tuple[DeadlineKind, str], ...] = ()
    #: To be sent only after the commit, and again if a crash swallows them.
    commands: tuple[Command, ...] = ()
    #: All that the chosen agent and its engine can hold, when tasks are dispatched.
    room: Capacity | None = None
    #: What is asked of the other tasks there; None: nothing.
    company: Company | None = None
    #: Of a new job: what is asked of its cluster; None: nothing.
    gate: Gate | None = None
    #: The cluster after, if its record changes; whether that goes; and the times that were decided.
    cluster: Cluster | None = None
    removes_cluster: bool = False
    firings: tuple[Firing, ...] = ()
    #: For a decision to do nothing: why.
    why: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        records = self.job or self.cluster or self.removes_cluster or self.tasks
        return not (records or self.arm or self.disarm)


#: There is nothing to do.
NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One task's record before (None: it is new) and after."""

    before: Task | None
    after: Task


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """A cluster's record before (None: it is new) and after (None: it is gone), and firings decided."""

    before: Cluster | None
    after: Cluster | None
    firings: tuple[Firing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """All that one commit writes; it is refused if *job*, a task's *before* or the cluster's is stale, and if
    who writes *under* a lease has lost it to somebody else."""

    #: None: it is about a cluster alone, or about deadlines.
    job_id: JobId | None
    #: The job as the decision saw it; None when it is new.
    job_before: Job | None
    #: The job after, when its own record changes.
    job_after: Job | None
    tasks: tuple[TaskChange, ...] = ()
    arm: tuple[Deadline, ...] = ()
    disarm: tuple[tuple[DeadlineKind, str], ...] = ()
    room: Capacity | None = None
    company: Company | None = None
    notifications: tuple[LogEntry, ...] = ()
    #: For a new job: how many may be alive then; 0: any number.
    jobs_max: int = 0
    gate: Gate | None = None
    cluster: ClusterChange | None = None
    under: Holding | None = None


def change_of(
    job: Job | None,
    known: Sequence[Task],
    decision: Decision,
    under: Holding | None = None,
    jobs_max: int = 0,
    cluster: Cluster | None = None,
) -> Change:
    """The commit that makes *decision* true, for who knew *job*, the tasks *known* and *cluster*."""
    before = {task.id: task for task in known}
    tasks = tuple(
        TaskChange(old, replace(task, version=old.version + 1) if old else task)
        for task in decision.tasks
        if (old := before.get(task.id)) != task
    )
    after = decision.job
    if after is not None and job is not None:
        after = replace(after, version=job.version + 1)
    owner = decision.job or job
    if owner is None and tasks:
        raise ValueError("a decision about tasks needs the job they belong to")
    of_cluster = _cluster_change(cluster, decision)
    return Change(
        job_id=owner.id if owner else None,
        job_before=job,
        job_after=after,
        tasks=tasks,
        arm=decision.arm,
        disarm=decision.disarm,
        room=decision.room,
        company=decision.company,
        notifications=(*_cluster_news(of_cluster), *_notifications(job, after, tasks)),
        jobs_max=jobs_max,
        gate=decision.gate,
        cluster=of_cluster,
        under=under,
    )


def _cluster_change(before: Cluster | None, decision: Decision) -> ClusterChange | None:
    if before is not None and decision.removes_cluster:
        return ClusterChange(before, None)
    after = decision.cluster
    if after is None:
        return None
    if before is not None:
        after = replace(after, version=before.version + 1)
    return ClusterChange(before, after, decision.firings)


def _cluster_news(change: ClusterChange | None) -> tuple[LogEntry, ...]:
    if change is None:
        return ()
    if change.after is None:
        return (ClusterRemoved(change.before.id),) if change.before else ()
    is_known = change.before is not None and change.before.descriptor == change.after.descriptor
    return () if is_known else (ClusterChanged(change.after),)


def _notifications(
    before: Job | None, after: Job | None, tasks: Sequence[TaskChange]
) -> tuple[LogEntry, ...]:
    heard: list[LogEntry] = []
    if after is not None and (before is None or before.descriptor != after.descriptor):
        heard.append(JobAdded(after))
    heard.extend(TaskUpdated(change.after) for change in tasks)
    if after is not None and before is not None and before.state < after.state and not after.state.is_final:
        heard.append(JobMoved(after))
    # Last, because nothing about a job may follow its end.
    if after is not None and after.state.is_final and not (before and before.state.is_final):
        heard.append(JobEnded(after))
    return tuple(heard)
