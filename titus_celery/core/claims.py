"""Names that one job or cluster has at a time: the sequence of its group, its type, the key of its creation.

They are claimed by the commit that creates a job and let go by the one that ends it, so that no two jobs
ever have the same one (docs/semantics.md A19, B1.9).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.cluster import Cluster
from titus_celery.core.descriptor import MantisSpec
from titus_celery.core.model import ClusterId, Job, Sent

__all__ = [
    "KEY_KEPT",
    "Claim",
    "ClaimKind",
    "claims_of",
    "cluster_claims",
    "key_left",
    "key_name",
    "user_type_name",
]

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
    #: An idempotency key of one caller, for a job and for a cluster.
    KEY = "key"
    CLUSTER_KEY = "cluster-key"
    #: The type that the user of a Mantis cluster gave a job.
    USER_TYPE = "type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A name, whose it is, and for a key what was asked for under it."""

    kind: ClaimKind
    name: str
    #: The id of the job or of the cluster.
    id: str
    body: str = ""


def claims_of(job: Job) -> tuple[Claim, ...]:
    """The names that the job has while it lives."""
    claims = []
    group = job.descriptor.group
    if group is not None and group.sequence:
        parts = (job.descriptor.app_name, group.stack, group.detail, group.sequence)
        claims.append(Claim(kind=ClaimKind.SEQUENCE, name=_APART.join(parts), id=job.id))
    if (sent := job.sent) is not None:
        claims.append(Claim(kind=ClaimKind.KEY, name=key_name(sent), id=job.id, body=sent.body))
    spec = job.descriptor.spec
    if isinstance(spec, MantisSpec) and (user_type := spec.agreement.user_type):
        name = user_type_name(job.cluster_id, user_type)
        claims.append(Claim(kind=ClaimKind.USER_TYPE, name=name, id=job.id))
    return tuple(claims)


def cluster_claims(cluster: Cluster) -> tuple[Claim, ...]:
    """The names that the cluster has while it exists."""
    if (sent := cluster.sent) is None:
        return ()
    return (Claim(kind=ClaimKind.CLUSTER_KEY, name=key_name(sent), id=cluster.id, body=sent.body),)


def user_type_name(cluster_id: ClusterId, user_type: str) -> str:
    """The name that a user's type of a cluster's jobs is (docs/semantics.md B6.5)."""
    return _APART.join((cluster_id, user_type))


def key_name(sent: Sent) -> str:
    """The name that an idempotency key of a caller's is."""
    return _APART.join((sent.caller, sent.key))


def key_left(created_at: datetime, now: datetime) -> timedelta:
    """How long the key of what was made then is still kept if it ends *now*."""
    return max(KEY_KEPT - (now - created_at), _AT_ONCE)
