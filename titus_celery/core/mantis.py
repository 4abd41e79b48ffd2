"""The life of a Mantis job as a whole: when it is RUNNING, and when it ends by itself.

Its workers live as the tasks of other jobs do. What they say together is a decision of its own, taken when
one of them said something (docs/semantics.md A6, A15, B6.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.decision import Decision, Wake
from titus_celery.core.descriptor import MantisSpec
from titus_celery.core.model import Deadline, DeadlineKind, Job, KillIntent, StateChange, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.sizing import is_complete
from titus_celery.core.states import State

__all__ = [
    "TITUS",
    "TOO_MANY",
    "abandoned",
    "ends_by_itself",
    "expired",
    "idle",
    "is_transient",
    "keep_of",
    "moved_on",
]

#: Who ends jobs by their own rules.
TITUS: Final = "titus"

#: How a job ends one of whose workers may not be restarted any more.
TOO_MANY: Final = "too many worker resubmits"

_BUILT_IN: Final = frozenset(cluster.id for cluster in BUILT_IN.values())


def is_transient(job: Job) -> bool:
    """Whether it ends when nobody observes it (A15)."""
    spec = job.descriptor.spec
    return isinstance(spec, MantisSpec) and spec.agreement.is_transient


def ends_by_itself(job: Job, now: datetime) -> tuple[Deadline, ...]:
    """When a new job is to be looked at because it may have to end."""
    spec = job.descriptor.spec
    if not isinstance(spec, MantisSpec):
        return ()
    limit = spec.agreement.runtime_limit
    expire = (Deadline(kind=DeadlineKind.EXPIRE, entity=job.id, due=now + limit),) if limit else ()
    return (*expire, *((_idle_at(job, now + _patience(spec)),) if spec.agreement.is_transient else ()))


def keep_of(job: Job, now: datetime) -> tuple[Deadline, ...]:
    """A look at the cluster of a Mantis job, of which one more or one less runs now."""
    if not job.is_staged or job.cluster_id in _BUILT_IN:
        return ()
    return (Deadline(kind=DeadlineKind.KEEP, entity=job.cluster_id, due=now),)


def moved_on(job: Job, open_tasks: Sequence[Task], now: datetime) -> Decision:
    """It is RUNNING once every worker of every stage is (A6)."""
    if job.state >= State.RUNNING or not job.is_staged:
        return Decision(why=f"it is {job.state.name}")
    if not is_complete(job, [task for task in open_tasks if task.state is State.RUNNING]):
        return Decision(why="not all of its workers run")
    step = StateChange(state=State.RUNNING, at=max(now, job.history[-1].at))
    return Decision(
        job=replace(job, history=(*job.history, step)),
        arm=keep_of(job, now),
        disarm=((DeadlineKind.PROGRESS, job.id),),
        commands=(Wake(),),
    )


def expired(job: Job, now: datetime) -> KillIntent:
    """It has run for as long as it may, since it was submitted."""
    return KillIntent(by=TITUS, at=now, reason=Reason(Code.LIMIT, "runtime limit reached"), is_success=True)


def idle(job: Job, ran: timedelta | None, lonely: timedelta, now: datetime) -> KillIntent | timedelta:
    """Why a transient job ends for want of subscribers; or after how long to look again (A15, B6.5).

    *ran*: for how long it has been RUNNING, None if it was not yet: before that nobody is missed. *lonely*:
    for how long it has had no subscribers.
    """
    spec = job.descriptor.spec
    if not isinstance(spec, MantisSpec):
        raise TypeError(f"job {job.id} is no Mantis job")
    if ran is None:
        return _patience(spec)
    left = max(spec.agreement.min_runtime - ran, spec.subscription_timeout - min(ran, lonely))
    if left > timedelta(0):
        return left
    seconds = int(spec.subscription_timeout.total_seconds())
    reason = Reason(Code.NORMAL, f"no subscriptions for {seconds} secs")
    return KillIntent(by=TITUS, at=now, reason=reason, is_success=True)


def abandoned(job: Job, now: datetime) -> KillIntent:
    """One of its workers may not be restarted any more, so all of it ends (B6.5)."""
    first = f"; first: {job.first_failure}" if job.first_failure else ""
    return KillIntent(by=TITUS, at=now, reason=Reason(Code.FAILED, f"{TOO_MANY}{first}"))


def _patience(spec: MantisSpec) -> timedelta:
    return max(spec.agreement.min_runtime, spec.subscription_timeout)


def _idle_at(job: Job, due: datetime) -> Deadline:
    return Deadline(kind=DeadlineKind.IDLE, entity=job.id, due=due)
