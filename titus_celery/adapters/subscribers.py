"""Who observes a Mantis job, by what each gateway says of itself, laid out over a keyspace."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import AtMost, Keyspace, SetAdd, from_ms, to_ms
from titus_celery.adapters.records import STATE
from titus_celery.core.model import JobId
from titus_celery.core.states import State
from titus_celery.errors import Conflict

__all__ = ["SubscriberStore"]

_LAST_OPEN: Final = max(state for state in State if not state.is_final)


class SubscriberStore:
    """The Subscribers of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        """The job has subscribers at *holder* for *span* from now (see Subscribers)."""
        key, what = self._keys.job(job_id), f"job {job_id}"
        (fields,), now = self._keyspace.hashes([key])
        if not fields:
            return
        write = SetAdd(self._keys.subscribers(job_id), holder, to_ms(now + span))
        # What a job's end lets go of must not come back: its last streams close, and say so, after it.
        with suppress(Conflict):
            self._keyspace.transact([AtMost(key, STATE, 0, _LAST_OPEN, what)], [write])

    def until(self, job_id: JobId) -> datetime | None:
        """Until when it has some, or had the last one (see Subscribers)."""
        members, _ = self._keyspace.members(self._keys.subscribers(job_id), 0, 1, newest=True)
        return from_ms(members[0][1]) if members else None
