"""What an agent does besides running tasks: lease, inventory, kill polls, and adoption.

At start and from time to time it holds what the engine has against what the store expects, and the
other way round: what a crash interrupted goes on, and what should not be there goes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Prove
from titus_celery.core.lifecycle import run_order
from titus_celery.core.model import Agent, TaskId
from titus_celery.errors import NotFound, StoreCorrupt, TitusError
from titus_celery.ports import AgentRegistry, Clock, Executor, Queue, Records, Seen
from titus_celery.service.runs import Runs

__all__ = ["AgentLife", "Periods", "namesake"]

#: Between two comparisons of containers and ledger.
RECONCILE_PERIOD: Final = timedelta(seconds=30)
#: Between two looks at the engine's images: a new one can be used this soon.
IMAGES_PERIOD: Final = timedelta(seconds=1)
#: Renewals that may fail before the lease is gone.
RENEWALS_PER_LEASE: Final = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """The settings that an agent's life needs."""

    lease: timedelta
    poll: timedelta


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
        periods: Periods,
        clock: Clock,
    ) -> None:
        self._agent = agent
        self._installation = installation
        self._records = records
        self._registry = registry
        self._queue = queue
        self._executor = executor
        self._runs = runs
        self._periods = periods
        self._clock = clock
        self._images: Mapping[str, str] | None = None
        self._has_left = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Live until *stop* is set; a store or engine that is away is waited for."""
        duties = (
            (self.renew, self._periods.lease / RENEWALS_PER_LEASE),
            (self.report_images, IMAGES_PERIOD),
            (self.poll, self._periods.poll),
            (self.reconcile, RECONCILE_PERIOD),
        )
        due = [self._clock.monotonic()] * len(duties)
        while not stop.is_set():
            for place, (duty, period) in enumerate(duties):
                if self._clock.monotonic() >= due[place]:
                    self._attempt(duty)
                    due[place] = self._clock.monotonic() + period
            left = min(due) - self._clock.monotonic()
            stop.wait(max(left, timedelta(0)).total_seconds())

    def renew(self) -> None:
        """Renew the lease, report images, and, if the engine answered, have the consumer prove itself."""
        self._agent = replace(self._agent, lease_until=self._registry.renew(self._agent, self._periods.lease))
        if self._has_left.is_set():
            # Left while we renewed: what was given up stays given up.
            self._registry.leave(self._agent.id)
            return
        self.report_images()
        self._queue.send(Prove(self._agent.id))

    def report_images(self) -> None:
        """Report the engine's images if they changed since the last report."""
        images = self._executor.images()
        if images != self._images:
            self._registry.report_images(self._agent.engine_id, images)
            self._images = images

    def proved(self) -> None:
        """The consumer consumed."""
        self._registry.prove(self._agent.id)

    def poll(self) -> None:
        """Look after every task carried here: the guarantee behind kill messages."""
        for id in self._runs.carried():
            with _passed_over(id):
                self._runs.look_after(id)

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
        for seen in self._executor.seen(self._installation):
            # Those of other agents too: one that is gone for good cannot clean up after itself.
            if seen.task_id not in ours.keys() | carried:
                with _passed_over(seen.task_id):
                    self._judge(seen)

    def leave(self) -> None:
        """Give up the lease, for good: nothing more is to be placed here."""
        self._has_left.set()
        self._registry.leave(self._agent.id)

    def _judge(self, seen: Seen) -> None:
        """A container that no record of ours expects: removed if its task is over or elsewhere."""
        try:
            task = self._records.task(seen.task_id).task
        except NotFound:
            _log.warning("container %s is ours by its labels, but its task is not known", seen.task_id)
            return
        order = task.holds
        if order is None or (order.agent_id, order.number) != (seen.agent_id, seen.dispatch_number):
            _log.info("task %s: removing a container that outlived it", seen.task_id)
            self._executor.remove(seen.task_id)

    def _attempt(self, duty: Callable[[], None]) -> None:
        try:
            duty()
        except TitusError as error:
            _log.warning("%s failed and is tried again: %s", duty.__name__, error)


def namesake(me: Agent, agents: Sequence[Agent], now: datetime) -> Agent | None:
    """An agent of the same id that is alive on another engine.

    The two would share a queue, and each would take the other's containers for vanished.
    """
    same = (other for other in agents if other.id == me.id and other.engine_id != me.engine_id)
    return next((other for other in same if other.lease_until > now), None)


@contextmanager
def _passed_over(id: TaskId) -> Iterator[None]:
    """What is wrong with one task's record must not keep the agent from the others."""
    try:
        yield
    except (NotFound, StoreCorrupt) as error:
        _log.warning("task %s is passed over: %s", id, error)
