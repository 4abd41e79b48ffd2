"""Messages and control commands to an agent."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from celery import current_app, shared_task
from celery.exceptions import Ignore
from celery.worker.control import control_command

from titus_celery.adapters.celery_queue import RUN_CONTAINER, STOP_TASK, announce
from titus_celery.adapters.celery_results import RunFailed, facts_of
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.tasks.wired import wired

__all__ = ["run_container", "stop_task"]


@shared_task(name=RUN_CONTAINER, bind=True, throws=(RunFailed,))  # type: ignore[untyped-decorator]
def run_container(
    self: Any, task_id: str, job_id: str, dispatch: int, image: str, adopt: bool = False
) -> dict[str, Any]:
    """Carry one Titus task from claim to exit."""
    tell = partial(announce, current_app, task_id=task_id, node=self.request.hostname)
    task = wired().agent.runs.carry(TaskId(task_id), dispatch, lambda state: tell(state), adopt=adopt)
    if task is None:
        # A copy of an order: it must not end, in Celery's eyes, the run whose id it shares.
        raise Ignore
    if task.state is State.FAILED:
        # So that Flower shows FAILURE.
        raise RunFailed(task.id, facts_of(task))
    return facts_of(task)


@control_command(name=STOP_TASK, args=[("task_id", str)])  # type: ignore[untyped-decorator]
def stop_task(state: Any, task_id: str) -> dict[str, str]:
    """Look at a task's kill intent now. Runs in the worker's loop, so only a thread is started."""
    look = partial(wired().agent.runs.look_after, TaskId(task_id))
    threading.Thread(target=look, name=f"look after {task_id}", daemon=True).start()
    return {"ok": task_id}
