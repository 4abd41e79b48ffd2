"""The composition root: settings go in, services come out. Adapters are chosen here and nowhere else."""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from titus_celery.adapters.background_queue import BackgroundQueue
from titus_celery.adapters.celery_app import App, make_app
from titus_celery.adapters.celery_queue import CeleryQueue
from titus_celery.adapters.docker_executor import DockerExecutor
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.outputs import OutputStore
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.system import SystemClock, SystemIds
from titus_celery.core.lifecycle import Spans
from titus_celery.core.model import Agent, AgentId, Capacity
from titus_celery.core.validation import Limits
from titus_celery.errors import SettingsError
from titus_celery.ports import ChangeLog, Outputs, Queue, Records
from titus_celery.service.agent import AgentLife, Periods, namesake
from titus_celery.service.change import WritePath
from titus_celery.service.jobs import Jobs
from titus_celery.service.runs import Runs
from titus_celery.service.sweep import WAKE_FLAG, Sweep, Timer
from titus_celery.settings import Settings

__all__ = [
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
    records: Records
    log: ChangeLog
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class ControlParts:
    """What control works with."""

    sweep: Sweep
    timer: Timer


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What an agent works with."""

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
    keyspace = RedisKeyspace(settings.redis_url, settings.namespace)
    records = RecordStore(keyspace)
    leases = LeaseStore(keyspace)
    queue: Queue = CeleryQueue(app, leases, WAKE_FLAG)
    if is_hurried:
        queue = BackgroundQueue(queue)
    return _Base(keyspace, records, leases, queue, WritePath(records, queue))


def _spans(settings: Settings) -> Spans:
    return Spans(republish_after=settings.republish_after, stuck_after=settings.stuck_after)


def gateway(settings: Settings, app: App) -> GatewayParts:
    """The parts of a gateway."""
    # A reply tells what is stored; it does not wait for the broker.
    base = _base(settings, app, is_hurried=True)
    limits = Limits(
        runtime_default=settings.runtime_limit_default,
        runtime_max=settings.runtime_limit_max,
        tasks_max=settings.batch_tasks_max,
        cpu_max=settings.cpu_max,
        memory_mb_max=settings.memory_mb_max,
    )
    resolver = InventoryResolver(AgentStore(base.keyspace))
    jobs = Jobs(base.records, base.writes, resolver, SystemIds(), limits)
    return GatewayParts(jobs, base.records, base.records, OutputStore(base.keyspace))


def control(settings: Settings, app: App) -> ControlParts:
    """The parts of a control worker."""
    base = _base(settings, app)
    sweep = Sweep(
        records=base.records,
        registry=AgentStore(base.keyspace),
        leases=base.leases,
        writes=base.writes,
        spans=_spans(settings),
        lost_after=settings.agent_lost_after,
    )
    return ControlParts(sweep, Timer(base.records, sweep))


def agent(settings: Settings, app: App, agent_id: str) -> AgentParts:
    """The parts of an agent; EngineFault if no Docker Engine answers."""
    base = _base(settings, app)
    executor = DockerExecutor(settings.engine_url or None)
    facts = executor.facts()
    me = Agent(
        id=AgentId(agent_id),
        engine_id=facts.id,
        host=socket.gethostname(),
        zone=settings.zone,
        region=settings.region,
        queues=settings.queues,
        capacity=Capacity(
            cpu_millis=facts.capacity.cpu_millis,
            memory_bytes=facts.capacity.memory_bytes,
            slots=settings.slots,
        ),
        used=Capacity(cpu_millis=0, memory_bytes=0, slots=0),
        lease_until=_NEVER,
        proved_at=_NEVER,
    )
    registry = AgentStore(base.keyspace)
    if (other := namesake(me, *registry.agents())) is not None:
        raise SettingsError(
            f"queue titus.agent.{me.id}",
            f"an agent of this name lives on another engine, host {other.host}; choose another name",
        )
    installation = base.records.installation()
    runs = Runs(
        agent_id=me.id,
        installation=installation,
        records=base.records,
        writes=base.writes,
        executor=executor,
        outputs=OutputStore(base.keyspace),
        spans=_spans(settings),
        grace=settings.stop_grace,
    )
    life = AgentLife(
        agent=me,
        installation=installation,
        records=base.records,
        registry=registry,
        queue=base.queue,
        executor=executor,
        runs=runs,
        periods=Periods(lease=settings.agent_lease, poll=settings.poll_period),
        clock=SystemClock(),
    )
    return AgentParts(runs, life)
