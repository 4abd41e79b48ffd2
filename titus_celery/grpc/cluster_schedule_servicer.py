"""The schedules of clusters: our own addition beside the Titus API (docs/semantics.md A11)."""

from __future__ import annotations

from typing import Any

import grpc.aio

from titus_celery.core.model import ClusterId
from titus_celery.core.paging import Page
from titus_celery.grpc.convert import timestamp
from titus_celery.grpc.convert_clusters import firing_to_pb
from titus_celery.grpc.ids import cluster_id_from
from titus_celery.grpc.pages import page_from, pagination_to_pb
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import ClusterServiceServicer
from titus_celery.grpc.threads import Threads
from titus_celery.service.clusters import JobClusters

__all__ = ["ClusterSchedules"]

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterSchedules(ClusterServiceServicer):
    """What is to come of a schedule, and what became of what has been."""

    def __init__(self, clusters: JobClusters, threads: Threads) -> None:
        self._clusters = clusters
        self._threads = threads

    async def ComingTimes(self, request: v1.ComingTimesRequest, context: Context) -> v1.ComingTimesReply:
        """The next times of a cluster's schedule."""
        id = cluster_id_from(request.cluster_id, "cluster_id")
        return await self._threads.run(self._coming, id, request.count)

    async def FindFirings(self, request: v1.FindFiringsRequest, context: Context) -> v1.FindFiringsReply:
        """A page of what became of its times, the newest first."""
        id, page = cluster_id_from(request.cluster_id, "cluster_id"), page_from(request)
        return await self._threads.run(self._firings, id, page)

    def _coming(self, id: ClusterId, count: int) -> v1.ComingTimesReply:
        times = [timestamp(each) for each in self._clusters.coming(id, count)]
        cluster = self._clusters.find(id)
        # Without a schedule there is nothing that a zone could speak of.
        zone = cluster.descriptor.time_zone if cluster.rules.cron else ""
        return v1.ComingTimesReply(times=times, time_zone=zone)

    def _firings(self, id: ClusterId, page: Page) -> v1.FindFiringsReply:
        found, total = self._clusters.firings(id, page.number * page.size, page.size)
        items = [firing_to_pb(each) for each in found]
        return v1.FindFiringsReply(items=items, pagination=pagination_to_pb(page, total))
