"""Who observes a Mantis job, by what each gateway says of itself, laid out over a keyspace."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import AtMost, Expire, Keyspace, Kind, SetAdd, from_ms, to_ms
from titus_celery.adapters.records import STATE
from titus_celery.core.model import JobId
from titus_celery.core.states import State
from titus_celery.errors import Conflict

__all__ = ["SubscriberStore"]

#: How long it is known that a job had subscribers, at least: longer than any lives without them.
KEPT: Final = timedelta(days=30)


class SubscriberStore:
    """The Subscribers of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        """The job has subscribers at *holder* for *span* from now (see Subscribers)."""
        key, until = self._keys.subscribers(job_id), to_ms(self._keyspace.now() + span)
        lives = AtMost(self._keys.job(job_id), STATE, 0, State.RUNNING, f"job {job_id}")
        # One that is over has let go of all that was its own.
        with suppress(Conflict):
            self._keyspace.transact([lives], [SetAdd(key, holder, until), Expire(key, Kind.SORTED, KEPT)])

    def until(self, job_id: JobId) -> datetime | None:
        """Until when it has some, or had the last one (see Subscribers)."""
        members, _ = self._keyspace.members(self._keys.subscribers(job_id), 0, 1, newest=True)
        return from_ms(members[0][1]) if members else None
