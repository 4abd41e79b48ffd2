"""Which queued tasks control looks at, and dispatching those for which there is room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import Spans, dispatched, waiting
from titus_celery.core.model import Agent, EngineId, Job, JobId, Task, TaskId
from titus_celery.core.placement import NOWHERE, Board, Need, need_of
from titus_celery.errors import Full, TitusError
from titus_celery.ports import AgentRegistry, Clock, Records, TaskView
from titus_celery.service.change import WritePath
from titus_celery.service.faults import put_off
from titus_celery.service.lookout import Lookout

__all__ = ["Placing"]

#: Queued tasks looked at in one go: bounds the cost of a sweep.
HEAD_MAX: Final = 500
#: Queued tasks looked at now and then, so that what fits is found behind many that do not: above
#: what one store is sized for, and some 40 MB.
QUEUE_LOOK_MAX: Final = 20_000
#: Between two such looks while the queue is that long: they cost a tenth of this at most.
QUEUE_LOOK_PERIOD: Final = timedelta(seconds=5)
#: Waiting tasks whose record is told anew, per sweep, why they wait: the head of the queue matters.
TOLD_MAX: Final = 100
_Inventories = Mapping[EngineId, Mapping[str, str]]


class Placing:
    """Finds an agent for each queued task, or writes down why none will do."""

    def __init__(
        self,
        *,
        records: Records,
        registry: AgentRegistry,
        writes: WritePath,
        lookout: Lookout,
        clock: Clock,
        spans: Spans,
    ) -> None:
        self._records = records
        self._registry = registry
        self._writes = writes
        self._lookout = lookout
        self._clock = clock
        self._spans = spans
        self._next_far_look: timedelta | None = None

    def place(self, agents: Sequence[Agent], now: datetime, faults: list[TitusError]) -> None:
        """Place what can be placed on *agents* as they were at *now*; nothing after a new store epoch."""
        views = self._queued()
        # Only now: had the store restarted before it was read, this look tells.
        self._lookout.look()
        if not views:
            return
        go = _Pass(Board.of(agents, now), self._registry.images())
        for view in views:
            self._lookout.look_if_due()
            if self._lookout.is_placing_held():
                return
            with put_off(faults, f"task {view.task.id}"):
                need = go.need_of(view.job, view.task.stage)
                why = go.refusal(view.job.id, need) or self._place_one(go, view, need)
                if not why:
                    continue
                go.refuse(view.job.id, need, why)
                if go.told < TOLD_MAX and not waiting(view.task, why).is_empty:
                    go.told += 1
                    self._tell(view.task.id, why)

    def _queued(self) -> Sequence[TaskView]:
        """The head of the queue; now and then all of it, lest what could run waits behind what cannot."""
        # By our own clock, because the store's may be set back by hours.
        own = self._clock.monotonic()
        if self._next_far_look is not None and own < self._next_far_look:
            return self._records.queued(HEAD_MAX)
        views = self._records.queued(QUEUE_LOOK_MAX)
        self._next_far_look = own + QUEUE_LOOK_PERIOD if len(views) > HEAD_MAX else None
        return views

    def _place_one(self, go: _Pass, view: TaskView, need: Need) -> str:
        """Dispatch one task; "" or why it must wait."""
        spread = NOWHERE
        if need.looks_at_others:
            spread = go.spread_of(view.job.id, self._records.spread)
        while True:
            agent = go.board.pick(need, spread)
            if isinstance(agent, str):
                return agent
            own = spread.get(agent.engine_id, 0)
            try:
                decision = self._writes.on_task(view.task.id, _dispatch_to(agent, need, self._spans, own))
            except Full:
                go.board.drop(agent)
                continue
            if not decision.is_empty:
                go.take(view.job.id, agent, decision.tasks[0])
            return ""

    def _tell(self, id: TaskId, why: str) -> None:
        self._writes.on_task(id, lambda job, task, now: waiting(task, why))


class _Pass:
    """What one pass knows: the board, and what it found out about jobs."""

    def __init__(self, board: Board, inventories: _Inventories) -> None:
        self.board = board
        self.told = 0
        self._inventories = inventories
        self._needs: dict[tuple[JobId, int | None], Need] = {}
        self._spreads: dict[JobId, dict[EngineId, int]] = {}
        self._refused: dict[tuple[Need, JobId | None], str] = {}

    def need_of(self, job: Job, stage: int | None) -> Need:
        """What each task of the job's stage needs."""
        key = job.id, stage
        if key not in self._needs:
            self._needs[key] = need_of(job.descriptor.container_of(stage), self._inventories)
        return self._needs[key]

    def spread_of(self, id: JobId, read: Callable[[JobId], Mapping[EngineId, int]]) -> Mapping[EngineId, int]:
        """How many tasks of the job each engine has, those of this pass included."""
        if id not in self._spreads:
            self._spreads[id] = dict(read(id))
        return self._spreads[id]

    def take(self, id: JobId, agent: Agent, task: Task) -> None:
        """A task of the job was dispatched to *agent*."""
        if (order := task.dispatch) is None:
            return
        self.board.take(agent, order.demand, order.gpus, exclusive=order.is_exclusive)
        if (spread := self._spreads.get(id)) is not None:
            spread[agent.engine_id] = spread.get(agent.engine_id, 0) + 1

    def refusal(self, id: JobId, need: Need) -> str:
        """Why another task with this need had to wait; "" if none had to."""
        return self._refused.get(self._key(id, need), "")

    def refuse(self, id: JobId, need: Need, why: str) -> None:
        """No agent will do for this need."""
        self._refused[self._key(id, need)] = why

    def _key(self, id: JobId, need: Need) -> tuple[Need, JobId | None]:
        # Where other tasks are is each job's own affair; all else is the same for all.
        return need, id if need.looks_at_others else None


def _dispatch_to(
    agent: Agent, need: Need, spans: Spans, own: int
) -> Callable[[Job, Task, datetime], Decision]:
    return lambda job, task, now: dispatched(job, task, agent, need, now, spans, own)
