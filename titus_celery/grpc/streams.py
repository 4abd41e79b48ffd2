"""The streams of observers: a snapshot, or what was missed; then what happens (docs/semantics.md B5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titus_celery.core.decision import LogEntry
from titus_celery.core.model import ClusterId, JobId
from titus_celery.errors import PositionLost, StoreUnavailable
from titus_celery.grpc.hub import Hub, Inbox, Told
from titus_celery.grpc.subjects import NOWHERE, ClusterSubject, JobSubject, Subject
from titus_celery.grpc.threads import Threads
from titus_celery.ports import ChangeLog, Position, is_before, place_of
from titus_celery.service.jobs import Jobs
from titus_celery.service.subscriptions import Subscriptions

__all__ = ["Begin", "Beginning", "Events", "Progress", "Streams"]

#: Entries of the log read at once for a stream that is resumed: the creation of a large job is two reads.
REPLAY_CHUNK: Final = 500
#: Times that what the store may know and this gateway does not is looked for again.
LOOKS_MAX: Final = 5
_NO_WAIT: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a stream begins: where, and whether it goes on where the last one ended, or why not."""

    position: Position
    is_resumed: bool
    why_not: str = ""


@dataclass(slots=True)
class Progress:
    """How far a stream is: everything up to here was told. Empty: it cannot be resumed yet."""

    position: Position = NOWHERE


#: Told of the beginning before the first event.
Begin = Callable[[Beginning], Awaitable[None]]
Events = AsyncGenerator[Told]


class _CannotResume(Exception):
    """Nothing was told yet, and a snapshot is what can be."""


class Streams:
    """The streams of ObserveJob, ObserveJobs, ObserveJobCluster and ObserveJobClusters, as serialised events
    with their places."""

    def __init__(
        self, jobs: Jobs, hub: Hub, log: ChangeLog, threads: Threads, subscriptions: Subscriptions
    ) -> None:
        self._jobs = jobs
        self._hub = hub
        self._log = log
        self._threads = threads
        self._subscriptions = subscriptions

    def observe(self, job_id: JobId | None, resume: str, begin: Begin, progress: Progress) -> Events:
        """What happens to a job, to its end, or to all, without end; NotFound at the first step.

        *resume*: the place of the last event that was heard, or "" for a snapshot first. *progress* is
        kept up to date.
        """
        subject = JobSubject(job_id, self._hub, self._jobs, self._threads, self._subscriptions)
        return self._observe(subject, resume, begin, progress)

    def observe_clusters(
        self, cluster_id: ClusterId | None, resume: str, begin: Begin, progress: Progress
    ) -> Events:
        """What happens to a cluster, until it is removed, or to all, without end; as `observe`."""
        return self._observe(ClusterSubject(cluster_id, self._hub), resume, begin, progress)

    async def _observe(self, subject: Subject, resume: str, begin: Begin, progress: Progress) -> Events:
        why_not = ""
        if resume:
            try:
                async with aclosing(self._resumed(subject, Position(resume), begin, progress)) as events:
                    async for told in events:
                        yield told
                return
            except _CannotResume as refusal:
                why_not = str(refusal)
        async with aclosing(self._from_snapshot(subject, begin, progress, why_not)) as events:
            async for told in events:
                yield told

    # -------------------------------------------------------------------------------- from a snapshot

    async def _from_snapshot(
        self, subject: Subject, begin: Begin, progress: Progress, why_not: str
    ) -> Events:
        is_sure = False
        for _ in range(LOOKS_MAX):
            await self._hub.caught_up()
            with subject.join() as inbox:
                # Nothing is awaited in between, so that place, snapshot and inbox belong together.
                position, snapshot = self._hub.position, subject.snapshot()
                if snapshot is not None:
                    async with subject.attended():
                        await begin(Beginning(position, is_resumed=False, why_not=why_not))
                        for part in snapshot:
                            yield Told(NOWHERE, subject.message_of(part), is_end=False)
                        progress.position = position
                        yield Told(position, subject.marker, is_end=False)
                        async with aclosing(self._live(inbox, position, progress)) as events:
                            async for told in events:
                                yield told
                    return
            over = await subject.look_up(position, is_sure=is_sure)
            if over is not None:
                await begin(Beginning(position, is_resumed=False, why_not=why_not))
                for told in over:
                    progress.position = told.position
                    yield told
                return
            # Made through another gateway a moment ago: this one will know it in another.
            self._hub.wrote(await self._threads.run(self._log.end))
            is_sure = True
        raise StoreUnavailable(f"{subject.name} is there, and its change log does not say so")

    # -------------------------------------------------------------------------------- resumed

    async def _resumed(self, subject: Subject, resume: Position, begin: Begin, progress: Progress) -> Events:
        await self._hub.caught_up()
        with subject.join() as inbox:
            here, is_there = self._hub.position, subject.is_there
            try:
                entries = await self._read(resume)
                if not is_there and not await self._is_end_told(subject, entries, here):
                    raise _CannotResume(f"{subject.name} is over")
            except PositionLost as error:
                raise _CannotResume(str(error)) from error
            async with subject.attended():
                await begin(Beginning(resume, is_resumed=True))
                progress.position = resume
                yield Told(resume, subject.marker, is_end=False)
                replay, last = subject.replay(), resume
                while entries and is_before(last, here):
                    for position, entry in entries:
                        last = position
                        told = replay(position, entry) if not is_before(here, position) else None
                        if told is not None:
                            progress.position = position
                            yield told
                            if told.is_end and inbox.id is not None:
                                return
                    entries = await self._read(last)
                async with aclosing(self._live(inbox, max(here, resume, key=place_of), progress)) as events:
                    async for told in events:
                        yield told

    async def _is_end_told(
        self, subject: Subject, entries: Sequence[tuple[Position, LogEntry]], here: Position
    ) -> bool:
        """Whether what follows tells of the end of the one that is not there any more."""
        while entries:
            if any(subject.is_ended_by(entry) for _, entry in entries):
                return True
            last = entries[-1][0]
            entries = await self._read(last) if is_before(last, here) else ()
        return False

    async def _read(self, after: Position) -> Sequence[tuple[Position, LogEntry]]:
        return await self._threads.run(self._log.read, after, REPLAY_CHUNK, _NO_WAIT)

    # -------------------------------------------------------------------------------- live

    async def _live(self, inbox: Inbox, after: Position, progress: Progress) -> Events:
        """What comes after this place, which is what the observer has heard."""
        is_news = False
        try:
            while True:
                told = await inbox.next()
                is_news = is_news or is_before(after, told.position)
                if is_news:
                    progress.position = told.position
                    yield told
                    if told.is_end and inbox.id is not None:
                        return
        finally:
            if inbox.is_told:
                # What happened meanwhile did not concern this stream.
                progress.position = max(self._hub.position, after, key=place_of)
