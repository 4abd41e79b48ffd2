"""Job clusters, their live jobs and what became of their schedules, laid out over a keyspace.

What changes them is a commit like any other (layout_clusters.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Keyspace, SetRemove
from titus_celery.adapters.records import cluster_of, job_of, value_of
from titus_celery.adapters.snapshots import members_after
from titus_celery.core.cluster import Cluster, Firing
from titus_celery.core.model import ClusterId, Job, JobId
from titus_celery.core.shelf import Order
from titus_celery.errors import NotFound, StoreCorrupt

__all__ = ["ClusterStore"]

_LOG: Final = logging.getLogger(__name__)

#: Live jobs of one cluster are bounded by its ceiling, so that all of them are asked for.
_ALL: Final = 1_000_000_000
#: Firings let go of in one transaction, which takes the store about a millisecond.
_TRIM_MAX: Final = 100


class ClusterStore:
    """The Clusters of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def cluster(self, cluster_id: ClusterId) -> tuple[Cluster, datetime]:
        """The cluster and the store's time. NotFound if there is none (see Clusters)."""
        key = self._keys.cluster(cluster_id)
        (fields,), now = self._keyspace.hashes([key])
        if not fields:
            raise NotFound("cluster", cluster_id)
        return cluster_of(key, fields), now

    def page(self, after: Order | None, limit: int) -> tuple[Sequence[Cluster], Order | None]:
        """The next clusters by creation (see Clusters)."""
        places = members_after(self._keyspace, self._keys.clusters, after, limit)
        if not places:
            return [], None
        keys = [self._keys.cluster(id) for _, id in places]
        found, _ = self._keyspace.hashes(keys)
        clusters = []
        for key, fields in zip(keys, found, strict=True):
            try:
                if fields:
                    clusters.append(cluster_of(key, fields))
            except StoreCorrupt as error:
                # One that is broken must not hide all others.
                _LOG.warning("left out: %s", error)
        return clusters, places[-1]

    def live_jobs(self, cluster_id: ClusterId) -> Sequence[Job]:
        """The cluster's jobs that are not over, the oldest first."""
        members, _ = self._keyspace.members(self._keys.cluster_jobs(cluster_id), 0, _ALL)
        keys = [self._keys.job(JobId(member)) for member, _ in members]
        found, _ = self._keyspace.hashes(keys) if keys else ([], None)
        # One may have ended between the two reads.
        return [job_of(key, fields) for key, fields in zip(keys, found, strict=True) if fields]

    def firings(self, cluster_id: ClusterId, start: int, limit: int) -> tuple[Sequence[Firing], int]:
        """What became of the times of its schedule, the newest first (see Clusters)."""
        key = self._keys.firings(cluster_id)
        members, total = self._keyspace.members(key, start, limit, newest=True)
        return [value_of(Firing, key, member) for member, _ in members], total

    def trim_firings(self, cluster_id: ClusterId, before: datetime, keep: int) -> None:
        """Let go of the oldest of them (see Clusters)."""
        key = self._keys.firings(cluster_id)
        while True:
            members, total = self._keyspace.members(key, 0, _TRIM_MAX)
            surplus = total - keep
            gone = [
                member
                for place, (member, _) in enumerate(members)
                if place < surplus or value_of(Firing, key, member).until < before
            ]
            if gone:
                self._keyspace.transact([], [SetRemove(key, member) for member in gone])
            if len(gone) < _TRIM_MAX:
                return
