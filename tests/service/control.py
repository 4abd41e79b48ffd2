"""Control as the tests of use cases run it, over any keyspace."""

from __future__ import annotations

from datetime import timedelta

from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.cron_times import schedule
from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.adapters.system import SystemIds
from titus_celery.core.lifecycle import Spans
from titus_celery.core.validation import Limits
from titus_celery.ports import AgentRegistry, Clock, Ids, ImageResolver, Records
from titus_celery.service.ahead import Ahead
from titus_celery.service.change import WritePath
from titus_celery.service.clusters import JobClusters
from titus_celery.service.creation import Creation, Intake
from titus_celery.service.foresight import Foresight
from titus_celery.service.keeper import Keeper
from titus_celery.service.sweep import Sweep

__all__ = ["FIRINGS_KEPT", "ahead", "foresight", "job_clusters", "keeper", "sweep"]

#: How long it is known what became of the times of a schedule.
FIRINGS_KEPT = timedelta(days=15)


def foresight(resolver: ImageResolver, clock: Clock, registry: str = "") -> Foresight:
    """Looks images up when they are needed, each time; or as images of a *registry*, ahead, and in no time.

    *resolver* itself if that is one already.
    """
    if isinstance(resolver, Foresight):
        return resolver
    return Foresight(resolver, clock, lambda image: registry, lambda registry, call: call())


def keeper(
    keyspace: Keyspace, writes: WritePath, resolver: ImageResolver, limits: Limits, clock: Clock
) -> Keeper:
    """Keeps clusters."""
    return Keeper(
        clusters=ClusterStore(keyspace),
        writes=writes,
        creation=Creation(resolver, limits),
        intake=Intake(RecordStore(keyspace), clock),
        calendar=schedule,
        ids=SystemIds(),
        limits=limits,
        firings_kept=FIRINGS_KEPT,
    )


def ahead(
    keyspace: Keyspace, writes: WritePath, resolver: ImageResolver, limits: Limits, clock: Clock
) -> Ahead:
    """A control's look ahead."""
    seen = foresight(resolver, clock)
    return Ahead(RecordStore(keyspace), keeper(keyspace, writes, seen, limits, clock), seen)


def sweep(
    keyspace: Keyspace,
    records: Records,
    registry: AgentRegistry,
    writes: WritePath,
    resolver: ImageResolver,
    rules: tuple[Limits, Spans, timedelta],
    clock: Clock,
    look: Ahead | None = None,
) -> Sweep:
    """A control process; *rules*: its limits, its spans, and after how long agents are lost; *look*: its look
    ahead, if somebody else needs it too."""
    limits, spans, lost_after = rules
    seen = foresight(resolver, clock)
    return Sweep(
        records=records,
        registry=registry,
        leases=LeaseStore(keyspace),
        writes=writes,
        spans=spans,
        lost_after=lost_after,
        clock=clock,
        subscribers=SubscriberStore(keyspace),
        keeper=keeper(keyspace, writes, seen, limits, clock),
        ahead=look or ahead(keyspace, writes, seen, limits, clock),
    )


def job_clusters(
    keyspace: Keyspace, writes: WritePath, limits: Limits, clock: Clock, ids: Ids | None = None
) -> JobClusters:
    """The use cases about clusters."""
    return JobClusters(
        records=RecordStore(keyspace),
        clusters=ClusterStore(keyspace),
        writes=writes,
        calendar=schedule,
        ids=ids or SystemIds(),
        limits=limits,
        clock=clock,
    )
