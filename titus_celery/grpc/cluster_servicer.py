"""The methods of the Titus API that are about one cluster, as thin as those of servicer.py."""

from __future__ import annotations

from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from titus_celery.errors import InvalidRequest, Violation
from titus_celery.grpc.caller import caller_from, key_from
from titus_celery.grpc.convert_clusters import cluster_descriptor_from_pb, cluster_to_pb
from titus_celery.grpc.ids import cluster_id_from
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceServicer
from titus_celery.grpc.threads import Threads
from titus_celery.service.clusters import JobClusters

__all__ = ["ClusterMethods"]

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterMethods(JobManagementServiceServicer):
    """Those that create, change, show and remove a cluster."""

    def __init__(self, clusters: JobClusters, threads: Threads, descriptor_bytes_max: int) -> None:
        self._clusters = clusters
        self._threads = threads
        self._descriptor_bytes_max = descriptor_bytes_max

    async def CreateJobCluster(self, request: pb.JobClusterDescriptor, context: Context) -> pb.JobClusterId:
        """Accept a cluster (docs/semantics.md B1.1)."""
        self._refuse_large(request, "jobClusterDescriptor")
        metadata = context.invocation_metadata()
        caller, key = caller_from(metadata), key_from(metadata)
        cluster = cluster_descriptor_from_pb(request)
        return pb.JobClusterId(id=await self._threads.run(self._clusters.create, cluster, caller, key))

    async def UpdateJobCluster(self, request: pb.JobCluster, context: Context) -> Empty:
        """Put another definition in the place of a cluster's (docs/semantics.md B1.2)."""
        self._refuse_large(request.descriptor, "descriptor")
        caller = caller_from(context.invocation_metadata())
        id, cluster = cluster_id_from(request.id), cluster_descriptor_from_pb(request.descriptor)
        await self._threads.run(self._clusters.update, id, cluster, caller)
        return Empty()

    async def RemoveJobCluster(self, request: pb.JobClusterId, context: Context) -> Empty:
        """Remove a cluster without live jobs (docs/semantics.md B1.3)."""
        await self._threads.run(self._clusters.remove, cluster_id_from(request.id))
        return Empty()

    async def FindJobCluster(self, request: pb.JobClusterId, context: Context) -> pb.JobCluster:
        """A cluster (docs/semantics.md B1.5)."""
        return cluster_to_pb(await self._threads.run(self._clusters.find, cluster_id_from(request.id)))

    async def UpdateJobClusterStatus(self, request: pb.JobClusterStatusUpdate, context: Context) -> Empty:
        """Enable or disable a cluster (docs/semantics.md B1.6)."""
        await self._threads.run(self._clusters.enable, cluster_id_from(request.id), request.enableStatus)
        return Empty()

    def _refuse_large(self, request: Message, name: str) -> None:
        """InvalidRequest for a description that is larger than any may be."""
        if (size := request.ByteSize()) > self._descriptor_bytes_max:
            # Alone: it is not worth the time to look for what else is wrong with it.
            most = f"has {size} bytes; the most is {self._descriptor_bytes_max}"
            raise InvalidRequest([Violation(name, most)])
