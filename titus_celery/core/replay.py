"""What an observer missed, from the change log alone: what it had heard before is not known."""

from __future__ import annotations

from typing import Protocol

from titus_celery.core.catalog import News
from titus_celery.core.cluster_catalog import ClusterLooks, ClusterNews, of_job
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
from titus_celery.core.model import ClusterId, JobId, Task, TaskId

__all__ = ["ClusterReplay", "Replay"]


class _TaskLooks(Protocol):
    def task(self, task: Task) -> bytes:
        """How it looks from outside."""


class Replay:
    """The news of a part of the log, for an observer of one job or (without an id) of all.

    What looks the same twice in a row is told once; the first of it may have been heard before.
    """

    def __init__(self, looks: _TaskLooks, job_id: JobId | None) -> None:
        self._looks = looks
        self._job_id = job_id
        self._last: dict[TaskId, bytes] = {}
        self._ended: set[TaskId] = set()

    def hear(self, entry: LogEntry) -> News | None:
        """What the observer must be told of the next entry."""
        match entry:
            case JobAdded(job) | JobEnded(job):
                return News(entry, job.id) if self._concerns(job.id) else None
            case TaskUpdated(task):
                return self._task(entry, task) if self._concerns(task.job_id) else None
            case JobGone() | JobMoved() | ClusterChanged() | ClusterRemoved():
                return None

    def _task(self, entry: TaskUpdated, task: Task) -> News | None:
        look = self._looks.task(task)
        # What is written of a task after its end concerns nobody outside.
        if task.id in self._ended or self._last.get(task.id) == look:
            return None
        self._last[task.id] = look
        if task.state.is_final:
            self._ended.add(task.id)
        return News(entry, task.job_id, look)

    def _concerns(self, id: JobId) -> bool:
        return self._job_id in (None, id)


class ClusterReplay:
    """The same for an observer of one cluster or (without an id) of all."""

    def __init__(self, looks: ClusterLooks, cluster_id: ClusterId | None) -> None:
        self._looks = looks
        self._cluster_id = cluster_id
        self._last: dict[ClusterId, bytes] = {}

    def hear(self, entry: LogEntry) -> ClusterNews | None:
        """What the observer must be told of the next entry."""
        match entry:
            case ClusterChanged(cluster):
                news = self._definition(entry) if self._concerns(cluster.id) else None
            case ClusterRemoved(id):
                news = ClusterNews(entry, id)
            case _:
                news = of_job(entry)
        return news if news is not None and self._concerns(news.cluster_id) else None

    def _definition(self, entry: ClusterChanged) -> ClusterNews | None:
        cluster, look = entry.cluster, self._looks.cluster(entry.cluster)
        if self._last.get(cluster.id) == look:
            return None
        self._last[cluster.id] = look
        return ClusterNews(entry, cluster.id, look)

    def _concerns(self, id: ClusterId) -> bool:
        return self._cluster_id in (None, id)
