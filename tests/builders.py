"""Test data in sentences: a job, its tasks, and what becomes of them.

What a test does not name, is as ordinary as possible. Times are given as seconds after START.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from titus_celery.core.decision import Change, Decision, change_of
from titus_celery.core.descriptor import (
    BatchSpec,
    Container,
    Demand,
    Image,
    JobDescriptor,
    Owner,
)
from titus_celery.core.model import (
    Agent,
    AgentId,
    Capacity,
    ClusterId,
    Deadline,
    DeadlineKind,
    Dispatch,
    EngineId,
    Job,
    JobId,
    KillIntent,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.ports import Records

__all__ = [
    "START",
    "agent",
    "at",
    "change",
    "commit",
    "deadline",
    "dispatched",
    "ended",
    "failed",
    "finished",
    "job",
    "killed",
    "moved",
    "replacement",
    "saved",
    "task",
    "tasks",
    "to_be_retried",
]

#: When the stories of tests begin.
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    """So many seconds after START."""
    return START + timedelta(seconds=seconds)


def job(number: int | None = None, /, *, desired: int = 1, created: float = 0, **parts: Any) -> Job:
    """A new queued batch job of its own id (or that of *number*)."""
    id = JobId(f"00000000-0000-4000-8000-{number or next(_numbers):012}")
    descriptor = JobDescriptor(
        owner=Owner(team_email="team@example.com"),
        app_name="app",
        spec=BatchSpec(desired=desired, runtime_limit=timedelta(hours=1), container_id="main"),
        containers={"main": Container(image=Image(name="busybox:latest", id="sha256:1"), command=("true",))},
    )
    queued = StateChange(state=State.QUEUED, at=at(created))
    plain = Job(
        id=id,
        cluster_id=ClusterId("batch"),
        descriptor=descriptor,
        created_by="ann",
        history=(queued,),
        slots_made=desired,
    )
    return replace(plain, **parts)


def task(of: Job, slot: int = 0, **parts: Any) -> Task:
    """A new queued task, the first of its slot."""
    id = TaskId(f"{of.id}-{slot}-1")
    queued = StateChange(state=State.QUEUED, at=of.created_at)
    plain = Task(id=id, job_id=of.id, slot=slot, attempt=1, original_id=id, history=(queued,))
    return replace(plain, **parts)


def tasks(of: Job, count: int) -> tuple[Task, ...]:
    """New queued tasks for the first *count* slots."""
    return tuple(task(of, slot) for slot in range(count))


def agent(name: str = "host-1", *, engine: str = "ENGINE:1", **parts: Any) -> Agent:
    """An agent with room for four cores, 4 GiB and eight containers."""
    nothing = Capacity(cpu_millis=0, memory_bytes=0, slots=0)
    plain = Agent(
        id=AgentId(name),
        engine_id=EngineId(engine),
        host=name,
        zone="a",
        region="r",
        queues=("default",),
        capacity=Capacity(cpu_millis=4_000, memory_bytes=4 * 2**30, slots=8),
        used=nothing,
        lease_until=START,
        proved_at=START,
    )
    return replace(plain, **parts)


def moved(one: Task, state: State, when: float, **parts: Any) -> Task:
    """The task in its next state."""
    return replace(one, history=(*one.history, StateChange(state=state, at=at(when))), **parts)


def dispatched(
    one: Task, to: Agent | None = None, *, cpu: int = 500, memory: int = 2**20, when: float = 1
) -> Task:
    """The task on its way to an agent."""
    chosen = to or agent()
    order = Dispatch(
        number=one.dispatches + 1,
        agent_id=chosen.id,
        engine_id=chosen.engine_id,
        host=chosen.host,
        zone=chosen.zone,
        region=chosen.region,
        demand=Demand(cpu_millis=cpu, memory_bytes=memory),
    )
    return moved(one, State.DISPATCHED, when, dispatch=order, dispatches=order.number)


def ended(one: Task, state: State, code: Code, when: float = 9, **parts: Any) -> Task:
    """The task, over for this reason."""
    return moved(one, state, when, reason=Reason(code, "as told"), **parts)


def finished(one: Task, when: float = 9) -> Task:
    """The task, ended well."""
    return ended(one, State.FINISHED, Code.NORMAL, when)


def failed(one: Task, when: float = 9) -> Task:
    """The task, failed for good."""
    return ended(one, State.FAILED, Code.FAILED, when)


def to_be_retried(one: Task, due: float, when: float = 9) -> Task:
    """The task, failed, with a replacement due."""
    return ended(one, State.FAILED, Code.FAILED, when, retry_at=at(due))


def replacement(one: Task, when: float) -> tuple[Task, Task]:
    """The failed task and the new one that takes its slot."""
    id = TaskId(f"{one.job_id}-{one.slot}-{one.attempt + 1}")
    queued = StateChange(state=State.QUEUED, at=at(when))
    new = replace(
        one,
        id=id,
        attempt=one.attempt + 1,
        resubmit_of=one.id,
        user_retries=one.user_retries + 1,
        history=(queued,),
        reason=None,
        dispatch=None,
        dispatches=0,
        retry_at=None,
        version=1,
    )
    return replace(one, retry_at=None, replaced_by=id), new


def killed(one: Job, when: float = 5) -> Job:
    """The job with a kill on record."""
    return one.with_intent(KillIntent(by="bob", at=at(when)))


def deadline(kind: DeadlineKind, entity: str, due: float) -> Deadline:
    """A deadline so many seconds after START."""
    return Deadline(kind=kind, entity=entity, due=at(due))


def change(before: Job | None, known: Sequence[Task] = (), **decision: Any) -> Change:
    """What commits this decision, for who knew the job and these tasks."""
    return change_of(before, known, Decision(**decision))


def commit(
    records: Records,
    before: Job | None,
    known: Sequence[Task] = (),
    *,
    to: Sequence[Task] = (),
    **decision: Any,
) -> tuple[Task, ...]:
    """Commit that the tasks *known* become *to*; the tasks as they are stored then."""
    made = change(before, known, tasks=tuple(to), **decision)
    records.commit(made)
    return tuple(one.after for one in made.tasks)


def saved(records: Records, new: Job, count: int = 1) -> tuple[Task, ...]:
    """Commit a new job with so many queued tasks."""
    return commit(records, None, to=tasks(new, count), job=new)
