"""All clusters as they are known by who follows the change log, and what is news of them.

As in catalog.py, records carry versions, so that what was read is told apart from what is told later. Which
jobs a cluster has is not kept here: the catalog of jobs finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from titus_celery.core.cluster import BUILT_IN, Cluster
from titus_celery.core.cluster_query import ClusterCriteria, terms_of
from titus_celery.core.decision import ClusterChanged, ClusterRemoved, JobAdded, JobEnded, LogEntry
from titus_celery.core.model import ClusterId
from titus_celery.core.shelf import Order, Shelf

__all__ = ["ClusterCatalog", "ClusterEntry", "ClusterLooks", "ClusterNews", "ClusterNotification", "of_job"]

#: The version of every new record. Whose first entry in the log is a later one was there before the log
#: was followed, and is not there any more.
_NEW: Final = 1

#: What observers of clusters hear of.
ClusterNotification = ClusterChanged | ClusterRemoved | JobAdded | JobEnded


class ClusterLooks(Protocol):
    """How clusters look from outside: bytes, equal if nobody can tell the difference."""

    def cluster(self, cluster: Cluster) -> bytes:
        """All of a cluster but its id."""


@dataclass(slots=True)
class ClusterEntry:
    """A cluster. What is made of its look and its jobs may be kept in *made*; it goes when they change."""

    id: ClusterId
    version: int
    look: bytes
    made: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterNews:
    """Something that observers must hear; *look* is the cluster's, if its definition is what changed."""

    notification: ClusterNotification
    cluster_id: ClusterId
    look: bytes = b""


def of_job(entry: LogEntry) -> ClusterNews | None:
    """What observers of its cluster hear of a job: that it is new, or over, and nothing in between."""
    match entry:
        case JobAdded(job) if job.version == _NEW:
            return ClusterNews(entry, job.cluster_id)
        case JobEnded(job):
            return ClusterNews(entry, job.cluster_id)
        case _:
            return None


class ClusterCatalog:
    """The clusters of an installation, the built-in ones among them. Not for several threads at once."""

    def __init__(self, looks: ClusterLooks) -> None:
        self._looks = looks
        self._shelf: Shelf[ClusterEntry] = Shelf()
        self.clear()

    # ------------------------------------------------------------------------------------------ answers

    def get(self, id: ClusterId) -> ClusterEntry | None:
        """The cluster of this id."""
        return self._shelf.get(id)

    def all(self) -> Sequence[ClusterEntry]:
        """Every cluster, by creation."""
        return list(self._shelf)

    def find(self, wanted: ClusterCriteria, start: int, size: int) -> tuple[Sequence[ClusterEntry], int]:
        """A page of the clusters that are asked for, by creation, and how many there are."""
        return self._shelf.find(wanted.terms, start, size, among=wanted.ids)

    # ------------------------------------------------------------------------------------------ learning

    def clear(self) -> None:
        """Forget all but the built-in ones: they are learnt anew."""
        self._shelf = Shelf()
        self.load(BUILT_IN.values())

    def load(self, clusters: Iterable[Cluster]) -> None:
        """Learn of clusters, as they were read after the log began to be followed."""
        for cluster in clusters:
            self._put(cluster)

    def hear(self, entry: LogEntry, *, is_news: bool) -> ClusterNews | None:
        """Learn what the log says next; what observers must be told of it.

        *is_news*: of an entry about a job, whether the catalog of jobs found that it tells something new.
        """
        match entry:
            case ClusterChanged(cluster):
                return self._hear_cluster(entry, cluster)
            case ClusterRemoved(id):
                was_known = id in self._shelf
                self._shelf.remove(id)
                return ClusterNews(entry, id) if was_known else None
            case _:
                return self._hear_job(entry) if is_news else None

    # ------------------------------------------------------------------------------------------ inside

    def _hear_cluster(self, notification: ClusterChanged, cluster: Cluster) -> ClusterNews | None:
        known = self._shelf.get(cluster.id)
        # One that is neither new nor in what was read was gone by then.
        is_old = cluster.version <= known.version if known else cluster.version != _NEW
        if is_old:
            return None
        look = self._put(cluster).look
        # Whether clusters of batch jobs are enabled is nowhere to be seen.
        return None if known and known.look == look else ClusterNews(notification, cluster.id, look)

    def _hear_job(self, entry: LogEntry) -> ClusterNews | None:
        news = of_job(entry)
        if news is not None and (known := self._shelf.get(news.cluster_id)) is not None:
            known.made.clear()
        return news

    def _put(self, cluster: Cluster) -> ClusterEntry:
        entry = ClusterEntry(cluster.id, cluster.version, self._looks.cluster(cluster))
        self._shelf.put(_order_of(cluster), terms_of(cluster), entry)
        return entry


def _order_of(cluster: Cluster) -> Order:
    return round(cluster.created_at.timestamp() * 1_000), cluster.id
