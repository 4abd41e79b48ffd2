"""How many jobs of a Mantis cluster there are to be: its floor, its ceiling, and no job once it is disabled.

The floor comes first. Above the ceiling an old job goes only once a newer one really runs, so that there is
no gap in what the cluster does (docs/semantics.md A12, B6.2, B6.3, B6.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from titus_celery.core.cluster import Cluster
from titus_celery.core.descriptor import JobType
from titus_celery.core.model import Job, KillIntent
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

__all__ = ["Kept", "ceiling", "intent", "kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be done so that as many jobs run as should."""

    #: Jobs to be made.
    start: int = 0
    #: Jobs to be ended, and why.
    kill: tuple[Job, ...] = ()
    why: str = ""
    #: Whether more is to be done once a newer job runs.
    is_unsettled: bool = False


def ceiling(cluster: Cluster) -> int:
    """How many jobs of the cluster may live when another one is asked for; 0: any number."""
    return cluster.rules.max


def kept(cluster: Cluster, live: Sequence[Job]) -> Kept:
    """What *live*, the jobs of the cluster that are not over, by creation, lack and have too much."""
    if cluster.descriptor.kind is not JobType.MANTIS:
        # The jobs of other clusters stay, also once it is disabled (B1.6).
        return Kept()
    staying = [job for job in live if job.kill is None]
    if not cluster.is_enabled:
        return Kept(kill=tuple(staying), why="job cluster disabled")
    rules = cluster.rules
    if len(staying) < rules.min:
        lacking = rules.min - len(staying)
        # One that is being ended counts until it has ended: there are never more than the ceiling (A12).
        room = rules.max - len(live) if rules.max else lacking
        return Kept(start=max(min(lacking, room), 0), is_unsettled=True)
    if not rules.max or len(staying) <= rules.max:
        return Kept()
    surplus = _surplus(staying, rules.max)
    return Kept(kill=surplus, why="SLA enforcement", is_unsettled=len(staying) - len(surplus) > rules.max)


def _surplus(staying: Sequence[Job], most: int) -> tuple[Job, ...]:
    """From the newest to the oldest: once as many run as may, all that are older are too many."""
    running = 0
    for place in range(len(staying) - 1, -1, -1):
        running += staying[place].state is State.RUNNING
        if running == most:
            return tuple(staying[:place])
    return ()


def intent(why: str, now: datetime) -> KillIntent:
    """The end of a job that its cluster does not want any more: it is no failure (A7)."""
    return KillIntent(by="titus", at=now, reason=Reason(Code.NORMAL, why), is_success=True)
