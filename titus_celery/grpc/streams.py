"""From the feed's thread to one stream on the event loop, with a bound on what waits between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from titus_celery.core.decision import Notification
from titus_celery.core.model import JobId, JobSummary
from titus_celery.core.observation import Event, Observation, Snapshot, SnapshotEnd
from titus_celery.errors import SlowObserver
from titus_celery.grpc.convert import notification_to_pb, snapshot_end_to_pb, snapshot_to_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.threads import Threads
from titus_celery.service.feed import Feed
from titus_celery.service.jobs import Jobs

__all__ = ["OBSERVER_EVENTS_MAX", "Inbox", "Streams"]

#: Notifications that may wait for one observer: twenty times the creation of the largest job. They
#: are shared by all observers, so one costs its own deque alone (about 0.2 MB when full).
OBSERVER_EVENTS_MAX: Final = 20_000


class Inbox:
    """What one stream has still to tell. Made and read on the event loop, filled by the feed's thread.

    It has its place with the feed from when it is made until it is left, fails or overflows.
    """

    def __init__(self, feed: Feed, concerns: Callable[[Notification], bool], events_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._concerns = concerns
        self._events_max = events_max
        self._waiting: deque[Notification] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        # Last, because from now on it hears.
        self._subscription = feed.subscribe(self)
        #: Blocks until every later commit will be heard: see Subscription.ready.
        self.ready = self._subscription.ready

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.close()

    def hear(self, notifications: Sequence[Notification]) -> None:
        """Take what concerns this stream (called from the feed's thread)."""
        wanted = [each for each in notifications if self._concerns(each)]
        if wanted:
            self._soon(lambda: self._put(wanted))

    def fail(self, error: Exception) -> None:
        """Take that nothing follows (called from the feed's thread)."""
        self._soon(lambda: self._end(error))

    async def next(self) -> Notification:
        """The next notification; once there is none left, the error that ended the feed.

        SlowObserver as soon as more than the bound wait: what waited is dropped.
        """
        while not self._waiting:
            if self._error is not None:
                # Shared with other streams: without the traces of their frames.
                raise self._error.with_traceback(None)
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def _soon(self, call: Callable[[], None]) -> None:
        # A loop that is closed has no streams any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _put(self, notifications: Sequence[Notification]) -> None:
        if self._error is not None:
            return
        if len(self._waiting) + len(notifications) > self._events_max:
            self._waiting.clear()
            self._end(SlowObserver(self._events_max))
            return
        self._waiting.extend(notifications)
        self._changed.set()

    def _end(self, error: Exception) -> None:
        self._error = self._error or error
        self._changed.set()
        self._subscription.close()


class Streams:
    """The streams of ObserveJob and ObserveJobs."""

    def __init__(self, jobs: Jobs, feed: Feed, threads: Threads, events_max: int) -> None:
        self._jobs = jobs
        self._feed = feed
        self._threads = threads
        self._events_max = events_max

    def of_job(self, job_id: JobId) -> AsyncGenerator[pb.JobChangeNotification]:
        """The job as it is, then what happens to it; ends after its end. NotFound at the first step."""
        return self._observe(Observation(job_id), lambda: (self._jobs.find(job_id),))

    def of_all(self) -> AsyncGenerator[pb.JobChangeNotification]:
        """Every live job as it is, then what happens to any; does not end by itself."""
        return self._observe(Observation(), self._jobs.live)

    async def _observe(
        self, observation: Observation, snapshot: Callable[[], Sequence[JobSummary]]
    ) -> AsyncGenerator[pb.JobChangeNotification]:
        with Inbox(self._feed, observation.concerns, self._events_max) as inbox:
            # Only then the snapshot: what is committed in between is in it, or in the inbox, or both.
            await self._threads.run(inbox.ready)
            for event in observation.begin(await self._threads.run(snapshot)):
                yield _event_to_pb(event)
            while not observation.over:
                news = observation.hear(await inbox.next())
                if news is not None:
                    yield _event_to_pb(news)


def _event_to_pb(event: Event) -> pb.JobChangeNotification:
    match event:
        case Snapshot(summary):
            return snapshot_to_pb(summary)
        case SnapshotEnd():
            return snapshot_end_to_pb()
        case _:
            return notification_to_pb(event)
