"""Names that one job has at a time: the sequence of its group, and the key under which it was sent.

They are claimed by the commit that creates a job and let go by the one that ends it, so that no two jobs
ever have the same one (docs/semantics.md A19, B1.9).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.model import Job, JobId, Sent

__all__ = ["KEY_KEPT", "Claim", "ClaimKind", "claims_of", "key_left", "key_name"]

#: How long after its creation a job is found by its idempotency key at least: clients that repeat a
#: request give up long before.
KEY_KEPT: Final = timedelta(hours=24)
#: What a key is kept for that could go at once: the store counts in milliseconds, and needs one.
_AT_ONCE: Final = timedelta(milliseconds=1)
#: Between the parts of a name; none of them can hold it, as it cannot be shown.
_APART: Final = "\0"


class ClaimKind(enum.Enum):
    """What a name is for."""

    #: Application, stack, detail and sequence of a job group.
    SEQUENCE = "sequence"
    #: An idempotency key of one caller.
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A name, whose it is, and for a key what was asked for under it."""

    kind: ClaimKind
    name: str
    job_id: JobId
    body: str = ""


def claims_of(job: Job) -> tuple[Claim, ...]:
    """The names that the job has while it lives."""
    claims = []
    group = job.descriptor.group
    if group is not None and group.sequence:
        parts = (job.descriptor.app_name, group.stack, group.detail, group.sequence)
        claims.append(Claim(kind=ClaimKind.SEQUENCE, name=_APART.join(parts), job_id=job.id))
    if (sent := job.sent) is not None:
        claims.append(Claim(kind=ClaimKind.KEY, name=key_name(sent), job_id=job.id, body=sent.body))
    return tuple(claims)


def key_name(sent: Sent) -> str:
    """The name that an idempotency key of a caller's is."""
    return _APART.join((sent.caller, sent.key))


def key_left(job: Job, now: datetime) -> timedelta:
    """How long the key of a job that ends *now* is still kept."""
    return max(KEY_KEPT - (now - job.created_at), _AT_ONCE)
