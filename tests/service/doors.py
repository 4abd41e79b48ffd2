"""An engine in memory with a door before and after each step, through which a test gets in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.service.world import APP
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.engine import (
    ContainerOrder,
    Seen,
    Started,
)
from titus_celery.core.model import Exit, TaskId

__all__ = ["OpenEngine"]


class OpenEngine(MemoryExecutor):
    """An engine that lets a test in, once, where it says: `before["start"]`, `after["create"]`, ...

    What is put there may do anything, also raise: then the step was not taken, or its answer is lost.
    """

    def __init__(self, engine_id: str = "ENGINE:open") -> None:
        super().__init__(images=[APP], engine_id=engine_id)
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}

    def create(self, order: ContainerOrder) -> None:
        self.before.pop("create", _nothing)()
        super().create(order)
        self.after.pop("create", _nothing)()

    def start(self, task_id: TaskId) -> Started:
        self.before.pop("start", _nothing)()
        started = super().start(task_id)
        self.after.pop("start", _nothing)()
        return started

    def wait(self, task_id: TaskId) -> Exit | None:
        self.before.pop("wait", _nothing)()
        exit = super().wait(task_id)
        self.after.pop("wait", _nothing)()
        return exit

    def stop(self, task_id: TaskId, grace: timedelta) -> None:
        self.before.pop("stop", _nothing)()
        super().stop(task_id, grace)

    def remove(self, task_id: TaskId) -> None:
        self.before.pop("remove", _nothing)()
        super().remove(task_id)
        self.after.pop("remove", _nothing)()

    def look(self, task_id: TaskId) -> Seen | None:
        self.before.pop("look", _nothing)()
        return super().look(task_id)


def _nothing() -> None:
    """Nobody comes in."""
