"""Whether two requests ask for the same: a short text that is equal if they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from titus_celery.core.cluster import ClusterDescriptor
from titus_celery.core.descriptor import JobDescriptor

__all__ = ["fingerprint"]


def fingerprint(what: JobDescriptor | ClusterDescriptor) -> str:
    """Stands for everything that the description says, in whatever order its maps came."""
    job = what if isinstance(what, JobDescriptor) else what.template
    kind = type(job.spec).__name__ if job else ""
    text = json.dumps([kind, asdict(what)], sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
