"""The streams of observers: a snapshot, or what was missed; then what happens (docs/semantics.md B5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titus_celery.core.decision import JobEnded, LogEntry
from titus_celery.core.model import JobId, JobSummary
from titus_celery.core.replay import Replay
from titus_celery.errors import PositionLost, StoreUnavailable
from titus_celery.grpc.convert import notification_to_pb, snapshot_end_to_pb, snapshot_to_pb
from titus_celery.grpc.hub import Hub, Inbox, Told
from titus_celery.grpc.looks import WireLooks, active_job, message_of, snapshot_of
from titus_celery.grpc.threads import Threads
from titus_celery.ports import ChangeLog, Position, is_before, place_of
from titus_celery.service.jobs import Jobs

__all__ = ["Beginning", "Progress", "Streams"]

#: Entries of the log read at once for a stream that is resumed: the creation of a large job is two reads.
REPLAY_CHUNK: Final = 500
#: Times that a job which the store knows and this gateway does not is looked for again.
LOOKS_MAX: Final = 5
_NO_WAIT: Final = timedelta(0)
#: The position of what is told before a snapshot is complete: nobody can go on from there.
_NOWHERE: Final = Position("")

_SNAPSHOT_END: Final = snapshot_end_to_pb().SerializeToString()


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a stream begins: where, and whether it goes on where the last one ended, or why not."""

    position: Position
    is_resumed: bool
    why_not: str = ""


@dataclass(slots=True)
class Progress:
    """How far a stream is: everything up to here was told. Empty: it cannot be resumed yet."""

    position: Position = _NOWHERE


#: Told of the beginning before the first event.
Begin = Callable[[Beginning], Awaitable[None]]
Events = AsyncGenerator[Told]


class _CannotResume(Exception):
    """Nothing was told yet, and a snapshot is what can be."""


class Streams:
    """The streams of ObserveJob and ObserveJobs, as serialised events with their places."""

    def __init__(self, jobs: Jobs, hub: Hub, log: ChangeLog, threads: Threads) -> None:
        self._jobs = jobs
        self._hub = hub
        self._log = log
        self._threads = threads

    async def observe(self, job_id: JobId | None, resume: str, begin: Begin, progress: Progress) -> Events:
        """What happens to a job, to its end, or to all, without end; NotFound at the first step.

        *resume*: the place of the last event that was heard, or "" for a snapshot first. *progress* is
        kept up to date.
        """
        why_not = ""
        if resume:
            try:
                async with aclosing(self._resumed(job_id, Position(resume), begin, progress)) as events:
                    async for told in events:
                        yield told
                return
            except _CannotResume as refusal:
                why_not = str(refusal)
        async with aclosing(self._from_snapshot(job_id, begin, progress, why_not)) as events:
            async for told in events:
                yield told

    # -------------------------------------------------------------------------------- from a snapshot

    async def _from_snapshot(
        self, job_id: JobId | None, begin: Begin, progress: Progress, why_not: str
    ) -> Events:
        for _ in range(LOOKS_MAX):
            await self._hub.caught_up()
            with self._hub.join(job_id) as inbox:
                # Nothing is awaited in between, so that place, snapshot and inbox belong together.
                position, snapshot = self._hub.position, self._snapshot(job_id)
                if snapshot is not None:
                    await begin(Beginning(position, is_resumed=False, why_not=why_not))
                    for job in snapshot:
                        yield Told(_NOWHERE, snapshot_of(job), is_end=False)
                    progress.position = position
                    yield Told(position, _SNAPSHOT_END, is_end=False)
                    async with aclosing(self._live(inbox, position, progress)) as events:
                        async for told in events:
                            yield told
                    return
            if job_id is None:
                raise AssertionError("all jobs can always be told")
            summary = await self._threads.run(self._jobs.find, job_id)
            if summary.job.state.is_final:
                await begin(Beginning(position, is_resumed=False, why_not=why_not))
                for told in _finished(summary, position):
                    progress.position = told.position
                    yield told
                return
            # Made through another gateway a moment ago: this one will know it in another.
            self._hub.wrote(await self._threads.run(self._log.end))
        raise StoreUnavailable(f"job {job_id} is there, and its change log does not say so")

    def _snapshot(self, job_id: JobId | None) -> Sequence[bytes] | None:
        """The jobs that an observer hears of first; None if the one is not alive as far as is known here.

        All observers share them, so that each of very many that join at once costs a list alone.
        """
        if job_id is None:
            return [active_job(entry) for entry in self._hub.catalog.live()]
        entry = self._hub.catalog.get(job_id)
        return None if entry is None else [active_job(entry)]

    # -------------------------------------------------------------------------------- resumed

    async def _resumed(
        self, job_id: JobId | None, resume: Position, begin: Begin, progress: Progress
    ) -> Events:
        await self._hub.caught_up()
        with self._hub.join(job_id) as inbox:
            here = self._hub.position
            is_live = job_id is None or self._hub.catalog.get(job_id) is not None
            try:
                entries = await self._read(resume)
            except PositionLost as error:
                raise _CannotResume(str(error)) from error
            if not is_live and not any(_ends(entry, job_id) for _, entry in entries):
                raise _CannotResume(f"job {job_id} is over")
            await begin(Beginning(resume, is_resumed=True))
            progress.position = resume
            yield Told(resume, _SNAPSHOT_END, is_end=False)
            replay, last = Replay(WireLooks(), job_id), resume
            while entries and is_before(last, here):
                for position, entry in entries:
                    last = position
                    news = replay.hear(entry) if not is_before(here, position) else None
                    if news is not None:
                        told = Told(position, message_of(news), isinstance(entry, JobEnded))
                        progress.position = position
                        yield told
                        if told.is_end and job_id is not None:
                            return
                entries = await self._read(last)
            async with aclosing(self._live(inbox, max(here, resume, key=place_of), progress)) as events:
                async for told in events:
                    yield told

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
                    if told.is_end and inbox.job_id is not None:
                        return
        finally:
            if inbox.is_told:
                # What happened meanwhile did not concern this stream.
                progress.position = max(self._hub.position, after, key=place_of)


def _finished(summary: JobSummary, position: Position) -> Sequence[Told]:
    """What is told of a job that is over (A14)."""
    return (
        Told(_NOWHERE, snapshot_to_pb(summary).SerializeToString(), is_end=False),
        Told(position, _SNAPSHOT_END, is_end=False),
        Told(position, notification_to_pb(JobEnded(summary.job)).SerializeToString(), is_end=True),
    )


def _ends(entry: LogEntry, job_id: JobId | None) -> bool:
    return isinstance(entry, JobEnded) and entry.job.id == job_id
