"""Whether two requests ask for the same: a short text that is equal if they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from titus_celery.core.descriptor import JobDescriptor

__all__ = ["fingerprint"]


def fingerprint(job: JobDescriptor) -> str:
    """Stands for everything that the description says, in whatever order its maps came."""
    kind = type(job.spec).__name__
    text = json.dumps([kind, asdict(job)], sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
