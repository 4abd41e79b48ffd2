"""One task on an agent, from the claim to the report of its end.

The message that brought us here is only an order. What may be done is decided on the record, and
from the start on the container is the witness: an agent that comes back finds it by its name and
goes on where it stands. Each step may be the last of this process, and the next one goes on from it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar

from titus_celery.core.decision import Decision
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import claimed, ended, killed_by, over_limit, running
from titus_celery.core.model import NO_ADDRESS, Dispatch, Exit, Job, Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.recovery import Standing, asserted, ended_again, standing
from titus_celery.core.states import State
from titus_celery.errors import (
    EngineFault,
    ImageMissing,
    NotFound,
    StartRefused,
    StoreUnavailable,
    TitusError,
)
from titus_celery.ports import (
    TaskView,
)
from titus_celery.service.container import order_for, why_ended
from titus_celery.service.crash import reached
from titus_celery.service.tools import Announce, Tools
from titus_celery.service.watch import Watch

__all__ = ["Run"]

#: Between two tries to tell the store of an end while it is away.
REPORT_PAUSE: Final = timedelta(seconds=1)
#: How long an engine may be away under a container before the run is given up.
ENGINE_PATIENCE: Final = timedelta(seconds=60)
#: Between two looks at an engine that is away.
ENGINE_PAUSE: Final = timedelta(seconds=1)
#: Between two looks at the record while the lease is not sure.
LEASE_PAUSE: Final = timedelta(seconds=1)

#: Told to nobody, unless a store that restarted forgot what it was that had ended it.
_ELSEWHERE: Final = Reason(Code.LOST, "it was ended elsewhere")

_MEGA: Final = 1_000_000

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Run:
    """The life of one task's container here. `carry` in a thread of its own; the rest from any."""

    def __init__(
        self, id: TaskId, number: int, tools: Tools, announce: Announce, closing: threading.Event
    ) -> None:
        """*closing*: this agent is to end soon, so nothing that is away is waited for."""
        self.id = id
        self._closing = closing
        self._number = number
        self._tools = tools
        self._announce = announce
        self._watch = Watch(id, tools.executor, tools.outputs, tools.grace)
        self._order: Dispatch | None = None
        self._is_up = False
        self._is_forgotten = False
        self._address = NO_ADDRESS
        #: Another agent of this engine has the task: everything here is void.
        self.is_handed_on = False
        self._end: tuple[Reason, Exit | None] | None = None

    def carry(self, *, adopt: bool) -> Task | None:
        """Bring the task to its end; the ended task, or None if this order gives nothing to do.

        Fenced if this process lost its place to another one: nothing more is done to the container.
        """
        try:
            view = self._claimed(adopt)
            if view is None:
                return None
            reached("claimed")
            reason, exit = self._lived(view, adopt)
            if self._is_void:
                return None
            reached("ended")
            self._end = reason, exit
            task = self._report(reason, exit)
            reached("reported")
            if self.is_handed_on:
                return None
            self._remove()
            return task if task.state.is_final else None
        finally:
            self._watch.close()

    def check_disk(self) -> None:
        """End the container if it wrote more than it may (docs/semantics.md A4)."""
        limit = self._order.demand.disk_bytes if self._order is not None and self._is_up else 0
        if limit and (used := self._tools.executor.disk_used(self.id)) > limit:
            what = f"wrote {used / _MEGA:.0f} MB to its disk; its limit is {limit / _MEGA:.0f} MB"
            self.end_for(Reason(Code.FAILED, what))

    @property
    def has_ended(self) -> bool:
        """Whether it saw the end of its container."""
        return self._end is not None

    def end_for(self, reason: Reason) -> None:
        """Have the container stopped for *reason*; returns at once, may be repeated."""
        self._watch.end_for(reason)

    def look_after(self) -> None:
        """Hold the run against its record, and act on what that wants; may be repeated at will."""
        if self._order is None:
            return
        view = self._tools.records.task(self.id)
        stands = standing(view.task, self._order)
        self._is_forgotten = stands is Standing.FORGOTTEN
        match stands:
            case Standing.HANDED_ON:
                self.is_handed_on = True
            case Standing.OVER:
                self._watch.end_for(_ELSEWHERE)
            case Standing.FORGOTTEN if self._is_up:
                self._assert()
            case Standing.OURS:
                self._obey(view)
            case _:
                _log.info("task %s: the store forgot its order, so nothing is started under it", self.id)

    def tell_again(self) -> None:
        """Tell the store what it may have forgotten when it restarted. StoreUnavailable if it is away."""
        if self._order is None:
            return
        if self._end is not None:
            self._tools.writes.on_task(self.id, self._end_of(*self._end))
        elif self._is_up:
            self._assert()

    def is_of(self, id: TaskId, number: int) -> bool:
        """Whether this is the run of that task under that order."""
        return (self.id, self._number) == (id, number)

    @property
    def _is_void(self) -> bool:
        """Whether the order is no order any more, and what is on the engine somebody else's affair."""
        # What runs is told to a store that forgot it; what does not was never ordered.
        return self.is_handed_on or (self._is_forgotten and not self._is_up)

    # ------------------------------------------------------------------------------------- claim

    def _claimed(self, adopt: bool) -> TaskView | None:
        try:
            return self._claim(adopt)
        except StoreUnavailable:
            # It may have been committed all the same: then what stands there is our own claim.
            return self._insist(lambda: self._claim(True))

    def _claim(self, adopt: bool) -> TaskView | None:
        seen: list[TaskView] = []
        me = self._tools.agent.id

        def decide(job: Job, task: Task, now: datetime) -> Decision:
            decision = claimed(job, task, me, self._number, now, self._tools.spans)
            seen[:] = [TaskView(job, decision.tasks[0] if decision.tasks else task, now)]
            return decision

        try:
            decision = self._tools.writes.on_task(self.id, decide)
        except NotFound:
            _log.warning("task %s: order %d is for a task that is not known", self.id, self._number)
            return None
        view = seen[0]
        if decision.is_empty and not (adopt and self._is_ours(view.task)):
            _log.info("task %s: order %d dropped: %s", self.id, self._number, decision.why)
            return None
        self._order = view.task.dispatch
        return view

    def _is_ours(self, task: Task) -> bool:
        order = task.holds
        return (
            order is not None
            and task.state in (State.STARTING, State.RUNNING)
            and (order.agent_id, order.number) == (self._tools.agent.id, self._number)
        )

    # ------------------------------------------------------------------------------------- life

    def _lived(self, view: TaskView, adopt: bool) -> tuple[Reason, Exit | None]:
        """Bring the container up unless it is, and see it end: why, and how."""
        if view.task.state is State.STARTING:
            self._announce(State.STARTING)
            refusal = self._bring_up(view, adopt)
            if refusal is not None:
                return refusal
        else:
            self._is_up, self._address = True, view.task.address
            self._announce(State.RUNNING)
            # The process before us may have stopped it for what is on record.
            self._obey(view)
        return self._see_through()

    def _bring_up(self, view: TaskView, adopt: bool) -> tuple[Reason, Exit | None] | None:
        """From STARTING to RUNNING; or why the container could not start."""
        executor = self._tools.executor
        try:
            before = executor.look(self.id) if adopt else None
            if before is not None and before.phase is not Phase.CREATED:
                # A process before this one started it: wanted or not, it must be seen to its end.
                self._address = before.address
            else:
                order = order_for(view, self._tools.installation)
                executor.fetch(order.image_id, lambda: self._watch.cause is None)
                executor.create(order)
                reached("created")
                if not self._may_start():
                    return self._watch.cause or _ELSEWHERE, None
                self._address = executor.start(self.id).address
        except ImageMissing as error:
            return Reason(Code.INVALID, str(error)), None
        except StartRefused as error:
            return Reason(Code.CRASHED, str(error)), Exit(code=error.exit_code)
        except EngineFault as error:
            self._undo()
            return Reason(Code.ERROR, str(error)), None
        reached("started")
        self._is_up = True
        self._read_back()
        return (_ELSEWHERE, None) if self.is_handed_on else None

    def _may_start(self) -> bool:
        """Wait until the lease is surely ours; False if the task is not wanted by then."""
        while True:
            # Killed, ended or handed on while it was made: not started at all.
            self._insist(self.look_after)
            if self._watch.cause is not None or self._is_void:
                return False
            if self._tools.lease.is_fresh():
                return True
            _log.info("task %s: not started before the lease is renewed", self.id)
            self._tools.lease.wait_fresh(LEASE_PAUSE)

    def _read_back(self) -> None:
        """Say that it runs; if it is not wanted any more, it has to go."""
        order, address = self._known_order(), self._address

        if self._write(
            lambda job, task, now: self._if_ours(task, running(job, task, order.number, address, now))
        ).is_empty:
            # Because a commit whose answer was lost did it, because that was forgotten, or it is void.
            self._insist(self._assert)
        self._insist(self.look_after)
        if self._watch.cause is None and not self.is_handed_on:
            self._announce(State.RUNNING)
        elif self._watch.cause is not None:
            # Told to end before there was anything to stop.
            self._watch.end_for(self._watch.cause)

    def _see_through(self) -> tuple[Reason, Exit | None]:
        """Follow the container to its end: why it ended, and how."""
        view = self._insist(lambda: self._tools.records.task(self.id))
        since = view.task.at(State.RUNNING) or view.now
        if limit := view.job.descriptor.runtime_limit:
            self._watch.arm(limit - (view.now - since), over_limit(limit))
        self._watch.follow_output()
        try:
            exit = self._wait()
        except EngineFault as error:
            return Reason(Code.LOST, str(error)), None
        # Before the flush, which may take a while: what comes now did not end it.
        cause = self._watch.over()
        self._watch.flush_output()
        return why_ended(exit, cause), exit

    def _wait(self) -> Exit | None:
        """How the container ended, by an engine that may go away and come back meanwhile."""
        while True:
            try:
                return self._tools.executor.wait(self.id)
            except EngineFault as error:
                if not self._engine_is_back():
                    raise
                _log.warning("task %s: its container is waited for again: %s", self.id, error)

    def _engine_is_back(self) -> bool:
        """Wait for an engine that went away; False when it is given up."""
        for _ in range(int(ENGINE_PATIENCE / ENGINE_PAUSE)):
            self._closing.wait(ENGINE_PAUSE.total_seconds())
            try:
                seen = self._tools.executor.look(self.id)
            except EngineFault:
                continue
            return seen is None or seen.phase is not Phase.CREATED
        return False

    def _undo(self) -> None:
        """The engine failed at the start: nothing of it may run once somebody is told."""
        with suppress(NotFound):
            self._insist(self.look_after)
        if self.is_handed_on:
            return
        for _ in range(int(ENGINE_PATIENCE / ENGINE_PAUSE)):
            try:
                self._tools.executor.remove(self.id)
                return
            except EngineFault as error:
                _log.warning("task %s: its failed start cannot be undone yet: %s", self.id, error)
                self._closing.wait(ENGINE_PAUSE.total_seconds())

    # ------------------------------------------------------------------------------------- reports

    def _obey(self, view: TaskView) -> None:
        """Do what the record of our task wants."""
        task, watch = view.task, self._watch
        if self._is_up and task.state is not State.RUNNING:
            self._assert()
        if (intent := task.kill or view.job.kill) is not None:
            watch.end_for(killed_by(intent))
        elif task.stop_for is not None:
            watch.end_for(task.stop_for)
        elif watch.cause is not None:
            # Asked before, for its limit or ours, when the engine may not have listened.
            watch.end_for(watch.cause)

    def _assert(self) -> None:
        order, address = self._known_order(), self._address
        self._tools.writes.on_task(self.id, lambda job, task, now: asserted(job, task, order, address, now))

    def _report(self, reason: Reason, exit: Exit | None) -> Task:
        """The task as it is on record once its end was told."""
        decision = self._write(self._end_of(reason, exit))
        if not decision.is_empty:
            return decision.tasks[0]
        _log.info("task %s: its end (%s) was not news: %s", self.id, reason, decision.why)
        task = self._insist(lambda: self._tools.records.task(self.id)).task
        self.is_handed_on = self.is_handed_on or standing(task, self._known_order()) is Standing.HANDED_ON
        return task

    def _end_of(self, reason: Reason, exit: Exit | None) -> Callable[[Job, Task, datetime], Decision]:
        order, address = self._known_order(), self._address
        if self._is_up:
            return lambda job, task, now: ended_again(job, task, order, address, reason, exit, now)
        return lambda job, task, now: self._if_ours(
            task, ended(job, task, reason, now, exit=exit, number=order.number)
        )

    def _if_ours(self, task: Task, decision: Decision) -> Decision:
        # A store that forgot a number gives it again, so it alone does not tell whose order it is.
        is_ours = standing(task, self._known_order()) is Standing.OURS
        return decision if is_ours else Decision(why=f"it is {task.state.name}, and not under our order")

    def _known_order(self) -> Dispatch:
        if self._order is None:
            raise ValueError(f"{self.id} was not claimed")
        return self._order

    def _write(self, decide: Callable[[Job, Task, datetime], Decision]) -> Decision:
        return self._insist(lambda: self._tools.writes.on_task(self.id, decide))

    def _insist(self, act: Callable[[], T]) -> T:
        """*act*, again and again while the store is away: what a container did must not be lost."""
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                _log.warning("waiting for the store: %s", error)
                threading.Event().wait(REPORT_PAUSE.total_seconds())

    def _remove(self) -> None:
        try:
            self._tools.executor.remove(self.id)
        except TitusError as error:
            # The agent's next reconciliation finds it by its labels.
            _log.warning("task %s: its container stays for now: %s", self.id, error)
