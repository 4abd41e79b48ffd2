"""What an agent asks of the engine for a task, and what the end of its container means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from titus_celery.core import resources as kinds
from titus_celery.core.model import Exit, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.validation import command_of
from titus_celery.ports import ContainerOrder, TaskView

__all__ = ["order_for", "over_limit", "why_ended"]


def order_for(view: TaskView, installation: str) -> ContainerOrder:
    """The container of a claimed task."""
    task, container = view.task, view.job.descriptor.container
    order = task.dispatch
    if order is None:
        raise ValueError(f"{task.id} was claimed without an order")
    entry_point, command = command_of(container)
    return ContainerOrder(
        task_id=task.id,
        job_id=task.job_id,
        installation=installation,
        agent_id=order.agent_id,
        dispatch_number=order.number,
        image_id=container.image.id,
        entry_point=entry_point,
        command=command,
        env={**container.env, **_identity(task)},
        demand=order.demand,
        labels=_unknown_resources(container.resources),
    )


def over_limit(limit: timedelta) -> Reason:
    """Why a run ends that took longer than it may (A5)."""
    return Reason(Code.LIMIT, f"ran longer than {int(limit.total_seconds())} s")


def why_ended(exit: Exit | None, cause: Reason | None) -> Reason:
    """The reason of an end: what we did to it (*cause*), else what others did, else its own exit.

    What was ended from outside is lost even with exit code 0: nobody knows what it left undone.
    """
    if cause is not None:
        return cause
    if exit is None:
        return Reason(Code.LOST, "its container disappeared from the engine")
    if exit.outside:
        return Reason(Code.LOST, exit.outside)
    if exit.oom:
        return Reason(Code.OOM, "it used more memory than its limit")
    if exit.code == 0:
        return Reason(Code.NORMAL)
    if exit.signal:
        return Reason(Code.FAILED, f"ended by signal {exit.signal} (exit code {exit.code})")
    return Reason(Code.FAILED, f"exit code {exit.code}")


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
