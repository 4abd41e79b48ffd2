"""How many slots a job has: made a bounded number at a time, and of a service taken away again.

What is wanted is on the job's record; carrying it out is a step of its own that may be repeated until
nothing is left to do. Each such step is refused if another one of the same job came first, so two of
them never make or take away too much between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from titus_celery.core.decision import Decision, StopTask, Wake
from titus_celery.core.descriptor import BatchSpec, ServiceSpec
from titus_celery.core.lifecycle import ended, first_task
from titus_celery.core.model import Deadline, DeadlineKind, EngineId, Job, Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

__all__ = [
    "SLOTS_PER_COMMIT",
    "VICTIMS_PER_COMMIT",
    "exhausted",
    "first_slots",
    "resize_requested",
    "resized",
    "status_requested",
]

#: Slots made by one commit, which takes the store some 15 ms: the whole of most jobs.
SLOTS_PER_COMMIT: Final = 1_000
#: Tasks that one commit of a shrinking service ends: it is refused if any of them moved meanwhile.
VICTIMS_PER_COMMIT: Final = 50


def exhausted(job: Job) -> int:
    """How many of a service's slots are over for good, because nothing may be retried in them."""
    return job.slots_ok + job.slots_failed - job.slots_dropped


def first_slots(job: Job, now: datetime) -> Decision:
    """A new job with as many of its slots as one commit makes."""
    return _grown(job, min(job.descriptor.spec.desired, SLOTS_PER_COMMIT), now)


def resize_requested(job: Job, spec: ServiceSpec, now: datetime) -> Decision:
    """Another number of tasks is wanted; nothing if it is that one already."""
    if job.descriptor.spec == spec:
        return Decision(why="it is so already")
    return Decision(job=job.with_spec(spec), arm=(_resize(job, now),), commands=(Wake(),))


def status_requested(job: Job, spec: ServiceSpec, is_enabled: bool) -> Decision:
    """Scaling by policies is switched on or off; nothing if it is so already."""
    if spec.enabled == is_enabled:
        return Decision(why="it is so already")
    return Decision(job=job.with_spec(replace(spec, enabled=is_enabled)))


def resized(job: Job, open_tasks: Sequence[Task], now: datetime) -> Decision:
    """One step towards as many slots as are wanted; nothing once there are."""
    if job.kill is not None or job.state.is_final:
        return Decision(why="it gets no further slots")
    lacking = _lacking(job, open_tasks)
    if lacking > 0:
        return _grown(job, min(lacking, SLOTS_PER_COMMIT), now)
    if lacking < 0:
        return _shrunk(job, open_tasks, -lacking, now)
    return Decision(why="it has as many as are wanted")


def _lacking(job: Job, open_tasks: Sequence[Task]) -> int:
    spec = job.descriptor.spec
    if isinstance(spec, BatchSpec):
        return spec.desired - job.slots_made
    standing = sum(not task.is_surplus for task in open_tasks)
    return spec.desired - standing - exhausted(job)


def _grown(job: Job, count: int, now: datetime) -> Decision:
    slots = range(job.slots_made, job.slots_made + count)
    return Decision(
        job=replace(job, slots_made=slots.stop),
        tasks=tuple(first_task(job.id, slot, now) for slot in slots),
        # To see whether more are to be made.
        arm=(_resize(job, now),) if count >= SLOTS_PER_COMMIT else (),
        commands=(Wake(),),
    )


def _shrunk(job: Job, open_tasks: Sequence[Task], surplus: int, now: datetime) -> Decision:
    """Slots in which nothing runs any more go first; then those whose tasks are missed least (B1.10)."""
    dropped = min(surplus, exhausted(job))
    chosen = _victims(open_tasks, min(surplus - dropped, VICTIMS_PER_COMMIT))
    wanted = job.descriptor.spec.desired
    reason = Reason(Code.SCALED_DOWN, f"{wanted} {'task is' if wanted == 1 else 'tasks are'} wanted")
    steps = [_taken_away(job, task, reason, now) for task in chosen]
    return Decision(
        # Also without a slot dropped: the job's new version keeps others from ending as many again.
        job=replace(job, slots_dropped=job.slots_dropped + dropped),
        tasks=tuple(task for step in steps for task in step.tasks),
        arm=(_resize(job, now),),
        disarm=tuple(each for step in steps for each in step.disarm),
        commands=(*(command for step in steps for command in step.commands), Wake()),
    )


def _taken_away(job: Job, task: Task, reason: Reason, now: datetime) -> Decision:
    marked = replace(task, stop_for=reason)
    if task.state.is_final:
        # It waited to be replaced.
        return Decision(tasks=(replace(marked, retry_at=None),), disarm=((DeadlineKind.RETRY, task.id),))
    if task.dispatch is None or task.state is State.DISPATCHED:
        return ended(job, marked, reason, now)
    return Decision(tasks=(marked,), commands=(StopTask(task.id, task.dispatch.agent_id),))


def _victims(open_tasks: Sequence[Task], count: int) -> list[Task]:
    """Those that stop already, then those that are furthest from running; of the running ones, from the
    host with most of them, then from the fullest zone, the oldest first (B1.10)."""
    left = {task.id: task for task in open_tasks if not task.is_surplus}
    hosts: Counter[EngineId] = Counter()
    zones: Counter[str] = Counter()
    for task in left.values():
        if (order := task.holds) is not None:
            hosts[order.engine_id] += 1
            zones[order.zone] += 1

    def rank(id: TaskId) -> tuple[int, int, int, datetime, int]:
        task = left[id]
        order = task.holds
        crowd = (-hosts[order.engine_id], -zones[order.zone]) if order else (0, 0)
        return (_group(task), *crowd, task.history[0].at, task.slot)

    victims: list[Task] = []
    while left and len(victims) < count:
        victim = left.pop(min(left, key=rank))
        victims.append(victim)
        if (order := victim.holds) is not None:
            hosts[order.engine_id] -= 1
            zones[order.zone] -= 1
    return victims


#: The order in which tasks are ended, by their states.
_GROUPS: Final = {State.QUEUED: 1, State.DISPATCHED: 2, State.STARTING: 2, State.RUNNING: 3}


def _group(task: Task) -> int:
    is_stopping = task.kill is not None or task.stop_for is not None
    return 0 if is_stopping or task.state.is_final else _GROUPS[task.state]


def _resize(job: Job, due: datetime) -> Deadline:
    return Deadline(kind=DeadlineKind.RESIZE, entity=job.id, due=due)
