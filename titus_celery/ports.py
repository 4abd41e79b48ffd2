"""Every seam between the rules and the world, on one page.

The docstrings are the contracts; tests/contracts holds each adapter to them. All of it is
synchronous: the gateway calls from threads, everything else is threads anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType, Protocol

from titus_celery.core.claims import Claim, ClaimKind
from titus_celery.core.cluster import Cluster, Firing
from titus_celery.core.decision import Change, Command, LogEntry
from titus_celery.core.descriptor import Image
from titus_celery.core.engine import ContainerOrder, EngineFacts, Seen, Started
from titus_celery.core.model import (
    Agent,
    AgentId,
    ClusterId,
    Deadline,
    EngineId,
    Exit,
    Job,
    JobId,
    JobSummary,
    Task,
    TaskId,
)
from titus_celery.core.output import Chunk, Gap, Source
from titus_celery.core.retention import Ended, Freed, Kept
from titus_celery.core.shelf import Order

__all__ = [
    "AgentRegistry",
    "ChangeLog",
    "Chunk",
    "Clock",
    "Clusters",
    "Executor",
    "Gap",
    "Ids",
    "ImageResolver",
    "Leases",
    "Memory",
    "Outputs",
    "Position",
    "Queue",
    "Records",
    "Retained",
    "Snapshots",
    "Source",
    "Subscribers",
    "TaskView",
    "is_before",
    "place_of",
]

#: A place in the change log.
Position = NewType("Position", str)


def place_of(position: Position) -> tuple[int, ...]:
    """What positions of one log are ordered by."""
    return tuple(int(part) for part in position.split("-"))


def is_before(one: Position, other: Position) -> bool:
    """Whether the log got to *one* first."""
    return place_of(one) < place_of(other)


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task, the job it belongs to, and the store's time at which both were read."""

    job: Job
    task: Task
    now: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that the store uses, and that it may use (0: all there are)."""

    used: int
    maximum: int


class Records(Protocol):
    """Jobs, tasks and deadlines: the truth.

    Every method may raise StoreUnavailable (nothing is known about whether a commit took place)
    and StoreCorrupt (nothing was changed).
    """

    def installation(self) -> str:
        """The id of this installation, the same for everybody on this store, for ever."""

    def now(self) -> datetime:
        """The store's time, which is everybody's."""

    def epoch(self) -> str:
        """Which life of the store this is: another one after it was restarted or failed over.

        It may then have forgotten its last writes, so whoever knows better tells it again.
        """

    def memory(self) -> Memory:
        """How much memory the store uses, and may use."""

    def job(self, job_id: JobId) -> tuple[Job, datetime]:
        """The job, live or finished, and the store's time. NotFound if there is none."""

    def task(self, task_id: TaskId) -> TaskView:
        """The task, its job and the store's time. NotFound if there is none."""

    def commit(self, change: Change) -> Position | None:
        """Make *change* true, whole or not at all, change log and deadlines included.

        The place in the log that is reached by it; None if it wrote nothing there.

        Conflict if the job's intent or a task's version moved since it was read, if a record that
        should be new exists, or if a job is ended that has open slots. Full if *room* would be
        exceeded. Taken if a name of a new job is another one's, LimitReached if there are as many jobs
        as the change allows. Fenced if the lease that it is made *under* went to another process.

        When the last open slot of a job closes, the same commit arms its SETTLE deadline.
        A commit moves the job's state forward to the furthest its tasks got (A6).
        """

    def claimed(self, kind: ClaimKind, name: str) -> Claim | None:
        """Whose the name is, if it is anybody's."""

    def open_tasks(self, job_id: JobId) -> Sequence[Task]:
        """The job's open tasks by slot: those alive, and failed ones whose replacement is due."""

    def finished_tasks(self, job_id: JobId, limit: int) -> Sequence[Task]:
        """At most *limit* of the job's other tasks, the newest ended first."""

    def spread(self, job_id: JobId) -> Mapping[EngineId, int]:
        """How many tasks of the job hold room on each engine; engines with none may be left out."""

    def jobs_over(self, ids: Sequence[JobId]) -> Sequence[Job]:
        """Those of these jobs that are over, in this order; without those that are gone or unreadable."""

    def archived(self, job_id: JobId) -> tuple[Job, Sequence[Task]] | None:
        """The job and all of its tasks, the oldest ended first, if it is one record by now."""

    def live_jobs(self, start: int, limit: int) -> tuple[Sequence[Job], int]:
        """A page of the jobs that are not over, by creation then id, and how many there are."""

    def queued(self, limit: int) -> Sequence[TaskView]:
        """At most *limit* queued tasks, oldest first."""

    def due(self, now: datetime, limit: int) -> Sequence[Deadline]:
        """At most *limit* deadlines at or before *now*, earliest first; they stay in the store."""

    def next_due(self) -> datetime | None:
        """When the earliest deadline is due, if there is one."""

    def disarm(self, deadline: Deadline) -> None:
        """Remove a deadline unless it was moved meanwhile."""

    def pull_deadlines(self, later_than: datetime, by: timedelta) -> None:
        """Every later deadline that is not moved meanwhile is due *by* sooner. Not safe to repeat."""

    def prune(self, job_id: JobId, keep: int) -> None:
        """Let go of the job's oldest tasks that were replaced, but for *keep*; safe to repeat."""

    def archive(self, job_id: JobId) -> None:
        """Make a job that is over and its tasks one record that reads the same; safe to repeat."""


class Clusters(Protocol):
    """Job clusters but for the built-in ones, which are no records. Commits change them."""

    def cluster(self, cluster_id: ClusterId) -> tuple[Cluster, datetime]:
        """The cluster and the store's time. NotFound if there is none."""

    def page(self, after: Order | None, limit: int) -> tuple[Sequence[Cluster], Order | None]:
        """At most *limit* clusters after this place, by creation and id; and the place to go on from,
        None at the end."""

    def live_jobs(self, cluster_id: ClusterId) -> Sequence[Job]:
        """The cluster's jobs that are not over, the oldest first."""

    def firings(self, cluster_id: ClusterId, start: int, limit: int) -> tuple[Sequence[Firing], int]:
        """*limit* of the times of its schedule that were decided, the newest first, from the *start*-th on;
        and how many are kept."""

    def trim_firings(self, cluster_id: ClusterId, before: datetime, keep: int) -> None:
        """Let go of those before this time, and of the oldest but for *keep*; safe to repeat."""


class Subscribers(Protocol):
    """Who observes a job, by what each gateway says of itself (docs/semantics.md A15)."""

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        """The job has subscribers at *holder* for *span* from now. Said again, it moves.

        Of a job that is over, or gone, nothing is kept.
        """

    def until(self, job_id: JobId) -> datetime | None:
        """Until when it has some, or had the last one; None: it never had any."""


class Snapshots(Protocol):
    """All jobs as they stand, a chunk at a time, for who follows the change log from before.

    Jobs that come or go while one reads are in a chunk or not; the log tells of them.
    """

    def live(
        self, after: Order | None, limit: int, ended_max: int
    ) -> tuple[Sequence[JobSummary], Order | None]:
        """At most *limit* live jobs after this place, by creation and id, each with its open tasks and
        the newest *ended_max* of the others; and the place to go on from, None at the end."""

    def over(self, after: Order | None, limit: int) -> tuple[Sequence[Job], Order | None]:
        """The same for jobs that are over, by end and id, without tasks."""


class Retained(Protocol):
    """The jobs that are over and still kept (docs/semantics.md A17), and how they go."""

    def kept(self, limit: int) -> Kept:
        """What is kept, with at most *limit* of the oldest jobs by end."""

    def remove(self, ended: Ended) -> Freed:
        """Remove a job, at once as a whole, and its output. Conflict if somebody else did, NotFound never."""

    def trim_log(self, bytes_max: int) -> None:
        """Let the oldest entries of the change log go until it takes about so many bytes."""


class ChangeLog(Protocol):
    """The one ordered log of what happened, written by commits, read by observers."""

    def end(self) -> Position:
        """The place after everything committed so far."""

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        """What follows *after*, in commit order; waits up to *block* for the first, then [].

        Raises PositionLost (errors) when the log no longer reaches back to *after*.
        """


class Outputs(Protocol):
    """What tasks wrote, bounded per task: the newest bytes stay, a gap is told."""

    def append(self, task_id: TaskId, chunks: Sequence[Chunk]) -> None:
        """Keep *chunks*. A chunk that starts before `end(task_id)` is ignored: replays are harmless."""

    def end(self, task_id: TaskId) -> int:
        """The offset after the last byte kept; 0 if nothing was."""

    def read(self, task_id: TaskId, offset: int, block: timedelta) -> Sequence[Chunk | Gap]:
        """What is kept from *offset* on; waits up to *block* for the first of it, then [].

        The first chunk is cut so that it begins at *offset*. A Gap comes first if bytes are gone.
        """

    def expire(self, task_id: TaskId) -> None:
        """Let go of it once the time for which ended output is kept has passed."""


class AgentRegistry(Protocol):
    """Which agents there are, their leases, what is reserved on them, and the images they have."""

    def hold(self, agent: Agent, span: timedelta, is_gone: Callable[[str], bool]) -> Agent:
        """Get or renew the lease of *agent* for its holder, for *span* from now; the agent as recorded.

        Its epoch is the same as before for who renews in time, and a higher one for who gets the
        lease after it was lost. PlaceTaken while another holder has it, unless *is_gone* knows that
        this holder is no more.
        """

    def prove(self, agent_id: AgentId) -> None:
        """Record that the agent's Celery consumer consumes, now."""

    def leave(self, agent_id: AgentId, holder: str) -> None:
        """Give up the lease if *holder* has it: nothing more is placed there, tasks are not touched."""

    def agents(self) -> tuple[Sequence[Agent], datetime]:
        """Every agent whose record is kept, with what is reserved on it, and the store's time."""

    def tasks_on(self, agent_id: AgentId) -> Sequence[TaskView]:
        """The tasks that hold room on this agent: dispatched, starting, running."""

    def report_images(self, engine_id: EngineId, images: Mapping[str, str]) -> None:
        """Replace the engine's inventory: image name with tag, or id, to image id."""

    def images(self) -> Mapping[EngineId, Mapping[str, str]]:
        """The newest inventory of every engine that reported one."""


class Leases(Protocol):
    """Named leases: at most one holder at a time, by the store's time."""

    def hold(self, name: str, holder: str, span: timedelta) -> bool:
        """Take or renew the lease for *span*; False while another holds it."""

    def release(self, name: str, holder: str) -> None:
        """Give it up if *holder* has it."""

    def raise_flag(self, name: str, span: timedelta) -> bool:
        """True for the first to ask within *span*, or since `lower_flag`."""

    def lower_flag(self, name: str) -> None:
        """The next to ask is the first again."""


class Queue(Protocol):
    """Sends commands to control and agents; what it sends may be lost or doubled."""

    def send(self, command: Command) -> None:
        """Hand it to the broker. Unavailable if that does not answer; the store's truth stands."""


class ImageResolver(Protocol):
    """Finds the one image that a name or an id means now (A20)."""

    def resolve(self, image: Image) -> Image:
        """Both name and id. NotFound-like: InvalidRequest is the caller's to raise on ImageMissing.

        Unavailable when nobody can be asked.
        """


class Executor(Protocol):
    """Runs one container per task, named after it. Every method is idempotent.

    EngineFault whenever the engine cannot be reached or does not do what it should.
    """

    def facts(self) -> EngineFacts:
        """Who and how big the engine is."""

    def images(self) -> Mapping[str, str]:
        """Every image there: its id and each of its name:tag, to its id."""

    def fetch(self, image_id: str, keep_on: Callable[[], bool]) -> None:
        """Have an image here that is known as `name@digest`; nothing for any other.

        Returns once it is here, or early if *keep_on* says no. ImageMissing if it cannot be had.
        """

    def create(self, order: ContainerOrder) -> None:
        """Make the container, or leave the one this task has. ImageMissing if the image is gone.

        StartRefused if the engine refuses what the container itself asks for.
        """

    def start(self, task_id: TaskId) -> Started:
        """Start it unless it runs or ran. StartRefused (126, 127, ...) if its command cannot run."""

    def wait(self, task_id: TaskId) -> Exit | None:
        """Block until it has ended, started or not; how. None if there is no such container (any more)."""

    def output(self, task_id: TaskId, offset: int) -> Iterator[Chunk]:
        """What it wrote from *offset* on, then as it writes, until it has ended.

        Nothing if it was not started yet. Every reading gives the same bytes in the same order.
        """

    def stop(self, task_id: TaskId, grace: timedelta) -> None:
        """Ask it to end, force it after *grace*; returns when it has ended or is not there."""

    def remove(self, task_id: TaskId) -> None:
        """Remove it, running or not; nothing happens if it is not there."""

    def look(self, task_id: TaskId) -> Seen | None:
        """The container of this task, if there is one."""

    def disk_used(self, task_id: TaskId) -> int:
        """Bytes that the container wrote into its own file system; 0 if it is not there."""

    def seen(self, installation: str) -> Sequence[Seen]:
        """All containers of this installation on the engine."""


class Clock(Protocol):
    """Time that only runs forward, for measuring spans inside one process."""

    def monotonic(self) -> timedelta:
        """Time since some fixed moment."""


class Ids(Protocol):
    """Where new identities come from."""

    def new(self) -> str:
        """A UUID never given before."""
