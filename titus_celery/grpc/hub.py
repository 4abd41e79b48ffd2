"""What a gateway knows of all jobs and clusters, on its event loop: queries are answered from it, observers
hear of it.

The feed teaches it from threads of its own; everything else happens on the loop, so that a query, a snapshot
and a place of the change log always belong together without any lock.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from types import TracebackType
from typing import Final, Self

from titus_celery.core.catalog import Catalog
from titus_celery.core.cluster import Cluster
from titus_celery.core.cluster_catalog import ClusterCatalog
from titus_celery.core.decision import ClusterRemoved, JobEnded, LogEntry
from titus_celery.core.model import ClusterId, Job, JobId, JobSummary
from titus_celery.errors import PositionLost, SlowObserver, StoreUnavailable, Unavailable
from titus_celery.grpc.cluster_looks import ClusterWireLooks, cluster_message_of
from titus_celery.grpc.looks import WireLooks, message_of
from titus_celery.ports import Position, is_before

__all__ = ["OBSERVER_EVENTS_MAX", "Hub", "Inbox", "Told"]

#: Events that may wait for one observer: twenty times the creation of the largest job. They are shared by
#: all observers, so one costs its own deque alone (about 0.2 MB when full).
OBSERVER_EVENTS_MAX: Final = 20_000
#: How long a call waits until this gateway knows all live jobs, and what was written through it just now:
#: the first takes some seconds after its start, the second milliseconds.
READY_WITHIN: Final = timedelta(seconds=5)
#: How long it waits for a store that went away: twice as long as the feed waits between two tries, so that
#: whoever asks once the store is back does not hear that it was away.
BACK_WITHIN: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Told:
    """An event as observers get it."""

    position: Position
    #: A serialised JobChangeNotification or JobClusterNotification.
    message: bytes
    #: It is the end of the job, or of the cluster.
    is_end: bool


class Audience:
    """The inboxes of all who observe things of one kind: one of these things, or all."""

    def __init__(self) -> None:
        self._of_all: set[Inbox] = set()
        self._of_one: defaultdict[str, set[Inbox]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._of_all) + sum(map(len, self._of_one.values()))

    def __iter__(self) -> Iterator[Inbox]:
        return chain(self._of_all, *self._of_one.values())

    def of(self, id: str) -> Sequence[Inbox]:
        """The inboxes of those who hear of this thing."""
        return (*self._of_all, *self._of_one.get(id, ()))

    def add(self, inbox: Inbox, id: str | None) -> None:
        """One more who observes this thing, or without an id all."""
        (self._of_all if id is None else self._of_one[id]).add(inbox)

    def discard(self, inbox: Inbox, id: str | None) -> None:
        """One less, if it was there."""
        if id is None:
            self._of_all.discard(inbox)
        elif (others := self._of_one.get(id)) is not None:
            others.discard(inbox)
            if not others:
                del self._of_one[id]


class Inbox:
    """What one stream has still to tell, from when it is made until it is left, fails or overflows."""

    def __init__(self, audience: Audience, id: str | None, events_max: int) -> None:
        #: What is observed; None: all of its kind.
        self.id = id
        self._audience = audience
        audience.add(self, id)
        self._events_max = events_max
        self._waiting: deque[Told] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._audience.discard(self, self.id)

    def put(self, told: Told) -> None:
        """Take an event; too many of them end the stream, and those that waited are dropped."""
        if self._error is not None:
            return
        if len(self._waiting) >= self._events_max:
            self._waiting.clear()
            self.end(SlowObserver(self._events_max))
            return
        self._waiting.append(told)
        self._changed.set()

    def end(self, error: Exception) -> None:
        """Nothing follows what waits now."""
        self._error = self._error or error
        self._changed.set()
        self._audience.discard(self, self.id)

    @property
    def is_told(self) -> bool:
        """Whether everything was told that came so far."""
        return not self._waiting and not isinstance(self._error, SlowObserver)

    async def next(self) -> Told:
        """The next event; once there is none left, the error that ended the stream."""
        while not self._waiting:
            if self._error is not None:
                # Shared with other streams: without the traces of their frames.
                raise self._error.with_traceback(None)
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class Hub:
    """The feed's Sink. Make it on the event loop; but for a Sink's methods and `wrote` use it there only."""

    def __init__(
        self, *, events_max: int = OBSERVER_EVENTS_MAX, ready_within: timedelta = READY_WITHIN
    ) -> None:
        self.catalog = Catalog(WireLooks())
        self.clusters = ClusterCatalog(ClusterWireLooks())
        #: How far the log is known.
        self.position = Position("0-0")
        self._loop = asyncio.get_running_loop()
        self._events_max = events_max
        self._ready_within = ready_within
        self._is_ready = False
        self._error: Exception | None = None
        #: Those who wait for anything to change.
        self._waiters: list[asyncio.Future[None]] = []
        self._of_jobs, self._of_clusters = Audience(), Audience()
        self._lock = threading.Lock()
        self._written: Position | None = None
        self._listeners: list[Callable[[bool], None]] = []

    # ------------------------------------------------------------------------------------------ use

    @property
    def is_ready(self) -> bool:
        """Whether all clusters and live jobs are known as they are now."""
        return self._is_ready

    @property
    def observers(self) -> int:
        """How many streams there are."""
        return len(self._of_jobs) + len(self._of_clusters)

    def on_ready(self, listener: Callable[[bool], None]) -> None:
        """Have *listener* told on the loop, whenever it changes, whether the hub is ready."""
        self._listeners.append(listener)

    def wrote(self, position: Position) -> None:
        """This gateway has committed something there; from any thread. Later queries must know it."""
        with self._lock:
            if self._written is None or is_before(self._written, position):
                self._written = position

    async def caught_up(self) -> None:
        """Return once everything is known that was written through this gateway.

        StoreUnavailable, or what keeps the feed from following, if that takes too long.
        """
        if self._is_ready and not self._lags():
            return
        began = self._loop.time()
        try:
            async with asyncio.timeout_at(began + self._ready_within.total_seconds()) as limit:
                while not self._is_ready or self._lags():
                    if self._error is not None:
                        if not isinstance(self._error, StoreUnavailable):
                            raise self._error.with_traceback(None)
                        limit.reschedule(began + min(self._ready_within, BACK_WITHIN).total_seconds())
                    waiter = self._loop.create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            if self._error is not None:
                raise self._error.with_traceback(None) from None
            within = f"{self._ready_within.total_seconds():g} s"
            raise StoreUnavailable(f"its change log could not be followed within {within}") from None

    def join(self, job_id: JobId | None) -> Inbox:
        """A place for whoever observes one job, or all: it hears what comes after `position`."""
        return Inbox(self._of_jobs, job_id, self._events_max)

    def join_clusters(self, cluster_id: ClusterId | None) -> Inbox:
        """The same for whoever observes one cluster, or all."""
        return Inbox(self._of_clusters, cluster_id, self._events_max)

    def _lags(self) -> bool:
        return self._written is not None and is_before(self.position, self._written)

    # ------------------------------------------------------------------------------------------ Sink

    def begin(self) -> None:
        """See Sink."""
        self._soon(self._begin)

    def load_clusters(self, clusters: Sequence[Cluster]) -> None:
        """See Sink."""
        self._soon(lambda: self.clusters.load(clusters))

    def load(self, summaries: Sequence[JobSummary]) -> None:
        """See Sink."""
        self._soon(lambda: self._load(summaries))

    def hear(self, entries: Sequence[tuple[Position, LogEntry]]) -> None:
        """See Sink."""
        self._soon(lambda: self._hear(entries))

    def ready(self, position: Position) -> None:
        """See Sink."""
        self._soon(lambda: self._be_ready(position))

    def load_over(self, jobs: Sequence[Job]) -> None:
        """See Sink."""
        self._soon(lambda: self._load_over(jobs))

    def loaded_over(self) -> None:
        """See Sink."""
        self._soon(self.catalog.loaded_over)

    def fail(self, error: Exception) -> None:
        """See Sink."""
        self._soon(lambda: self._fail(error))

    def _soon(self, call: Callable[[], None]) -> None:
        # A loop that is closed serves nobody any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _begin(self) -> None:
        self.catalog.clear()
        self.clusters.clear()
        gc.unfreeze()

    def _load(self, summaries: Sequence[JobSummary]) -> None:
        for summary in summaries:
            self.catalog.load(summary)
        # It stays for long. Looking through all of it again and again, the garbage collector would hold up
        # every call by 0.2 s for 100,000 jobs. What is let go of later is freed all the same.
        gc.freeze()

    def _load_over(self, jobs: Sequence[Job]) -> None:
        self.catalog.load_over(jobs)
        gc.freeze()

    def _hear(self, entries: Sequence[tuple[Position, LogEntry]]) -> None:
        for position, entry in entries:
            news = self.catalog.hear(entry)
            of_cluster = self.clusters.hear(entry, is_news=news is not None)
            self.position = position
            if news is not None and (inboxes := self._of_jobs.of(news.job_id)):
                told = Told(position, message_of(news), isinstance(entry, JobEnded))
                for inbox in inboxes:
                    inbox.put(told)
            if of_cluster is not None and (inboxes := self._of_clusters.of(of_cluster.cluster_id)):
                told = Told(position, cluster_message_of(of_cluster), isinstance(entry, ClusterRemoved))
                for inbox in inboxes:
                    inbox.put(told)
        self._notify()

    def _be_ready(self, position: Position) -> None:
        self.position = position
        self._error = None
        self._set_ready(True)

    def _fail(self, error: Exception) -> None:
        # Whoever asks now waits for what is read anew; for what is away nobody waits.
        is_read_anew = isinstance(error, PositionLost)
        self._error = None if is_read_anew else _away(error)
        for inbox in [*self._of_jobs, *self._of_clusters]:
            inbox.end(error)
        self._set_ready(False)

    def _set_ready(self, is_ready: bool) -> None:
        if self._is_ready is not is_ready:
            self._is_ready = is_ready
            for listener in self._listeners:
                listener(is_ready)
        self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _away(error: Exception) -> Unavailable:
    return error if isinstance(error, Unavailable) else StoreUnavailable(str(error))
