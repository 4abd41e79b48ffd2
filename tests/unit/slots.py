"""One task in each of its states, and what the decisions about it are given."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from tests.builders import agent, at, dispatched, failed, finished, job, moved, task
from titus_celery.core.descriptor import (
    BatchSpec,
    Demand,
    RetryKind,
    RetryPolicy,
)
from titus_celery.core.model import (
    Address,
    AgentId,
    Deadline,
    DeadlineKind,
    Job,
    KillIntent,
    Task,
)
from titus_celery.core.placement import Need
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.settings import Settings

SPANS: Final = Settings().spans()
NEED: Final = Need(demand=Demand(cpu_millis=500, memory_bytes=2**20))
BOB: Final = KillIntent(by="bob", at=at(50))
KILLED_BY_BOB: Final = Reason(Code.KILLED, "by bob at 2026-03-01T12:00:50+00:00")
HOST_1: Final = AgentId("host-1")
NOW: Final = at(60)

#: The policy of every job that names none: two retries, the first after five seconds.
RETRYING: Final = RetryPolicy(kind=RetryKind.DELAYED, retries=2, delay_first=timedelta(seconds=5))


def a_job(*, limit: float = 3_600, retry: RetryPolicy | None = RETRYING) -> Job:
    plain = job(7)
    assert isinstance(plain.descriptor.spec, BatchSpec)
    batch = replace(plain.descriptor.spec, runtime_limit=timedelta(seconds=limit), retry=retry)
    return replace(plain, descriptor=replace(plain.descriptor, spec=batch))


def in_state(state: State, *, of: Job | None = None) -> Task:
    """Slot 2's first task: queued at 0, dispatched at 1, starting at 2, running at 3, over at 9."""
    queued = task(of or a_job(), 2)
    sent = dispatched(queued, agent())
    starting = moved(sent, State.STARTING, 2)
    running = moved(starting, State.RUNNING, 3, address=Address(ip="10.0.0.9"))
    return {
        State.QUEUED: queued,
        State.DISPATCHED: sent,
        State.STARTING: starting,
        State.RUNNING: running,
        State.FINISHED: finished(running),
        State.FAILED: failed(running),
    }[state]


#: A failed task whose replacement is due at 14, by the five seconds of RETRYING.
DUE: Final = replace(in_state(State.FAILED), retry_at=at(14))


def due(kind: DeadlineKind, one: Task, when: float) -> Deadline:
    return Deadline(kind=kind, entity=one.id, due=at(when))
