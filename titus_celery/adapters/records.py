"""Jobs, tasks and log entries as the fields of hashes and streams, and back.

A task is one text beside its version. A job's parts that commits move without reading the job (state,
counters) and those that they check have fields of their own; its descriptor, which is large and rarely
changes, has one too. What cannot be read back is StoreCorrupt, naming the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from titus_celery.adapters.codec import from_text, to_text
from titus_celery.adapters.keyspace import TIMED, Entry, from_ms, to_ms
from titus_celery.core.cluster import Cluster
from titus_celery.core.decision import (
    ClusterChanged,
    ClusterRemoved,
    JobAdded,
    JobEnded,
    JobGone,
    JobMoved,
    LogEntry,
    TaskUpdated,
)
from titus_celery.core.descriptor import BatchSpec, JobDescriptor
from titus_celery.core.model import (
    ClusterId,
    Job,
    JobId,
    StateChange,
    Task,
)
from titus_celery.core.states import State
from titus_celery.errors import StoreCorrupt

__all__ = [
    "FIRST_FAILURE",
    "GATE",
    "INTENT",
    "PREVIOUS",
    "SLOTS_FAILED",
    "SLOTS_OK",
    "STAGE_OVER",
    "STATE",
    "VERSION",
    "cluster_fields",
    "cluster_of",
    "entry_fields",
    "job_fields",
    "job_of",
    "new_job_fields",
    "notification_of",
    "task_fields",
    "task_of",
    "value_of",
]

#: Fields of a job's hash (and VERSION of a task's).
INTENT: Final = "intent"
VERSION: Final = "version"
STATE: Final = "state"
SLOTS_OK: Final = "slots_ok"
SLOTS_FAILED: Final = "slots_failed"
FIRST_FAILURE: Final = "first_failure"
#: Fields `over:<stage>` of a Mantis job count the slots of its stages that are over.
STAGE_OVER: Final = "over:"
#: Field of a cluster's hash.
GATE: Final = "gate"
_HEAD: Final = "head"
_DESCRIPTOR: Final = "descriptor"
#: Field of a task's hash and of a log entry.
_RECORD: Final = "record"
#: Fields of a log entry: what it is, and the id of the one before it.
_KIND: Final = "kind"
PREVIOUS: Final = "p"

_ADDED, _UPDATED, _ENDED, _GONE = "job-added", "task-updated", "job-ended", "job-gone"
_MOVED, _CLUSTER, _NO_CLUSTER = "job-moved", "cluster-changed", "cluster-removed"

#: Stands in a job's head for the descriptor, which is kept beside it.
_ELSEWHERE: Final = JobDescriptor(spec=BatchSpec(desired=0))

_T = TypeVar("_T")


def task_fields(task: Task) -> dict[str, str]:
    """The task's whole hash."""
    return {VERSION: str(task.version), _RECORD: to_text(task)}


def task_of(key: str, fields: Mapping[str, str]) -> Task:
    """The task whose hash this is."""
    return value_of(Task, key, fields.get(_RECORD, ""))


def new_job_fields(job: Job) -> dict[str, str]:
    """The whole hash of a job that is new."""
    return {
        **job_fields(None, job),
        STATE: str(int(job.state)),
        SLOTS_OK: str(job.slots_ok),
        SLOTS_FAILED: str(job.slots_failed),
        **{f"{TIMED}{int(step.state)}": str(to_ms(step.at)) for step in job.history},
    }


def job_fields(before: Job | None, after: Job) -> dict[str, str]:
    """The fields that a change of the job's own record sets; state and counters move by themselves."""
    head = Job(
        id=after.id,
        cluster_id=after.cluster_id,
        descriptor=_ELSEWHERE,
        created_by=after.created_by,
        sent=after.sent,
        history=(),
        reason=after.reason,
        kill=after.kill,
        slots_made=after.slots_made,
        slots_dropped=after.slots_dropped,
        stages=after.stages,
    )
    fields = {_HEAD: to_text(head), INTENT: str(after.intent), VERSION: str(after.version)}
    if before is None or before.descriptor != after.descriptor:
        fields[_DESCRIPTOR] = to_text(after.descriptor)
    return fields


def job_of(key: str, fields: Mapping[str, str]) -> Job:
    """The job whose hash this is."""
    head = value_of(Job, key, fields.get(_HEAD, ""))
    descriptor = value_of(JobDescriptor, key, fields.get(_DESCRIPTOR, ""))
    try:
        return replace(
            head,
            descriptor=descriptor,
            history=_history(fields),
            intent=int(fields[INTENT]),
            slots_ok=int(fields[SLOTS_OK]),
            slots_failed=int(fields[SLOTS_FAILED]),
            first_failure=fields.get(FIRST_FAILURE, ""),
            stages_over={
                name.removeprefix(STAGE_OVER): int(count)
                for name, count in fields.items()
                if name.startswith(STAGE_OVER)
            },
            version=int(fields[VERSION]),
        )
    except (KeyError, ValueError) as error:
        raise StoreCorrupt(key, f"a job without proper {error}") from error


def _history(fields: Mapping[str, str]) -> tuple[StateChange, ...]:
    steps: list[StateChange] = []
    for state in State:
        if text := fields.get(f"{TIMED}{int(state)}"):
            at = from_ms(int(text))
            # Tasks bring the times, and a clock may be set back between two of them.
            steps.append(StateChange(state=state, at=max(at, steps[-1].at) if steps else at))
    if not steps or str(int(steps[-1].state)) != fields[STATE]:
        raise ValueError("history")
    return tuple(steps)


def cluster_fields(cluster: Cluster) -> dict[str, str]:
    """The cluster's whole hash."""
    return {VERSION: str(cluster.version), GATE: str(cluster.gate), _RECORD: to_text(cluster)}


def cluster_of(key: str, fields: Mapping[str, str]) -> Cluster:
    """The cluster whose hash this is."""
    return value_of(Cluster, key, fields.get(_RECORD, ""))


def entry_fields(heard: LogEntry) -> dict[str, str]:
    """The fields of a log entry: it carries the whole record, so that no observer needs to read it."""
    match heard:
        case TaskUpdated(task):
            return {_KIND: _UPDATED, _RECORD: to_text(task)}
        case JobAdded(job):
            return {_KIND: _ADDED, _RECORD: to_text(job)}
        case JobMoved(job):
            return {_KIND: _MOVED, _RECORD: to_text(job)}
        case JobEnded(job):
            return {_KIND: _ENDED, _RECORD: to_text(job)}
        case JobGone(job_id):
            return {_KIND: _GONE, _RECORD: job_id}
        case ClusterChanged(cluster):
            return {_KIND: _CLUSTER, _RECORD: to_text(cluster)}
        case ClusterRemoved(cluster_id):
            return {_KIND: _NO_CLUSTER, _RECORD: cluster_id}


def notification_of(key: str, entry: Entry) -> LogEntry:
    """What a log entry tells."""
    kind, record = entry.fields.get(_KIND, b"").decode(errors="replace"), entry.fields.get(_RECORD, b"")
    match kind:
        case "task-updated":
            return TaskUpdated(value_of(Task, key, record))
        case "job-added":
            return JobAdded(value_of(Job, key, record))
        case "job-ended":
            return JobEnded(value_of(Job, key, record))
        case "job-gone":
            return JobGone(JobId(record.decode(errors="replace")))
        case "job-moved":
            return JobMoved(value_of(Job, key, record))
        case "cluster-changed":
            return ClusterChanged(value_of(Cluster, key, record))
        case "cluster-removed":
            return ClusterRemoved(ClusterId(record.decode(errors="replace")))
    raise StoreCorrupt(key, f"an entry {entry.id} of the unknown kind {kind!r}")


def value_of(kind: type[_T], key: str, text: str | bytes) -> _T:
    """The value whose text the key holds."""
    try:
        return from_text(kind, text)
    except ValueError as error:
        raise StoreCorrupt(key, str(error)) from error
