"""What control does for Mantis clusters: it keeps as many jobs running as should, and keeps their schedules.

Each step looks at what is there now and may be repeated, or taken by several at once: what one commits, the
others' commits are refused for (docs/semantics.md A11, A12, B6).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core import keeping, timetable
from titus_celery.core.cluster import Cluster, Outcome
from titus_celery.core.cluster_rules import Calendar
from titus_celery.core.decision import Decision, Gate
from titus_celery.core.descriptor import JobDescriptor
from titus_celery.core.jobs import created, kill_requested
from titus_celery.core.mantis import TITUS
from titus_celery.core.model import Caller, ClusterId, Deadline, DeadlineKind, Job, JobId
from titus_celery.core.validation import Limits
from titus_celery.errors import (
    Conflict,
    FailedPrecondition,
    InvalidRequest,
    LimitReached,
    StoreFull,
    TitusError,
    Unavailable,
)
from titus_celery.ports import Clusters, Ids
from titus_celery.service.change import ATTEMPTS_MAX, WritePath
from titus_celery.service.creation import Creation, Intake

__all__ = ["Keeper"]

#: Until control looks again at a cluster that has not yet what it should have.
KEEP_AGAIN: Final = timedelta(seconds=5)
#: Until control tries again to make the job of a time of a schedule.
CRON_AGAIN: Final = timedelta(seconds=2)
#: Times of one schedule whose outcome is kept, and for how long (docs/semantics.md A17).
FIRINGS_MAX: Final = 10_000

#: What keeps a job from being made now, and may not a moment later.
_PASSING: Final = (Unavailable, LimitReached, StoreFull)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    """A job that can be made for a time of a schedule, or why none can."""

    job: JobDescriptor | None
    why: str = ""
    is_passing: bool = False


class Keeper:
    """Acts for clusters whose deadlines came."""

    def __init__(
        self,
        *,
        clusters: Clusters,
        writes: WritePath,
        creation: Creation,
        intake: Intake,
        calendar: Calendar,
        ids: Ids,
        limits: Limits,
        firings_kept: timedelta,
    ) -> None:
        self._clusters = clusters
        self._writes = writes
        self._creation = creation
        self._intake = intake
        self._calendar = calendar
        self._ids = ids
        self._limits = limits
        self._firings_kept = firings_kept

    # ------------------------------------------------------------------------------------- floor, ceiling

    def keep(self, deadline: Deadline) -> Decision:
        """Start the jobs that a cluster lacks, and end those that are too many (B6.2, B6.3)."""
        id = ClusterId(deadline.entity)
        cluster, live, _ = self._load(id)
        wanted = keeping.kept(cluster, live)
        for job in wanted.kill:
            _log.info("job %s: ending it: %s", job.id, wanted.why)
            self._kill(job.id, wanted.why)
        try:
            for number in range(wanted.start):
                self._start(cluster, len(live) + number + 1)
        except Conflict:
            # Changed meanwhile: what is to be done now is another question.
            return Decision(arm=(deadline,), why="it moved on")
        except TitusError as error:
            _log.warning("cluster %s lacks a job that cannot be made for now: %s", id, error)
        if not wanted.is_unsettled:
            return Decision(why="it has as many as it should")
        return self._again(id, DeadlineKind.KEEP, KEEP_AGAIN)

    def _kill(self, id: JobId, why: str) -> None:
        self._writes.on_job(id, lambda job, now: kill_requested(job, keeping.intent(why, now)))

    def _start(self, cluster: Cluster, jobs_max: int) -> None:
        """A job of the template, if no more than so many live then."""
        job = self._prepared(cluster)
        id = JobId(self._ids.new())
        gate = Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=jobs_max)
        try:
            self._writes.create(
                lambda now: replace(created(id, job, TITUS, now), gate=gate), self._limits.jobs_max
            )
        except LimitReached as error:
            if error.limit == jobs_max:
                raise Conflict(f"cluster {cluster.id}") from error
            raise
        _log.info("cluster %s: job %s makes up its min", cluster.id, id)

    def _prepared(self, cluster: Cluster) -> JobDescriptor:
        template = cluster.descriptor.template
        if template is None:
            raise FailedPrecondition("cluster", cluster.id, "it has no template to make jobs of")
        owner = Caller(id=TITUS, email=cluster.descriptor.owner.owner_email)
        self._intake.check()
        return self._creation.prepared(replace(template, cluster_id=cluster.id), owner)

    # ------------------------------------------------------------------------------------- schedules

    def fire(self, deadline: Deadline) -> Decision:
        """Decide the times of a cluster's schedule that have come (A11, B6.4)."""
        id = ClusterId(deadline.entity)
        for _ in range(ATTEMPTS_MAX):
            cluster, live, now = self._load(id)
            if cluster.next_firing is None or now < cluster.next_firing:
                return self._rearmed(id)
            try:
                return self._decided(cluster, live, now)
            except LimitReached:
                # A job was made meanwhile: the time may have to be passed over for it.
                continue
        raise Conflict(f"cluster {id}")

    def _rearmed(self, id: ClusterId) -> Decision:
        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            if (at := cluster.next_firing) is None:
                return Decision(why="it has no times")
            return Decision(arm=(Deadline(kind=DeadlineKind.CRON, entity=id, due=at),))

        return self._writes.on_cluster(lambda: self._load(id), decide)

    def _decided(self, seen: Cluster, live: Sequence[Job], at: datetime) -> Decision:
        times = self._calendar(seen.rules.cron, seen.descriptor.time_zone).after
        found = timetable.due(seen, times, at)
        if found is None:
            return self._rearmed(seen.id)
        # Before anything is decided, because it may take a registry's time.
        made = _Made(None) if timetable.why_not(seen, found, live, at) else self._made(seen)
        if made.is_passing and at - found.newest <= timetable.LATE_MAX:
            _log.warning("cluster %s: no job at %s yet: %s", seen.id, found.newest, made.why)
            return self._again(seen.id, DeadlineKind.CRON, CRON_AGAIN)
        new_id = JobId(self._ids.new())

        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            if cluster.gate != seen.gate or cluster.next_firing != seen.next_firing:
                return Decision(why="somebody else decided it")
            why = timetable.why_not(cluster, found, live, now)
            if why is None and made.job is None:
                if not made.why:
                    # It would have been passed over, but what stood in its way is gone.
                    return Decision(arm=(Deadline(kind=DeadlineKind.CRON, entity=cluster.id, due=now),))
                why = Outcome.MISSED, made.why
            if why is None:
                outcome, text, job_id = Outcome.FIRED, "", new_id
            else:
                (outcome, text), job_id = why, None
            note = timetable.noted(found.newest, outcome, text, now, job_id)
            after, firings, arm = timetable.settled(cluster, found, note, now)
            decision = Decision()
            if job_id and made.job:
                decision = created(new_id, made.job, TITUS, now)
                gate = Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=len(live) + 1)
                decision = replace(decision, gate=gate)
            return replace(decision, cluster=after, firings=firings, arm=(*decision.arm, *arm))

        decision = self._writes.on_cluster(lambda: self._load(seen.id), decide, self._limits.jobs_max)
        self._log_and_trim(seen, decision)
        return decision

    def _made(self, cluster: Cluster) -> _Made:
        try:
            return _Made(self._prepared(cluster))
        except _PASSING as error:
            return _Made(
                None, f"imageUnresolved: {error}" if isinstance(error, Unavailable) else str(error), True
            )
        except (InvalidRequest, FailedPrecondition) as error:
            is_image = isinstance(error, InvalidRequest) and all(
                each.field.endswith(".image") for each in error.violations
            )
            return _Made(None, f"imageUnresolved: {error}" if is_image else str(error))

    def _log_and_trim(self, cluster: Cluster, decision: Decision) -> None:
        for firing in decision.firings:
            _log.info("cluster %s: %s %s %s", cluster.id, firing.at, firing.outcome.value, firing.why)
        if not decision.firings:
            return
        newest, before = decision.firings[-1], cluster.decided
        if before is None or before.hour != newest.at.hour or newest.at - before > timedelta(hours=1):
            # Now and then is often enough.
            oldest = newest.decided_at - self._firings_kept
            self._clusters.trim_firings(cluster.id, oldest, FIRINGS_MAX)

    # ------------------------------------------------------------------------------------- both

    def _again(self, id: ClusterId, kind: DeadlineKind, after: timedelta) -> Decision:
        return self._writes.on_cluster(
            lambda: self._load(id),
            lambda cluster, live, now: Decision(arm=(Deadline(kind=kind, entity=id, due=now + after),)),
        )

    def _load(self, id: ClusterId) -> tuple[Cluster, Sequence[Job], datetime]:
        cluster, now = self._clusters.cluster(id)
        return cluster, self._clusters.live_jobs(id), now
