"""The composition root: settings go in, services come out. Adapters are chosen here and nowhere else."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from titus_celery.adapters.archive import Archive
from titus_celery.adapters.background_calls import BackgroundCalls
from titus_celery.adapters.background_queue import BackgroundQueue
from titus_celery.adapters.celery_app import App, make_app
from titus_celery.adapters.celery_queue import CeleryQueue
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.cron_times import schedule
from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.docker_executor import DockerExecutor
from titus_celery.adapters.image_resolver import RoutedResolver, who_is_asked
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.outputs import OutputStore
from titus_celery.adapters.process_name import is_gone, process_name
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.registry_resolver import RegistryResolver
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.adapters.system import SystemClock, SystemIds, die, freeze
from titus_celery.core.engine import (
    EngineFacts,
)
from titus_celery.core.model import Agent, AgentId, Capacity
from titus_celery.core.retention import Keep
from titus_celery.errors import PlaceTaken, SettingsError
from titus_celery.ports import (
    ChangeLog,
    Clusters,
    Outputs,
    Queue,
    Records,
    Snapshots,
)
from titus_celery.service import crash
from titus_celery.service.agent import AgentLife, Periods
from titus_celery.service.ahead import Ahead
from titus_celery.service.change import Committed, WritePath
from titus_celery.service.clusters import JobClusters
from titus_celery.service.creation import Creation, Intake
from titus_celery.service.foresight import Foresight
from titus_celery.service.jobs import Jobs
from titus_celery.service.keeper import Keeper
from titus_celery.service.lease import Lease, gone_after
from titus_celery.service.places import Places
from titus_celery.service.retention import Retention
from titus_celery.service.runs import Runs
from titus_celery.service.subscriptions import Subscriptions
from titus_celery.service.sweep import WAKE_FLAG, Sweep
from titus_celery.service.timer import Timer
from titus_celery.service.tools import Tools
from titus_celery.settings import Settings

__all__ = [
    "LOOKUPS_MAX",
    "LOOKUPS_OF_EACH",
    "AgentParts",
    "ControlParts",
    "GatewayParts",
    "agent",
    "check_store",
    "control",
    "gateway",
    "process_app",
    "process_settings",
]

#: Images that control looks up at the same time in one registry, so that the time it takes for each does not
#: add up; and in all, so that some registries may hang and leave room for others.
LOOKUPS_OF_EACH: Final = 32
LOOKUPS_MAX: Final = 8 * LOOKUPS_OF_EACH
_MEGA: Final = 1_000_000
#: Before the first renewal nothing is known of an agent's lease.
_NEVER: Final = datetime.fromtimestamp(0, UTC)


@functools.cache
def process_settings() -> Settings:
    """This process's settings, read from the environment once."""
    return Settings.from_env(os.environ)


@functools.cache
def process_app() -> App:
    """This process's Celery application."""
    return make_app(process_settings())


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What a gateway serves from."""

    jobs: Jobs
    clusters: JobClusters
    committed: Committed
    records: Records
    log: ChangeLog
    snapshots: Snapshots
    known_clusters: Clusters
    outputs: Outputs
    subscriptions: Subscriptions


@dataclass(frozen=True, slots=True)
class ControlParts:
    """What control works with."""

    sweep: Sweep
    ahead: Ahead
    retention: Retention
    timer: Timer


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What an agent works with."""

    id: AgentId
    runs: Runs
    life: AgentLife


@dataclass(frozen=True, slots=True)
class _Base:
    keyspace: RedisKeyspace
    records: RecordStore
    leases: LeaseStore
    queue: Queue
    writes: WritePath


def check_store(settings: Settings) -> None:
    """SettingsError if the server cannot be the store, StoreUnavailable if it does not answer."""
    RedisKeyspace(settings.redis_url, settings.namespace).check_server()


def _base(settings: Settings, app: App, *, is_hurried: bool = False) -> _Base:
    if settings.crash_at:
        point, _, how = settings.crash_at.partition(":")
        crash.arm(point, freeze if how else die)
    keyspace = RedisKeyspace(settings.redis_url, settings.namespace)
    records = RecordStore(keyspace)
    leases = LeaseStore(keyspace)
    queue: Queue = CeleryQueue(app, leases, WAKE_FLAG)
    if is_hurried:
        queue = BackgroundQueue(queue)
    return _Base(keyspace, records, leases, queue, WritePath(records, queue))


def _resolver(settings: Settings, base: _Base) -> RoutedResolver:
    registries = RegistryResolver(DockerCredentials(), settings.insecure_registries)
    return RoutedResolver(registries, InventoryResolver(AgentStore(base.keyspace)))


def gateway(settings: Settings, app: App) -> GatewayParts:
    """The parts of a gateway."""
    # A reply tells what is stored; it does not wait for the broker.
    base = _base(settings, app, is_hurried=True)
    resolver = _resolver(settings, base)
    committed = Committed()
    writes = WritePath(base.records, base.queue, committed=committed)
    clusters, limits = ClusterStore(base.keyspace), settings.limits()
    jobs = Jobs(base.records, writes, clusters, resolver, SystemIds(), limits, SystemClock())
    job_clusters = JobClusters(
        records=base.records,
        clusters=clusters,
        writes=writes,
        calendar=schedule,
        ids=SystemIds(),
        limits=limits,
        clock=SystemClock(),
    )
    return GatewayParts(
        jobs,
        job_clusters,
        committed,
        base.records,
        base.records,
        SnapshotStore(base.keyspace),
        clusters,
        OutputStore(base.keyspace),
        # Not the name of the process: what it holds is nobody's who comes after it.
        Subscriptions(SubscriberStore(base.keyspace), SystemIds().new()),
    )


def control(settings: Settings, app: App) -> ControlParts:
    """The parts of a control worker."""
    base = _base(settings, app)
    limits = settings.limits()
    calls = BackgroundCalls("look up image", at_once=LOOKUPS_MAX, of_each=LOOKUPS_OF_EACH)
    foresight = Foresight(_resolver(settings, base), SystemClock(), who_is_asked, calls.begin)
    keeper = Keeper(
        clusters=ClusterStore(base.keyspace),
        writes=base.writes,
        creation=Creation(foresight, limits),
        intake=Intake(base.records, SystemClock()),
        calendar=schedule,
        ids=SystemIds(),
        limits=limits,
        firings_kept=timedelta(days=settings.keep_days),
    )
    ahead = Ahead(base.records, keeper, foresight)
    sweep = Sweep(
        records=base.records,
        registry=AgentStore(base.keyspace),
        leases=base.leases,
        writes=base.writes,
        spans=settings.spans(),
        lost_after=settings.agent_lost_after,
        clock=SystemClock(),
        subscribers=SubscriberStore(base.keyspace),
        keeper=keeper,
        ahead=ahead,
    )
    keep = Keep(age=timedelta(days=settings.keep_days), jobs=settings.keep_jobs, bytes=settings.keep_bytes)
    retention = Retention(
        retained=Archive(base.keyspace), leases=base.leases, keep=keep, log_bytes_max=settings.log_bytes_max
    )
    return ControlParts(sweep, ahead, retention, Timer(base.records, sweep))


def agent(settings: Settings, app: App, agent_id: str, displaced: Callable[[str], None]) -> AgentParts:
    """The parts of an agent, which has its place then: *agent_id*, or if empty the first free number.

    EngineFault if no Docker Engine answers, SettingsError if the place is taken. *displaced* is told
    later on if another process got the place, and should end this one.
    """
    executor = DockerExecutor(settings.engine_url or None, publish_on=settings.publish_on)
    base = _base(settings, app)
    registry, clock = AgentStore(base.keyspace), SystemClock()
    lease = Lease(clock, settings.agent_lease, settings.fence_after)
    me = _agent(settings, executor.facts(), agent_id)
    places = Places(registry, clock, lease, settings.agent_lease, is_gone)
    try:
        me = places.named(me) if agent_id else places.numbered(me)
    except PlaceTaken as error:
        raise SettingsError(f"queue titus.agent.{error.agent_id}", str(error)) from error
    writes = WritePath(base.records, base.queue, lease.holding)
    installation = base.records.installation()
    tools = Tools(
        agent=me,
        installation=installation,
        records=base.records,
        writes=writes,
        executor=executor,
        outputs=OutputStore(base.keyspace),
        lease=lease,
        spans=settings.spans(),
        grace=settings.stop_grace,
    )
    runs = Runs(tools, displaced)
    life = AgentLife(
        agent=me,
        installation=installation,
        records=base.records,
        registry=registry,
        queue=base.queue,
        executor=executor,
        runs=runs,
        writes=writes,
        lease=lease,
        periods=Periods(lease=settings.agent_lease, poll=settings.poll_period, grace=settings.stop_grace),
        clock=clock,
        is_gone=is_gone,
        displaced=displaced,
    )
    return AgentParts(me.id, runs, life)


def _agent(settings: Settings, facts: EngineFacts, agent_id: str) -> Agent:
    """The agent as it reports itself, before it has a place."""
    return Agent(
        id=AgentId(agent_id or settings.agent_id or socket.gethostname()),
        engine_id=facts.id,
        host=socket.gethostname(),
        zone=settings.zone,
        region=settings.region,
        queues=settings.queues,
        capacity=replace(
            facts.capacity,
            slots=settings.slots,
            disk_bytes=settings.disk_mb * _MEGA or facts.capacity.disk_bytes,
            network_mbps=settings.network_mbps,
            gpus=settings.gpus,
        ),
        used=Capacity(cpu_millis=0, memory_bytes=0, slots=0),
        lease_until=_NEVER,
        proved_at=_NEVER,
        holder=process_name(),
        gone_after=gone_after(settings.agent_lease, settings.fence_after, settings.stop_grace),
    )
