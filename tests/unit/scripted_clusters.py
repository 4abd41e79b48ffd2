"""The part of the scripted server that is about clusters."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf.empty_pb2 import Empty

from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

CLUSTER = "3f2a0000-1111-4222-8333-444455556666"
OTHER = "3f2b0000-1111-4222-8333-444455556666"
DEFAULT = "00000000-0000-4000-8000-000000000001"


def mantis_job(*stages: int, image: str = "i") -> pb.JobDescriptor:
    """A Mantis job of stages of so many tasks."""
    made = pb.JobDescriptor(appName="nightly", mantis=pb.MantisJobSpec(name="nightly"))
    for number, desired in enumerate(stages):
        id = f"stage-{number}"
        made.containers[id].CopyFrom(pb.Container(image=pb.Image(name=image), command=[f"work-{number}"]))
        made.mantis.stages.add(containerId=id, instances=pb.TaskInstances(desired=desired))
    return made


def nightly(id: str = CLUSTER, name: str = "nightly") -> pb.JobCluster:
    """A cluster with a schedule."""
    template = mantis_job(1)
    template.mantis.parameters["cron.timeZone"] = "Europe/Berlin"
    rules = pb.MantisClusterSpec(enabled=True, max=1, cronSpec="0 0 2 * * ?", cronPolicy="KEEP_EXISTING")
    owner = pb.Owner(ownerEmail="ann@example.com", teamEmail="ann@example.com")
    descriptor = pb.JobClusterDescriptor(name=name, owner=owner, jobDescriptor=template, mantis=rules)
    return pb.JobCluster(id=id, descriptor=descriptor)


def plain(id: str = DEFAULT, name: str = "default batch cluster") -> pb.JobCluster:
    """A cluster of batch jobs, without a template."""
    return pb.JobCluster(id=id, descriptor=pb.JobClusterDescriptor(name=name, batch=pb.BatchClusterSpec()))


class Clusters(pb_grpc.JobManagementServiceServicer, v1_grpc.ClusterServiceServicer):
    """Answers about *clusters*, and remembers what was asked for."""

    def __init__(self) -> None:
        self.clusters = [plain(), nightly()]
        #: Ids of those that are disabled and do not say so themselves.
        self.disabled: set[str] = set()
        self.created_clusters: list[pb.JobClusterDescriptor] = []
        self.cluster_keys: list[str] = []
        self.updated_clusters: list[pb.JobCluster] = []
        self.statuses: list[tuple[str, bool]] = []
        self.removed: list[str] = []
        self.cluster_queries: list[dict[str, str]] = []
        #: How calls that change a cluster are refused, by its id.
        self.cluster_refusals: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.coming = v1.ComingTimesReply(
            times=["2026-11-25T01:00:00Z", "2026-11-26T01:00:00Z"], time_zone="Europe/Berlin"
        )
        self.firings: list[v1.Firing] = []
        #: Cluster and number of each call about times.
        self.times_asked: list[tuple[str, int]] = []
        #: How often a stream about a cluster breaks.
        self.cluster_breaks = 0

    def CreateJobCluster(  # noqa: N802
        self, request: pb.JobClusterDescriptor, context: grpc.ServicerContext
    ) -> pb.JobClusterId:
        metadata = {key: value for key, value in context.invocation_metadata()}
        self.cluster_keys.append(str(metadata.get("x-titus-idempotency-key")))
        if "" in self.cluster_refusals:
            context.abort(*self.cluster_refusals.pop(""))
        self.created_clusters.append(request)
        return pb.JobClusterId(id=CLUSTER)

    def UpdateJobCluster(self, request: pb.JobCluster, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        self._may_change(request.id, context)
        self.updated_clusters.append(request)
        return Empty()

    def UpdateJobClusterStatus(  # noqa: N802
        self, request: pb.JobClusterStatusUpdate, context: grpc.ServicerContext
    ) -> Empty:
        self._may_change(request.id, context)
        self.statuses.append((request.id, request.enableStatus))
        return Empty()

    def RemoveJobCluster(self, request: pb.JobClusterId, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        self._may_change(request.id, context)
        self.removed.append(request.id)
        return Empty()

    def FindJobCluster(self, request: pb.JobClusterId, context: grpc.ServicerContext) -> pb.JobCluster:  # noqa: N802
        found = [each for each in self.clusters if each.id == request.id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no cluster has the id {request.id!r}")
        return found[0]

    def FindJobClusters(  # noqa: N802
        self, request: pb.JobClusterQuery, context: grpc.ServicerContext
    ) -> pb.JobClusterQueryResult:
        """One cluster a page, so that there are several."""
        criteria = dict(request.fiterlingCriteria)
        self.cluster_queries.append(criteria)
        found = [each for each in self.clusters if criteria.get("clusterIds") in (None, each.id)]
        if criteria.get("enabled") == "false":
            found = [each for each in found if each.id in self.disabled]
        start = request.page.pageNumber
        about = pb.Pagination(hasMore=start + 1 < len(found), totalItems=len(found), totalPages=len(found))
        return pb.JobClusterQueryResult(items=found[start : start + 1], pagination=about)

    def ComingTimes(  # noqa: N802
        self, request: v1.ComingTimesRequest, context: grpc.ServicerContext
    ) -> v1.ComingTimesReply:
        self.times_asked.append((request.cluster_id, request.count))
        return self.coming

    def FindFirings(  # noqa: N802
        self, request: v1.FindFiringsRequest, context: grpc.ServicerContext
    ) -> v1.FindFiringsReply:
        self.times_asked.append((request.cluster_id, request.page.pageSize))
        found = self.firings[: request.page.pageSize]
        return v1.FindFiringsReply(items=found, pagination=pb.Pagination(totalItems=len(self.firings)))

    def ObserveJobCluster(  # noqa: N802
        self, request: pb.JobClusterId, context: grpc.ServicerContext
    ) -> Iterator[pb.JobClusterNotification]:
        told = pb.JobClusterNotification
        snapshot = told.JobClusterSnapshot(jobCluster=self.clusters[1], jobIds=["j"])
        yield told(jobClusterSnapshot=snapshot)
        yield told(snapshotEnd=told.SnapshotEnd())
        self.cluster_breaks -= 1
        if self.cluster_breaks >= 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restart")
        yield told(jobClusterRemoved=told.JobClusterRemoved(id=request.id))

    def _may_change(self, id: str, context: grpc.ServicerContext) -> None:
        if id in self.cluster_refusals:
            context.abort(*self.cluster_refusals[id])
