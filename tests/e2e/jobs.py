"""Jobs in one line, and what an observer heard of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["DEMAND", "HELLO", "WORKLOADS", "at", "delayed", "job", "shell", "states", "task_states"]

HELLO: Final = "titus/hello:latest"
WORKLOADS: Final = "titus/workloads:latest"
#: Little enough that dozens fit at once.
DEMAND: Final = {"cpu": "0.05", "memory": "32MB"}


def job(
    *command: str,
    image: str = HELLO,
    instances: int = 1,
    retry: pb.RetryPolicy | None = None,
    limit: timedelta = timedelta(0),
    env: Mapping[str, str] | None = None,
    resources: Mapping[str, str] = DEMAND,
) -> pb.JobDescriptor:
    """A batch job that runs *command*."""
    container = pb.Container(
        image=pb.Image(name=image), command=command, env=env or {}, resources=dict(resources)
    )
    return pb.JobDescriptor(
        appName="e2e",
        containers={"main": container},
        batch=pb.BatchJobSpec(
            instances=pb.TaskInstances(desired=instances),
            containerId="main",
            runtimeLimitSecs=int(limit.total_seconds()),
            retryPolicy=retry,
        ),
    )


def shell(script: str) -> tuple[str, str, str]:
    """The command that runs *script*."""
    return ("sh", "-c", script)


def delayed(retries: int, first: timedelta, delay: timedelta = timedelta(0)) -> pb.RetryPolicy:
    """A retry policy with fixed delays."""
    one, other = (int(span / timedelta(milliseconds=1)) for span in (first, delay))
    return pb.RetryPolicy(delayed=pb.RetryPolicy.Delayed(initialDelayMs=one, delayMs=other, retries=retries))


def states(changes: Iterable[pb.StateChange]) -> list[str]:
    """The names of a history, oldest first."""
    return [change.state for change in changes]


def at(changes: Iterable[pb.StateChange], state: str) -> datetime:
    """When *state* was reached."""
    [found] = [change.timestamp for change in changes if change.state == state]
    return datetime.fromisoformat(found)


def task_states(messages: Iterable[pb.JobChangeNotification], task_id: str) -> list[str]:
    """The states of a task, in the order in which an observer heard of them; repetitions are one."""
    heard: list[str] = []
    for message in messages:
        task = message.taskUdate.task
        if message.HasField("taskUdate") and task.id == task_id:
            name = pb.State.Name(task.state.state)
            if heard[-1:] != [name]:
                heard.append(name)
    return heard
