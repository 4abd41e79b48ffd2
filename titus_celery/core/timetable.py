"""Each time of a cluster's schedule, decided once: a job is made, or it is said why not.

Times are decided in their order, and the record of the cluster says which one is the next: so however many
decide at once, one of them does, and none is left out without a word (P5, docs/semantics.md A11, B6.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.cluster import Cluster, CronPolicy, Firing, Outcome
from titus_celery.core.model import Deadline, DeadlineKind, Job, JobId

__all__ = [
    "LATE_MAX",
    "TIMES_PER_COMMIT",
    "Due",
    "Timetable",
    "armed",
    "due",
    "given_up",
    "held_up",
    "may_wait",
    "noted",
    "settled",
    "why_not",
]

#: How late a time of a schedule still counts as kept: longer than a restart of control takes, and than a
#: registry is asked again (A11).
LATE_MAX: Final = timedelta(seconds=60)
#: Times that one decision covers: after a long outage of a schedule of seconds there are very many.
TIMES_PER_COMMIT: Final = 1_000
#: Jobs of a cluster with KEEP_NEW that may live: the one that is there, and the one that takes over.
HANDOVER_MAX: Final = 2

#: The next time of a schedule after this moment; None: there is none any more.
Timetable = Callable[[datetime], datetime | None]


@dataclass(frozen=True, slots=True)
class Due:
    """The times that are to be decided now."""

    #: Those that have a later one beside them, which is decided for all.
    overtaken: tuple[datetime, ...]
    newest: datetime
    #: The time after them.
    following: datetime | None


def armed(cluster: Cluster, times: Timetable | None, now: datetime) -> tuple[Cluster, tuple[Deadline, ...]]:
    """*cluster* with the next time of its (new) schedule, and the deadline for that. None: it has none."""
    # No time is decided twice, whatever the clock does and however often the schedule changes.
    since = now if cluster.decided is None else max(now, cluster.decided)
    following = times(since) if times is not None and cluster.is_enabled else None
    return replace(_free(cluster), next_firing=following), _deadline(cluster, following)


def due(cluster: Cluster, times: Timetable, now: datetime) -> Due | None:
    """What is to be decided at *now*; None if the next time is yet to come."""
    if cluster.next_firing is None or now < cluster.next_firing:
        return None
    found = [cluster.next_firing]
    following = times(found[-1])
    while following is not None and following <= now and len(found) < TIMES_PER_COMMIT:
        found.append(following)
        following = times(following)
    return Due(tuple(found[:-1]), found[-1], following)


def why_not(cluster: Cluster, times: Due, live: Sequence[Job], now: datetime) -> tuple[Outcome, str] | None:
    """Why no job is made for the newest of these times; None: one is."""
    is_last = times.following is None or times.following > now
    if now - times.newest > LATE_MAX and not (cluster.descriptor.catches_up and is_last):
        return Outcome.MISSED, cluster.held_up or f"decided {_words(now - times.newest)} late"
    if cluster.rules.policy == CronPolicy.KEEP_NEW.value:
        if len(live) >= HANDOVER_MAX:
            return Outcome.SKIPPED, f"job {live[-1].id} is still taking over from {live[0].id}"
    elif live:
        return Outcome.SKIPPED, f"job {live[-1].id} lives"
    return None


def may_wait(cluster: Cluster, times: Due, now: datetime) -> bool:
    """Whether the newest of these times can still be kept if its job cannot be made at the moment."""
    # What is made up for is late anyway: it counts from the first try.
    tried = now if times.overtaken or cluster.held_since is None else cluster.held_since
    return now - max(times.newest, tried) <= LATE_MAX


def held_up(
    cluster: Cluster, times: Due, why: str, now: datetime, again: datetime
) -> tuple[Cluster, tuple[Firing, ...], tuple[Deadline, ...]]:
    """The newest of these times waits, because of *why*, to be tried *again* then; the others are missed."""
    is_first = bool(times.overtaken) or cluster.held_since is None
    after = replace(
        cluster,
        next_firing=times.newest,
        decided=times.overtaken[-1] if times.overtaken else cluster.decided,
        held_up=why,
        held_since=now if is_first else cluster.held_since,
    )
    return after, _overtaken(cluster, times, now), _deadline(cluster, again)


def settled(
    cluster: Cluster, times: Due, newest: Firing, now: datetime
) -> tuple[Cluster, tuple[Firing, ...], tuple[Deadline, ...]]:
    """The cluster after these times were decided, what is noted of them, and the deadline of the next."""
    firings = (*_overtaken(cluster, times, now), newest)
    after = replace(_free(cluster), next_firing=times.following, decided=times.newest)
    return after, firings, _deadline(cluster, times.following)


def given_up(cluster: Cluster, times: Timetable, now: datetime) -> tuple[Cluster, tuple[Firing, ...]]:
    """*cluster* once its schedule ends now: what had come of it and was not decided yet, is missed."""
    first, count = cluster.next_firing, 0
    while (found := due(cluster, times, now)) is not None:
        count += len(found.overtaken) + 1
        cluster = replace(cluster, next_firing=found.following, decided=found.newest)
    if first is None or not count or cluster.decided is None:
        return cluster, ()
    why = cluster.held_up or "its schedule was changed before it could be decided"
    return cluster, (_missed(first, cluster.decided, count, why, now),)


def noted(at: datetime, outcome: Outcome, why: str, now: datetime, job_id: JobId | None = None) -> Firing:
    """What became of one time."""
    return Firing(at=at, until=at, outcome=outcome, why=why, job_id=job_id, decided_at=now)


def _overtaken(cluster: Cluster, times: Due, now: datetime) -> tuple[Firing, ...]:
    if not times.overtaken:
        return ()
    why = cluster.held_up or "a later time had come before it could be decided"
    return (_missed(times.overtaken[0], times.overtaken[-1], len(times.overtaken), why, now),)


def _missed(first: datetime, last: datetime, count: int, why: str, now: datetime) -> Firing:
    return Firing(at=first, until=last, count=count, outcome=Outcome.MISSED, why=why, decided_at=now)


def _free(cluster: Cluster) -> Cluster:
    return replace(cluster, held_up="", held_since=None)


def _deadline(cluster: Cluster, at: datetime | None) -> tuple[Deadline, ...]:
    return () if at is None else (Deadline(kind=DeadlineKind.CRON, entity=cluster.id, due=at),)


def _words(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))
