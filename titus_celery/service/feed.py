"""One reader of the change log, and jobs and clusters as they stand, for who keeps them in mind.

The log is followed from before the first of them is read (docs/semantics.md B5), so nothing falls in between.
When it cannot be followed any more, whoever listens is told so: a gap is never silent (P6). The entries of
the log name each other, so after an outage it is followed on if nothing of it is missing; only if something
is, all is read anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from titus_celery.core.catalog import ENDED_TASKS_MAX
from titus_celery.core.cluster import Cluster
from titus_celery.core.decision import LogEntry
from titus_celery.core.model import Job, JobSummary
from titus_celery.core.shelf import Order
from titus_celery.errors import PositionLost, TitusError, Unavailable
from titus_celery.ports import ChangeLog, Clusters, Position, Snapshots

__all__ = ["Feed", "Sink"]

#: Waited at once for news: how long a feed takes to close at most.
BLOCK: Final = timedelta(seconds=1)
#: Entries read at once: who learns of them is busy for some 5 ms then, and calls to a gateway wait so long.
BATCH_MAX: Final = 100
#: Clusters, live jobs, and jobs that are over, read at once: some ten milliseconds each.
CLUSTER_CHUNK: Final = 200
LIVE_CHUNK: Final = 100
OVER_CHUNK: Final = 200
#: Between tries to follow the log again: soon enough to go unnoticed, slow enough not to press a
#: store that is coming up.
RETRY_AFTER: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Who learns. Called from the feed's threads, one call at a time but for `load_over` and `loaded_over`;
    each must return at once."""

    def begin(self) -> None:
        """Everything is read anew: forget what you know."""

    def load_clusters(self, clusters: Sequence[Cluster]) -> None:
        """Clusters as they stand; they may be told of again by what is heard."""

    def load(self, summaries: Sequence[JobSummary]) -> None:
        """Live jobs as they stand; they may be told of again by what is heard."""

    def hear(self, entries: Sequence[tuple[Position, LogEntry]]) -> None:
        """What was committed, in order."""

    def ready(self, position: Position) -> None:
        """All that lives is known as it is at this place of the log, and what follows will be heard."""

    def load_over(self, jobs: Sequence[Job]) -> None:
        """Jobs that are over."""

    def loaded_over(self) -> None:
        """Those were all."""

    def fail(self, error: Exception) -> None:
        """Nothing follows for now, because of *error*; what is known grows old until `ready`."""


class Feed:
    """Follows the change log in threads of its own, from `start` to `close`."""

    def __init__(
        self,
        log: ChangeLog,
        snapshots: Snapshots,
        clusters: Clusters,
        *,
        block: timedelta = BLOCK,
        retry_after: timedelta = RETRY_AFTER,
    ) -> None:
        self._log = log
        self._snapshots = snapshots
        self._clusters = clusters
        self._block = block
        self._retry_after = retry_after
        #: What the reader said last of why it cannot follow; it says it once.
        self._complaint = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rest: _Rest | None = None

    def start(self, sink: Sink) -> None:
        """Begin to teach *sink*; once."""
        self._thread = threading.Thread(target=self._run, args=(sink,), name="titus-feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; returns within about BLOCK, and *sink* hears that it is closed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, sink: Sink) -> None:
        position: Position | None = None
        while not self._stop.is_set():
            try:
                if position is None:
                    position = self._load(sink)
                position = self._follow(sink, position)
            except PositionLost as error:
                position = None
                self._fail(sink, error)
            except _BrokenOff as broken:
                position = broken.position
                self._fail(sink, broken.error)
            except Exception as error:
                position = None
                self._fail(sink, error)
        if self._rest is not None:
            self._rest.end()
        sink.fail(Unavailable("this gateway", "it is being stopped; connect again"))

    def _load(self, sink: Sink) -> Position:
        """Read all clusters and live jobs; where the log was before that."""
        position = self._log.end()
        if self._rest is not None:
            self._rest.end()
        sink.begin()
        after: Order | None = None
        while not self._stop.is_set():
            clusters, after = self._clusters.page(after, CLUSTER_CHUNK)
            if after is None:
                break
            sink.load_clusters(clusters)
        after = None
        while not self._stop.is_set():
            summaries, after = self._snapshots.live(after, LIVE_CHUNK, ENDED_TASKS_MAX)
            if after is None:
                break
            sink.load(summaries)
        self._rest = _Rest(self._snapshots, sink, self._retry_after)
        return position

    def _follow(self, sink: Sink, position: Position) -> Position:
        """Hand on what the log says until the feed is closed; where it is then."""
        is_ready = False
        while not self._stop.is_set():
            try:
                entries = self._log.read(position, BATCH_MAX, self._block if is_ready else timedelta(0))
            except PositionLost:
                raise
            except TitusError as error:
                raise _BrokenOff(position, error) from error
            if entries:
                sink.hear(entries)
                position = entries[-1][0]
            if not is_ready and len(entries) < BATCH_MAX:
                is_ready = True
                self._calm()
                sink.ready(position)
                if self._rest is not None:
                    self._rest.start()
        return position

    def _fail(self, sink: Sink, error: Exception) -> None:
        if not isinstance(error, TitusError):
            # A fault of ours. Observers raise it, where it counts as one; without this thread they
            # would wait for ever.
            _log.error("the change log's reader failed", exc_info=error)
        elif str(error) != self._complaint:
            _log.warning("the change log cannot be followed for now: %s", error)
        self._complaint = str(error)
        sink.fail(error)
        self._stop.wait(self._retry_after.total_seconds())

    def _calm(self) -> None:
        if self._complaint:
            _log.info("the change log is followed again")
            self._complaint = ""


class _BrokenOff(Exception):
    """The log could be followed up to a place."""

    def __init__(self, position: Position, error: TitusError) -> None:
        super().__init__(position, error)
        self.position, self.error = position, error


class _Rest:
    """Reads the jobs that are over, which may be very many, in a thread of its own."""

    def __init__(self, snapshots: Snapshots, sink: Sink, retry_after: timedelta) -> None:
        self._snapshots = snapshots
        self._sink = sink
        self._retry_after = retry_after
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless that was done before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="titus-feed-over", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Read no more; when this returns, nothing of it follows."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        after: Order | None = None
        while not self._stop.is_set():
            try:
                jobs, after = self._snapshots.over(after, OVER_CHUNK)
            except Exception as error:
                # A fault of ours ends no thread either: what it reads is asked for until it is there.
                fault = None if isinstance(error, TitusError) else error
                _log.warning("the jobs that are over cannot be read for now: %s", error, exc_info=fault)
                self._stop.wait(self._retry_after.total_seconds())
                continue
            if self._stop.is_set():
                return
            if after is None:
                self._sink.loaded_over()
                return
            self._sink.load_over(jobs)
