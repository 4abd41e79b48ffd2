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
from titus_celery.core.descriptor import Image, JobDescriptor
from titus_celery.core.jobs import created, kill_requested
from titus_celery.core.mantis import TITUS
from titus_celery.core.model import Caller, ClusterId, Deadline, DeadlineKind, Job, JobId
from titus_celery.core.validation import Limits
from titus_celery.errors import (
    AnswerPending,
    Conflict,
    FailedPrecondition,
    InvalidRequest,
    LimitReached,
    StoreFull,
    StoreUnavailable,
    Taken,
    TitusError,
    Unavailable,
)
from titus_celery.ports import Clusters, Ids
from titus_celery.service.change import ATTEMPTS_MAX, WritePath
from titus_celery.service.creation import Creation, Intake

__all__ = ["Keeper"]

#: Until control looks again at a cluster that has not yet what it should have; and if it has not because a
#: registry has not answered yet.
KEEP_AGAIN: Final = timedelta(seconds=5)
KEEP_SOON: Final = timedelta(seconds=2)
#: Until control tries again to make the job of a time of a schedule.
CRON_AGAIN: Final = timedelta(seconds=2)
#: Times of one schedule whose outcome is kept, and for how long (docs/semantics.md A17).
FIRINGS_MAX: Final = 10_000

_log = logging.getLogger(__name__)


class _MovedOnError(Exception):
    """The cluster or its jobs changed meanwhile: what is to be done now is another question."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A job that can be made for a time of a schedule, or why none can."""

    job: JobDescriptor | None
    why: str = ""
    #: Whether one may be made a moment later.
    is_passing: bool = False
    outcome: Outcome = Outcome.MISSED


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

    def images(self, id: ClusterId) -> frozenset[Image]:
        """What jobs of its template run, and is looked up for each of them. NotFound without the cluster."""
        cluster, _ = self._clusters.cluster(id)
        template = cluster.descriptor.template
        return self._creation.images(template, _owner(cluster)) if template else frozenset()

    # ------------------------------------------------------------------------------------- floor, ceiling

    def keep(self, deadline: Deadline) -> Decision:
        """Start the jobs that a cluster lacks, and end those that are too many (B6.2, B6.3)."""
        id = ClusterId(deadline.entity)
        for _ in range(ATTEMPTS_MAX):
            cluster, live, _ = self._load(id)
            wanted, again = keeping.kept(cluster, live), KEEP_AGAIN
            for job in wanted.kill:
                self._kill(cluster, job.id, wanted.why)
            try:
                for number in range(wanted.start):
                    self._start(cluster, len(live) + number + 1)
            except _MovedOnError:
                continue
            except AnswerPending:
                again = KEEP_SOON
            except TitusError as error:
                _log.warning("cluster %s lacks a job that cannot be made for now: %s", id, error)
            if not wanted.is_unsettled:
                return Decision(why="it has as many as it should")
            return self._again(id, again)
        raise Conflict(f"cluster {id}")

    def _kill(self, cluster: Cluster, id: JobId, why: str) -> None:
        gate = Gate(cluster_id=cluster.id, number=cluster.gate)

        def decide(job: Job, now: datetime) -> Decision:
            if self._clusters.cluster(cluster.id)[0].gate != cluster.gate:
                return Decision(why="its cluster asks for something else by now")
            return replace(kill_requested(job, keeping.intent(why, now)), gate=gate)

        if not self._writes.on_job(id, decide).is_empty:
            _log.info("job %s: ending it: %s", id, why)

    def _start(self, cluster: Cluster, jobs_max: int) -> None:
        """A job of the template, if no more than so many live then."""
        job = self._prepared(cluster)
        id = JobId(self._ids.new())
        gate = Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=jobs_max)
        try:
            self._writes.create(
                lambda now: replace(created(id, job, TITUS, now), gate=gate), self._limits.jobs_max
            )
        except Taken:
            # By its template all of its jobs have one name, so that only one of them can live.
            raise
        except Conflict as error:
            raise _MovedOnError from error
        except LimitReached as error:
            if _is_of(error, cluster):
                raise _MovedOnError from error
            raise
        _log.info("cluster %s: job %s makes up its min", cluster.id, id)

    def _prepared(self, cluster: Cluster) -> JobDescriptor:
        template = cluster.descriptor.template
        if template is None:
            raise FailedPrecondition("cluster", cluster.id, "it has no template to make jobs of")
        self._intake.check()
        return self._creation.prepared(replace(template, cluster_id=cluster.id), _owner(cluster))

    # ------------------------------------------------------------------------------------- schedules

    def fire(self, deadline: Deadline) -> Decision:
        """Decide the times of a cluster's schedule that have come (A11, B6.4)."""
        id = ClusterId(deadline.entity)
        for _ in range(ATTEMPTS_MAX):
            cluster, live, now = self._load(id)
            if cluster.next_firing is None or now < cluster.next_firing:
                return self._rearmed(id)
            times = self._calendar(cluster.rules.cron, cluster.descriptor.time_zone).after
            found = timetable.due(cluster, times, now)
            if found is None:
                return self._rearmed(id)
            # Before anything is decided, because it may take a registry's time.
            made = _Made(None) if timetable.why_not(cluster, found, live, now) else self._made(cluster)
            try:
                return self._decided(cluster, found, made)
            except _MovedOnError:
                continue
        raise Conflict(f"cluster {id}")

    def _rearmed(self, id: ClusterId) -> Decision:
        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            if (at := cluster.next_firing) is None:
                return Decision(why="it has no times")
            # With its record: an update that comes first may have armed another time.
            return Decision(cluster=cluster, arm=(Deadline(kind=DeadlineKind.CRON, entity=id, due=at),))

        return self._writes.on_cluster(lambda: self._load(id), decide)

    def _decided(self, seen: Cluster, found: timetable.Due, made: _Made) -> Decision:
        """These times decided, if the cluster is still as it was seen; else _MovedOnError."""

        def decide(cluster: Cluster, live: Sequence[Job], now: datetime) -> Decision:
            if cluster.gate != seen.gate or cluster.next_firing != seen.next_firing:
                raise _MovedOnError
            return self._step(cluster, found, made, live, now)

        try:
            decision = self._writes.on_cluster(lambda: self._load(seen.id), decide, self._limits.jobs_max)
        except LimitReached as error:
            if _is_of(error, seen):
                # A job was made meanwhile: the time may have to be passed over for it.
                raise _MovedOnError from error
            return self._decided(seen, found, _Made(None, str(error), is_passing=True))
        except Taken as error:
            return self._decided(seen, found, _Made(None, str(error), outcome=Outcome.SKIPPED))
        self._log_and_trim(seen, decision)
        return decision

    def _step(
        self, cluster: Cluster, found: timetable.Due, made: _Made, live: Sequence[Job], now: datetime
    ) -> Decision:
        why = timetable.why_not(cluster, found, live, now)
        if why is None and made.job is None:
            if not made.why:
                # It would have been passed over, but what stood in its way is gone.
                raise _MovedOnError
            if made.is_passing and timetable.may_wait(cluster, found, now):
                again = now + CRON_AGAIN
                after, firings, arm = timetable.held_up(cluster, found, made.why, now, again)
                return Decision(cluster=after, firings=firings, arm=arm)
            why = made.outcome, made.why
        decision, job_id = Decision(), None
        if why is None and made.job is not None:
            job_id = JobId(self._ids.new())
            gate = Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=len(live) + 1)
            decision = replace(created(job_id, made.job, TITUS, now), gate=gate)
        outcome, text = why or (Outcome.FIRED, "")
        note = timetable.noted(found.newest, outcome, text, now, job_id)
        after, firings, arm = timetable.settled(cluster, found, note, now)
        # After its last time nothing is left to look at.
        disarm = () if arm else ((DeadlineKind.CRON, str(cluster.id)),)
        return replace(decision, cluster=after, firings=firings, arm=(*decision.arm, *arm), disarm=disarm)

    def _made(self, cluster: Cluster) -> _Made:
        try:
            return _Made(self._prepared(cluster))
        except StoreUnavailable:
            raise
        except StoreFull as error:
            return _Made(None, str(error), is_passing=True)
        except Unavailable as error:
            return _Made(None, f"imageUnresolved: {error}", is_passing=True)
        except TitusError as error:
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

    def _again(self, id: ClusterId, span: timedelta) -> Decision:
        return self._writes.on_cluster(
            lambda: self._load(id),
            lambda cluster, live, now: Decision(
                arm=(Deadline(kind=DeadlineKind.KEEP, entity=id, due=now + span),)
            ),
        )

    def _load(self, id: ClusterId) -> tuple[Cluster, Sequence[Job], datetime]:
        cluster, now = self._clusters.cluster(id)
        return cluster, self._clusters.live_jobs(id), now


def _owner(cluster: Cluster) -> Caller:
    return Caller(id=TITUS, email=cluster.descriptor.owner.owner_email)


def _is_of(error: LimitReached, cluster: Cluster) -> bool:
    """Whether it is the cluster's jobs that are too many, not those of the installation."""
    return cluster.id in error.what
