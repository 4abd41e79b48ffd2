"""What streams are about: jobs or clusters, one of them to its end, or all without end.

A stream (streams.py) is the same for each; what is particular to jobs, and to clusters, is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from titus_celery.core.decision import ClusterRemoved, JobEnded, LogEntry
from titus_celery.core.model import ClusterId, JobId, JobSummary
from titus_celery.core.replay import ClusterReplay, Replay
from titus_celery.errors import NotFound
from titus_celery.grpc.cluster_looks import (
    ClusterWireLooks,
    cluster_marker,
    cluster_message_of,
    cluster_snapshot_of,
)
from titus_celery.grpc.convert import notification_to_pb, snapshot_end_to_pb, snapshot_to_pb
from titus_celery.grpc.hub import Hub, Inbox, Told
from titus_celery.grpc.looks import WireLooks, active_job, message_of, snapshot_of
from titus_celery.grpc.threads import Threads
from titus_celery.ports import Position
from titus_celery.service.jobs import Jobs
from titus_celery.service.subscriptions import Subscriptions

__all__ = ["NOWHERE", "ClusterSubject", "JobSubject", "Subject"]

#: The position of what is told before a snapshot is complete: nobody can go on from there.
NOWHERE: Final = Position("")
#: How long a stream waits at most until the store knows that it was opened.
SAID_WITHIN: Final = timedelta(milliseconds=500)

_JOB_MARKER: Final = snapshot_end_to_pb().SerializeToString()
_CLUSTER_MARKER: Final = cluster_marker()


class Subject(Protocol):
    """What one stream is about."""

    @property
    def name(self) -> str:
        """What it is called in messages; "" if it is all there are."""

    @property
    def is_there(self) -> bool:
        """Whether it is alive, as far as is known here."""

    @property
    def marker(self) -> bytes:
        """What separates the snapshots from the changes."""

    def join(self) -> Inbox:
        """A place for what comes after the hub's position."""

    def snapshot(self) -> Sequence[bytes] | None:
        """What the first messages are made of; None if it is one that is not alive as far as is known here.

        All observers share it, so that each of very many that join at once costs a list alone.
        """

    def message_of(self, part: bytes) -> bytes:
        """The message that a part of the snapshot is told by."""

    async def look_up(self, position: Position, *, is_sure: bool) -> Sequence[Told] | None:
        """All that is told of one that is not alive, of which the last is its end; NotFound.

        None: it may be alive, and this gateway will know in a moment. *is_sure*: it knew all that there was
        when it was asked for.
        """

    def is_ended_by(self, entry: LogEntry) -> bool:
        """Whether this is the end of the one."""

    def replay(self) -> Callable[[Position, LogEntry], Told | None]:
        """What is to be told of one entry of the log after the other."""

    def attended(self) -> AbstractAsyncContextManager[None]:
        """Entered before the first event, left when the stream ends."""


@dataclass(frozen=True, slots=True)
class JobSubject:
    """A job, or all."""

    id: JobId | None
    hub: Hub
    jobs: Jobs
    threads: Threads
    subscriptions: Subscriptions

    @property
    def name(self) -> str:
        """See Subject."""
        return f"job {self.id}" if self.id else ""

    @property
    def is_there(self) -> bool:
        """See Subject."""
        return self.id is None or self.hub.catalog.get(self.id) is not None

    @property
    def marker(self) -> bytes:
        """See Subject."""
        return _JOB_MARKER

    def join(self) -> Inbox:
        """See Subject."""
        return self.hub.join(self.id)

    def snapshot(self) -> Sequence[bytes] | None:
        """See Subject."""
        if self.id is None:
            return [active_job(entry) for entry in self.hub.catalog.live()]
        entry = self.hub.catalog.get(self.id)
        return None if entry is None else [active_job(entry)]

    def message_of(self, part: bytes) -> bytes:
        """See Subject."""
        return snapshot_of(part)

    async def look_up(self, position: Position, *, is_sure: bool) -> Sequence[Told] | None:
        """See Subject."""
        if self.id is None:
            raise AssertionError("all jobs can always be told")
        summary = await self.threads.run(self.jobs.find, self.id)
        return _finished(summary, position) if summary.job.state.is_final else None

    def is_ended_by(self, entry: LogEntry) -> bool:
        """See Subject."""
        return isinstance(entry, JobEnded) and entry.job.id == self.id

    def replay(self) -> Callable[[Position, LogEntry], Told | None]:
        """See Subject."""
        replay = Replay(WireLooks(), self.id)

        def hear(position: Position, entry: LogEntry) -> Told | None:
            news = replay.hear(entry)
            return None if news is None else Told(position, message_of(news), isinstance(entry, JobEnded))

        return hear

    def attended(self) -> AbstractAsyncContextManager[None]:
        """See Subject. A stream of one transient Mantis job is a subscription (docs/semantics.md A15)."""
        entry = self.hub.catalog.get(self.id) if self.id is not None else None
        if entry is None or not entry.is_transient:
            return nullcontext()
        return _subscribed(entry.id, self.subscriptions)


@dataclass(frozen=True, slots=True)
class ClusterSubject:
    """A cluster, or all."""

    id: ClusterId | None
    hub: Hub

    @property
    def name(self) -> str:
        """See Subject."""
        return f"cluster {self.id}" if self.id else ""

    @property
    def is_there(self) -> bool:
        """See Subject."""
        return self.id is None or self.hub.clusters.get(self.id) is not None

    @property
    def marker(self) -> bytes:
        """See Subject."""
        return _CLUSTER_MARKER

    def join(self) -> Inbox:
        """See Subject."""
        return self.hub.join_clusters(self.id)

    def snapshot(self) -> Sequence[bytes] | None:
        """See Subject."""
        jobs = self.hub.catalog.of_cluster
        if self.id is None:
            return [cluster_snapshot_of(entry, jobs) for entry in self.hub.clusters.all()]
        entry = self.hub.clusters.get(self.id)
        return None if entry is None else [cluster_snapshot_of(entry, jobs)]

    def message_of(self, part: bytes) -> bytes:
        """See Subject."""
        return part

    async def look_up(self, position: Position, *, is_sure: bool) -> Sequence[Told] | None:
        """See Subject."""
        if is_sure:
            # The log tells of every cluster there is.
            raise NotFound("cluster", self.id or "")
        return None

    def is_ended_by(self, entry: LogEntry) -> bool:
        """See Subject."""
        return isinstance(entry, ClusterRemoved) and entry.cluster_id == self.id

    def replay(self) -> Callable[[Position, LogEntry], Told | None]:
        """See Subject."""
        replay = ClusterReplay(ClusterWireLooks(), self.id)

        def hear(position: Position, entry: LogEntry) -> Told | None:
            news = replay.hear(entry)
            if news is None:
                return None
            return Told(position, cluster_message_of(news), isinstance(entry, ClusterRemoved))

        return hear

    def attended(self) -> AbstractAsyncContextManager[None]:
        """See Subject."""
        return nullcontext()


@asynccontextmanager
async def _subscribed(id: JobId, subscriptions: Subscriptions) -> AsyncIterator[None]:
    said = subscriptions.opened(id)
    try:
        # A store that does not answer keeps no observer waiting.
        await asyncio.wait([asyncio.wrap_future(said)], timeout=SAID_WITHIN.total_seconds())
        yield
    finally:
        subscriptions.closed(id)


def _finished(summary: JobSummary, position: Position) -> Sequence[Told]:
    """What is told of a job that is over (A14)."""
    return (
        Told(NOWHERE, snapshot_to_pb(summary).SerializeToString(), is_end=False),
        Told(position, _JOB_MARKER, is_end=False),
        Told(position, notification_to_pb(JobEnded(summary.job)).SerializeToString(), is_end=True),
    )
