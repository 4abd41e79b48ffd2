"""Whether a slot whose task failed is tried again, and when.

Two budgets: the owner's retries for what the application did, and our own cap for what the
infrastructure spoiled (docs/semantics.md A8, B3.3). Delays count from the end of the failed task.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.descriptor import (
    JobSpec,
    MantisSpec,
    RetryKind,
    RetryPolicy,
    ServiceSpec,
)
from titus_celery.core.model import (
    Task,
)
from titus_celery.core.reasons import ENDS, Budget, Code
from titus_celery.core.states import State

__all__ = [
    "BACKOFF_RESET",
    "INFRA_DELAY_FIRST",
    "INFRA_DELAY_MAX",
    "INFRA_RETRIES_MAX",
    "RESTARTS",
    "WORKER_DELAYS",
    "WORKER_RETRIES_MAX",
    "Plan",
    "plan",
]

#: Runs of one slot that may be lost to infrastructure: past it something is wrong that retries
#: do not mend.
INFRA_RETRIES_MAX: Final = 10
#: After the first such loss; doubles with each.
INFRA_DELAY_FIRST: Final = timedelta(seconds=1)
#: Long enough for a host to come back, short enough not to be noticed as a stop.
INFRA_DELAY_MAX: Final = timedelta(seconds=30)
#: An attempt that ran this long was healthy: exponential back-off begins anew.
BACKOFF_RESET: Final = timedelta(seconds=300)
#: How a service without a retry policy is restarted, for ever (A13): its count is not looked at.
RESTARTS: Final = RetryPolicy(
    kind=RetryKind.EXPONENTIAL, delay_first=timedelta(seconds=1), delay=timedelta(seconds=30)
)
#: How a Mantis worker without a retry policy is restarted: after these delays, the last of them for ever
#: after; and how often at most (docs/semantics.md B6.5).
WORKER_DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (0, 5, 10, 20))
WORKER_RETRIES_MAX: Final = 100
#: 2**32 is past any sensible cap, and keeps the arithmetic far from overflow.
DOUBLINGS_MAX: Final = 32
#: No delay is longer; an instant so far off must still be a date.
DELAY_MAX: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next attempt of a slot: how long to wait, and what its task is to remember."""

    delay: timedelta
    user_retries: int
    infra_retries: int
    backoff_step: int


def plan(spec: JobSpec, task: Task, code: Code, ended: datetime) -> Plan | None:
    """The next attempt after *task* ended at *ended* with *code*; None if there is none."""
    match _budget(spec, task, code):
        case Budget.USER:
            return _by_owner(spec, task, ended)
        case Budget.INFRA:
            return _by_us(spec, task, ended)
        case Budget.FREE:
            return Plan(timedelta(0), task.user_retries, task.infra_retries, task.backoff_step)
        case Budget.NONE:
            return None


def _budget(spec: JobSpec, task: Task, code: Code) -> Budget:
    # What was wanted decides, even if the container ended by itself a moment before.
    if task.is_surplus:
        code = Code.SCALED_DOWN
    elif task.kill is not None:
        code = Code.KILLED
    end = ENDS[code]
    match spec:
        case ServiceSpec():
            return end.service
        case MantisSpec():
            return end.mantis
        case _:
            return end.batch


def _by_owner(spec: JobSpec, task: Task, ended: datetime) -> Plan | None:
    if isinstance(spec, MantisSpec):
        return _by_stage(spec.stages[task.stage or 0].retry, task, ended)
    policy = spec.retry or RetryPolicy()
    if _is_endless(spec):
        policy = RESTARTS
    elif task.user_retries >= policy.retries:
        return None
    return _counted(policy, task, ended)


def _by_stage(policy: RetryPolicy | None, task: Task, ended: datetime) -> Plan | None:
    """A Mantis worker: as its stage says, or on the ladder of B6.5."""
    if task.user_retries >= (WORKER_RETRIES_MAX if policy is None else policy.retries):
        return None
    if policy is not None:
        return _counted(policy, task, ended)
    step = 1 if _was_healthy(task, ended) else task.backoff_step + 1
    delay = WORKER_DELAYS[min(step, len(WORKER_DELAYS)) - 1]
    return Plan(delay, task.user_retries + 1, task.infra_retries, step)


def _counted(policy: RetryPolicy, task: Task, ended: datetime) -> Plan:
    step = 1 if _was_healthy(task, ended) else task.backoff_step + 1
    nth = task.user_retries + 1
    return Plan(min(_delay(policy, nth, step), DELAY_MAX), nth, task.infra_retries, step)


def _is_endless(spec: JobSpec) -> bool:
    return isinstance(spec, ServiceSpec) and spec.retry is None


def _was_healthy(task: Task, ended: datetime) -> bool:
    running = task.at(State.RUNNING)
    return running is not None and ended - running >= BACKOFF_RESET


def _delay(policy: RetryPolicy, nth: int, step: int) -> timedelta:
    match policy.kind:
        case RetryKind.IMMEDIATE:
            return timedelta(0)
        case RetryKind.DELAYED:
            return policy.delay_first if nth == 1 else policy.delay
        case RetryKind.EXPONENTIAL:
            return _doubled(policy.delay_first, step, policy.delay or DELAY_MAX)


def _by_us(spec: JobSpec, task: Task, ended: datetime) -> Plan | None:
    so_far = task.infra_retries
    # What lives long meets hosts that are restarted now and then: what it survived is forgiven.
    if isinstance(spec, ServiceSpec | MantisSpec) and _was_healthy(task, ended):
        so_far = 0
    if so_far >= INFRA_RETRIES_MAX and not _is_endless(spec):
        return None
    delay = _doubled(INFRA_DELAY_FIRST, so_far + 1, INFRA_DELAY_MAX)
    return Plan(delay, task.user_retries, so_far + 1, task.backoff_step)


def _doubled(first: timedelta, nth: int, most: timedelta) -> timedelta:
    """*first* doubled for each time after the first, up to *most*."""
    if first >= most:
        return most
    factor = 1 << min(nth - 1, DOUBLINGS_MAX)
    return most if first > most / factor else min(first * factor, most)
