"""What control does when a deadline comes.

A deadline is only an occasion to look. Whether what it stands for is really over is asked of the store's
time as it went by (`Steady`), because one that is due may be so only because the clock was set.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, assert_never

from titus_celery.core import jobs as deciding
from titus_celery.core import mantis
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import MantisSpec
from titus_celery.core.lifecycle import (
    LIMIT_BACKSTOP,
    Spans,
    killed,
    over_limit,
    replaced,
    republished,
    told_to_stop,
)
from titus_celery.core.model import Deadline, DeadlineKind, Job, JobId, KillIntent, Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.sizing import resized
from titus_celery.core.states import State
from titus_celery.errors import NotFound, TitusError
from titus_celery.ports import Records, Subscribers
from titus_celery.service.ahead import Ahead
from titus_celery.service.change import WritePath
from titus_celery.service.faults import put_off
from titus_celery.service.keeper import Keeper
from titus_celery.service.lookout import Lookout

__all__ = ["Deadlines"]

#: Deadlines looked at in one go: bounds the cost of a sweep.
BATCH_MAX: Final = 500
#: Replaced tasks that a living job keeps, about as many as come with it when it is looked at (A17).
FINISHED_KEPT: Final = 1_000
#: Once the store is there again agents tell within a second what happened meanwhile, and only then
#: can it be said that one of them did not do what it should have.
JUDGING_HELD: Final = timedelta(seconds=10)
#: Deadlines at which several records are looked at, any of which somebody may move meanwhile, who then arms
#: the deadline again; and when they are looked at again if the look itself came to nothing.
_LOOKS: Final = frozenset({DeadlineKind.PROGRESS, DeadlineKind.KEEP})
LOOK_AGAIN: Final = timedelta(seconds=5)


class Deadlines:
    """Acts on what is due. Any number of processes may do it at once."""

    def __init__(
        self,
        *,
        records: Records,
        writes: WritePath,
        lookout: Lookout,
        spans: Spans,
        subscribers: Subscribers,
        keeper: Keeper,
        ahead: Ahead,
    ) -> None:
        self._records = records
        self._writes = writes
        self._lookout = lookout
        self._spans = spans
        self._subscribers = subscribers
        self._keeper = keeper
        self._ahead = ahead

    def act_on_due(self, now: datetime, faults: list[TitusError]) -> None:
        """Act on every deadline that is due at *now*, each once."""
        seen: set[Deadline] = set()
        while fresh := [each for each in self._records.due(now, BATCH_MAX) if each not in seen]:
            seen.update(fresh)
            self._ahead.foresee(fresh)
            for deadline in fresh:
                self._lookout.look_if_due()
                with put_off(faults, f"deadline {deadline.kind.value} of {deadline.entity}"):
                    self._act(deadline)

    def _act(self, deadline: Deadline) -> None:
        if deadline.kind in _LOOKS:
            deadline = self._moved(deadline)
        try:
            is_settled = self._decide(deadline).is_empty
        except NotFound:
            is_settled = True
        if is_settled:
            # The record moved on without it.
            self._records.disarm(deadline)

    def _moved(self, deadline: Deadline) -> Deadline:
        """The deadline, moved before the look: so it is not taken for settled if it is armed again meanwhile,
        even for the moment for which it was armed before."""
        later = self._writes.create(lambda now: Decision(arm=(_due(deadline, now + LOOK_AGAIN),)))
        return later.arm[0]

    def _decide(self, deadline: Deadline) -> Decision:
        match deadline.kind:
            case DeadlineKind.RETRY:
                return self._on_task(deadline, self._retry)
            case DeadlineKind.REPUBLISH:
                return self._on_task(deadline, self._republish)
            case DeadlineKind.LIMIT | DeadlineKind.STUCK:
                return self._on_task(deadline, self._overdue)
            case DeadlineKind.FANOUT:
                return self._fan_out(JobId(deadline.entity))
            case DeadlineKind.SETTLE:
                return self._settle(JobId(deadline.entity))
            case DeadlineKind.RESIZE:
                return self._resize(JobId(deadline.entity))
            case DeadlineKind.PRUNE:
                self._records.prune(JobId(deadline.entity), FINISHED_KEPT)
                return Decision(why="the oldest are gone")
            case DeadlineKind.ARCHIVE:
                self._records.archive(JobId(deadline.entity))
                return Decision(why="it is archived")
            case DeadlineKind.PROGRESS:
                return self._writes.on_slots(JobId(deadline.entity), mantis.moved_on)
            case DeadlineKind.EXPIRE:
                return self._writes.on_job(JobId(deadline.entity), partial(self._expire, deadline))
            case DeadlineKind.IDLE:
                return self._idle(deadline)
            case DeadlineKind.ABANDON:
                return self._writes.on_job(
                    JobId(deadline.entity),
                    lambda job, now: deciding.kill_requested(job, mantis.abandoned(job, now)),
                )
            case DeadlineKind.KEEP:
                return self._keeper.keep(deadline)
            case DeadlineKind.CRON:
                return self._keeper.fire(deadline)
            case _:
                assert_never(deadline.kind)

    def _on_task(
        self, deadline: Deadline, decide: Callable[[Deadline, Job, Task, datetime], Decision]
    ) -> Decision:
        def when_sure(job: Job, task: Task, now: datetime) -> Decision:
            if not self._lookout.is_sure_of(now):
                return Decision(arm=(deadline,), why="the clock may have been set: the next look tells")
            return decide(deadline, job, task, now)

        return self._writes.on_task(TaskId(deadline.entity), when_sure)

    # ------------------------------------------------------------------------------------- tasks

    def _retry(self, deadline: Deadline, job: Job, task: Task, now: datetime) -> Decision:
        """The replacement, once the delay is over."""
        if task.retry_at is None:
            return replaced(job, task, now)
        ended = task.history[-1].at
        delay = task.retry_at - ended
        # A deadline that was pulled knows better than a record from before the clock was set back.
        left = delay - self._lookout.steady.elapsed(min(ended, deadline.due - delay), now)
        return _again(deadline, now + left) if left > timedelta(0) else replaced(job, task, now)

    def _republish(self, deadline: Deadline, job: Job, task: Task, now: datetime) -> Decision:
        """The order again, or the end of patience with it."""
        at = task.history[-1].at
        is_dated_before = at > now and len(task.history) > 1 and task.history[-2].at == at
        # Then it took the time of the state before, and nobody knows its own.
        waited = timedelta(0) if is_dated_before else self._lookout.steady.waited(at, now)
        return republished(job, task, now, self._spans, waited)

    def _overdue(self, deadline: Deadline, job: Job, task: Task, now: datetime) -> Decision:
        """A task that its agent should have ended long ago is to be ended by it now (A5, B3.1)."""
        limit = job.descriptor.runtime_limit
        match deadline.kind, task.state:
            case DeadlineKind.LIMIT, State.RUNNING if limit:
                span, reason = limit + LIMIT_BACKSTOP, over_limit(limit)
            case DeadlineKind.STUCK, State.STARTING:
                span = self._spans.stuck(job)
                reason = Reason(Code.STUCK, f"still STARTING after {int(span.total_seconds())} s")
            case _:
                return Decision(why=f"it is {task.state.name}")
        left = max(self._left(deadline, span, task.history[-1].at, now), self._held(now))
        if left > timedelta(0):
            return _again(deadline, now + left)
        return told_to_stop(job, task, reason, _due(deadline, now + LIMIT_BACKSTOP))

    def _left(self, deadline: Deadline, span: timedelta, began: datetime, now: datetime) -> timedelta:
        """What is really left of *span*, at most, of something the record dates *began*."""
        elapsed = self._lookout.steady.elapsed
        # The record may have taken the date of the state before, if the clock was set back: then only
        # the deadline knows when it began. And the deadline may have been pulled although it was armed
        # by the clock as it is now: then only the record knows. Either makes it too long, never too short.
        return span - min(elapsed(began, now), elapsed(min(began, deadline.due - span), now))

    def _held(self, now: datetime) -> timedelta:
        return self._lookout.steady.since(now) + JUDGING_HELD - now

    # -------------------------------------------------------------------------------------- jobs

    def _fan_out(self, id: JobId) -> Decision:
        """Carry a job's kill to its open tasks. The deadline stays until all have it."""
        job, _ = self._records.job(id)
        intent = job.kill
        if intent is not None:
            tasks = self._records.open_tasks(id)
            for task in tasks:
                self._writes.on_task(task.id, _kill_for(intent))
            if not tasks:
                # Nothing is left whose end would end the job.
                self._settle(id)
        return Decision(why="every task has it")

    def _resize(self, id: JobId) -> Decision:
        """Make as many slots as are wanted, or fewer; the deadline stays until that is so."""
        while not (step := self._writes.on_slots(id, resized)).is_empty:
            self._lookout.look_if_due()
        return step

    def _expire(self, deadline: Deadline, job: Job, now: datetime) -> Decision:
        """A Mantis job ends that has run for as long as it may since it was submitted (B6.5)."""
        spec = job.descriptor.spec
        if not isinstance(spec, MantisSpec) or not (limit := spec.agreement.runtime_limit):
            return Decision(why="it has no limit")
        left = self._left(deadline, limit, job.created_at, now)
        if not self._lookout.is_sure_of(now) or left > timedelta(0):
            return _again(deadline, now + max(left, timedelta(seconds=1)))
        return deciding.kill_requested(job, mantis.expired(job, now))

    def _idle(self, deadline: Deadline) -> Decision:
        """A transient Mantis job ends that has had no subscribers for too long (A15)."""
        until = self._subscribers.until(JobId(deadline.entity))

        def decide(job: Job, now: datetime) -> Decision:
            if job.state.is_final or job.kill is not None:
                return Decision(why="it ends already")
            began = next((step.at for step in job.history if step.state is State.RUNNING), None)
            elapsed = self._lookout.steady.elapsed
            ran = None if began is None else elapsed(began, now)
            lonely = (ran or timedelta(0)) if until is None else elapsed(until, now)
            found = mantis.idle(job, ran, lonely, now)
            if isinstance(found, timedelta):
                return _again(deadline, now + found)
            if (held := self._held(now)) > timedelta(0):
                # Gateways could not say it while the store was away.
                return _again(deadline, now + held)
            if not self._lookout.is_sure_of(now):
                return Decision(arm=(deadline,), why="the clock may have been set: the next look tells")
            return deciding.kill_requested(job, found)

        return self._writes.on_job(JobId(deadline.entity), decide)

    def _settle(self, id: JobId) -> Decision:
        has_open = bool(self._records.open_tasks(id))
        return self._writes.on_job(id, lambda job, now: deciding.settled(job, has_open, now))


def _due(deadline: Deadline, due: datetime) -> Deadline:
    return Deadline(kind=deadline.kind, entity=deadline.entity, due=due)


def _again(deadline: Deadline, due: datetime) -> Decision:
    """Look again at *due*: it is not over yet."""
    # Up to the next millisecond, because the store drops the rest and would have us look at once.
    rest = timedelta(microseconds=-due.microsecond % 1_000)
    return Decision(arm=(_due(deadline, due + rest),), why="only the clock says that it is over")


def _kill_for(intent: KillIntent) -> Callable[[Job, Task, datetime], Decision]:
    return lambda job, task, now: killed(job, task, intent, now)
