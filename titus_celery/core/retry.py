"""Whether a slot whose task failed is tried again, and when.

Two budgets: the owner's retries for what the application did, and our own cap for what the
infrastructure spoiled (docs/semantics.md A8, B3.3). Delays count from the end of the failed task.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.model import RetryKind, RetryPolicy, Task
from titus_celery.core.reasons import ENDS, Budget, Code
from titus_celery.core.states import State

__all__ = ["BACKOFF_RESET", "INFRA_DELAY_FIRST", "INFRA_DELAY_MAX", "INFRA_RETRIES_MAX", "Plan", "plan"]

#: Runs of one slot that may be lost to infrastructure: past it something is wrong that retries
#: do not mend.
INFRA_RETRIES_MAX: Final = 10
#: After the first such loss; doubles with each.
INFRA_DELAY_FIRST: Final = timedelta(seconds=1)
#: Long enough for a host to come back, short enough not to be noticed as a stop.
INFRA_DELAY_MAX: Final = timedelta(seconds=30)
#: An attempt that ran this long was healthy: exponential back-off begins anew.
BACKOFF_RESET: Final = timedelta(seconds=300)
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


def plan(policy: RetryPolicy, task: Task, code: Code, ended: datetime) -> Plan | None:
    """The next attempt after *task* ended at *ended* with *code*; None if there is none."""
    match ENDS[code].budget:
        case Budget.USER:
            return _by_owner(policy, task, ended)
        case Budget.INFRA:
            return _by_us(task)
        case Budget.NONE:
            return None


def _by_owner(policy: RetryPolicy, task: Task, ended: datetime) -> Plan | None:
    if task.user_retries >= policy.retries:
        return None
    running = task.at(State.RUNNING)
    was_healthy = running is not None and ended - running >= BACKOFF_RESET
    step = 1 if was_healthy else task.backoff_step + 1
    nth = task.user_retries + 1
    return Plan(min(_delay(policy, nth, step), DELAY_MAX), nth, task.infra_retries, step)


def _delay(policy: RetryPolicy, nth: int, step: int) -> timedelta:
    match policy.kind:
        case RetryKind.IMMEDIATE:
            return timedelta(0)
        case RetryKind.DELAYED:
            return policy.delay_first if nth == 1 else policy.delay
        case RetryKind.EXPONENTIAL:
            return _doubled(policy.delay_first, step, policy.delay or DELAY_MAX)


def _by_us(task: Task) -> Plan | None:
    if task.infra_retries >= INFRA_RETRIES_MAX:
        return None
    nth = task.infra_retries + 1
    delay = _doubled(INFRA_DELAY_FIRST, nth, INFRA_DELAY_MAX)
    return Plan(delay, task.user_retries, nth, task.backoff_step)


def _doubled(first: timedelta, nth: int, most: timedelta) -> timedelta:
    """*first* doubled for each time after the first, up to *most*."""
    if first >= most:
        return most
    factor = 1 << min(nth - 1, DOUBLINGS_MAX)
    return most if first > most / factor else min(first * factor, most)
