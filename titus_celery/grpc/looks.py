"""How jobs and tasks look on the wire: the parts of a gateway's replies and events, each made once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from titus_celery.core.catalog import Entry, News, Seat
from titus_celery.core.decision import TaskUpdated
from titus_celery.core.model import Job, StateChange, Task, TaskId
from titus_celery.core.reasons import Reason
from titus_celery.grpc.convert import (
    descriptor_to_pb,
    history_to_pb,
    notification_to_pb,
    state_to_pb,
    task_to_pb,
)
from titus_celery.grpc.framing import field, part
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "WireLooks",
    "active_job",
    "job_query_reply",
    "message_of",
    "snapshot_of",
    "task_query_reply",
    "whole_job",
]

_JOB_TASKS: Final = part(pb.Job, "tasks")
_JOB_ITEMS: Final = part(pb.JobQueryResult, "items")
_TASK_ITEMS: Final = part(pb.TaskQueryResult, "items")
_SNAPSHOT: Final = part(pb.JobChangeNotification, "jobSnapshot")
_SNAPSHOT_JOB: Final = part(pb.JobChangeNotification.JobSnapshot, "job")
_TASK_UPDATE: Final = part(pb.JobChangeNotification, "taskUdate")
_UPDATED_TASK: Final = part(pb.JobChangeNotification.TaskUpdate, "task")

#: What an entry keeps of what was made of it.
_ACTIVE, _WHOLE = "active", "whole"


class WireLooks:
    """The looks that the gateway's catalog is made of: serialised messages and parts of such."""

    def definition(self, job: Job) -> bytes:
        """A Job without tasks, state and history."""
        return pb.Job(
            id=job.id, jobClusterId=job.cluster_id, jobDescriptor=descriptor_to_pb(job.descriptor)
        ).SerializeToString()

    def standing(self, history: Sequence[StateChange], reason: Reason | None) -> bytes:
        """A Job of nothing but state and history."""
        state = pb.JobState(state=state_to_pb(history[-1].state), reason=str(reason or ""))
        return pb.Job(jobState=state, stateChanges=history_to_pb(history)).SerializeToString()

    def task(self, task: Task) -> bytes:
        """A Task."""
        # Deterministic, because what looks the same must be the same.
        return task_to_pb(task).SerializeToString(deterministic=True)


def whole_job(entry: Entry) -> bytes:
    """The job with its open tasks and the newest ended ones, by slot and attempt."""
    return _job(entry, _WHOLE, ended=True)


def active_job(entry: Entry) -> bytes:
    """The job with its active tasks."""
    return _job(entry, _ACTIVE, ended=False)


def snapshot_of(job: bytes) -> bytes:
    """What an observer hears first of a live job that looks like this."""
    return field(_SNAPSHOT, field(_SNAPSHOT_JOB, job))


def message_of(news: News) -> bytes:
    """What an observer hears of a change."""
    if isinstance(news.notification, TaskUpdated):
        return field(_TASK_UPDATE, field(_UPDATED_TASK, news.look))
    return notification_to_pb(news.notification).SerializeToString()


def job_query_reply(jobs: Iterable[bytes], pagination: pb.Pagination) -> bytes:
    """A reply of these jobs, each serialised."""
    end = pb.JobQueryResult(pagination=pagination).SerializeToString()
    return b"".join([*(field(_JOB_ITEMS, job) for job in jobs), end])


def task_query_reply(tasks: Iterable[bytes], pagination: pb.Pagination) -> bytes:
    """A reply of these tasks, each serialised."""
    end = pb.TaskQueryResult(pagination=pagination).SerializeToString()
    return b"".join([*(field(_TASK_ITEMS, task) for task in tasks), end])


def _job(entry: Entry, name: str, *, ended: bool) -> bytes:
    made = entry.made.get(name)
    if made is None:
        tasks: list[tuple[TaskId, Seat]] = entry.seats(ended=ended)
        looks = (field(_JOB_TASKS, seat.look) for _, seat in tasks)
        made = entry.made[name] = b"".join([entry.definition, entry.standing, *looks])
    return made
