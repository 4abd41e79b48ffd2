"""Which queued tasks control looks at, and dispatching those for which there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import Spans, dispatched, waiting
from titus_celery.core.model import Agent, Demand, Job, Task, TaskId
from titus_celery.core.placement import DEFAULT_QUEUE, Board
from titus_celery.core.resources import demand
from titus_celery.errors import Full, TitusError
from titus_celery.ports import Clock, Records, TaskView
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


class Placing:
    """Finds an agent for each queued task, or writes down why none will do."""

    def __init__(
        self, *, records: Records, writes: WritePath, lookout: Lookout, clock: Clock, spans: Spans
    ) -> None:
        self._records = records
        self._writes = writes
        self._lookout = lookout
        self._clock = clock
        self._spans = spans
        self._next_far_look: timedelta | None = None

    def place(self, agents: Sequence[Agent], now: datetime, faults: list[TitusError]) -> None:
        """Place what can be placed on *agents* as they were at *now*; nothing after a new store epoch."""
        board = Board.of(agents, now)
        refused: dict[Demand, str] = {}
        told = 0
        views = self._queued()
        # Only now: had the store restarted before it was read, this look tells.
        self._lookout.look()
        for view in views:
            self._lookout.look_if_due()
            if self._lookout.is_placing_held():
                return
            with put_off(faults, f"task {view.task.id}"):
                need = demand(view.job.descriptor.container.resources)
                why = refused.get(need) or self._place_one(board, view, need)
                if not why:
                    continue
                refused[need] = why
                if told < TOLD_MAX and not waiting(view.task, why).is_empty:
                    told += 1
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


def _dispatch_to(agent: Agent, need: Demand, spans: Spans) -> Callable[[Job, Task, datetime], Decision]:
    return lambda job, task, now: dispatched(job, task, agent, need, now, spans)
