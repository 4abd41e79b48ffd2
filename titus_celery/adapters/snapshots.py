"""All jobs as they stand, read in chunks of a few round trips each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from titus_celery.adapters.archive import Archive
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.records import job_of, task_of
from titus_celery.core.model import Job, JobId, JobSummary
from titus_celery.core.shelf import Order
from titus_celery.errors import StoreCorrupt

__all__ = ["SnapshotStore", "members_after"]

_LOG: Final = logging.getLogger(__name__)

#: Open tasks of one job are bounded by its size, so that all of them are asked for.
_ALL: Final = 1_000_000_000


class SnapshotStore:
    """The Snapshots of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)
        self._archive = Archive(keyspace)

    def live(
        self, after: Order | None, limit: int, ended_max: int
    ) -> tuple[Sequence[JobSummary], Order | None]:
        """The next live jobs by creation, with their tasks (see Snapshots)."""
        places = members_after(self._keyspace, self._keys.live, after, limit)
        if not places:
            return [], None
        ids = [JobId(id) for _, id in places]
        keys = self._keys
        opens = self._keyspace.members_of([keys.open(id) for id in ids], _ALL)
        dones = self._keyspace.members_of([keys.done(id) for id in ids], ended_max, newest=True)
        members = [
            [keys.task(member) for member, _ in (*open_, *done)]
            for open_, done in zip(opens, dones, strict=True)
        ]
        job_keys = [keys.job(id) for id in ids]
        wanted = [*job_keys, *(key for tasks in members for key in tasks)]
        found = dict(zip(wanted, self._keyspace.hashes(wanted)[0], strict=True))
        summaries = (
            _summary(job_key, task_keys, found) for job_key, task_keys in zip(job_keys, members, strict=True)
        )
        return [summary for summary in summaries if summary is not None], places[-1]

    def over(self, after: Order | None, limit: int) -> tuple[Sequence[Job], Order | None]:
        """The next jobs that are over by end (see Snapshots)."""
        places = members_after(self._keyspace, self._keys.over, after, limit)
        if not places:
            return [], None
        return self._archive.jobs([JobId(id) for _, id in places]), places[-1]


def members_after(keyspace: Keyspace, key: str, after: Order | None, limit: int) -> Sequence[Order]:
    """The next members of a sorted set, which may grow and shrink meanwhile."""
    if after is None:
        return [(score, member) for member, score in keyspace.members(key, 0, limit)[0]]
    asked = limit
    while True:
        found = keyspace.members_from(key, after[0], asked)
        fresh = [(score, member) for member, score in found if (score, member) > after]
        if fresh or len(found) < asked:
            return fresh[:limit]
        # So many of one millisecond that the place is not among the first of them.
        asked *= 2


def _summary(
    job_key: str, task_keys: Sequence[str], found: Mapping[str, Mapping[str, str]]
) -> JobSummary | None:
    """The job with its tasks; None if it is gone, or, with a warning, if it cannot be read."""
    try:
        if not found[job_key]:
            return None
        tasks = tuple(task_of(key, found[key]) for key in task_keys if found[key])
        return JobSummary(job=job_of(job_key, found[job_key]), tasks=tasks)
    except StoreCorrupt as error:
        # One that is broken must not hide all others.
        _LOG.warning("left out: %s", error)
        return None
