"""What an agent does besides running tasks: lease and fence, inventory, polls, adoption.

At start and from time to time it holds what the engine has against what the store expects, and the
other way round: what a crash interrupted goes on, and what should not be there goes. It touches only
its own containers, and those of agents of its engine that have lost their lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from titus_celery.core.decision import Decision, Prove
from titus_celery.core.engine import (
    Seen,
)
from titus_celery.core.lifecycle import ended, run_order
from titus_celery.core.model import Agent, Holding, Job, Task, TaskId
from titus_celery.core.placement import has_lease
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.recovery import taken_over
from titus_celery.errors import Full, NotFound, PlaceTaken, StoreCorrupt, TitusError
from titus_celery.ports import (
    AgentRegistry,
    Clock,
    Executor,
    Queue,
    Records,
    TaskView,
)
from titus_celery.service.change import WritePath
from titus_celery.service.lease import Lease
from titus_celery.service.runs import Runs

__all__ = ["AgentLife", "Periods"]

#: Between two comparisons of containers and ledger.
RECONCILE_PERIOD: Final = timedelta(seconds=30)
#: Between two looks at the engine's images: a new one can be used this soon.
IMAGES_PERIOD: Final = timedelta(seconds=1)
#: Between two looks at what containers wrote to disk, of those that have a limit: each is walked through.
DISK_PERIOD: Final = timedelta(seconds=15)
#: Renewals that may fail before the lease is gone.
RENEWALS_PER_LEASE: Final = 5
#: An agent of this engine that has been without its lease for this part of one, while we renewed ours
#: all the time (more than twice), is not merely restarting or renewing late.
TAKE_OVER_SHARE: Final = 2
#: With no free slot left here, an agent of this engine that has been without its lease this long is not
#: merely being restarted. What it runs is ended before control would start it elsewhere.
GIVE_UP_AFTER: Final = timedelta(seconds=20)
#: How long a container of ours may have no record before it is stopped: long enough for a person to
#: see the warning, and for a store that is being restored.
UNKNOWN_KEPT: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """The settings that an agent's life needs."""

    lease: timedelta
    poll: timedelta
    grace: timedelta


class AgentLife:
    """Keeps one agent known, its kills prompt, and its containers and records in step."""

    def __init__(
        self,
        *,
        agent: Agent,
        installation: str,
        records: Records,
        registry: AgentRegistry,
        queue: Queue,
        executor: Executor,
        runs: Runs,
        writes: WritePath,
        lease: Lease,
        periods: Periods,
        clock: Clock,
        is_gone: Callable[[str], bool],
        displaced: Callable[[str], None],
    ) -> None:
        """*is_gone* knows of a holder that it is no more; *displaced* ends this process."""
        self._agent = agent
        self._installation = installation
        self._records = records
        self._registry = registry
        self._queue = queue
        self._executor = executor
        self._runs = runs
        self._writes = writes
        self._lease = lease
        self._periods = periods
        self._clock = clock
        self._is_gone = is_gone
        self._displaced = displaced
        self._images: Mapping[str, str] | None = None
        self._store_epoch = ""
        self._unknown: dict[str, timedelta] = {}
        self._has_left = threading.Event()
        self._is_behind = threading.Event()
        self._engine_was_away = False

    # ------------------------------------------------------------------------------------- threads

    def run(self, stop: threading.Event) -> None:
        """Live until *stop* is set; a store or engine that is away is waited for."""
        self._repeat(
            stop,
            (self.check_engine, self._periods.lease / RENEWALS_PER_LEASE),
            (self.report_images, IMAGES_PERIOD),
            (self.poll, self._periods.poll),
            (self.take_over, self._periods.poll),
            (self.reconcile, RECONCILE_PERIOD),
            (self._runs.check_disks, DISK_PERIOD),
        )

    def keep_lease(self, stop: threading.Event) -> None:
        """Renew the lease until *stop* is set: in a thread of its own, as engines may be slow."""
        self._repeat(stop, (self.renew, self._periods.lease / RENEWALS_PER_LEASE))

    def _repeat(self, stop: threading.Event, *duties: tuple[Callable[[], None], timedelta]) -> None:
        due = [self._clock.monotonic()] * len(duties)
        while not stop.is_set():
            for place, (duty, period) in enumerate(duties):
                if self._clock.monotonic() >= due[place]:
                    self._attempt(duty.__name__, duty)
                    due[place] = self._clock.monotonic() + period
            left = min(due) - self._clock.monotonic()
            stop.wait(max(left, timedelta(0)).total_seconds())

    def _attempt(self, name: str, duty: Callable[[], None]) -> None:
        try:
            duty()
        except TitusError as error:
            _log.warning("%s failed and is tried again: %s", name, error)

    # ------------------------------------------------------------------------------------- lease

    def renew(self) -> None:
        """Get or renew the lease; what cannot be reached for too long is fenced off."""
        if self._has_left.is_set():
            return
        asked_at, before = self._clock.monotonic(), self._lease.holding()
        try:
            mine = self._registry.hold(self._agent, self._periods.lease, self._is_gone)
            store = self._records.epoch()
        except PlaceTaken as error:
            self._displaced(str(error))
            raise
        except TitusError:
            # Whatever kept us from it: others will believe that we are gone.
            self._lease.failed(asked_at)
            if self._lease.must_fence():
                self._fence()
            raise
        if self._has_left.is_set():
            # Left while we renewed: what was given up stays given up.
            self._registry.leave(self._agent.id, self._agent.holder)
            return
        self._lease.renewed(Holding(mine.id, mine.epoch), asked_at)
        if before is not None and before.epoch != mine.epoch:
            _log.warning("the lease was lost for a while; comparing records and containers")
            self._is_behind.set()
        if store != self._store_epoch:
            if self._store_epoch:
                _log.warning("the store restarted; telling it again what runs here")
                self._runs.tell_again()
                # Only now: what we know better than the engine is told.
                self._is_behind.set()
            self._store_epoch = store

    def leave(self) -> None:
        """Give up the lease, for good: nothing more is to be placed here."""
        self._has_left.set()
        self._registry.leave(self._agent.id, self._agent.holder)

    def _fence(self) -> None:
        """Others may soon start again what runs here, so it has to end first (P2)."""
        silence = int(self._lease.silence().total_seconds())
        if self._runs.carried():
            _log.error("no word from the store for %d s: ending all containers", silence)
        self._runs.end_all(Reason(Code.LOST, f"its agent could not reach the store for {silence} s"))

    # ------------------------------------------------------------------------------------- duties

    def check_engine(self) -> None:
        """If the engine answers, have the consumer prove itself: nothing is placed here without it."""
        self.report_images()
        self._queue.send(Prove(self._agent.id))

    def report_images(self) -> None:
        """Report the engine's images if they changed since the last report."""
        try:
            images = self._executor.images()
        except TitusError:
            self._engine_was_away = True
            raise
        if self._engine_was_away:
            # What was to be done to containers meanwhile was not done.
            self._engine_was_away = False
            self._is_behind.set()
        if images != self._images:
            self._registry.report_images(self._agent.engine_id, images)
            self._images = images

    def proved(self) -> None:
        """The consumer consumed."""
        self._registry.prove(self._agent.id)

    def poll(self) -> None:
        """Look after every task carried here: the guarantee behind kill messages."""
        self._runs.look_after_all()
        if self._is_behind.is_set():
            self._is_behind.clear()
            try:
                self.reconcile()
            except TitusError:
                self._is_behind.set()
                raise

    def take_over(self) -> None:
        """Take the tasks of agents of this engine that are gone: their containers are here."""
        if self._lease.steady_for() < self._periods.lease / TAKE_OVER_SHARE:
            # Whoever shares our store could not renew either.
            return
        agents, now = self._registry.agents()
        for other in agents:
            if other.engine_id == self._agent.engine_id and self._has_lost(other, now):
                left = []
                for view in self._registry.tasks_on(other.id):
                    with _passed_over(view.task.id):
                        if not self._take(view, other):
                            left.append(view)
                if now - other.lease_until >= GIVE_UP_AFTER:
                    self._give_up(left, other)

    def reconcile(self) -> None:
        """Adopt what is ours and not carried; remove containers that should not be."""
        # The store may have forgotten, or been emptied: what it knows of us is told anew.
        self._images = None
        carried = self._runs.carried()
        ours = {view.task.id: view for view in self._registry.tasks_on(self._agent.id)}
        for id, view in ours.items():
            order = view.task.holds
            # A namesake on another engine has containers that this engine cannot show.
            if id not in carried and order is not None and order.engine_id == self._agent.engine_id:
                _log.info("task %s: adopting it", id)
                self._queue.send(run_order(view.job, view.task, order, adopt=True))
        found = self._executor.seen(self._installation)
        agents, now = self._registry.agents()
        # A namesake elsewhere does not see the containers here.
        here = [other for other in agents if other.engine_id == self._agent.engine_id]
        alive = {other.id for other in here if has_lease(other, now) and other.id != self._agent.id}
        strangers: set[str] = set()
        for seen in found:
            if seen.task_id not in ours.keys() | carried and seen.agent_id not in alive:
                with _passed_over(seen.task_id):
                    self._judge(seen, strangers)
        self._unknown = {id: since for id, since in self._unknown.items() if id in strangers}

    # ------------------------------------------------------------------------------------- inside

    def _has_lost(self, other: Agent, now: datetime) -> bool:
        if other.id == self._agent.id or has_lease(other, now):
            return False
        is_late = now - other.lease_until >= self._periods.lease / TAKE_OVER_SHARE
        return is_late or self._is_gone(other.holder)

    def _take(self, view: TaskView, other: Agent) -> bool:
        """Take over one task of *other*; False if there is no slot free for it."""
        me, id = self._agent, view.task.id

        def decide(job: Job, task: Task, now: datetime) -> Decision:
            if task.holds is None or task.holds.agent_id != other.id:
                return Decision(why="it is somebody else's by now")
            return taken_over(job, task, me)

        try:
            if not self._writes.on_task(id, decide).is_empty:
                _log.info("task %s: taken over from agent %s, which is gone", id, other.id)
        except Full:
            return False
        return True

    def _give_up(self, views: Sequence[TaskView], other: Agent) -> None:
        """End what nobody here can watch: it must be gone before it may start elsewhere."""
        # All at once, as each may take its grace, and what else this thread does cannot wait for long.
        enders = [
            threading.Thread(
                target=self._attempt, args=(f"ending {view.task.id}", partial(self._end, view, other))
            )
            for view in views
        ]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()

    def _end(self, view: TaskView, other: Agent) -> None:
        id, order = view.task.id, view.task.dispatch
        why = Reason(Code.LOST, f"agent {other.id} is gone, and {self._agent.id} has no free slot")
        self._executor.stop(id, self._periods.grace)
        self._executor.remove(id)
        number = order.number if order else None
        # Under its number: somebody else may have found a slot for it meanwhile.
        self._writes.on_task(id, lambda job, task, now: ended(job, task, why, now, number=number))

    def _judge(self, seen: Seen, strangers: set[str]) -> None:
        """A container that no record of ours expects: removed if its task is over or elsewhere."""
        try:
            task = self._records.task(seen.task_id).task
        except NotFound:
            strangers.add(seen.container_id)
            self._bear_with(seen)
            return
        order = task.holds
        if order is None or order.engine_id != self._agent.engine_id:
            _log.info("task %s: removing a container that outlived it", seen.task_id)
            self._executor.remove(seen.task_id)

    def _bear_with(self, seen: Seen) -> None:
        """A container with our labels whose task is not known: told, and stopped after a while."""
        now = self._clock.monotonic()
        since = self._unknown.setdefault(seen.container_id, now)
        if now - since < UNKNOWN_KEPT:
            left = int((UNKNOWN_KEPT - (now - since)).total_seconds())
            _log.warning("container %s has our labels and no record; removed in %d s", seen.task_id, left)
            return
        _log.warning("container %s has our labels and no record; it is removed", seen.task_id)
        self._executor.stop(seen.task_id, self._periods.grace)
        self._executor.remove(seen.task_id)


@contextmanager
def _passed_over(id: TaskId) -> Iterator[None]:
    """What is wrong with one task's record must not keep the agent from the others."""
    try:
        yield
    except (NotFound, StoreCorrupt) as error:
        _log.warning("task %s is passed over: %s", id, error)
