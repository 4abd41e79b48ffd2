"""Who calls, and what else the request's metadata says (docs/semantics.md A2, A3, A19, B5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from titus_celery.core.model import Caller
from titus_celery.errors import InvalidRequest, Violation

__all__ = ["caller_from", "cluster_from", "key_from", "resume_from"]

ID_KEY: Final = "x-titus-callerid"
EMAIL_KEY: Final = "x-titus-caller-email"
#: The cluster that a new job is to join (A2).
CLUSTER_KEY: Final = "x-titus-job-cluster-id"
#: Under which a creation can be repeated (A19), and from where a stream goes on (B5).
IDEMPOTENCY_KEY: Final = "x-titus-idempotency-key"
RESUME_KEY: Final = "x-titus-resume"
#: Characters of an id or e-mail: the longest e-mail address there can be, with room.
LENGTH_MAX: Final = 320

Metadata = Iterable[tuple[str, str | bytes]]


def caller_from(metadata: Metadata | None) -> Caller:
    """The caller; both parts may be empty. InvalidRequest for one that is absurdly long.

    An id that is an e-mail address stands for the address too.
    """
    id, email = _value(metadata, ID_KEY), _value(metadata, EMAIL_KEY)
    if not email and "@" in id:
        email = id
    return Caller(id=id, email=email)


def key_from(metadata: Metadata | None) -> str:
    """The idempotency key; "" if there is none. InvalidRequest for one that is absurdly long."""
    return _value(metadata, IDEMPOTENCY_KEY)


def cluster_from(metadata: Metadata | None, named: str) -> str:
    """The cluster that a new job is to join, which its descriptor may have *named*; "" if neither says.

    InvalidRequest if they say different ones.
    """
    told = _value(metadata, CLUSTER_KEY)
    if told and named and told != named:
        raise InvalidRequest([Violation("jobClusterId", f"metadata {CLUSTER_KEY} names another cluster")])
    return named or told


def resume_from(metadata: Metadata | None) -> str:
    """The place from which a stream is to go on; "" if it is to begin."""
    return _value(metadata, RESUME_KEY)


def _value(metadata: Metadata | None, wanted: str) -> str:
    for key, value in metadata or ():
        if key == wanted:
            text = value if isinstance(value, str) else value.decode("utf-8", "replace")
            if len(text) > LENGTH_MAX:
                raise InvalidRequest([Violation(f"metadata {key}", f"is over {LENGTH_MAX} characters long")])
            return text.strip()
    return ""
