"""Between the wire and the model: the only place that knows the names of both.

The misspelt names of the contract stop here. Servers and clients both use it, so it imports
neither gRPC itself nor anything that a server alone needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from titus_celery.core.decision import JobAdded, JobEnded, Notification, TaskUpdated
from titus_celery.core.model import Dispatch, Job, JobSummary, StateChange, Task
from titus_celery.core.reasons import Reason
from titus_celery.core.states import State
from titus_celery.grpc.convert_descriptor import (
    descriptor_from_pb,
    descriptor_to_pb,
    instances_from_pb,
    retry_from_pb,
    retry_to_pb,
)
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "descriptor_from_pb",
    "descriptor_to_pb",
    "history_to_pb",
    "instances_from_pb",
    "job_to_pb",
    "notification_to_pb",
    "retry_from_pb",
    "retry_to_pb",
    "snapshot_end_to_pb",
    "snapshot_to_pb",
    "state_to_pb",
    "task_to_pb",
    "timestamp",
]

_MILLISECOND: Final = timedelta(milliseconds=1)


def timestamp(at: datetime) -> str:
    """*at* in RFC 3339: UTC, `Z`, exactly milliseconds, cut rather than rounded (B3.2)."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def job_to_pb(summary: JobSummary) -> pb.Job:
    """The job with the tasks of *summary*, in their order."""
    job = summary.job
    return pb.Job(
        id=job.id,
        jobClusterId=job.cluster_id,
        jobDescriptor=descriptor_to_pb(job.descriptor),
        tasks=[task_to_pb(task) for task in summary.tasks],
        jobState=pb.JobState(state=state_to_pb(job.state), reason=_reason_to_text(job.reason)),
        stateChanges=history_to_pb(job.history),
    )


def task_to_pb(task: Task) -> pb.Task:
    """The task with its context (docs/semantics.md A10)."""
    return pb.Task(
        id=task.id,
        taskContext=_context_of(task),
        state=pb.TaskState(state=state_to_pb(task.state), reason=_reason_to_text(task.reason)),
        stateChanges=history_to_pb(task.history),
    )


def snapshot_to_pb(summary: JobSummary) -> pb.JobChangeNotification:
    """What an observer hears first: a job as it stands, with the tasks of *summary*."""
    return pb.JobChangeNotification(jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=job_to_pb(summary)))


def snapshot_end_to_pb() -> pb.JobChangeNotification:
    """What separates the snapshots from the changes."""
    return pb.JobChangeNotification(snapshotEnd=pb.JobChangeNotification.SnapshotEnd())


def notification_to_pb(notification: Notification) -> pb.JobChangeNotification:
    """What an observer hears of a change (docs/semantics.md B5)."""
    match notification:
        case JobAdded(job):
            return pb.JobChangeNotification(jobDefinitionUpdate=_definition_of(job))
        case TaskUpdated(task):
            return pb.JobChangeNotification(
                taskUdate=pb.JobChangeNotification.TaskUpdate(task=task_to_pb(task))
            )
        case JobEnded(job):
            return pb.JobChangeNotification(jobFinished=pb.JobChangeNotification.JobFinished(id=job.id))


def _definition_of(job: Job) -> pb.JobChangeNotification.JobDefinitionUpdate:
    return pb.JobChangeNotification.JobDefinitionUpdate(
        id=job.id, jobDescriptor=descriptor_to_pb(job.descriptor)
    )


def _context_of(task: Task) -> dict[str, str]:
    context = {
        "task.index": str(task.slot),
        "task.originalId": str(task.original_id),
        # The first run of a slot is attempt 1 and replaces nothing.
        "task.resubmitNumber": str(task.attempt - 1),
        "task.systemResubmitNumber": str(task.infra_retries),
    }
    if task.stage is not None:
        context["task.stage"] = str(task.stage)
    if task.resubmit_of is not None:
        context["task.resubmitOf"] = task.resubmit_of
    if task.dispatch is not None:
        context |= _host_of(task.dispatch)
    if task.address.ip:
        context["task.ip"] = task.address.ip
    if task.address.ports and task.dispatch is not None:
        host = task.dispatch.host
        ports = (f"{port.inside}={host}:{port.outside}" for port in task.address.ports)
        context["task.ports"] = ";".join(ports)
    if task.retry_at is not None:
        delay = task.retry_at - task.history[-1].at
        context["task.retryDelay"] = str(delay // _MILLISECOND)
    return context


def _host_of(dispatch: Dispatch) -> dict[str, str]:
    return {
        "agent.region": dispatch.region,
        "agent.zone": dispatch.zone,
        "agent.host": dispatch.host,
        # Two names for one thing: clients of different ages look for either.
        "agent.instance": dispatch.agent_id,
        "agent.instanceId": dispatch.agent_id,
    }


def history_to_pb(history: Sequence[StateChange]) -> list[pb.StateChange]:
    """The states that were entered, and when (B3.2)."""
    return [pb.StateChange(state=each.state.name, timestamp=timestamp(each.at)) for each in history]


def state_to_pb(state: State) -> pb.State.ValueType:
    """The state by the number of the wire."""
    return pb.State.Value(state.name)


def _reason_to_text(reason: Reason | None) -> str:
    return "" if reason is None else str(reason)
