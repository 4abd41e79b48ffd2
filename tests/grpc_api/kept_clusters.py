"""Clusters, the jobs in them and control, as tests of gateways make them over a store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.grpc_api.world import AGENT, NOON, PATIENCE, SPANS, Store
from tests.service.control import job_clusters, sweep
from tests.service.mantis import a_cluster, mantis_job
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.core.cluster import ClusterDescriptor
from titus_celery.core.descriptor import BatchSpec, JobDescriptor
from titus_celery.core.model import Caller, ClusterId, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.service.clusters import JobClusters

__all__ = ["ME", "Control", "batch_job", "clusters_of", "make", "mantis", "notified", "snapshot", "start"]

ME = Caller(id="me", email="me@example.com")
#: Agents are looked for no sooner.
LOST_AFTER = timedelta(seconds=60)
#: Control looks at the store as often as this.
STEP = timedelta(seconds=4)


def clusters_of(store: Store) -> JobClusters:
    """The use cases about clusters over this store."""
    store.registry.report_images(AGENT.engine_id, {"app:1": "sha256:1", "busybox:1": "sha256:1"})
    return job_clusters(store.keyspace, store.writes, store.settings.limits(), store.own)


def make(store: Store, cluster: ClusterDescriptor | None = None) -> ClusterId:
    """A new cluster's id."""
    return clusters_of(store).create(cluster or a_cluster(max=9), ME)


def start(store: Store, job: JobDescriptor) -> JobId:
    """A new job's id."""
    clusters_of(store)
    return store.jobs().create(job, ME)


def mantis(cluster_id: str = "", *, transient: bool = False, **parts: Any) -> JobDescriptor:
    """A Mantis job with one worker."""
    return mantis_job(cluster_id=cluster_id, agreement={"is_transient": transient}, **parts)


def batch_job() -> JobDescriptor:
    """A batch job with one task."""
    plain = mantis_job()
    (key,) = plain.containers
    return JobDescriptor(
        app_name="app", spec=BatchSpec(desired=1, container_id=key), containers=plain.containers
    )


class Control:
    """A control process, for which no time passes but the store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        rules = (store.settings.limits(), SPANS, LOST_AFTER)
        resolver = InventoryResolver(store.registry)
        self._sweep = sweep(
            store.keyspace, store.records, store.registry, store.writes, resolver, rules, self
        )
        self._sweep.look()

    def monotonic(self) -> timedelta:
        """See Clock."""
        return self._store.clock.now - NOON

    def run(self, id: JobId) -> None:
        """Bring a job to RUNNING."""
        self.run_tasks(*(task.id for task in self._store.records.open_tasks(id)))

    def run_tasks(self, *ids: TaskId) -> None:
        """Bring these tasks to RUNNING."""
        for id in ids:
            self._store.advance(id, State.RUNNING)
            self._sweep.look()
        self._sweep.run()

    def wait(self, seconds: float) -> None:
        """Let so much of the store's time pass, in which gateways say what they have to say."""
        left = timedelta(seconds=seconds)
        while left > timedelta(0):
            step = min(left, STEP)
            self._store.clock.now, left = self._store.clock.now + step, left - step
            for gateway in self._store.subscriptions:
                gateway.renew()
            self._sweep.look()
            self._sweep.run()


async def notified(stream: Any) -> pb.JobClusterNotification:
    """The next notification; a failure if the stream ends or nothing comes."""
    async with asyncio.timeout(PATIENCE):
        message = await stream.read()
    assert isinstance(message, pb.JobClusterNotification), "the stream ended"
    return message


async def snapshot(stream: Any) -> dict[str, list[str]]:
    """The clusters that come before the marker, with the ids of their jobs; and the marker."""
    found = {}
    while (message := await notified(stream)).HasField("jobClusterSnapshot"):
        told = message.jobClusterSnapshot
        found[told.jobCluster.id] = list(told.jobIds)
    assert message.HasField("snapshotEnd")
    return found
