"""What a process has of its own: its way to the store, which may end or be cut, and the runs it carries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.store import RecordStore
from titus_celery.core.decision import Change
from titus_celery.core.model import JobId, Task, TaskId
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.ports import Position, TaskView

__all__ = ["PATIENCE", "DiedError", "Line", "Run", "Store"]

#: How long (s) a test waits for another thread before it fails.
PATIENCE: Final = 20.0


class DiedError(BaseException):
    """The process that did this is dead; like a signal, nothing in the product may catch it."""


class Store(RecordStore):
    """One process's way to the records, with a door through which a test gets in before a commit."""

    #: Called with each change that is about to be committed; may commit others, or raise.
    before_commit: Callable[[Change], None] | None = None
    #: Called with each change that was committed; may raise, as when the answer gets lost.
    after_commit: Callable[[Change], None] | None = None
    #: Called before each task is read; may raise.
    before_read: Callable[[], None] | None = None
    #: Called once the open tasks of a job were read, before whoever asked has them.
    after_look: Callable[[], None] | None = None
    #: A dead process neither reads nor writes any more.
    is_dead = False
    _is_at_the_door = False

    def task(self, task_id: TaskId) -> TaskView:
        """The task, unless this process is dead."""
        if self.before_read is not None:
            self.before_read()
        if self.is_dead:
            raise DiedError
        return super().task(task_id)

    def open_tasks(self, job_id: JobId) -> Sequence[Task]:
        """The job's open tasks, after the test had its say."""
        found = super().open_tasks(job_id)
        if self.after_look is not None:
            self.after_look()
        return found

    def commit(self, change: Change) -> Position | None:
        """Commit, after the test had its say; what it commits itself passes freely."""
        if self.is_dead:
            raise DiedError
        if self.before_commit is not None and not self._is_at_the_door:
            self._is_at_the_door = True
            try:
                self.before_commit(change)
            finally:
                self._is_at_the_door = False
        position = super().commit(change)
        if self.after_commit is not None:
            self.after_commit(change)
        return position


class Line:
    """One process's connection to the store, which can be cut."""

    is_cut = False

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    def __getattr__(self, name: str) -> Any:
        if self.is_cut:
            raise StoreUnavailable("no route to host")
        return getattr(self._keyspace, name)


@dataclass
class Run:
    """One message being carried by an agent, in a thread of its own."""

    thread: threading.Thread
    #: What `carry` gave, once the thread has ended.
    task: Task | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.announced: list[State] = []
        self._changed = threading.Condition()

    def announce(self, state: State) -> None:
        """Hear of a state that the run enters."""
        with self._changed:
            self.announced.append(state)
            self._changed.notify_all()

    def until(self, state: State) -> None:
        """Wait until the run announced the state."""
        with self._changed:
            assert self._changed.wait_for(lambda: state in self.announced, PATIENCE), f"never {state.name}"

    def end(self) -> Task | None:
        """Wait for the run to end; what it gave."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the run did not end"
        if self.error is not None:
            raise self.error
        return self.task
