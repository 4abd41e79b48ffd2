"""Everything that an agent is running now, and what is done to all of it at once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from titus_celery.core.model import Task, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.errors import EngineFault, Fenced, NotFound, StoreCorrupt
from titus_celery.service.run import Run
from titus_celery.service.tools import Announce, Tools

__all__ = ["INSTALLATION_STOPPED", "Runs"]

#: Why tasks end when their installation is stopped together with its containers.
INSTALLATION_STOPPED: Final = Reason(Code.LOST, "installation stopped")
#: Ended runs that are remembered, to tell a store again that restarted and forgot: with fsync every
#: second that is its last second, in which an agent ends some dozens of runs at most.
ENDED_KEPT: Final = 200

_log = logging.getLogger(__name__)


class Runs:
    """The runs of one agent. Its methods may be called from any thread."""

    def __init__(self, tools: Tools, displaced: Callable[[str], None]) -> None:
        """*displaced* is told, and should end this process, when another one has our place."""
        self._tools = tools
        self._displaced = displaced
        self._lock = threading.Lock()
        self._runs: dict[TaskId, Run] = {}
        self._ended: deque[Run] = deque(maxlen=ENDED_KEPT)
        self._closing = threading.Event()
        self._idle = threading.Condition(self._lock)

    def carried(self) -> frozenset[TaskId]:
        """The tasks that a thread of this process carries."""
        with self._lock:
            return frozenset(self._runs)

    def carry(self, id: TaskId, number: int, announce: Announce, *, adopt: bool = False) -> Task | None:
        """Run a task under order *number* to its end; the ended task.

        None when there was nothing to do: a copy of the order, a stale one, the task was killed
        first, or another agent has it by now. With *adopt* a run that was begun before goes on.
        """
        run = Run(id, number, self._tools, announce, self._closing)
        with self._lock:
            if self._closing.is_set() or id in self._runs:
                return None
            before = next((one for one in self._ended if one.is_of(id, number)), None)
            if before is None:
                self._runs[id] = run
        if before is not None:
            # A store that restarted has forgotten the end. To look for the container would be to find
            # that it is gone, while we know how it ended.
            with self._looked_after(before):
                before.tell_again()
            return None
        try:
            return run.carry(adopt=adopt)
        except Fenced as error:
            self._displaced(str(error))
            return None
        finally:
            with self._lock:
                del self._runs[id]
                if run.has_ended:
                    self._ended.append(run)
                self._idle.notify_all()

    def look_after(self, id: TaskId) -> None:
        """Hold one run against its record now; nothing happens if it is not carried here."""
        with self._lock:
            run = self._runs.get(id)
        if run is not None:
            with self._looked_after(run):
                run.look_after()

    def look_after_all(self) -> None:
        """Hold every run against its record: the guarantee behind messages about kills."""
        for run in self._all():
            with self._looked_after(run):
                run.look_after()

    def check_disks(self) -> None:
        """End every run whose container wrote more than it may."""
        for run in self._all():
            try:
                run.check_disk()
            except EngineFault as error:
                _log.warning("task %s: its disk cannot be measured now: %s", run.id, error)

    def tell_again(self) -> None:
        """The store restarted, and may have forgotten what it was told last: tell it again."""
        with self._lock:
            runs = [*self._ended, *self._runs.values()]
        for run in runs:
            with self._looked_after(run):
                run.tell_again()

    def end_all(self, reason: Reason) -> None:
        """Have every container stopped for *reason*; returns at once."""
        for run in self._all():
            run.end_for(reason)

    def stop_all(self, patience: timedelta) -> bool:
        """Take nothing new and end every run as `lost: installation stopped`; whether all ended."""
        self._closing.set()
        self.end_all(INSTALLATION_STOPPED)
        with self._idle:
            return self._idle.wait_for(lambda: not self._runs, patience.total_seconds())

    def _all(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    @contextmanager
    def _looked_after(self, run: Run) -> Iterator[None]:
        try:
            yield
        except (NotFound, StoreCorrupt) as error:
            # What is wrong with one task's record must not keep the agent from the others.
            _log.warning("task %s is passed over: %s", run.id, error)
        except Fenced as error:
            self._displaced(str(error))
        if run.is_handed_on and run.id in self.carried():
            # Its thread waits for a container that is another agent's now, and holds a slot of ours
            # that control believes to be free. A new process begins with what is still ours.
            self._displaced(f"task {run.id} went to another agent of this engine")
