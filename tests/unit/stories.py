"""Jobs and tasks at every stage, as the change log tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from titus_celery.core.catalog import Catalog
from titus_celery.core.decision import LogEntry, Notification
from titus_celery.core.descriptor import BatchSpec, JobDescriptor
from titus_celery.core.model import ClusterId, Job, JobId, JobSummary, StateChange, Task, TaskId
from titus_celery.core.reasons import Reason
from titus_celery.core.states import State

__all__ = ["LIFE", "A", "B", "PlainLooks", "job", "summary", "task", "told"]

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B = JobId("a"), JobId("b")
LIFE: Final = (State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING)


class PlainLooks:
    """Looks that a test can tell apart: what a client could see, as text."""

    def definition(self, job: Job) -> bytes:
        return f"{job.id} {job.descriptor}".encode()

    def standing(self, history: Sequence[StateChange], reason: Reason | None) -> bytes:
        return f"{history} {reason}".encode()

    def task(self, task: Task) -> bytes:
        return f"{task.id} {task.history} {task.reason} {task.address}".encode()


def job(id: JobId = A, *, version: int = 1, end: State | None = None, app: str = "a") -> Job:
    """A job of one slot, over if *end* is given."""
    states = (State.QUEUED, *([] if end is None else [end]))
    return Job(
        id=id,
        cluster_id=ClusterId("c"),
        descriptor=JobDescriptor(spec=BatchSpec(desired=1), app_name=app),
        created_by="me",
        history=tuple(StateChange(state=each, at=NOON) for each in states),
        version=version,
        slots_ok=end is State.FINISHED,
        slots_failed=end is State.FAILED,
    )


def task(
    job_id: JobId, slot: int, state: State, *, attempt: int = 1, version: int = 0, later: float = 0
) -> Task:
    """A task that went through every state to *state*; one write of its record each, if not said."""
    states = LIFE[: state + 1] if not state.is_final else (*LIFE, state)
    return Task(
        id=TaskId(f"{job_id}-{slot}-{attempt}"),
        job_id=job_id,
        slot=slot,
        attempt=attempt,
        original_id=TaskId(f"{job_id}-{slot}-1"),
        history=tuple(StateChange(state=each, at=NOON + timedelta(seconds=later + each)) for each in states),
        version=version or len(states),
    )


def summary(job: Job, *tasks: Task) -> JobSummary:
    """The job with these tasks."""
    return JobSummary(job=job, tasks=tasks)


def told(catalog: Catalog, log: Iterable[LogEntry]) -> list[Notification]:
    """What observers hear of these entries."""
    return [news.notification for entry in log if (news := catalog.hear(entry)) is not None]
