"""Who calls, as the request's metadata says (docs/semantics.md A3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from titus_celery.core.model import Caller
from titus_celery.errors import InvalidRequest, Unsupported, Violation

__all__ = ["caller_from", "key_from", "refuse_unsupported", "resume_from"]

ID_KEY: Final = "x-titus-callerid"
EMAIL_KEY: Final = "x-titus-caller-email"
#: Metadata that would change what a creation means, if this release knew it: ignoring it would
#: silently do something else than was asked (A2, A19).
UNSUPPORTED_KEYS: Final = ("x-titus-job-cluster-id",)
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


def resume_from(metadata: Metadata | None) -> str:
    """The place from which a stream is to go on; "" if it is to begin."""
    return _value(metadata, RESUME_KEY)


def refuse_unsupported(metadata: Metadata | None) -> None:
    """Unsupported if the metadata asks for what a creation cannot heed."""
    for key in UNSUPPORTED_KEYS:
        if _value(metadata, key):
            raise Unsupported(f"metadata {key}")


def _value(metadata: Metadata | None, wanted: str) -> str:
    for key, value in metadata or ():
        if key == wanted:
            text = value if isinstance(value, str) else value.decode("utf-8", "replace")
            if len(text) > LENGTH_MAX:
                raise InvalidRequest([Violation(f"metadata {key}", f"is over {LENGTH_MAX} characters long")])
            return text.strip()
    return ""
