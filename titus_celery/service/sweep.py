"""What control does when it is woken: act on due deadlines, give up lost agents, place tasks.

Every step is idempotent, so any number of sweeps may run at once, on any number of hosts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final, assert_never

from titus_celery.core import jobs as deciding
from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import Spans, dispatched, ended, killed, replaced, republished, waiting
from titus_celery.core.model import (
    Agent,
    Deadline,
    DeadlineKind,
    Demand,
    Job,
    JobId,
    KillIntent,
    Task,
    TaskId,
)
from titus_celery.core.placement import DEFAULT_QUEUE, Board
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.resources import demand
from titus_celery.core.states import State
from titus_celery.errors import Conflict, Full, NotFound, StoreCorrupt, TitusError, Unavailable
from titus_celery.ports import AgentRegistry, Leases, Records, TaskView
from titus_celery.service.change import WritePath

__all__ = ["WAKE_FLAG", "Sweep", "Timer"]

#: Raised by who wakes control, lowered by the sweep: many wakes in a row cost one message.
WAKE_FLAG: Final = "wake"
#: Deadlines, and queued tasks, looked at in one go: bounds the cost of a sweep.
BATCH_MAX: Final = 500
#: Queued tasks looked at now and then, so that what fits is found behind many that do not: above
#: what one store is sized for, and some 40 MB.
QUEUE_LOOK_MAX: Final = 20_000
#: Between two such looks while the queue is that long: they cost a tenth of this at most.
QUEUE_LOOK_PERIOD: Final = timedelta(seconds=5)
#: Waiting tasks whose record is told anew, per sweep, why they wait: the head of the queue matters.
TOLD_MAX: Final = 100
#: How long the timer sleeps at most; a deadline armed by another process is found by then.
SLEEP_MAX: Final = timedelta(seconds=1)
#: Ticks and the timer ask the store every second. A longer silence was an outage, in which agents
#: could not renew either: that time does not count towards their being lost.
STORE_GAP_MAX: Final = timedelta(seconds=5)
#: Sleep after a sweep that failed, so that a broken store is not hammered.
FAILED_SLEEP: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


class Sweep:
    """One pass over all that is due. `run` may be called from any thread at any time."""

    def __init__(
        self,
        *,
        records: Records,
        registry: AgentRegistry,
        leases: Leases,
        writes: WritePath,
        spans: Spans,
        lost_after: timedelta,
    ) -> None:
        self._records = records
        self._registry = registry
        self._leases = leases
        self._writes = writes
        self._spans = spans
        self._lost_after = lost_after
        self._store_seen: datetime | None = None
        self._store_since: datetime | None = None
        self._next_far_look: datetime | None = None
        self._wanted = threading.Event()
        self._running = threading.Lock()
        #: Set after each pass: there may be new deadlines.
        self.passed = threading.Event()

    def run(self) -> None:
        """Sweep now; if a sweep is under way in this process, it goes round once more instead."""
        self._wanted.set()
        while self._wanted.is_set() and self._running.acquire(blocking=False):
            try:
                self._wanted.clear()
                self._once()
            finally:
                self._running.release()
                self.passed.set()

    def saw_store(self, now: datetime) -> None:
        """The store answered at its *now*; a long silence before starts the patience with agents anew."""
        if self._store_seen is None or now - self._store_seen > STORE_GAP_MAX:
            self._store_since = now
        self._store_seen = now

    def _once(self) -> None:
        # Lowered first: whoever commits from here on wakes us again.
        self._leases.lower_flag(WAKE_FLAG)
        now = self._records.now()
        self.saw_store(now)
        faults: list[TitusError] = []
        self._act_on_due(now, faults)
        agents, now = self._registry.agents()
        self._give_up_lost(agents, now, faults)
        self._place(agents, now, faults)
        if faults:
            # Only now: what is broken must not keep the rest from going on.
            raise faults[0]

    def _act_on_due(self, now: datetime, faults: list[TitusError]) -> None:
        seen: set[Deadline] = set()
        while fresh := [each for each in self._records.due(now, BATCH_MAX) if each not in seen]:
            seen.update(fresh)
            for deadline in fresh:
                with _put_off(faults, f"deadline {deadline.kind.value} of {deadline.entity}"):
                    self._act(deadline)

    def _act(self, deadline: Deadline) -> None:
        try:
            is_settled = self._decide(deadline).is_empty
        except NotFound:
            is_settled = True
        if is_settled:
            # The record moved on without it.
            self._records.disarm(deadline)

    def _decide(self, deadline: Deadline) -> Decision:
        match deadline.kind:
            case DeadlineKind.RETRY:
                return self._writes.on_task(TaskId(deadline.entity), replaced)
            case DeadlineKind.REPUBLISH:
                return self._writes.on_task(
                    TaskId(deadline.entity), lambda job, task, now: republished(job, task, now, self._spans)
                )
            case DeadlineKind.LIMIT | DeadlineKind.STUCK:
                return self._overdue(TaskId(deadline.entity), deadline.kind)
            case DeadlineKind.FANOUT:
                return self._fan_out(JobId(deadline.entity))
            case DeadlineKind.SETTLE:
                return self._settle(JobId(deadline.entity))
            case _:
                assert_never(deadline.kind)

    def _overdue(self, id: TaskId, kind: DeadlineKind) -> Decision:
        """A task that its agent should have ended long ago."""

        def decide(job: Job, task: Task, now: datetime) -> Decision:
            if kind is DeadlineKind.LIMIT and task.state is State.RUNNING:
                seconds = int(job.descriptor.batch.runtime_limit.total_seconds())
                return ended(job, task, Reason(Code.LIMIT, f"ran longer than {seconds} s"), now)
            if kind is DeadlineKind.STUCK and task.state is State.STARTING:
                seconds = int(self._spans.stuck_after.total_seconds())
                return ended(job, task, Reason(Code.STUCK, f"still STARTING after {seconds} s"), now)
            return Decision(why=f"it is {task.state.name}")

        return self._writes.on_task(id, decide)

    def _fan_out(self, id: JobId) -> Decision:
        """Carry a job's kill to its open tasks. The deadline stays until all have it."""
        job, _ = self._records.job(id)
        intent = job.kill
        if intent is not None:
            for task in self._records.open_tasks(id):
                self._writes.on_task(task.id, _kill_for(intent))
        return Decision(why="every task has it")

    def _settle(self, id: JobId) -> Decision:
        has_open = bool(self._records.open_tasks(id))
        return self._writes.on_job(id, lambda job, now: deciding.settled(job, has_open, now))

    def _give_up_lost(self, agents: Sequence[Agent], now: datetime, faults: list[TitusError]) -> None:
        """Tasks of agents that were silent too long are lost (docs/semantics.md A8)."""
        # An agent could not renew while the store was away, or all of us were suspended.
        since = self._store_since or now
        for agent in agents:
            if now - max(agent.lease_until, since) < self._lost_after:
                continue
            silent = int((now - agent.lease_until).total_seconds())
            reason = Reason(Code.LOST, f"agent {agent.id} has been silent for {silent} s")
            for view in self._registry.tasks_on(agent.id):
                with _put_off(faults, f"task {view.task.id}"):
                    self._writes.on_task(view.task.id, _lose_to(reason, agent))

    def _place(self, agents: Sequence[Agent], now: datetime, faults: list[TitusError]) -> None:
        board = Board.of(agents, now)
        refused: dict[Demand, str] = {}
        told = 0
        for view in self._queued(now):
            with _put_off(faults, f"task {view.task.id}"):
                need = demand(view.job.descriptor.container.resources)
                why = refused.get(need) or self._place_one(board, view, need)
                if not why:
                    continue
                refused[need] = why
                if told < TOLD_MAX and not waiting(view.task, why).is_empty:
                    told += 1
                    self._tell(view.task.id, why)

    def _queued(self, now: datetime) -> Sequence[TaskView]:
        """The head of the queue; now and then all of it, lest what could run waits behind what cannot."""
        if self._next_far_look is not None and now < self._next_far_look:
            return self._records.queued(BATCH_MAX)
        views = self._records.queued(QUEUE_LOOK_MAX)
        self._next_far_look = now + QUEUE_LOOK_PERIOD if len(views) > BATCH_MAX else None
        return views

    def _place_one(self, board: Board, view: TaskView, need: Demand) -> str:
        """Dispatch one task; "" or why it must wait."""
        while True:
            agent = board.pick(DEFAULT_QUEUE, need)
            if isinstance(agent, str):
                return agent
            try:
                decision = self._writes.on_task(view.task.id, _dispatch_to(agent, need, self._spans))
            except Full:
                board.drop(agent)
                continue
            if not decision.is_empty:
                board.take(agent, need)
            return ""

    def _tell(self, id: TaskId, why: str) -> None:
        self._writes.on_task(id, lambda job, task, now: waiting(task, why))


class Timer:
    """Wakes a sweep at each deadline, so that none waits for a tick."""

    def __init__(self, records: Records, sweep: Sweep) -> None:
        self._records = records
        self._sweep = sweep

    def run(self, stop: threading.Event) -> None:
        """Until *stop* is set, sweep whenever a deadline is due; survives a store that is away."""
        while not stop.is_set():
            try:
                self._sweep.passed.clear()
                left = self._left()
                if left > timedelta(0):
                    self._sweep.passed.wait(min(left, SLEEP_MAX).total_seconds())
                else:
                    self._sweep.run()
                    # At once, unless the pass is another thread's.
                    self._sweep.passed.wait(SLEEP_MAX.total_seconds())
            except Unavailable as error:
                _log.warning("deadlines wait: %s", error)
                stop.wait(FAILED_SLEEP.total_seconds())
            except Exception:
                # A thread that ended here would silently cost every deadline its promptness.
                _log.exception("sweep at a deadline failed; trying again")
                stop.wait(FAILED_SLEEP.total_seconds())

    def _left(self) -> timedelta:
        due, now = self._records.next_due(), self._records.now()
        self._sweep.saw_store(now)
        return SLEEP_MAX if due is None else due - now


@contextmanager
def _put_off(faults: list[TitusError], what: str) -> Iterator[None]:
    """Keep a fault of one record for the end of the sweep; a store that is away ends it at once."""
    try:
        yield
    except (Conflict, NotFound, StoreCorrupt) as error:
        _log.warning("%s is passed over: %s", what, error)
        faults.append(error)


_Decide = Callable[[Job, Task, datetime], Decision]


def _kill_for(intent: KillIntent) -> _Decide:
    return lambda job, task, now: killed(job, task, intent, now)


def _dispatch_to(agent: Agent, need: Demand, spans: Spans) -> _Decide:
    return lambda job, task, now: dispatched(job, task, agent, need, now, spans)


def _lose_to(reason: Reason, agent: Agent) -> _Decide:
    def decide(job: Job, task: Task, now: datetime) -> Decision:
        if task.holds is None or task.holds.agent_id != agent.id:
            return Decision(why="it is elsewhere")
        return ended(job, task, reason, now)

    return decide
