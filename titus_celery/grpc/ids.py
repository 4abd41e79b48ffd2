"""Ids as they come from outside. What an id may look like is the store's to say: it makes keys of them."""

from __future__ import annotations

from titus_celery.core.model import JobId, TaskId
from titus_celery.errors import InvalidRequest, Violation

__all__ = ["job_id_from", "task_id_from"]


def job_id_from(text: str, field: str = "id") -> JobId:
    """The job id; InvalidRequest naming *field* if it is empty (docs/semantics.md B1)."""
    return JobId(_given(text, field))


def task_id_from(text: str, field: str = "id") -> TaskId:
    """The task id; InvalidRequest naming *field* if it is empty (docs/semantics.md B1)."""
    return TaskId(_given(text, field))


def _given(text: str, field: str) -> str:
    if not text:
        raise InvalidRequest([Violation(field, "is empty")])
    return text
