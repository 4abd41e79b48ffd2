"""Who observes a Mantis job, by what each gateway says of itself, laid out over a keyspace."""

from __future__ import annotations

from datetime import datetime, timedelta

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Keyspace, SetAdd, from_ms, to_ms
from titus_celery.core.model import JobId

__all__ = ["SubscriberStore"]


class SubscriberStore:
    """The Subscribers of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        """The job has subscribers at *holder* for *span* from now (see Subscribers)."""
        until = to_ms(self._keyspace.now() + span)
        self._keyspace.transact([], [SetAdd(self._keys.subscribers(job_id), holder, until)])

    def until(self, job_id: JobId) -> datetime | None:
        """Until when it has some, or had the last one (see Subscribers)."""
        members, _ = self._keyspace.members(self._keys.subscribers(job_id), 0, 1, newest=True)
        return from_ms(members[0][1]) if members else None
