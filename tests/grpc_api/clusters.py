"""Clusters and Mantis jobs as clients describe and make them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from tests.grpc_api.world import ME, PATIENCE, World, descriptor
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "CODE",
    "MANY",
    "NOBODY",
    "OWNER",
    "at_once",
    "batch_cluster",
    "job_in",
    "made",
    "mantis",
    "mantis_cluster",
    "service_cluster",
    "service_job",
]

CODE: Final = grpc.StatusCode
#: Calls that come at once.
MANY: Final = 50
#: Might be a cluster's id, and is none.
NOBODY: Final = "00000000-0000-4000-8000-00000000dead"
OWNER: Final = pb.Owner(ownerEmail=ME, teamEmail=ME)
_OF_SPEC: Final = ("jobSLA", "parameters", "subscriptionTimeoutSecs")


def mantis(*workers: int, **parts: Any) -> pb.JobDescriptor:
    """A Mantis job with so many workers in each stage, one of one if none are given."""
    stages = [
        pb.MantisStage(instances=pb.TaskInstances(desired=count), containerId=f"stage{number}")
        for number, count in enumerate(workers or (1,))
    ]
    spec = {name: parts.pop(name) for name in _OF_SPEC if name in parts}
    container = descriptor().containers["main"]
    made = descriptor(containers={stage.containerId: container for stage in stages}, **parts)
    made.mantis.CopyFrom(pb.MantisJobSpec(name="m", stages=stages, **spec))
    return made


def service_job(**parts: Any) -> pb.JobDescriptor:
    """A service of one task."""
    made = descriptor(**parts)
    made.service.CopyFrom(pb.ServiceJobSpec(instances=pb.TaskInstances(desired=1), containerId="main"))
    return made


def mantis_cluster(
    template: pb.JobDescriptor | None = None, *, enabled: bool = True, **rules: Any
) -> pb.JobClusterDescriptor:
    """A Mantis cluster with these rules."""
    spec = pb.MantisClusterSpec(enabled=enabled, **rules)
    return pb.JobClusterDescriptor(owner=OWNER, name="c", jobDescriptor=template or mantis(), mantis=spec)


def batch_cluster(template: pb.JobDescriptor | None = None) -> pb.JobClusterDescriptor:
    """A cluster of batch jobs."""
    job, spec = template or descriptor(), pb.BatchClusterSpec()
    return pb.JobClusterDescriptor(owner=OWNER, name="c", jobDescriptor=job, batch=spec)


def service_cluster(template: pb.JobDescriptor | None = None) -> pb.JobClusterDescriptor:
    """A cluster of services."""
    job, spec = template or service_job(), pb.ServiceClusterSpec()
    return pb.JobClusterDescriptor(owner=OWNER, name="c", jobDescriptor=job, service=spec)


async def made(titus: World, cluster: pb.JobClusterDescriptor | None = None, **metadata: str) -> str:
    """A new cluster's id."""
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    reply = await titus.jobs.CreateJobCluster(cluster or mantis_cluster(), metadata=sent, timeout=PATIENCE)
    id: str = reply.id
    return id


async def job_in(titus: World, cluster: str, job: pb.JobDescriptor | None = None) -> pb.Job:
    """A new job of the cluster, as it is found."""
    wanted = pb.JobDescriptor()
    wanted.CopyFrom(job or mantis())
    wanted.jobClusterId = cluster
    id = await titus.jobs.CreateJob(wanted, timeout=PATIENCE)
    return await titus.jobs.FindJob(id, timeout=PATIENCE)


async def at_once(*calls: Any) -> list[Any]:
    """What each of the calls ends with: its reply, or its status."""

    async def one(call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            return error.code()

    return list(await asyncio.gather(*map(one, calls)))
