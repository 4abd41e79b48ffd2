"""How many slots a job has: made a bounded number at a time, and of a service taken away again.

What is wanted is on the job's record; carrying it out is a step of its own that may be repeated until
nothing is left to do. Each such step is refused if another one of the same job came first, so two of
them never make or take away too much between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from titus_celery.core.decision import Decision, StopTask, Wake
from titus_celery.core.descriptor import BatchSpec, MantisSpec, ServiceSpec
from titus_celery.core.lifecycle import ended, first_task
from titus_celery.core.model import Deadline, DeadlineKind, EngineId, Job, StageSlots, Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

__all__ = [
    "SLOTS_PER_COMMIT",
    "VICTIMS_PER_COMMIT",
    "exhausted",
    "first_slots",
    "is_complete",
    "is_spent",
    "resize_requested",
    "resized",
    "status_requested",
]

#: Slots made by one commit, which takes the store some 15 ms: the whole of most jobs.
SLOTS_PER_COMMIT: Final = 1_000
#: Tasks that one commit of a shrinking service ends: it is refused if any of them moved meanwhile.
VICTIMS_PER_COMMIT: Final = 50


@dataclass(frozen=True, slots=True)
class _Part:
    """Slots that are counted together: those of a job, or of one stage of a Mantis job."""

    stage: int | None
    desired: int
    made: int
    #: Those that are over for good, and that the job was not made smaller by.
    exhausted: int

    def lacking(self, open_tasks: Sequence[Task]) -> int:
        """How many slots are to be made; below zero: to be taken away."""
        standing = sum(task.stage == self.stage and not task.is_surplus for task in open_tasks)
        return self.desired - standing - self.exhausted


def _parts(job: Job) -> list[_Part]:
    spec = job.descriptor.spec
    if not isinstance(spec, MantisSpec):
        return [_Part(None, spec.desired, job.slots_made, exhausted(job))]
    counts = job.stages or (StageSlots(),) * len(spec.stages)
    return [
        _Part(number, stage.desired, count.made, job.stages_over.get(str(number), 0) - count.dropped)
        for number, (stage, count) in enumerate(zip(spec.stages, counts, strict=True))
    ]


def exhausted(job: Job) -> int:
    """How many of its slots are over for good, and were not taken away."""
    return job.slots_ok + job.slots_failed - job.slots_dropped


def is_spent(job: Job) -> bool:
    """Whether a job without open slots has none to come: of one that its owner may make larger at any time,
    only if all that it is to have were over for good (B3.3)."""
    spec = job.descriptor.spec
    if isinstance(spec, BatchSpec):
        return job.slots_made >= spec.desired
    parts = _parts(job)
    return any(part.desired for part in parts) and all(part.desired <= part.exhausted for part in parts)


def is_complete(job: Job, running: Sequence[Task]) -> bool:
    """Whether as many of these run as are wanted of each part, but for slots that are over."""
    return all(part.lacking(running) <= 0 for part in _parts(job))


def first_slots(job: Job, now: datetime) -> Decision:
    """A new job with as many of its slots as one commit makes."""
    spec = job.descriptor.spec
    if isinstance(spec, MantisSpec):
        job = replace(job, stages=(StageSlots(),) * len(spec.stages))
    return _grown(job, [(part, part.desired) for part in _parts(job)], now)


def resize_requested(job: Job, spec: ServiceSpec | MantisSpec, now: datetime) -> Decision:
    """Another number of tasks is wanted; nothing if it is that one already."""
    if job.descriptor.spec == spec:
        return Decision(why="it is so already")
    return Decision(job=job.with_spec(spec), arm=(_resize(job, now),), commands=(Wake(),))


def status_requested(job: Job, spec: ServiceSpec | MantisSpec, is_enabled: bool) -> Decision:
    """Scaling by policies is switched on or off; nothing if it is so already."""
    if spec.enabled == is_enabled:
        return Decision(why="it is so already")
    return Decision(job=job.with_spec(replace(spec, enabled=is_enabled)))


def resized(job: Job, open_tasks: Sequence[Task], now: datetime) -> Decision:
    """One step towards as many slots as are wanted; nothing once there are."""
    if job.kill is not None or job.state.is_final:
        return Decision(why="it gets no further slots")
    parts = [(part, _lacking(job, part, open_tasks)) for part in _parts(job)]
    if growing := [(part, count) for part, count in parts if count > 0]:
        return _grown(job, growing, now)
    for part, count in parts:
        if count < 0:
            return _shrunk(job, part, open_tasks, -count, now)
    return Decision(why="it has as many as are wanted")


def _lacking(job: Job, part: _Part, open_tasks: Sequence[Task]) -> int:
    if isinstance(job.descriptor.spec, BatchSpec):
        return part.desired - part.made
    return part.lacking(open_tasks)


def _grown(job: Job, wanted: Sequence[tuple[_Part, int]], now: datetime) -> Decision:
    """As many slots more of each part, in their order, as one commit makes."""
    left = SLOTS_PER_COMMIT
    tasks: list[Task] = []
    for part, count in wanted:
        slots = range(part.made, part.made + min(count, left))
        left -= len(slots)
        tasks += (first_task(job.id, slot, now, part.stage) for slot in slots)
        job = _counted(job, part, made=len(slots))
    return Decision(
        job=job,
        tasks=tuple(tasks),
        # To see whether more are to be made.
        arm=(_resize(job, now),) if not left else (),
        commands=(Wake(),),
    )


def _counted(job: Job, part: _Part, made: int = 0, dropped: int = 0) -> Job:
    """*job* with so many slots more made, and dropped, of this part."""
    job = replace(job, slots_made=job.slots_made + made, slots_dropped=job.slots_dropped + dropped)
    if part.stage is None:
        return job
    stages = list(job.stages)
    before = stages[part.stage]
    stages[part.stage] = StageSlots(made=before.made + made, dropped=before.dropped + dropped)
    return replace(job, stages=tuple(stages))


def _shrunk(job: Job, part: _Part, open_tasks: Sequence[Task], surplus: int, now: datetime) -> Decision:
    """Slots in which nothing runs any more go first; then those whose tasks are missed least (B1.10)."""
    dropped = min(surplus, part.exhausted)
    count = min(surplus - dropped, VICTIMS_PER_COMMIT)
    if part.stage is None:
        chosen = _victims(open_tasks, count)
    else:
        chosen = _last_workers([task for task in open_tasks if task.stage == part.stage], count)
    reason = Reason(
        Code.SCALED_DOWN, f"{part.desired} {'task is' if part.desired == 1 else 'tasks are'} wanted"
    )
    steps = [_taken_away(job, task, reason, now) for task in chosen]
    return Decision(
        # Also without a slot dropped: the job's new version keeps others from ending as many again.
        job=_counted(job, part, dropped=dropped),
        tasks=tuple(task for step in steps for task in step.tasks),
        arm=(_resize(job, now), *_progress(job, now)),
        disarm=tuple(each for step in steps for each in step.disarm),
        commands=(*(command for step in steps for command in step.commands), Wake()),
    )


def _last_workers(workers: Sequence[Task], count: int) -> list[Task]:
    """Of a stage of a Mantis job the newest slots (B1.10)."""
    left = [task for task in workers if not task.is_surplus]
    return sorted(left, key=lambda task: task.slot, reverse=True)[:count]


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


def _progress(job: Job, now: datetime) -> tuple[Deadline, ...]:
    """Of those that stay all may run."""
    if not job.is_staged or job.state >= State.RUNNING:
        return ()
    return (Deadline(kind=DeadlineKind.PROGRESS, entity=job.id, due=now),)


def _resize(job: Job, due: datetime) -> Deadline:
    return Deadline(kind=DeadlineKind.RESIZE, entity=job.id, due=due)
