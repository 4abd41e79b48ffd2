"""How clusters look on the wire, as looks.py has it for jobs: each part is made once, for all observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from titus_celery.core.cluster import Cluster
from titus_celery.core.cluster_catalog import ClusterEntry, ClusterNews
from titus_celery.core.decision import ClusterChanged, ClusterRemoved, JobAdded, JobEnded
from titus_celery.core.model import ClusterId, JobId
from titus_celery.grpc.convert_clusters import cluster_descriptor_to_pb
from titus_celery.grpc.framing import field, part
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "ClusterWireLooks",
    "cluster_marker",
    "cluster_message_of",
    "cluster_query_reply",
    "cluster_snapshot_of",
    "whole_cluster",
]

_Notification = pb.JobClusterNotification

_ID: Final = part(pb.JobCluster, "id")
_DESCRIPTOR: Final = part(pb.JobCluster, "descriptor")
_ITEMS: Final = part(pb.JobClusterQueryResult, "items")
_SNAPSHOT: Final = part(_Notification, "jobClusterSnapshot")
_SNAPSHOT_CLUSTER: Final = part(_Notification.JobClusterSnapshot, "jobCluster")
_SNAPSHOT_JOBS: Final = part(_Notification.JobClusterSnapshot, "jobIds")
_UPDATE: Final = part(_Notification, "jobClusterDefinitionUpdate")
_UPDATE_ID: Final = part(_Notification.JobClusterDefinitionUpdate, "id")
_UPDATE_DESCRIPTOR: Final = part(_Notification.JobClusterDefinitionUpdate, "descriptor")

#: What an entry keeps of what was made of it.
_TOLD: Final = "told"


class ClusterWireLooks:
    """The looks that the gateway's catalog of clusters is made of."""

    def cluster(self, cluster: Cluster) -> bytes:
        """A JobClusterDescriptor."""
        # Deterministic, because what looks the same must be the same.
        return cluster_descriptor_to_pb(cluster.descriptor).SerializeToString(deterministic=True)


def whole_cluster(entry: ClusterEntry) -> bytes:
    """The JobCluster."""
    return field(_ID, entry.id.encode()) + field(_DESCRIPTOR, entry.look)


def cluster_snapshot_of(entry: ClusterEntry, jobs: Callable[[ClusterId], Sequence[JobId]]) -> bytes:
    """What an observer hears first of a cluster, which has these live jobs."""
    made = entry.made.get(_TOLD)
    if made is None:
        ids = (field(_SNAPSHOT_JOBS, id.encode()) for id in jobs(entry.id))
        snapshot = b"".join([field(_SNAPSHOT_CLUSTER, whole_cluster(entry)), *ids])
        made = entry.made[_TOLD] = field(_SNAPSHOT, snapshot)
    return made


def cluster_marker() -> bytes:
    """What separates the snapshots from the changes."""
    return _Notification(snapshotEnd=_Notification.SnapshotEnd()).SerializeToString()


def cluster_message_of(news: ClusterNews) -> bytes:
    """What an observer hears of a change."""
    match news.notification:
        case ClusterChanged(cluster):
            update = field(_UPDATE_ID, cluster.id.encode()) + field(_UPDATE_DESCRIPTOR, news.look)
            return field(_UPDATE, update)
        case ClusterRemoved(id):
            removed = _Notification(jobClusterRemoved=_Notification.JobClusterRemoved(id=id))
            return removed.SerializeToString()
        case JobAdded(job):
            return _Notification(jobAdded=_Notification.JobAdded(jobId=job.id)).SerializeToString()
        case JobEnded(job):
            return _Notification(jobFinished=_Notification.JobFinished(jobId=job.id)).SerializeToString()


def cluster_query_reply(clusters: Iterable[bytes], pagination: pb.Pagination) -> bytes:
    """A reply of these clusters, each serialised."""
    end = pb.JobClusterQueryResult(pagination=pagination).SerializeToString()
    return b"".join([*(field(_ITEMS, cluster) for cluster in clusters), end])
