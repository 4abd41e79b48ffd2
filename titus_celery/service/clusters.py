"""What the API does with job clusters: create, change, remove, and tell what their schedules did.

Calls return once what they promise is stored; control makes it so (keeper.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from titus_celery.core import timetable
from titus_celery.core.claims import ClaimKind, key_name
from titus_celery.core.cluster import BUILT_IN, Cluster, ClusterDescriptor, Firing
from titus_celery.core.cluster_rules import Calendar, check, effective
from titus_celery.core.decision import Decision, Wake
from titus_celery.core.descriptor import JobType
from titus_celery.core.fingerprint import fingerprint
from titus_celery.core.model import Caller, ClusterId, Deadline, DeadlineKind, Job, Sent
from titus_celery.core.validation import Limits
from titus_celery.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    Taken,
    Violation,
)
from titus_celery.ports import Clock, Clusters, Ids, Records
from titus_celery.service.change import WritePath
from titus_celery.service.creation import Intake

__all__ = ["TIMES_MAX", "JobClusters"]

#: Coming times of a schedule that are told at once.
TIMES_MAX: Final = 1_000
#: Who creates, when the caller did not say.
ANONYMOUS: Final = "anonymous"

_BUILT_IN: Final = {cluster.id: cluster for cluster in BUILT_IN.values()}


class JobClusters:
    """The use cases of the API."""

    def __init__(
        self,
        *,
        records: Records,
        clusters: Clusters,
        writes: WritePath,
        calendar: Calendar,
        ids: Ids,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._records = records
        self._clusters = clusters
        self._writes = writes
        self._calendar = calendar
        self._ids = ids
        self._limits = limits
        self._intake = Intake(records, clock)

    def create(self, descriptor: ClusterDescriptor, caller: Caller, key: str = "") -> ClusterId:
        """Accept a cluster; its id once it is stored. With the same *key* again: the same id.

        InvalidRequest with every violation; Unsupported for what this release lacks; StoreFull while the
        store's memory is nearly used up; AlreadyExists if the key was used for another cluster before.
        """
        sent = Sent(caller=caller.id, key=key, body=fingerprint(descriptor)) if key else None
        if sent and (before := self._sent_before(sent)):
            return before
        new = self._checked(descriptor, caller)
        self._intake.check()
        id, by = ClusterId(self._ids.new()), caller.id or caller.email or ANONYMOUS

        def decide(now: datetime) -> Decision:
            made = Cluster(id=id, descriptor=new, created_by=by, created_at=now, sent=sent)
            return self._begun(made, now)

        try:
            self._writes.create(decide)
        except Taken:
            if sent and (before := self._sent_before(sent)):
                return before
            raise
        return id

    def update(self, cluster_id: ClusterId, descriptor: ClusterDescriptor, caller: Caller) -> None:
        """Replace a cluster's definition as a whole; jobs that live keep theirs (docs/semantics.md B1.2).

        NotFound; FailedPrecondition for a built-in one; InvalidRequest as in `create`, and if it would be
        of another kind.
        """
        self._refuse_built_in(cluster_id, "changed")
        known, _ = self._clusters.cluster(cluster_id)
        new = self._checked(descriptor, caller, known.descriptor.kind)
        if new.kind is not JobType.MANTIS:
            # Their descriptions do not say it.
            new = replace(new, enabled=known.is_enabled)
        self._change(cluster_id, lambda cluster: self._same_status(cluster, new))

    def enable(self, cluster_id: ClusterId, is_enabled: bool) -> None:
        """Enable or disable a cluster (docs/semantics.md B1.6). NotFound; FailedPrecondition for a built-in
        one that is to be disabled."""
        if cluster_id in _BUILT_IN and is_enabled:
            return
        self._refuse_built_in(cluster_id, "disabled")
        self._change(cluster_id, lambda cluster: replace(cluster.descriptor, enabled=is_enabled))

    def remove(self, cluster_id: ClusterId) -> None:
        """Remove a cluster that has no live jobs; those that are over stay (docs/semantics.md B1.3).

        NotFound; FailedPrecondition if it has some, or is built in.
        """
        self._refuse_built_in(cluster_id, "removed")

        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            if live:
                why = f"{len(live)} of its jobs live, {live[0].id} among them; kill them first"
                raise FailedPrecondition("cluster", cluster_id, why)
            disarm = tuple((kind, str(cluster_id)) for kind in (DeadlineKind.KEEP, DeadlineKind.CRON))
            return Decision(removes_cluster=True, disarm=disarm)

        self._writes.on_cluster(lambda: self._load(cluster_id), decide)

    def find(self, cluster_id: ClusterId) -> Cluster:
        """A cluster, built in or not; NotFound."""
        return _BUILT_IN.get(cluster_id) or self._clusters.cluster(cluster_id)[0]

    def coming(self, cluster_id: ClusterId, count: int) -> Sequence[datetime]:
        """The next *count* times of a cluster's schedule; none if it has none, or is disabled. NotFound."""
        if not 1 <= count <= TIMES_MAX:
            raise InvalidRequest([Violation("count", f"{count} is not within 1 and {TIMES_MAX}")])
        cluster = self.find(cluster_id)
        if cluster.next_firing is None:
            return ()
        schedule = self._calendar(cluster.rules.cron, cluster.descriptor.time_zone)
        return (cluster.next_firing, *schedule.upcoming(cluster.next_firing, count - 1))

    def firings(self, cluster_id: ClusterId, start: int, limit: int) -> tuple[Sequence[Firing], int]:
        """What became of the times of its schedule, the newest first, and how many are kept. NotFound."""
        self.find(cluster_id)
        return self._clusters.firings(cluster_id, start, limit)

    # ------------------------------------------------------------------------------------- inside

    def _sent_before(self, sent: Sent) -> ClusterId | None:
        """The cluster that this request made before, if it did (docs/semantics.md A19)."""
        found = self._records.claimed(ClaimKind.CLUSTER_KEY, key_name(sent))
        if found is not None and found.body != sent.body:
            raise AlreadyExists(sent.key, found.id, "cluster")
        return None if found is None else ClusterId(found.id)

    def _checked(
        self, descriptor: ClusterDescriptor, caller: Caller, was: JobType | None = None
    ) -> ClusterDescriptor:
        new = effective(descriptor, caller, self._limits)
        found = check(new, self._limits, self._calendar, self._records.now())
        if was and new.kind is not was:
            why = f"the cluster is of {was.value} jobs, and stays so"
            found = [Violation(new.kind.value, why), *found]
        if found:
            raise InvalidRequest(found)
        return new

    def _refuse_built_in(self, id: ClusterId, what: str) -> None:
        if id in _BUILT_IN:
            raise FailedPrecondition("cluster", id, f"it is built in and cannot be {what}")

    def _load(self, id: ClusterId) -> tuple[Cluster, Sequence[Job], datetime]:
        cluster, now = self._clusters.cluster(id)
        return cluster, self._clusters.live_jobs(id), now

    def _same_status(self, cluster: Cluster, new: ClusterDescriptor) -> ClusterDescriptor:
        """*new*, as of what the record says now."""
        return new if new.kind is JobType.MANTIS else replace(new, enabled=cluster.is_enabled)

    def _change(self, id: ClusterId, changed: Callable[[Cluster], ClusterDescriptor]) -> None:
        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            new = changed(cluster)
            if new == cluster.descriptor:
                return Decision(why="it is so already")
            before, after = cluster.descriptor, cluster.described(new)
            if _times_of(before) == _times_of(new):
                # Its next time stays the next: no change of other things puts it off.
                return Decision(cluster=after, arm=(_keep(after, now),), commands=(Wake(),))
            known, firings = self._given_up(cluster, now)
            return replace(self._begun(replace(after, decided=known.decided), now), firings=firings)

        self._writes.on_cluster(lambda: self._load(id), decide)

    def _given_up(self, cluster: Cluster, now: datetime) -> tuple[Cluster, tuple[Firing, ...]]:
        if cluster.next_firing is None:
            return cluster, ()
        schedule = self._calendar(cluster.rules.cron, cluster.descriptor.time_zone)
        return timetable.given_up(cluster, schedule.after, now)

    def _begun(self, cluster: Cluster, now: datetime) -> Decision:
        """*cluster* with its schedule begun anew, and looked after."""
        times = None
        if cluster.rules.cron:
            times = self._calendar(cluster.rules.cron, cluster.descriptor.time_zone).after
        after, arm = timetable.armed(cluster, times, now)
        disarm = () if arm else ((DeadlineKind.CRON, str(cluster.id)),)
        if cluster.descriptor.kind is JobType.MANTIS and (cluster.rules.min or cluster.gate > 1):
            arm = (*arm, _keep(after, now))
        return Decision(cluster=after, arm=arm, disarm=disarm, commands=(Wake(),))


def _keep(cluster: Cluster, now: datetime) -> Deadline:
    return Deadline(kind=DeadlineKind.KEEP, entity=cluster.id, due=now)


def _times_of(descriptor: ClusterDescriptor) -> tuple[str, str, bool]:
    """What its times depend on."""
    cron = descriptor.rules.cron if descriptor.rules else ""
    return cron, descriptor.time_zone, descriptor.enabled
