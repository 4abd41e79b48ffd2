"""The one write path: load, decide, commit, and only then send.

Whoever wants a job or task to change comes through here. A commit refused as stale is decided
again on a fresh load; commands that a crash swallows are sent again by the deadlines that their
commit armed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from titus_celery.core.cluster import Cluster
from titus_celery.core.decision import Command, Decision, change_of
from titus_celery.core.model import Holding, Job, JobId, Task, TaskId
from titus_celery.errors import Conflict, Fenced, Full, Taken, Unavailable
from titus_celery.ports import Position, Queue, Records
from titus_celery.service.crash import reached

__all__ = ["ATTEMPTS_MAX", "Committed", "WritePath"]

#: Times a decision is taken anew when others change the record first. Each loser's conflict is
#: some winner's progress, so this many in a row means a fault.
ATTEMPTS_MAX: Final = 32

_log = logging.getLogger(__name__)


class Committed:
    """Who is to be told how far the log reaches after each commit, from whichever thread made it."""

    def __init__(self) -> None:
        self.listener: Callable[[Position], None] = lambda position: None

    def tell(self, position: Position) -> None:
        """The log reaches so far."""
        self.listener(position)


class WritePath:
    """Turns pure decisions into committed facts, and sends what follows from them."""

    def __init__(
        self,
        records: Records,
        queue: Queue,
        holding: Callable[[], Holding | None] = lambda: None,
        committed: Committed | None = None,
    ) -> None:
        """*holding* says under which lease an agent writes; others need none."""
        self._records = records
        self._queue = queue
        self._holding = holding
        self._committed = committed or Committed()

    def on_task(self, id: TaskId, decide: Callable[[Job, Task, datetime], Decision]) -> Decision:
        """Commit what *decide* says of a task; the decision that was committed, maybe empty.

        NotFound if there is no such task; Full if the decision reserves room that is gone;
        Conflict if others changed the record ATTEMPTS_MAX times in a row; Fenced if the lease that
        this agent writes under went to another process.
        """

        def attempt() -> Decision:
            under = self._holding()
            view = self._records.task(id)
            decision = decide(view.job, view.task, view.now)
            return self._commit(view.job, (view.task,), decision, under)

        return self._until_fresh(attempt)

    def on_job(self, id: JobId, decide: Callable[[Job, datetime], Decision]) -> Decision:
        """Commit what *decide* says of a job's own record; errors as in `on_task`."""

        def attempt() -> Decision:
            job, now = self._records.job(id)
            return self._commit(job, (), decide(job, now))

        return self._until_fresh(attempt)

    def on_slots(self, id: JobId, decide: Callable[[Job, Sequence[Task], datetime], Decision]) -> Decision:
        """Commit what *decide* says of a job and all of its open tasks; errors as in `on_task`."""

        def attempt() -> Decision:
            # In this order: the job's version then stands for tasks that are at least as new.
            job, now = self._records.job(id)
            tasks = self._records.open_tasks(id)
            return self._commit(job, tasks, decide(job, tasks, now))

        return self._until_fresh(attempt)

    def on_cluster(
        self,
        load: Callable[[], tuple[Cluster, Sequence[Job], datetime]],
        decide: Callable[[Cluster, Sequence[Job], datetime], Decision],
        jobs_max: int = 0,
    ) -> Decision:
        """Commit what *decide* says of a cluster and its live jobs, which may be one job more.

        *load*: both, with the store's time. Errors as in `on_task`; LimitReached and Taken as in `create`.
        """

        def attempt() -> Decision:
            cluster, jobs, now = load()
            return self._commit(None, (), decide(cluster, jobs, now), jobs_max=jobs_max, cluster=cluster)

        return self._until_fresh(attempt)

    def create(self, decide: Callable[[datetime], Decision], jobs_max: int = 0) -> Decision:
        """Commit a new job or cluster, if fewer than *jobs_max* are alive (0: any number).

        LimitReached if not; Taken if it would have a name that is another one's.
        """
        return self._commit(None, (), decide(self._records.now()), jobs_max=jobs_max)

    def _until_fresh(self, attempt: Callable[[], Decision]) -> Decision:
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return attempt()
            except (Full, Taken):
                raise
            except Fenced as error:
                # Lost and got again while we were deciding: what was decided may be void.
                under = self._holding()
                if under is None or under.epoch == error.epoch:
                    raise
            except Conflict:
                continue
        return attempt()

    def _commit(
        self,
        job: Job | None,
        known: Sequence[Task],
        decision: Decision,
        under: Holding | None = None,
        jobs_max: int = 0,
        cluster: Cluster | None = None,
    ) -> Decision:
        if not decision.is_empty:
            position = self._records.commit(change_of(job, known, decision, under, jobs_max, cluster))
            reached("committed")
            if position is not None:
                self._committed.tell(position)
        # Only now: nobody may meet a task or a kill that is not stored yet.
        self._send(decision.commands)
        return decision

    def _send(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                self._queue.send(command)
            except Unavailable as error:
                # What is committed stands: a deadline or a poll says it again.
                _log.warning("could not send %s: %s", type(command).__name__, error)
