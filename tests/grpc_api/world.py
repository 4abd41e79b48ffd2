"""A gateway as clients meet it: a real server on a loopback port, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import grpc.aio
import pytest

from tests.service.control import job_clusters
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.adapters.outputs import OutputStore
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.adapters.system import SystemClock, SystemIds
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import Demand
from titus_celery.core.jobs import settled
from titus_celery.core.lifecycle import claimed, dispatched, ended, running
from titus_celery.core.model import (
    Address,
    Agent,
    AgentId,
    Capacity,
    EngineId,
    Exit,
    Job,
    JobId,
    Task,
    TaskId,
)
from titus_celery.core.placement import Need
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.hub import OBSERVER_EVENTS_MAX
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import ClusterServiceStub, TaskOutputServiceStub
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub
from titus_celery.grpc.server import Gateway, GatewayServices, build_server
from titus_celery.ports import ChangeLog, Ids, ImageResolver, Snapshots, Subscribers
from titus_celery.ports import Clock as OwnClock
from titus_celery.service.change import Committed, WritePath
from titus_celery.service.clusters import JobClusters
from titus_celery.service.feed import Feed
from titus_celery.service.jobs import Jobs
from titus_celery.service.subscriptions import Subscriptions
from titus_celery.service.tail import Tails
from titus_celery.settings import Settings

__all__ = ["Refused", "Store", "World", "descriptor", "refused", "world"]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPANS = Settings().spans()
AGENT = Agent(
    id=AgentId("agent-1"),
    engine_id=EngineId("engine-1"),
    host="host-1",
    zone="zone-1",
    region="region-1",
    queues=("default",),
    capacity=Capacity(cpu_millis=1_000_000, memory_bytes=2**50, slots=100_000),
    used=Capacity(cpu_millis=0, memory_bytes=0, slots=0),
    lease_until=NOON,
    proved_at=NOON,
)
ME = "me@example.com"
#: What blocks, blocks no longer than this, so that gateways stop at once.
BLOCK = timedelta(milliseconds=20)
#: What a test waits for an answer that must come, in seconds, before it fails.
PATIENCE = 20


def descriptor(desired: int = 1, **changes: Any) -> pb.JobDescriptor:
    """A job that passes validation, but for *changes* to its top-level fields."""
    fields: dict[str, Any] = {
        "owner": pb.Owner(ownerEmail=ME, teamEmail=ME),
        "appName": "app",
        "containers": {
            "main": pb.Container(image=pb.Image(name="busybox:1"), entryPoint=["true"]),
        },
        "batch": pb.BatchJobSpec(instances=pb.TaskInstances(desired=desired), containerId="main"),
    }
    return pb.JobDescriptor(**{**fields, **changes})


class Timed(Protocol):
    """Whatever has a time that a test can move."""

    now: datetime


@dataclass
class Clock:
    """The store's time, which moves when a test says so."""

    now: datetime = NOON


@dataclass
class Store:
    """What lies behind the gateway, and what control and agents would do to it."""

    clock: Timed = field(default_factory=Clock)
    #: None: one in memory, with the clock's time.
    at: Keyspace | None = None
    #: Whatever is written, by whomever, the gateway of this process knows at its next call.
    committed: Committed = field(default_factory=Committed)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    ids: Ids = field(default_factory=SystemIds)
    #: The gateway's own clock.
    own: OwnClock = field(default_factory=SystemClock)
    settings: Settings = field(default_factory=Settings)
    #: Of each of its gateways.
    subscriptions: list[Subscriptions] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keyspace = keyspace = self.at or MemoryKeyspace(now=lambda: self.clock.now)
        self.records = RecordStore(keyspace)
        self.outputs = OutputStore(keyspace)
        self.registry = AgentStore(keyspace)
        self.snapshots = SnapshotStore(keyspace)
        self.clusters = ClusterStore(keyspace)
        self.writes = WritePath(self.records, self.queue, committed=self.committed)
        self.registry.report_images(AGENT.engine_id, {"busybox:1": "sha256:1", "sha256:1": "sha256:1"})

    def jobs(self, resolver: ImageResolver | None = None) -> Jobs:
        """The use cases over this store."""
        resolver = resolver or InventoryResolver(self.registry)
        clusters, limits = ClusterStore(self.keyspace), self.settings.limits()
        return Jobs(self.records, self.writes, clusters, resolver, self.ids, limits, self.own)

    def job_clusters(self) -> JobClusters:
        """The use cases about clusters over this store."""
        return job_clusters(self.keyspace, self.writes, self.settings.limits(), self.own, self.ids)

    def feed(self, log: ChangeLog, snapshots: Snapshots | None = None) -> Feed:
        """What a gateway learns from that follows this log."""
        at = snapshots or self.snapshots
        return Feed(log, at, self.clusters, block=BLOCK, retry_after=BLOCK)

    def subscribing(self, at: Subscribers) -> Subscriptions:
        """Says of one gateway which jobs are observed there."""
        self.subscriptions.append(Subscriptions(at, SystemIds().new()))
        return self.subscriptions[-1]

    def services(self, resolver: ImageResolver | None = None, feed: Feed | None = None) -> GatewayServices:
        """What a gateway over this store serves from."""
        return GatewayServices(
            jobs=self.jobs(resolver),
            clusters=self.job_clusters(),
            feed=feed or self.feed(self.records),
            log=self.records,
            committed=self.committed,
            tails=Tails(self.records, self.outputs, block=BLOCK),
            subscriptions=self.subscribing(SubscriberStore(self.keyspace)),
            descriptor_bytes_max=self.settings.descriptor_bytes_max,
        )

    def task(self, task_id: TaskId) -> Task:
        """A task's record."""
        return self.records.task(task_id).task

    def advance(self, task_id: TaskId, to: State, why: Reason | None = None, on: Agent = AGENT) -> None:
        """Take a task step by step to *to*, as control and an agent do; *why* it ends, if it does."""
        need = Need(demand=Demand(cpu_millis=1, memory_bytes=1))
        end = why or (Reason(Code.NORMAL) if to is State.FINISHED else Reason(Code.FAILED, "exit code 3"))
        exit = Exit(code=0) if to is State.FINISHED else Exit(code=3)
        steps: tuple[Callable[[Job, Task, datetime], Decision], ...] = (
            lambda job, task, now: dispatched(job, task, on, need, now, SPANS),
            lambda job, task, now: claimed(job, task, on.id, 1, now, SPANS),
            lambda job, task, now: running(job, task, 1, Address(ip="10.0.0.1"), now),
            lambda job, task, now: ended(job, task, end, now, exit=exit, number=1),
        )
        for step in steps[self.task(task_id).state : min(to, State.FINISHED)]:
            self.clock.now += timedelta(seconds=1)
            self.writes.on_task(task_id, step)

    def end(self, task_id: TaskId, why: Reason, exit: Exit | None = None) -> None:
        """Report the end of a task that an agent took."""
        self.clock.now += timedelta(seconds=1)
        self.writes.on_task(task_id, lambda job, task, now: ended(job, task, why, now, exit=exit, number=1))

    def settle(self, job_id: JobId) -> None:
        """End a job whose slots are over, as control does."""
        has_open = bool(self.records.open_tasks(job_id))
        self.writes.on_job(job_id, lambda job, now: settled(job, has_open, now))

    def finish(self, job_id: JobId, state: State = State.FINISHED) -> None:
        """Take every task of a job to its end, then the job."""
        for task in self.records.open_tasks(job_id):
            self.advance(task.id, state)
        self.settle(job_id)


@dataclass
class World:
    """A gateway, clients of it, and the store behind it."""

    store: Store
    gateway: Gateway
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.jobs = JobManagementServiceStub(self.channel)
        self.outputs = TaskOutputServiceStub(self.channel)
        self.schedules = ClusterServiceStub(self.channel)

    @property
    def address(self) -> str:
        """Where the gateway listens."""
        return f"127.0.0.1:{self.gateway.port}"

    async def create(self, desired: int = 1) -> JobId:
        """A new job's id."""
        reply = await self.jobs.CreateJob(descriptor(desired), timeout=PATIENCE)
        return JobId(reply.id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the server work until *condition* holds; each look costs a call to it."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.jobs.FindJobs(pb.JobQuery())


@dataclass(frozen=True)
class Refused:
    """How a call ended that did not succeed."""

    code: grpc.StatusCode
    details: str
    trailers: dict[str, str | bytes]


async def refused(call: Any) -> Refused:
    """How this call fails; a failure of the test if it succeeds."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await (call.read() if hasattr(call, "read") else call)
    code, details = error.value.code(), error.value.details()
    return Refused(code, details or "", dict(error.value.trailing_metadata()))


@asynccontextmanager
async def world(
    store: Store | None = None,
    *,
    resolver: ImageResolver | None = None,
    events_max: int = OBSERVER_EVENTS_MAX,
    feed: Feed | None = None,
) -> AsyncIterator[World]:
    """A running gateway and a connection to it."""
    store = store or Store()
    gateway = build_server(store.services(resolver, feed), "127.0.0.1:0", events_max=events_max)
    await gateway.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            yield World(store, gateway, channel)
    finally:
        await gateway.stop()
