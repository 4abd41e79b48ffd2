"""What one observer must hear: each thing once, in order, and nothing after an end.

The change log is followed from before the snapshot was read, so it repeats part of it. What the
snapshot already held is told apart by record versions, without positions or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from titus_celery.core.decision import JobAdded, JobEnded, Notification, TaskUpdated
from titus_celery.core.model import Job, JobId, JobSummary, Task, TaskId

__all__ = ["Event", "Observation", "Snapshot", "SnapshotEnd"]

#: The version of every new record. Whose first entry in the log is a later one was there before
#: the log was followed.
_NEW = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job as it stands, with its active tasks; a finished job comes with all of them."""

    summary: JobSummary


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """All that was there has been told; changes follow."""


Event = Snapshot | SnapshotEnd | Notification


@dataclass(slots=True)
class _KnownTask:
    version: int
    face: int


@dataclass(slots=True)
class _KnownJob:
    version: int
    #: Those that are not over, by id; what ended is forgotten, so this does not grow with retries.
    active: dict[TaskId, _KnownTask] = field(default_factory=dict)
    #: Tasks that were over when the snapshot was read, whose entries the log may still repeat.
    over: frozenset[TaskId] = frozenset()


class Observation:
    """One observer's knowledge, of one job or (without an id) of all.

    Give it the snapshot first, then every notification from before the snapshot on.
    """

    def __init__(self, job_id: JobId | None = None) -> None:
        self._job_id = job_id
        self._jobs: dict[JobId, _KnownJob] = {}
        self._is_over = False

    @property
    def over(self) -> bool:
        """Whether nothing will follow: the one observed job is over."""
        return self._is_over

    def concerns(self, notification: Notification) -> bool:
        """Whether it is about what is observed; safe to ask from any thread."""
        return self._job_id is None or _job_of(notification) == self._job_id

    def begin(self, summaries: Iterable[JobSummary]) -> Iterator[Event]:
        """The snapshot as it is told. The one observed job, if finished, is told whole (A14)."""
        ended = None
        for summary in summaries:
            if not summary.job.state.is_final:
                self._learn(summary)
                active = tuple(task for task in summary.tasks if not task.state.is_final)
                yield Snapshot(JobSummary(job=summary.job, tasks=active))
            # Among all, one that ended while they were read is told by the log, or not at all.
            elif self._job_id is not None:
                yield Snapshot(summary)
                ended = summary.job
        yield SnapshotEnd()
        if ended is not None:
            self._is_over = True
            yield JobEnded(ended)

    def hear(self, notification: Notification) -> Event | None:
        """What the observer must be told of *notification*; None if it knows or must not know."""
        is_told = not self._is_over and self.concerns(notification) and self._is_news(notification)
        return notification if is_told else None

    def _learn(self, summary: JobSummary) -> None:
        known = _KnownJob(
            summary.job.version,
            over=frozenset(task.id for task in summary.tasks if task.state.is_final),
        )
        for task in summary.tasks:
            if not task.state.is_final:
                known.active[task.id] = _KnownTask(task.version, _face(task))
        self._jobs[summary.job.id] = known

    def _is_news(self, notification: Notification) -> bool:
        match notification:
            case JobAdded(job):
                return self._job_is_news(job)
            case TaskUpdated(task):
                return self._task_is_news(task)
            case JobEnded(job):
                return self._end_is_news(job)

    def _end_is_news(self, job: Job) -> bool:
        was_known = self._jobs.pop(job.id, None) is not None
        self._is_over = was_known and self._job_id is not None
        return was_known

    def _job_is_news(self, job: Job) -> bool:
        known = self._jobs.get(job.id)
        # A job that is neither new nor in the snapshot was over by then.
        is_news = job.version > known.version if known else job.version == _NEW
        if is_news:
            active = known.active if known else {}
            self._jobs[job.id] = _KnownJob(job.version, active, known.over if known else frozenset())
        return is_news

    def _task_is_news(self, task: Task) -> bool:
        job = self._jobs.get(task.job_id)
        if job is None or task.id in job.over:
            return False
        known = job.active.get(task.id)
        if known is None:
            # As with jobs; and what is written of a task after its end concerns nobody outside.
            is_news = task.version == _NEW
        elif task.version <= known.version:
            return False
        else:
            is_news = known.face != _face(task)
        if task.state.is_final:
            job.active.pop(task.id, None)
        elif is_news or known is not None:
            job.active[task.id] = _KnownTask(task.version, _face(task))
        return is_news


def _face(task: Task) -> int:
    """Stands for what an observer sees of a task, in far less memory: a kill that is only intended
    and the count of writes do not show, so a change of these alone is none (S: "distinct")."""
    return hash(replace(task, version=_NEW, kill=None))


def _job_of(notification: Notification) -> JobId:
    match notification:
        case JobAdded(job) | JobEnded(job):
            return job.id
        case TaskUpdated(task):
            return task.job_id
