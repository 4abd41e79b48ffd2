"""One task on an agent, from the claim to the report of its end.

The message that brought us here is only an order. What may be done is decided on the record, and
from the start on the container is the witness: an agent that comes back finds it by its name and
goes on where it stands.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar

from titus_celery.core import resources as kinds
from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import Spans, claimed, ended, running
from titus_celery.core.model import AgentId, Exit, Job, Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.core.validation import command_of
from titus_celery.errors import (
    EngineFault,
    ImageMissing,
    NotFound,
    StartRefused,
    StoreUnavailable,
    TitusError,
)
from titus_celery.ports import ContainerOrder, Executor, Outputs, Phase, Records, TaskView
from titus_celery.service.change import WritePath
from titus_celery.service.watch import Watch

__all__ = ["INSTALLATION_STOPPED", "Runs"]

#: Why tasks end when their installation is stopped together with its containers.
INSTALLATION_STOPPED: Final = Reason(Code.LOST, "installation stopped")
#: Between two tries to tell the store of an end while it is away.
REPORT_PAUSE: Final = timedelta(seconds=1)
#: How long an engine may be away under a running container before the run is given up.
ENGINE_PATIENCE: Final = timedelta(seconds=60)
#: Between two looks at an engine that is away.
ENGINE_PAUSE: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)

#: Told of each state that a run enters, for whoever watches Celery.
T = TypeVar("T")

Announce = Callable[[State], None]


class Runs:
    """Everything that this agent is running now. Its methods may be called from any thread."""

    def __init__(
        self,
        *,
        agent_id: AgentId,
        installation: str,
        records: Records,
        writes: WritePath,
        executor: Executor,
        outputs: Outputs,
        spans: Spans,
        grace: timedelta,
    ) -> None:
        self._agent_id = agent_id
        self._installation = installation
        self._records = records
        self._writes = writes
        self._executor = executor
        self._outputs = outputs
        self._spans = spans
        self._grace = grace
        self._lock = threading.Lock()
        self._watches: dict[TaskId, Watch] = {}
        self._closing = threading.Event()
        self._idle = threading.Condition(self._lock)

    def carried(self) -> frozenset[TaskId]:
        """The tasks that a thread of this process carries."""
        with self._lock:
            return frozenset(self._watches)

    def carry(self, id: TaskId, number: int, announce: Announce, *, adopt: bool = False) -> Task | None:
        """Run a task under order *number* to its end; the ended task.

        None when there was nothing to do: a copy of the order, a stale one, or the task was killed
        first. With *adopt* a run that an earlier process began goes on.
        """
        watch = Watch(id, self._executor, self._outputs, self._grace)
        with self._lock:
            if self._closing.is_set() or id in self._watches:
                return None
            self._watches[id] = watch
        try:
            try:
                view = self._claim(id, number, adopt)
            except StoreUnavailable:
                # It may have been committed all the same: then what stands there is our own claim.
                view = self._insist(lambda: self._claim(id, number, True))
            return self._run(view, number, watch, announce) if view else None
        finally:
            watch.close()
            with self._lock:
                del self._watches[id]
                self._idle.notify_all()

    def look_after(self, id: TaskId) -> None:
        """Act on a task's kill intent if there is one; returns at once, may be repeated at will."""
        with self._lock:
            watch = self._watches.get(id)
        if watch is None:
            return
        view = self._records.task(id)
        intent = view.task.kill or view.job.kill
        if view.task.state.is_final:
            watch.end_for(Reason(Code.KILLED, "it was ended elsewhere"))
        elif intent is not None:
            at = intent.at.isoformat(timespec="seconds")
            watch.end_for(Reason(Code.KILLED, f"by {intent.by} at {at}"))
        elif watch.cause is not None:
            # Asked before, for its limit or ours, when the engine may not have listened.
            watch.end_for(watch.cause)

    def stop_all(self, patience: timedelta) -> bool:
        """Take nothing new and end every run as `lost: installation stopped`; whether all ended."""
        self._closing.set()
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.end_for(INSTALLATION_STOPPED)
        with self._idle:
            return self._idle.wait_for(lambda: not self._watches, patience.total_seconds())

    def _claim(self, id: TaskId, number: int, adopt: bool) -> TaskView | None:
        seen: list[TaskView] = []

        def decide(job: Job, task: Task, now: datetime) -> Decision:
            decision = claimed(job, task, self._agent_id, number, now, self._spans)
            seen[:] = [TaskView(job, decision.tasks[0] if decision.tasks else task, now)]
            return decision

        try:
            decision = self._writes.on_task(id, decide)
        except NotFound:
            _log.warning("task %s: order %d is for a task that is not known", id, number)
            return None
        view = seen[0]
        if decision.is_empty and not (adopt and self._is_ours(view.task, number)):
            _log.info("task %s: order %d dropped: %s", id, number, decision.why)
            return None
        return view

    def _is_ours(self, task: Task, number: int) -> bool:
        order = task.holds
        return (
            order is not None
            and task.state in (State.STARTING, State.RUNNING)
            and (order.agent_id, order.number) == (self._agent_id, number)
        )

    def _run(self, view: TaskView, number: int, watch: Watch, announce: Announce) -> Task | None:
        """Bring the container up unless it is, see it end, report, remove."""
        id = view.task.id
        if view.task.state is State.STARTING:
            announce(State.STARTING)
            refusal = self._bring_up(view, number, watch, announce)
        else:
            announce(State.RUNNING)
            refusal = None
        if refusal is None:
            reason, exit = self._see_through(id, watch)
        else:
            reason, exit = refusal
        task = self._report(id, number, reason, exit)
        self._remove(id)
        return task

    def _bring_up(
        self, view: TaskView, number: int, watch: Watch, announce: Announce
    ) -> tuple[Reason, Exit | None] | None:
        """From STARTING to RUNNING; or why the container could not start."""
        id = view.task.id
        try:
            self._executor.create(self._order(view, number))
            # Killed while it was made: not started at all.
            self._insist(lambda: self.look_after(id))
            if watch.cause is not None:
                return watch.cause, None
            started = self._executor.start(id)
        except ImageMissing as error:
            return Reason(Code.INVALID, str(error)), None
        except StartRefused as error:
            return Reason(Code.CRASHED, str(error)), Exit(code=error.exit_code)
        except EngineFault as error:
            return Reason(Code.ERROR, str(error)), None
        decision = self._insist(
            lambda: self._writes.on_task(
                id, lambda job, task, now: running(job, task, number, started.ip, now)
            )
        )
        # A commit whose answer was lost looks like nothing to do, but then the record says RUNNING.
        if decision.is_empty and not self._is_ours(self._insist(lambda: self._records.task(id)).task, number):
            _log.warning("task %s: started, but %s", id, decision.why)
            watch.end_for(Reason(Code.KILLED, "it was ended elsewhere"))
        else:
            announce(State.RUNNING)
        # Killed while it was started: the container is up, so it must go.
        self._insist(lambda: self.look_after(id))
        if watch.cause is not None:
            watch.end_for(watch.cause)
        return None

    def _see_through(self, id: TaskId, watch: Watch) -> tuple[Reason, Exit | None]:
        """Follow the container to its end: why it ended, and how."""
        view = self._insist(lambda: self._records.task(id))
        limit = view.job.descriptor.batch.runtime_limit
        since = view.task.at(State.RUNNING) or view.now
        text = f"ran longer than {int(limit.total_seconds())} s"
        watch.arm(limit - (view.now - since), Reason(Code.LIMIT, text))
        watch.follow_output()
        try:
            exit, fault = self._wait(id)
        except EngineFault as error:
            return Reason(Code.LOST, str(error)), None
        # Before the flush, which may take a while: what comes now did not end it.
        cause = watch.over()
        watch.flush_output()
        return _why(exit, cause, fault), exit

    def _wait(self, id: TaskId) -> tuple[Exit | None, EngineFault | None]:
        """How the container ended, and the last fault of the engine while it ran."""
        fault: EngineFault | None = None
        while True:
            try:
                return self._executor.wait(id), fault
            except EngineFault as error:
                if not self._engine_is_back(id):
                    raise
                fault = error

    def _engine_is_back(self, id: TaskId) -> bool:
        """Wait for an engine that went away; False when it is given up."""
        pauses = int(ENGINE_PATIENCE / ENGINE_PAUSE)
        for _ in range(pauses):
            self._closing.wait(ENGINE_PAUSE.total_seconds())
            try:
                seen = self._executor.look(id)
            except EngineFault:
                continue
            return seen is None or seen.phase is not Phase.CREATED
        return False

    def _report(self, id: TaskId, number: int, reason: Reason, exit: Exit | None) -> Task | None:
        decision = self._insist(
            lambda: self._writes.on_task(
                id, lambda job, task, now: ended(job, task, reason, now, exit=exit, number=number)
            )
        )
        if decision.is_empty:
            _log.info("task %s: its end (%s) was not news: %s", id, reason, decision.why)
            return self._insist(lambda: self._records.task(id)).task
        return decision.tasks[0]

    def _insist(self, act: Callable[[], T]) -> T:
        """*act*, again and again while the store is away: what a container did must not be lost."""
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                _log.warning("waiting for the store: %s", error)
                threading.Event().wait(REPORT_PAUSE.total_seconds())

    def _remove(self, id: TaskId) -> None:
        try:
            self._executor.remove(id)
        except TitusError as error:
            # The agent's next reconciliation finds it by its labels.
            _log.warning("task %s: its container stays for now: %s", id, error)

    def _order(self, view: TaskView, number: int) -> ContainerOrder:
        job, task = view.job, view.task
        container = job.descriptor.container
        entry_point, command = command_of(container)
        order = task.dispatch
        if order is None:
            raise ValueError(f"{task.id} was claimed without an order")
        return ContainerOrder(
            task_id=task.id,
            job_id=job.id,
            installation=self._installation,
            agent_id=self._agent_id,
            dispatch_number=number,
            image_id=container.image.id,
            entry_point=entry_point,
            command=command,
            env={**container.env, **_identity(task)},
            demand=order.demand,
            labels=_unknown_resources(container.resources),
        )


def _identity(task: Task) -> Mapping[str, str]:
    """What a container learns of itself (docs/semantics.md B8.6)."""
    return {
        "TITUS_JOB_ID": task.job_id,
        "TITUS_TASK_ID": task.id,
        "TITUS_TASK_INDEX": str(task.slot),
        "TITUS_TASK_ORIGINAL_ID": task.original_id,
        "TITUS_TASK_ATTEMPT": str(task.attempt),
    }


def _unknown_resources(resources: Mapping[str, str]) -> Mapping[str, str]:
    """Resource kinds that mean nothing to us, as labels for whoever they mean something to (A4)."""
    known = kinds.DEFAULTS.keys() | kinds.KNOWN_UNSUPPORTED
    return {f"titus.resource.{key}": text for key, text in resources.items() if key not in known}


def _why(exit: Exit | None, cause: Reason | None, fault: EngineFault | None) -> Reason:
    """The reason of an end: what we did to it, else what the engine lost, else its own exit."""
    if cause is not None:
        return cause
    if exit is None:
        return Reason(Code.LOST, "its container disappeared from the engine")
    if fault is not None and exit.code != 0:
        return Reason(Code.LOST, f"its container ended while the engine was away ({fault})")
    if exit.oom:
        return Reason(Code.OOM, "it used more memory than its limit")
    if exit.code == 0:
        return Reason(Code.NORMAL)
    if exit.signal:
        return Reason(Code.FAILED, f"ended by signal {exit.signal} (exit code {exit.code})")
    return Reason(Code.FAILED, f"exit code {exit.code}")
