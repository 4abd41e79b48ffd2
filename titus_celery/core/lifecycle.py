"""The decisions about one task: dispatched, claimed, running, ended, replaced, killed.

Each takes what was loaded and the time, and gives a Decision; one that does not apply (any more)
gives an empty one that says why. That makes every command safe to repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from titus_celery.core.decision import Command, Company, Decision, RunTask, StopTask, Wake
from titus_celery.core.descriptor import BatchSpec
from titus_celery.core.model import (
    Address,
    Agent,
    AgentId,
    Deadline,
    DeadlineKind,
    Dispatch,
    Exit,
    Job,
    JobId,
    KillIntent,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.placement import Need, free_gpus
from titus_celery.core.reasons import ENDS, Code, Reason
from titus_celery.core.retry import plan
from titus_celery.core.states import State, may_step

__all__ = [
    "LIMIT_BACKSTOP",
    "UNCLAIMED_MAX",
    "Spans",
    "claimed",
    "deadlines_of",
    "dispatched",
    "ended",
    "first_task",
    "job_of",
    "killed",
    "killed_by",
    "limit_of",
    "lost",
    "over_limit",
    "replaced",
    "republished",
    "run_order",
    "running",
    "task_id",
    "told_to_stop",
    "waiting",
]

#: How long after a runtime limit control tells the agent to end the task: the agent's own timer, its
#: stop with grace and its report come first unless something is wrong there.
LIMIT_BACKSTOP: Final = timedelta(seconds=30)

#: How long an order may go unclaimed by an agent that keeps its lease (one that does not is lost by
#: itself): claiming takes an agent milliseconds, so this many of our repetitions went nowhere.
UNCLAIMED_MAX: Final = timedelta(seconds=60)

#: Attempts of one slot after which the oldest ended tasks of its job may go: of each slot that many more
#: than are kept may be there.
ATTEMPTS_PER_PRUNE: Final = 16

#: The deadlines that may stand for a task while it is in a state; leaving the state removes them.
_DEADLINES_OF: Final[Mapping[State, tuple[DeadlineKind, ...]]] = MappingProxyType(
    {
        State.QUEUED: (),
        State.DISPATCHED: (DeadlineKind.REPUBLISH,),
        State.STARTING: (DeadlineKind.STUCK,),
        State.RUNNING: (DeadlineKind.LIMIT,),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The settings that decisions about tasks need."""

    republish_after: timedelta
    #: How long a task of a batch, and of a service job, may be STARTING.
    stuck_after: timedelta
    service_stuck_after: timedelta

    def stuck(self, job: Job) -> timedelta:
        """How long the job's tasks may be STARTING."""
        return self.stuck_after if isinstance(job.descriptor.spec, BatchSpec) else self.service_stuck_after


def task_id(job_id: JobId, slot: int, attempt: int, stage: int | None = None) -> TaskId:
    """The id of a slot's attempt; of a Mantis job with its stage (A9)."""
    place = str(slot) if stage is None else f"{stage}.{slot}"
    return TaskId(f"{job_id}-{place}-{attempt}")


def job_of(id: TaskId) -> JobId:
    """The job part of a task id."""
    return JobId(id.rsplit("-", 2)[0])


def first_task(job_id: JobId, slot: int, now: datetime, stage: int | None = None) -> Task:
    """A slot's first task, queued."""
    id = task_id(job_id, slot, 1, stage)
    return Task(
        id=id,
        job_id=job_id,
        slot=slot,
        stage=stage,
        attempt=1,
        original_id=id,
        history=(StateChange(state=State.QUEUED, at=now),),
    )


def waiting(task: Task, why: str) -> Decision:
    """A queued task says why it is not placed; nothing if it says so already."""
    reason = Reason(Code.WAITING, why)
    if task.state is not State.QUEUED or task.reason == reason:
        return Decision(why="it says so already")
    return Decision(tasks=(replace(task, reason=reason),))


def dispatched(
    job: Job, task: Task, agent: Agent, need: Need, now: datetime, spans: Spans, own: int = 0
) -> Decision:
    """*agent* is chosen for a queued task: reserve, number the order, send it.

    *own*: how many tasks of the job its engine has, if the need looks at others.
    """
    if job.kill is not None or task.state is not State.QUEUED:
        return Decision(why="it is not waiting to be placed")
    order = Dispatch(
        number=task.dispatches + 1,
        agent_id=agent.id,
        engine_id=agent.engine_id,
        host=agent.host,
        zone=agent.zone,
        region=agent.region,
        demand=need.demand,
        gpus=free_gpus(agent, need.demand.gpus),
        is_exclusive=need.hard.exclusive_host,
    )
    after = replace(
        task,
        history=task.moved(State.DISPATCHED, now),
        reason=None,
        dispatch=order,
        dispatches=order.number,
    )
    return Decision(
        tasks=(after,),
        room=agent.capacity,
        company=Company(own=own, is_unique=need.hard.unique_host, is_exclusive=need.hard.exclusive_host),
        arm=(_due(DeadlineKind.REPUBLISH, task, now + spans.republish_after),),
        commands=(run_order(job, after, order),),
    )


def republished(job: Job, task: Task, now: datetime, spans: Spans, waited: timedelta) -> Decision:
    """An order that nobody claimed is sent again, under the same number; given up in the end.

    *waited*: for how long it could have been claimed, which a store that was away or whose clock was
    set makes less than what the record says.
    """
    if task.state is not State.DISPATCHED or task.dispatch is None:
        return Decision(why="the order was taken")
    if waited >= UNCLAIMED_MAX:
        seconds = int(UNCLAIMED_MAX.total_seconds())
        why = f"agent {task.dispatch.agent_id} did not take it within {seconds} s"
        return ended(job, task, Reason(Code.STUCK, why), now)
    return Decision(
        arm=(_due(DeadlineKind.REPUBLISH, task, now + spans.republish_after),),
        commands=(run_order(job, task, task.dispatch),),
    )


def claimed(job: Job, task: Task, agent_id: AgentId, number: int, now: datetime, spans: Spans) -> Decision:
    """The agent takes the order; a copy, a stale one or a killed task's gives nothing."""
    order = task.dispatch
    if job.kill is not None or task.kill is not None:
        return Decision(why="it is being killed")
    if task.state is not State.DISPATCHED or order is None:
        return Decision(why=f"it is {task.state.name}: another copy of the order was taken")
    if (order.agent_id, order.number) != (agent_id, number):
        return Decision(why=f"order {number} is not the latest, {order.number} to {order.agent_id}")
    return Decision(
        tasks=(replace(task, history=task.moved(State.STARTING, now)),),
        arm=(_due(DeadlineKind.STUCK, task, now + spans.stuck(job)),),
        disarm=deadlines_of(task),
    )


def running(job: Job, task: Task, number: int, address: Address, now: datetime) -> Decision:
    """The container is up; from now its runtime limit counts (A5)."""
    if task.state is not State.STARTING or not _is_order(task, number):
        return Decision(why=f"it is {task.state.name}")
    return Decision(
        tasks=(replace(task, history=task.moved(State.RUNNING, now), address=address),),
        arm=(*limit_of(job, task, now), *_of_job(DeadlineKind.PROGRESS, task, now)),
        disarm=deadlines_of(task),
        commands=(Wake(),) if task.stage is not None else (),
    )


def ended(
    job: Job,
    task: Task,
    reason: Reason,
    now: datetime,
    *,
    exit: Exit | None = None,
    number: int | None = None,
) -> Decision:
    """The task is over for *reason*; the same step says whether its slot is tried again.

    *number* is the order under which an agent reports; None when control says so.
    """
    end = ENDS[reason.code]
    if not may_step(task.state, end.state):
        return Decision(why=f"it is {task.state.name}")
    if number is not None and not _is_order(task, number):
        return Decision(why=f"order {number} is not the latest")
    history = task.moved(end.state, now)
    at = history[-1].at
    again = None if job.kill is not None else plan(job.descriptor.spec, task, reason.code, at)
    due = at + again.delay if again else None
    after = replace(task, history=history, reason=reason, exit=exit, retry_at=due)
    # From now on: the record's date is the one of the state before if the clock was set back.
    arm = (_due(DeadlineKind.RETRY, task, now + again.delay),) if again else ()
    if again is None and end.state is State.FAILED and not after.is_surplus:
        # A Mantis job does not go on with a worker less (B6.5).
        arm = (*arm, *_of_job(DeadlineKind.ABANDON, task, now))
    if job.state < State.RUNNING:
        # It may have been the last that did not run.
        arm = (*arm, *_of_job(DeadlineKind.PROGRESS, task, now))
    return Decision(
        tasks=(after,),
        arm=arm,
        disarm=deadlines_of(task),
        commands=(Wake(),),
    )


def replaced(job: Job, task: Task, now: datetime) -> Decision:
    """The replacement of a failed task whose delay is over."""
    if task.retry_at is None or task.reason is None or job.kill is not None:
        return Decision(why="it is not to be replaced")
    again = plan(job.descriptor.spec, task, task.reason.code, task.history[-1].at)
    if again is None:
        raise ValueError(f"{task.id} waits for a retry that its end does not allow")
    new = replace(
        first_task(job.id, task.slot, max(now, task.history[-1].at), task.stage),
        id=task_id(job.id, task.slot, task.attempt + 1, task.stage),
        attempt=task.attempt + 1,
        original_id=task.original_id,
        resubmit_of=task.id,
        user_retries=again.user_retries,
        infra_retries=again.infra_retries,
        backoff_step=again.backoff_step,
    )
    prune = Deadline(kind=DeadlineKind.PRUNE, entity=job.id, due=now)
    return Decision(
        tasks=(replace(task, retry_at=None, replaced_by=new.id), new),
        arm=(prune,) if new.attempt % ATTEMPTS_PER_PRUNE == 0 else (),
        disarm=((DeadlineKind.RETRY, task.id),),
        commands=(Wake(),),
    )


def killed(job: Job, task: Task, intent: KillIntent, now: datetime) -> Decision:
    """Somebody wants this task dead: ended at once unless an agent may have its container."""
    if task.state.is_final:
        if task.retry_at is None:
            return Decision(why="it is over")
        return Decision(
            tasks=(replace(task, retry_at=None, kill=intent),), disarm=((DeadlineKind.RETRY, task.id),)
        )
    reason = killed_by(intent)
    marked = replace(task, kill=intent)
    if task.state in (State.QUEUED, State.DISPATCHED) or task.dispatch is None:
        end = ended(job, marked, reason, now)
        return replace(end, commands=(Wake(),))
    stop: tuple[Command, ...] = (StopTask(task.id, task.dispatch.agent_id),)
    if task.kill is not None:
        return Decision(commands=stop, why="its kill is on record")
    return Decision(tasks=(marked,), commands=stop)


def told_to_stop(job: Job, task: Task, reason: Reason, again: Deadline) -> Decision:
    """Control found that its agent must end it for *reason*; *again* looks whether it did.

    Only the agent knows when the container is gone, so only its report ends the task: a replacement
    before that would be a second container of the slot (P2).
    """
    if task.dispatch is None or task.state not in (State.STARTING, State.RUNNING):
        return Decision(why=f"it is {task.state.name}")
    stop = StopTask(task.id, task.dispatch.agent_id)
    marked = replace(task, stop_for=task.stop_for or reason)
    return Decision(tasks=(marked,), arm=(again,), commands=(stop,))


def lost(
    job: Job, task: Task, agent_id: AgentId, silent: timedelta, ran: timedelta, now: datetime
) -> Decision:
    """The agent has been *silent* too long; what it held ends for the truest reason that is known.

    *ran*: for how long, at least, the task has been RUNNING.
    """
    if task.holds is None or task.holds.agent_id != agent_id:
        return Decision(why="it is elsewhere")
    intent = task.kill or job.kill
    if intent is not None:
        reason = killed_by(intent)
    elif task.stop_for is not None:
        reason = task.stop_for
    elif task.state is State.RUNNING and (limit := job.descriptor.runtime_limit) and ran >= limit:
        reason = over_limit(limit)
    else:
        reason = Reason(Code.LOST, f"agent {agent_id} has been silent for {int(silent.total_seconds())} s")
    return ended(job, task, reason, now)


def over_limit(limit: timedelta) -> Reason:
    """Why a run ends that took longer than it may (A5)."""
    return Reason(Code.LIMIT, f"ran longer than {int(limit.total_seconds())} s")


def run_order(job: Job, task: Task, order: Dispatch, *, adopt: bool = False) -> RunTask:
    """The order to run a dispatched task."""
    image = job.descriptor.container_of(task.stage).image
    return RunTask(task.id, job.id, order, image.id, adopt)


def killed_by(intent: KillIntent) -> Reason:
    """Why a task ends that somebody wants dead, or whose job ends by its own rules."""
    if intent.reason is not None:
        return Reason(Code.KILLED, f"its job ends ({intent.reason})")
    return Reason(Code.KILLED, f"by {intent.by} at {intent.at.isoformat(timespec='seconds')}")


def _is_order(task: Task, number: int) -> bool:
    return task.dispatch is not None and task.dispatch.number == number


def limit_of(job: Job, task: Task, now: datetime) -> tuple[Deadline, ...]:
    """When control looks whether a run that begins now has outlived its limit, if it has one."""
    limit = job.descriptor.runtime_limit
    return (_due(DeadlineKind.LIMIT, task, now + limit + LIMIT_BACKSTOP),) if limit else ()


def _of_job(kind: DeadlineKind, task: Task, due: datetime) -> tuple[Deadline, ...]:
    """A look at the whole of a Mantis job; nothing for other jobs."""
    return () if task.stage is None else (Deadline(kind=kind, entity=task.job_id, due=due),)


def _due(kind: DeadlineKind, task: Task, due: datetime) -> Deadline:
    return Deadline(kind=kind, entity=task.id, due=due)


def deadlines_of(task: Task) -> tuple[tuple[DeadlineKind, str], ...]:
    """The deadlines that may stand for a task in its present state."""
    return tuple((kind, task.id) for kind in _DEADLINES_OF[task.state])
