"""The calls about job clusters, each as one method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from google.protobuf.empty_pb2 import Empty

from titus_celery.client.connection import PAGE_SIZE, Connection
from titus_celery.client.failure import CallFailed
from titus_celery.client.streams import Disconnected, OpenStream, Reconnected
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["ClusterCalls", "HeardOfClusters"]

HeardOfClusters = pb.JobClusterNotification | Disconnected | Reconnected


class ClusterCalls(Connection):
    """The part of `TitusClient` that is about clusters."""

    def create_cluster(
        self,
        descriptor: pb.JobClusterDescriptor,
        key: str | None = None,
        *,
        on_wait: Callable[[CallFailed], None] = lambda failed: None,
    ) -> str:
        """Create the cluster; its id. With the same *key* again: the same id (A19), as `submit`.

        A Mantis cluster is off unless its descriptor says `enabled`.
        """
        return self._create(self._jobs.CreateJobCluster, descriptor, "create the cluster", key, on_wait).id

    def update_cluster(self, cluster_id: str, descriptor: pb.JobClusterDescriptor) -> None:
        """Replace the cluster's description as a whole; jobs that live keep theirs."""
        cluster = pb.JobCluster(id=cluster_id, descriptor=descriptor)
        self._call(self._jobs.UpdateJobCluster, cluster, f"update cluster {cluster_id}")

    def remove_cluster(self, cluster_id: str) -> None:
        """Remove the cluster, in which no job lives; those that are over stay to be found."""
        self._call(
            self._jobs.RemoveJobCluster, pb.JobClusterId(id=cluster_id), f"remove cluster {cluster_id}"
        )

    def enable_cluster(self, cluster_id: str) -> None:
        """Let jobs be made in the cluster, and let a Mantis cluster make its own."""
        update = pb.JobClusterStatusUpdate(id=cluster_id, enableStatus=True)
        self._call(self._jobs.UpdateJobClusterStatus, update, f"enable cluster {cluster_id}")

    def disable_cluster(self, cluster_id: str) -> None:
        """Let no jobs be made in the cluster. Those of a Mantis cluster are ended; others go on."""
        update = pb.JobClusterStatusUpdate(id=cluster_id, enableStatus=False)
        self._call(self._jobs.UpdateJobClusterStatus, update, f"disable cluster {cluster_id}")

    def find_cluster(self, cluster_id: str) -> pb.JobCluster:
        """The cluster."""
        return self._call(
            self._jobs.FindJobCluster, pb.JobClusterId(id=cluster_id), f"find cluster {cluster_id}"
        )

    def find_clusters(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> pb.JobClusterQueryResult:
        """A page of the clusters that match, oldest first, and how many there are (docs/semantics.md B4).

        *fields*: what of each is wanted, such as `descriptor.name`; without any, everything.
        """
        query = pb.JobClusterQuery(
            page=pb.Page(pageNumber=page, pageSize=page_size), fiterlingCriteria=criteria or {}, fields=fields
        )
        return self._call(self._jobs.FindJobClusters, query, "list the clusters")

    def ls_clusters(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[pb.JobCluster]:
        """All clusters that `find_clusters` has pages of."""
        page, has_more = 0, True
        while has_more:
            found = self.find_clusters(criteria, fields, page=page, page_size=page_size)
            yield from found.items
            page, has_more = page + 1, found.pagination.hasMore

    def coming_times(self, cluster_id: str, count: int) -> v1.ComingTimesReply:
        """The next *count* times of the cluster's schedule, and its zone; no times if it has no schedule or
        is disabled."""
        request = v1.ComingTimesRequest(cluster_id=cluster_id, count=count)
        doing = f"find the coming times of cluster {cluster_id}"
        return self._call(self._schedules.ComingTimes, request, doing)

    def firings(self, cluster_id: str, *, page: int = 0, page_size: int = PAGE_SIZE) -> v1.FindFiringsReply:
        """What became of the times of the cluster's schedule, the newest first, and how many are kept."""
        request = v1.FindFiringsRequest(
            cluster_id=cluster_id, page=pb.Page(pageNumber=page, pageSize=page_size)
        )
        doing = f"find what became of the times of cluster {cluster_id}"
        return self._call(self._schedules.FindFirings, request, doing)

    def observe_cluster(self, cluster_id: str) -> Iterator[HeardOfClusters]:
        """The cluster as it is, with its live jobs, then what happens to it until it is removed.

        After each Reconnected a snapshot follows, that stands for all that was missed.
        """
        request = pb.JobClusterId(id=cluster_id)
        opener = partial(self._jobs.ObserveJobCluster, request, metadata=self._metadata)
        return self._heard_of_clusters(opener, _ends_cluster, f"observe cluster {cluster_id}")

    def observe_clusters(self) -> Iterator[HeardOfClusters]:
        """All clusters as they are, then what happens to any, without end; as `observe_cluster`."""
        opener = partial(self._jobs.ObserveJobClusters, Empty(), metadata=self._metadata)
        return self._heard_of_clusters(opener, lambda told: False, "observe the clusters")

    # ----------------------------------------------------------------------------------------- inside

    @property
    def _schedules(self) -> v1_grpc.ClusterServiceStub:
        return v1_grpc.ClusterServiceStub(self._channel)

    def _heard_of_clusters(
        self,
        opener: Callable[[], OpenStream[pb.JobClusterNotification]],
        last: Callable[[pb.JobClusterNotification], bool],
        doing: str,
    ) -> Iterator[HeardOfClusters]:
        for item in self._stream(opener, last, doing):
            # These streams have no place from which they could go on.
            yield Reconnected(resumed=False) if isinstance(item, Reconnected) else item


def _ends_cluster(told: pb.JobClusterNotification) -> bool:
    return told.HasField("jobClusterRemoved")
