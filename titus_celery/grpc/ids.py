"""Ids as they come from outside. What an id may look like is the store's to say: it makes keys of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from titus_celery.core.model import ClusterId, JobId, TaskId
from titus_celery.errors import InvalidRequest, Violation

__all__ = ["IDS_MAX", "cluster_id_from", "ids_from", "job_id_from", "task_id_from"]

#: Ids of one call: each is a commit of its own, so this many take a second or two.
IDS_MAX: Final = 1_000

_Id = TypeVar("_Id", JobId, TaskId)


def job_id_from(text: str, field: str = "id") -> JobId:
    """The job id; InvalidRequest naming *field* if it is empty (docs/semantics.md B1)."""
    return JobId(_given(text, field))


def task_id_from(text: str, field: str = "id") -> TaskId:
    """The task id; InvalidRequest naming *field* if it is empty (docs/semantics.md B1)."""
    return TaskId(_given(text, field))


def cluster_id_from(text: str, field: str = "id") -> ClusterId:
    """The cluster id; InvalidRequest naming *field* if it is empty (docs/semantics.md B1)."""
    return ClusterId(_given(text, field))


def ids_from(texts: Sequence[str], each: Callable[[str, str], _Id]) -> Sequence[_Id]:
    """The ids, each once; InvalidRequest if there is none, too many, or an empty one (B1.17)."""
    if not 1 <= len(texts) <= IDS_MAX:
        raise InvalidRequest([Violation("id", f"{len(texts)} ids are not from 1 to {IDS_MAX}")])
    return [each(text, f"id[{place}]") for place, text in enumerate(dict.fromkeys(texts))]


def _given(text: str, field: str) -> str:
    if not text:
        raise InvalidRequest([Violation(field, "is empty")])
    return text
