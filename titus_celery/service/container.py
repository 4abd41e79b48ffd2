"""What an agent asks of the engine for a task, and what the end of its container means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from titus_celery.core import parameters
from titus_celery.core import resources as kinds
from titus_celery.core.containers import command_of
from titus_celery.core.descriptor import Container
from titus_celery.core.engine import (
    ContainerOrder,
)
from titus_celery.core.model import Exit, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.ports import (
    TaskView,
)

__all__ = ["order_for", "why_ended"]


def order_for(view: TaskView, installation: str) -> ContainerOrder:
    """The container of a claimed task."""
    task, container = view.task, view.job.descriptor.container_of(view.task.stage)
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
        env={
            **container.env,
            **parameters.env_of(container),
            **_security_env(container.security_profile),
            **_identity(task),
        },
        demand=order.demand,
        gpus=order.gpus,
        volumes=tuple(parameters.volumes(container.parameters.get(parameters.VOLUMES, ""))),
        labels=_labels(container),
    )


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
    stage = {} if task.stage is None else {"TITUS_TASK_STAGE": str(task.stage)}
    return {
        "TITUS_JOB_ID": task.job_id,
        "TITUS_TASK_ID": task.id,
        "TITUS_TASK_INDEX": str(task.slot),
        **stage,
        "TITUS_TASK_ORIGINAL_ID": task.original_id,
        "TITUS_TASK_ATTEMPT": str(task.attempt),
    }


#: The variables that tell a container its security profile, which Docker itself does not know (B8.3).
_SECURITY_ENV: Final[Mapping[str, str]] = MappingProxyType(
    {
        "securityGroups": "TITUS_SECURITY_GROUPS",
        "iamProfile": "TITUS_IAM_PROFILE",
        "iamRole": "TITUS_IAM_ROLE",
    }
)


def _security_env(profile: Mapping[str, str]) -> Mapping[str, str]:
    return {variable: profile[key] for key, variable in _SECURITY_ENV.items() if profile.get(key)}


def _labels(container: Container) -> Mapping[str, str]:
    """What means nothing to us, as labels for whoever it means something to (A4, B8.3)."""
    unknown = {key: text for key, text in container.resources.items() if key not in kinds.KINDS}
    return {
        **{f"titus.resource.{key}": text for key, text in unknown.items()},
        **{f"titus.security.{key}": text for key, text in container.security_profile.items()},
    }
