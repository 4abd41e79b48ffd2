"""Celery's result backend over the tasks' records: what `app.AsyncResult(task_id)` shows is the record.

Nothing is mirrored, so nothing can disagree: each look reads the store, also for a run that was
adopted or whose agent died, and what Celery itself would store of a run is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from celery import states
from celery.backends.base import BaseBackend

from titus_celery.core.model import Task, TaskId
from titus_celery.core.states import State
from titus_celery.errors import NotFound, StoreUnavailable, TitusError
from titus_celery.ports import Records

__all__ = ["RecordsBackend", "RunFailed", "facts_of"]

#: Celery's words for the two ends; the other states keep their names, as custom states of Celery.
_ENDS: Final[Mapping[State, str]] = MappingProxyType(
    {State.FINISHED: states.SUCCESS, State.FAILED: states.FAILURE}
)


class RunFailed(TitusError):
    """A task ended FAILED: what `AsyncResult.get` raises of it, and its run in the agent.

    *facts* is what `facts_of` gives, so that whoever catches it finds there what a run that ended
    well gives as its result.
    """

    def __init__(self, task_id: str, facts: Mapping[str, Any]) -> None:
        super().__init__(task_id, facts)
        self.task_id, self.facts = task_id, facts

    @property
    def reason(self) -> str:
        """Why it failed, as `code: detail` (docs/semantics.md A7)."""
        return str(self.facts["reason"])

    def __str__(self) -> str:
        return f"task {self.task_id} ended FAILED ({self.reason})"


def facts_of(task: Task) -> dict[str, Any]:
    """What Celery's users see of a task besides its state; plain JSON.

    `state` by its Titus name; `reason` as `code: detail`, "" while there is none; `exitCode` and
    `signal` (0: none) of the container, None unless it ran to an end that somebody saw.
    """
    return {
        "state": task.state.name,
        "reason": str(task.reason) if task.reason else "",
        "exitCode": task.exit.code if task.exit else None,
        "signal": task.exit.signal if task.exit else None,
    }


class RecordsBackend(BaseBackend):  # type: ignore[misc]  # Celery has no types
    """Results of the tasks on record in the store that the app names (`app.open_records`).

    Unlike with Celery's own backends, an id that is not on record is a mistake and not a task that is
    still to come: it is PENDING, `exists()` is False, and to wait for it raises NotFound. A store that
    is away raises StoreUnavailable wherever it is asked. Threads may share it.
    """

    #: What means "try again later" to those who ask Celery's backends, as Flower does.
    connection_errors = (StoreUnavailable,)

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.thread_safe = True
        self._records: Records = app.open_records()

    def as_uri(self, include_password: bool = False) -> str:
        """Where results are, for the banner of a worker; where the store is, is a secret."""
        return "titus://records"

    # ------------------------------------------------------------------------------------------------ reading

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """What Celery reads everything from; each result asks once for itself when it is ready."""
        try:
            task = self._records.task(TaskId(str(task_id))).task
        except NotFound:
            return {"status": states.PENDING, "result": None}
        facts = facts_of(task)
        has_failed = task.state is State.FAILED
        return {
            "task_id": task.id,
            "status": _ENDS.get(task.state, task.state.name),
            # Celery raises what a FAILURE has as its result.
            "result": RunFailed(task.id, facts) if has_failed else facts,
            "traceback": None,
            "children": None,
            "date_done": task.history[-1].at.isoformat() if task.state.is_final else None,
        }

    def wait_for(self, task_id: str, *args: Any, **options: Any) -> Any:
        """Celery's own polling, by default every half second; NotFound if there is no such task."""
        # A task is on record before anybody is told its id, so nobody can be too early.
        if self._get_task_meta_for(task_id)["status"] == states.PENDING:
            raise NotFound("task", task_id)
        return super().wait_for(task_id, *args, **options)

    # -------------------------------------------------------------------------------------- changing nothing

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **__: Any) -> Any:
        """*result*, as Celery wants it; nothing is stored.

        All of Celery's writes come through here, a worker's and a revoke's. What becomes of a task is
        decided and committed in the one write path before Celery hears of it.
        """
        return result

    def forget(self, task_id: str) -> None:
        """Do nothing: a task stays on record for as long as its job does, whoever has read it."""

    # ---------------------------------------------------------------------------------------- not offered

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            "groups and chords are not kept: the results are Titus tasks, which belong to jobs; "
            "make one job of several tasks, or join an app.ResultSet of their results in your process"
        )

    ensure_chords_allowed = add_to_chord = _refuse
    save_group = restore_group = delete_group = _refuse
