"""The Titus API: each method unpacks, calls one use case, packs.

Errors are the interceptor's, blocking is the threads', rules are the core's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from titus_celery.core.descriptor import JobDescriptor
from titus_celery.core.model import (
    Caller,
)
from titus_celery.core.paging import FIRST_PAGE, Page, Totals, page_asked
from titus_celery.errors import Unsupported
from titus_celery.grpc.caller import caller_from, refuse_unsupported
from titus_celery.grpc.convert import descriptor_from_pb, instances_from_pb, job_to_pb, task_to_pb
from titus_celery.grpc.ids import job_id_from, task_id_from
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceServicer
from titus_celery.grpc.streams import Streams
from titus_celery.grpc.threads import Threads
from titus_celery.service.jobs import Jobs

__all__ = ["JobManagement"]

Context = grpc.aio.ServicerContext[Any, Any]
Stream = AsyncGenerator[pb.JobChangeNotification]
ClusterStream = AsyncGenerator[pb.JobClusterNotification]


class JobManagement(JobManagementServiceServicer):
    """The 21 methods. What this release lacks is refused by name."""

    def __init__(self, jobs: Jobs, streams: Streams, threads: Threads, creations: Threads) -> None:
        """*creations*: the threads for what may wait for a registry."""
        self._jobs = jobs
        self._streams = streams
        self._threads = threads
        self._creations = creations

    async def CreateJob(self, request: pb.JobDescriptor, context: Context) -> pb.JobId:
        """Accept a job (docs/semantics.md B1.9)."""
        metadata = context.invocation_metadata()
        refuse_unsupported(metadata)
        return await self._creations.run(self._create, descriptor_from_pb(request), caller_from(metadata))

    async def FindJobs(self, request: pb.JobQuery, context: Context) -> pb.JobQueryResult:
        """A page of the live jobs (docs/semantics.md B1.12, B4.4)."""
        _refuse_choice(request)
        return await self._threads.run(self._find_page, _page_from(request))

    async def FindJob(self, request: pb.JobId, context: Context) -> pb.Job:
        """A job, live or finished (docs/semantics.md B1.13)."""
        job_id = job_id_from(request.id)
        return await self._threads.run(lambda: job_to_pb(self._jobs.find(job_id)))

    def ObserveJob(self, request: pb.JobId, context: Context) -> Stream:
        """A job and what happens to it, to its end (docs/semantics.md B5.1)."""
        return self._streams.of_job(job_id_from(request.id))

    def ObserveJobs(self, request: Empty, context: Context) -> Stream:
        """All live jobs and what happens to any (docs/semantics.md B5.2)."""
        return self._streams.of_all()

    async def KillJob(self, request: pb.JobId, context: Context) -> Empty:
        """Record that a job is to end (docs/semantics.md B1.16)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill, job_id_from(request.id), caller)
        return Empty()

    async def FindTask(self, request: pb.TaskId, context: Context) -> pb.Task:
        """A task, live or finished or replaced (docs/semantics.md B1.18)."""
        return task_to_pb(await self._threads.run(self._jobs.find_task, task_id_from(request.id)))

    async def KillTask(self, request: pb.TaskId, context: Context) -> Empty:
        """Record that a task is to end (docs/semantics.md B1.20)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill_task, task_id_from(request.id), caller)
        return Empty()

    async def CreateJobCluster(self, request: pb.JobClusterDescriptor, context: Context) -> pb.JobClusterId:
        """Not in this release."""
        raise Unsupported("CreateJobCluster")

    async def UpdateJobCluster(self, request: pb.JobCluster, context: Context) -> Empty:
        """Not in this release."""
        raise Unsupported("UpdateJobCluster")

    async def RemoveJobCluster(self, request: pb.JobClusterId, context: Context) -> Empty:
        """Not in this release."""
        raise Unsupported("RemoveJobCluster")

    async def FindJobClusters(
        self, request: pb.JobClusterQuery, context: Context
    ) -> pb.JobClusterQueryResult:
        """Not in this release."""
        raise Unsupported("FindJobClusters")

    async def FindJobCluster(self, request: pb.JobClusterId, context: Context) -> pb.JobCluster:
        """Not in this release."""
        raise Unsupported("FindJobCluster")

    async def UpdateJobClusterStatus(self, request: pb.JobClusterStatusUpdate, context: Context) -> Empty:
        """Not in this release."""
        raise Unsupported("UpdateJobClusterStatus")

    def ObserveJobCluster(self, request: pb.JobClusterId, context: Context) -> ClusterStream:
        """Not in this release."""
        raise Unsupported("ObserveJobCluster")

    def ObserveJobClusters(self, request: Empty, context: Context) -> ClusterStream:
        """Not in this release."""
        raise Unsupported("ObserveJobClusters")

    async def UpdateJobInstances(self, request: pb.JobInstancesUpdate, context: Context) -> Empty:
        """Record how many tasks a service is to have (docs/semantics.md B1.10)."""
        job_id = job_id_from(request.jobId, "jobId")
        await self._threads.run(self._jobs.resize, job_id, instances_from_pb(request.instances))
        return Empty()

    async def UpdateJobStatus(self, request: pb.JobStatusUpdate, context: Context) -> Empty:
        """Record whether a service is scaled by its policies (docs/semantics.md B1.11)."""
        await self._threads.run(self._jobs.enable, job_id_from(request.id), request.enableStatus)
        return Empty()

    async def KillJobs(self, request: pb.JobIds, context: Context) -> Empty:
        """Not in this release."""
        raise Unsupported("KillJobs")

    async def FindTasks(self, request: pb.TaskQuery, context: Context) -> pb.TaskQueryResult:
        """Not in this release."""
        raise Unsupported("FindTasks")

    async def KillTasks(self, request: pb.TaskIds, context: Context) -> Empty:
        """Not in this release."""
        raise Unsupported("KillTasks")

    def _create(self, descriptor: JobDescriptor, caller: Caller) -> pb.JobId:
        return pb.JobId(id=self._jobs.create(descriptor, caller))

    def _find_page(self, page: Page) -> pb.JobQueryResult:
        found, total = self._jobs.page(page.number, page.size)
        totals = Totals(page=page, items=total)
        return pb.JobQueryResult(items=map(job_to_pb, found), pagination=_pagination_to_pb(totals))


def _refuse_choice(query: pb.JobQuery) -> None:
    for key in sorted(query.fiterlingCriteria):
        raise Unsupported(f"fiterlingCriteria {key!r}")
    for name in query.fields:
        raise Unsupported(f"fields {name!r}")


def _page_from(query: pb.JobQuery) -> Page:
    # Only what is absent has a default: a page of size 0 that was asked for is an error.
    return page_asked(query.page.pageNumber, query.page.pageSize) if query.HasField("page") else FIRST_PAGE


def _pagination_to_pb(totals: Totals) -> pb.Pagination:
    return pb.Pagination(
        currentPage=pb.Page(pageNumber=totals.page.number, pageSize=totals.page.size),
        hasMore=totals.has_more,
        totalPages=totals.pages,
        totalItems=totals.items,
    )
