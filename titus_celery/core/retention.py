"""What is kept of jobs that are over and of what a living job has behind it, and which goes first
(docs/semantics.md A17)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from titus_celery.core.model import JobId, TaskId

__all__ = ["Ended", "Freed", "Keep", "Kept", "is_too_much", "prunable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long, how many, and how much of them: whatever is exceeded first."""

    age: timedelta
    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that is over, and since when."""

    job_id: JobId
    at: datetime


@dataclass(frozen=True, slots=True)
class Freed:
    """What went with a job: bytes of its archive, and how many tasks."""

    bytes: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept at this moment of the store's time."""

    #: The oldest by end, in that order; not all there are.
    oldest: Sequence[Ended]
    jobs: int
    #: Of their archives: jobs that ended just now have none yet.
    bytes: int
    now: datetime

    def less(self, freed: Freed) -> Kept:
        """What is kept once a job went; *oldest* stays, as what was looked at."""
        return replace(self, jobs=self.jobs - 1, bytes=self.bytes - freed.bytes)


def is_too_much(kept: Kept, oldest: Ended, keep: Keep) -> bool:
    """Whether *oldest*, than which nothing older is kept, is to go."""
    return kept.now - oldest.at >= keep.age or kept.jobs > keep.jobs or kept.bytes > keep.bytes


def prunable(ended: Sequence[TaskId], keep: int) -> Sequence[TaskId]:
    """Which of a living job's ended tasks, oldest first, may go: all but the newest *keep* of those that
    have a later one in their slot. What a slot ended with stays as long as the job."""
    last: dict[str, int] = {}
    for id in ended:
        slot, attempt = _place(id)
        last[slot] = max(attempt, last.get(slot, 0))
    replaced = [id for id in ended if (place := _place(id))[1] < last[place[0]]]
    return replaced[: max(len(replaced) - keep, 0)]


def _place(id: TaskId) -> tuple[str, int]:
    _, slot, attempt = id.rsplit("-", 2)
    return slot, int(attempt)
