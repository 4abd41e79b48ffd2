"""The queue port over Celery: each command as a message, or as a control command to one worker.

Messages carry ids and numbers only. The Titus task id is the Celery task id, so that Flower, logs
and the API speak of the same thing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, assert_never

from celery import Celery
from kombu.exceptions import OperationalError

from titus_celery.adapters.celery_app import CONTROL_QUEUE, agent_queue
from titus_celery.core.decision import Command, Prove, RunTask, StopTask, Wake
from titus_celery.core.states import State
from titus_celery.errors import Unavailable
from titus_celery.ports import Leases

__all__ = [
    "PROVE",
    "RUN_CONTAINER",
    "STOP_TASK",
    "SWEEP",
    "WAKE_SPAN",
    "CeleryQueue",
    "agent_node",
    "announce",
    "send_proof",
]

RUN_CONTAINER: Final = "titus.run_container"
SWEEP: Final = "titus.sweep"
PROVE: Final = "titus.prove"
STOP_TASK: Final = "titus_stop_task"

_log = logging.getLogger(__name__)

#: Wakes within this span after one that no sweep has answered yet are one wake.
WAKE_SPAN: Final = timedelta(seconds=1)
#: A wake that waited longer is answered by the next tick anyway (seconds).
WAKE_EXPIRES_SECONDS: Final = 5
#: A proof that waited longer proves nothing (seconds).
PROVE_EXPIRES_SECONDS: Final = 10


def agent_node(agent_id: str) -> str:
    """The name by which an agent's worker answers to control commands."""
    return f"agent-{agent_id}@titus"


def announce(app: Celery, state: State, task_id: str, node: str, **facts: object) -> None:
    """Tell Celery's event stream that a run is in *state*, under the state's own name.

    *node* is the worker that it is on: under another name Flower would see a worker that there is not.
    Best effort: events are for looking at, not for deciding.
    """
    try:
        with app.events.default_dispatcher(hostname=node) as dispatcher:
            dispatcher.send(f"task-{state.name.lower()}", uuid=task_id, **facts)
    except (OperationalError, OSError) as error:
        _log.warning("task %s: nobody hears that it is %s: %s", task_id, state.name, error)


def send_proof(app: Celery, queue: str) -> None:
    """Have the worker that alone consumes *queue* show that it does; Unavailable without the broker."""
    with _reached():
        app.send_task(PROVE, queue=queue, expires=PROVE_EXPIRES_SECONDS, retry=False)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (OperationalError, OSError) as error:
        raise Unavailable("the broker (Redis)", str(error)) from error


class CeleryQueue:
    """Sends commands through the broker. Safe to use from any thread."""

    def __init__(self, app: Celery, leases: Leases, wake_flag: str) -> None:
        self._app = app
        self._leases = leases
        self._wake_flag = wake_flag

    def send(self, command: Command) -> None:
        """Hand one command to the broker; Unavailable if it does not answer."""
        with _reached():
            self._send(command)

    def _send(self, command: Command) -> None:
        match command:
            case RunTask():
                self._run(command)
            case StopTask(task_id=task_id, agent_id=agent_id):
                self._app.control.broadcast(
                    STOP_TASK, arguments={"task_id": task_id}, destination=[agent_node(agent_id)], reply=False
                )
            case Prove(agent_id=agent_id):
                send_proof(self._app, agent_queue(agent_id))
            case Wake():
                if self._leases.raise_flag(self._wake_flag, WAKE_SPAN):
                    self._app.send_task(SWEEP, queue=CONTROL_QUEUE, expires=WAKE_EXPIRES_SECONDS, retry=False)
            case _:
                assert_never(command)

    def _run(self, command: RunTask) -> None:
        kwargs = {
            "task_id": command.task_id,
            "job_id": command.job_id,
            "dispatch": command.dispatch.number,
            "image": command.image,
            "adopt": command.adopt,
        }
        if not command.adopt:
            # Before the message, so that no later state of the agent's is overtaken by it.
            node = agent_node(command.dispatch.agent_id)
            announce(
                self._app, State.DISPATCHED, command.task_id, node, name=RUN_CONTAINER, kwargs=repr(kwargs)
            )
        self._app.send_task(
            RUN_CONTAINER,
            kwargs=kwargs,
            task_id=command.task_id,
            queue=agent_queue(command.dispatch.agent_id),
            retry=False,
        )
