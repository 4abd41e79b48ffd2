"""The Titus API: each method unpacks, calls one use case, packs.

Errors are the interceptor's, blocking is the threads', rules are the core's. What is made of parts that are
serialised already is given as bytes; the interceptor hands both on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from titus_celery.core.descriptor import JobDescriptor
from titus_celery.core.model import Caller
from titus_celery.grpc.caller import caller_from, cluster_from, key_from, resume_from
from titus_celery.grpc.cluster_servicer import ClusterMethods
from titus_celery.grpc.convert import descriptor_from_pb, instances_from_pb
from titus_celery.grpc.ids import cluster_id_from, ids_from, job_id_from, task_id_from
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.queries import Queries
from titus_celery.grpc.streams import Begin, Beginning, Events, Progress, Streams
from titus_celery.grpc.threads import Threads
from titus_celery.service.clusters import JobClusters
from titus_celery.service.jobs import Jobs

__all__ = ["POSITION_KEY", "RESUMED_KEY", "JobManagement"]

#: Initial metadata: where the stream begins; trailing: how far it got, unless it cannot be resumed.
POSITION_KEY: Final = "x-titus-position"
#: Initial metadata of a stream that was to be resumed: "true", or "false: why".
RESUMED_KEY: Final = "x-titus-resumed"

Context = grpc.aio.ServicerContext[Any, Any]
#: Serialised notifications.
Stream = AsyncGenerator[Any]


class JobManagement(ClusterMethods):
    """The 21 methods. What this release lacks is refused by name."""

    def __init__(
        self,
        jobs: Jobs,
        clusters: JobClusters,
        queries: Queries,
        streams: Streams,
        threads: Threads,
        creations: Threads,
        descriptor_bytes_max: int,
    ) -> None:
        """*creations*: the threads for what may wait for a registry."""
        super().__init__(clusters, threads, descriptor_bytes_max)
        self._jobs = jobs
        self._queries = queries
        self._streams = streams
        self._creations = creations

    async def CreateJob(self, request: pb.JobDescriptor, context: Context) -> pb.JobId:
        """Accept a job (docs/semantics.md B1.9)."""
        self._refuse_large(request, "jobDescriptor")
        metadata = context.invocation_metadata()
        caller, key = caller_from(metadata), key_from(metadata)
        job = descriptor_from_pb(request)
        job = replace(job, cluster_id=cluster_from(metadata, job.cluster_id))
        return await self._creations.run(self._create, job, caller, key)

    async def UpdateJobInstances(self, request: pb.JobInstancesUpdate, context: Context) -> Empty:
        """Record how many tasks a service, or a stage, is to have (docs/semantics.md B1.10)."""
        job_id, wanted = job_id_from(request.jobId, "jobId"), instances_from_pb(request.instances)
        await self._threads.run(self._jobs.resize, job_id, wanted, request.stageIndex)
        return Empty()

    async def UpdateJobStatus(self, request: pb.JobStatusUpdate, context: Context) -> Empty:
        """Record whether a job is scaled by its policies (docs/semantics.md B1.11)."""
        await self._threads.run(self._jobs.enable, job_id_from(request.id), request.enableStatus)
        return Empty()

    async def FindJobs(self, request: pb.JobQuery, context: Context) -> Any:
        """A page of the jobs that are asked for (docs/semantics.md B1.12, B4)."""
        return await self._queries.jobs(request)

    async def FindJob(self, request: pb.JobId, context: Context) -> Any:
        """A job, live or finished (docs/semantics.md B1.13)."""
        return await self._queries.job(job_id_from(request.id))

    def ObserveJob(self, request: pb.JobId, context: Context) -> Stream:
        """A job and what happens to it, to its end (docs/semantics.md B5.1)."""
        return self._told(partial(self._streams.observe, job_id_from(request.id)), context)

    def ObserveJobs(self, request: Empty, context: Context) -> Stream:
        """All live jobs and what happens to any (docs/semantics.md B5.2)."""
        return self._told(partial(self._streams.observe, None), context)

    async def KillJob(self, request: pb.JobId, context: Context) -> Empty:
        """Record that a job is to end (docs/semantics.md B1.16)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill, job_id_from(request.id), caller)
        return Empty()

    async def KillJobs(self, request: pb.JobIds, context: Context) -> Empty:
        """Record of each that it is to end (docs/semantics.md B1.17)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill_all, ids_from(request.id, job_id_from), caller)
        return Empty()

    async def FindTask(self, request: pb.TaskId, context: Context) -> Any:
        """A task, live, finished or replaced (docs/semantics.md B1.18)."""
        return await self._queries.task(task_id_from(request.id))

    async def FindTasks(self, request: pb.TaskQuery, context: Context) -> Any:
        """A page of the tasks of a job (docs/semantics.md B1.19, B4)."""
        return await self._queries.tasks(request)

    async def KillTask(self, request: pb.TaskId, context: Context) -> Empty:
        """Record that a task is to end (docs/semantics.md B1.20)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill_task, task_id_from(request.id), caller)
        return Empty()

    async def KillTasks(self, request: pb.TaskIds, context: Context) -> Empty:
        """Record of each that it is to end (docs/semantics.md B1.21)."""
        caller = caller_from(context.invocation_metadata())
        await self._threads.run(self._jobs.kill_tasks, ids_from(request.id, task_id_from), caller)
        return Empty()

    async def FindJobClusters(self, request: pb.JobClusterQuery, context: Context) -> Any:
        """A page of the clusters that are asked for (docs/semantics.md B1.4, B4)."""
        return await self._queries.clusters(request)

    def ObserveJobCluster(self, request: pb.JobClusterId, context: Context) -> Stream:
        """A cluster and what happens to it, until it is removed (docs/semantics.md B5.3)."""
        return self._told(partial(self._streams.observe_clusters, cluster_id_from(request.id)), context)

    def ObserveJobClusters(self, request: Empty, context: Context) -> Stream:
        """All clusters and what happens to any (docs/semantics.md B5.4)."""
        return self._told(partial(self._streams.observe_clusters, None), context)

    def _create(self, descriptor: JobDescriptor, caller: Caller, key: str) -> pb.JobId:
        return pb.JobId(id=self._jobs.create(descriptor, caller, key))

    async def _told(self, observe: Callable[[str, Begin, Progress], Events], context: Context) -> Stream:
        resume, progress = resume_from(context.invocation_metadata()), Progress()

        async def begin(beginning: Beginning) -> None:
            metadata: list[tuple[str, str]] = [(POSITION_KEY, beginning.position)]
            if resume:
                metadata.append((RESUMED_KEY, _resumed(beginning)))
            await context.send_initial_metadata(tuple(metadata))

        events = observe(resume, begin, progress)
        try:
            async with aclosing(events):
                async for told in events:
                    yield told.message
        finally:
            if progress.position:
                context.set_trailing_metadata(((POSITION_KEY, progress.position),))


def _resumed(beginning: Beginning) -> str:
    return "true" if beginning.is_resumed else f"false: {beginning.why_not}"
