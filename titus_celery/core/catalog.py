"""Everything that is known of jobs by who follows the change log: what to answer, and what is news.

It holds live jobs as they look from outside (what a look is, `Looks` says), and of jobs that are over what
they can be found by. Records come in the order of the log and carry versions, so that what a snapshot held
already, or what was told before, is told apart without positions or clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from titus_celery.core.decision import (
    ClusterChanged,
    ClusterRemoved,
    JobAdded,
    JobEnded,
    JobGone,
    JobMoved,
    LogEntry,
    Notification,
    TaskUpdated,
)
from titus_celery.core.lifecycle import job_of
from titus_celery.core.mantis import is_transient
from titus_celery.core.model import ClusterId, Job, JobId, JobSummary, StateChange, Task, TaskId
from titus_celery.core.query import Criteria, cluster_term, terms_of
from titus_celery.core.reasons import Reason
from titus_celery.core.shelf import Order, Shelf
from titus_celery.core.states import State

__all__ = ["ENDED_TASKS_MAX", "Catalog", "Entry", "Looks", "News", "Seat", "order_of", "progressed"]

#: Ended tasks that come with a live job (docs/semantics.md A17).
ENDED_TASKS_MAX: Final = 1_000

#: The version of every new record. Whose first entry in the log is a later one was there before the log
#: was followed, and is not there any more.
_NEW: Final = 1
#: What jobs can be found by besides their definition: the state of one that lives, and the states of
#: their tasks (of a job that is over: of the last of each slot).
_JOB_STATE: Final = {state: f"jobState={state.name}" for state in State}
_TASK_STATE: Final = {state: f"taskState={state.name}" for state in State}
_LAST_OPEN: Final = max(state for state in State if not state.is_final)
#: How far the tasks of a job bring it, by whether it is staged.
_FURTHEST: Final = {False: _LAST_OPEN, True: State.STARTING}


class Looks(Protocol):
    """How things look from outside: bytes, equal if nobody can tell the difference."""

    def definition(self, job: Job) -> bytes:
        """The part of a job that changes with its definition."""

    def standing(self, history: Sequence[StateChange], reason: Reason | None) -> bytes:
        """The part of a job that changes with its tasks."""

    def task(self, task: Task) -> bytes:
        """A task."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A task of a live job."""

    version: int
    #: Where its slot stands among those of the job.
    rank: int
    attempt: int
    state: State
    #: When it entered that state.
    since: datetime
    created: datetime
    look: bytes


@dataclass(slots=True)
class Entry:
    """A live job. What can be made of its looks may be kept in *made*; it goes when they change."""

    id: JobId
    version: int
    history: tuple[StateChange, ...]
    #: Its own record alone says that it is RUNNING, not its tasks (docs/semantics.md A6).
    is_staged: bool
    #: It ends when nobody observes it (docs/semantics.md A15).
    is_transient: bool
    definition: bytes
    standing: bytes
    tasks: dict[TaskId, Seat] = field(default_factory=dict)
    #: How many of its tasks are in each state.
    counts: Counter[State] = field(default_factory=Counter)
    made: dict[str, bytes] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The furthest that any of its tasks got."""
        return self.history[-1].state

    def seats(self, *, ended: bool) -> list[tuple[TaskId, Seat]]:
        """Its tasks by slot and attempt; those that are over only if wanted."""
        chosen = [(id, seat) for id, seat in self.tasks.items() if ended or not seat.state.is_final]
        return sorted(chosen, key=lambda item: (item[1].rank, item[1].attempt))

    def put(self, id: TaskId, seat: Seat | None) -> None:
        """Have this task there, in place of what was known of it; None: have it no more."""
        if (known := self.tasks.pop(id, None)) is not None:
            self.counts[known.state] -= 1
        if seat is not None:
            self.tasks[id] = seat
            self.counts[seat.state] += 1
        self.made.clear()

    def terms(self) -> frozenset[str]:
        """What it can be found by as it stands."""
        return frozenset(
            (_JOB_STATE[self.state], *(_TASK_STATE[each] for each in self.counts if self.counts[each]))
        )


@dataclass(frozen=True, slots=True)
class News:
    """Something that observers must hear; *look* is the task's, if it is about one."""

    notification: Notification
    job_id: JobId
    look: bytes = b""


class Catalog:
    """The jobs of an installation. Not for several threads at once."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._live: Shelf[Entry] = Shelf()
        self._over = _shelves()
        self._gone: set[JobId] | None = set()

    # ------------------------------------------------------------------------------------------ answers

    def get(self, id: JobId) -> Entry | None:
        """The live job of this id."""
        return self._live.get(id)

    def terms(self, id: JobId) -> Sequence[str]:
        """What the live job of this id can be found by."""
        return self._live.terms(id)

    def live(self) -> Sequence[Entry]:
        """Every live job, by creation."""
        return list(self._live)

    def find(self, wanted: Criteria, start: int, size: int) -> tuple[Sequence[Entry], int]:
        """A page of the live jobs that are asked for, by creation, and how many there are."""
        terms = _terms_wanted(wanted)
        if wanted.job_state is not None:
            terms.append(frozenset({_JOB_STATE[wanted.job_state]}))
        tasks = wanted.task_ids
        fits = None if tasks is None else (lambda entry: not tasks.isdisjoint(entry.tasks))
        return self._live.find(terms, start, size, fits, _among(wanted))

    def find_over(self, wanted: Criteria, start: int, size: int) -> tuple[Sequence[JobId], int]:
        """A page of the jobs that are asked for and over, by creation, and how many there are.

        How they ended must be asked for; ValueError if it is not.
        """
        if (state := wanted.job_state) is None or not state.is_final:
            raise ValueError("jobs that are over are found by how they ended")
        return self._over[state].find(_terms_wanted(wanted), start, size, among=_among(wanted))

    def of_cluster(self, id: ClusterId) -> Sequence[JobId]:
        """The live jobs of a cluster, by creation."""
        entries, _ = self._live.find([frozenset({cluster_term(id)})], 0, len(self._live))
        return [entry.id for entry in entries]

    @property
    def knows_over(self) -> bool:
        """Whether all jobs that are over are known."""
        return self._gone is None

    # ------------------------------------------------------------------------------------------ learning

    def clear(self) -> None:
        """Forget everything: it is learnt anew."""
        self._live, self._over, self._gone = Shelf(), _shelves(), set()

    def load(self, summary: JobSummary) -> None:
        """Learn of a live job, as it was read after the log began to be followed."""
        entry = self._enter(summary.job)
        for task in summary.tasks:
            self._seat(entry, task)

    def load_over(self, jobs: Iterable[Job]) -> None:
        """Learn of jobs that are over, as they were read after the log began to be followed."""
        for job in jobs:
            if self._gone is None or job.id not in self._gone:
                self._put_over(job)

    def loaded_over(self) -> None:
        """Those were all of them."""
        self._gone = None

    def hear(self, entry: LogEntry) -> News | None:
        """Learn what the log says next; what observers must be told of it."""
        match entry:
            case JobAdded(job):
                return self._hear_job(entry, job)
            case TaskUpdated(task):
                return self._hear_task(entry, task)
            case JobEnded(job):
                was_known = job.id in self._live
                self._live.remove(job.id)
                self._put_over(job)
                return News(entry, job.id) if was_known else None
            case JobGone(id):
                for shelf in self._over.values():
                    shelf.remove(id)
                if self._gone is not None:
                    self._gone.add(id)
                return None
            case JobMoved(job):
                self._move(job)
                return None
            case ClusterChanged() | ClusterRemoved():
                return None

    def _move(self, job: Job) -> None:
        entry = self._live.get(job.id)
        # Of the same version is what the same commit says of its definition.
        if entry is None or job.version < entry.version:
            return
        before = entry.terms()
        entry.version, entry.history = job.version, job.history
        entry.standing = self._looks.standing(job.history, None)
        entry.made.clear()
        self._live.change(entry.id, before, entry.terms())

    def _hear_job(self, notification: JobAdded, job: Job) -> News | None:
        known = self._live.get(job.id)
        if known is None:
            # A job that is neither new nor in the snapshot was over by then.
            if job.version != _NEW:
                return None
            self._enter(job)
        elif job.version <= known.version:
            return None
        else:
            known.version, known.definition = job.version, self._looks.definition(job)
            known.made.clear()
            self._live.put(order_of(job), (*terms_of(job), *known.terms()), known)
        return News(notification, job.id)

    def _hear_task(self, notification: TaskUpdated, task: Task) -> News | None:
        entry = self._live.get(task.job_id)
        if entry is None:
            return None
        known = entry.tasks.get(task.id)
        if known is None and task.version != _NEW:
            return None
        if known is not None and task.version <= known.version:
            return None
        seat = self._seat(entry, task)
        # What is written of a task after its end concerns nobody outside.
        is_news = known is None or (not known.state.is_final and known.look != seat.look)
        return News(notification, entry.id, seat.look) if is_news else None

    # ------------------------------------------------------------------------------------------ inside

    def _enter(self, job: Job) -> Entry:
        entry = Entry(
            job.id,
            job.version,
            job.history,
            job.is_staged,
            is_transient(job),
            self._looks.definition(job),
            self._looks.standing(job.history, job.reason),
        )
        self._live.put(order_of(job), (*terms_of(job), *entry.terms()), entry)
        return entry

    def _seat(self, entry: Entry, task: Task) -> Seat:
        seat = Seat(
            task.version,
            task.rank,
            task.attempt,
            task.state,
            task.history[-1].at,
            task.history[0].at,
            self._looks.task(task),
        )
        before = entry.terms()
        entry.put(task.id, seat)
        history = progressed(entry.history, task.history, _FURTHEST[entry.is_staged])
        if history != entry.history:
            entry.history, entry.standing = history, self._looks.standing(history, None)
        if seat.state.is_final:
            _forget_oldest(entry)
        self._live.change(entry.id, before, entry.terms())
        return seat

    def _put_over(self, job: Job) -> None:
        ends = {State.FINISHED: job.slots_ok, State.FAILED: job.slots_failed}
        tasks = (_TASK_STATE[state] for state, count in ends.items() if count)
        self._over[job.state].put(order_of(job), (*terms_of(job), *tasks), job.id)


def _shelves() -> dict[State, Shelf[JobId]]:
    """For jobs that are over, by how they ended: whoever asks for such jobs asks for one of these."""
    return {state: Shelf() for state in State if state.is_final}


def _terms_wanted(wanted: Criteria) -> list[frozenset[str]]:
    """All that is asked for as terms, but for the state of the job."""
    terms = [*wanted.terms]
    if wanted.task_states is not None:
        terms.append(frozenset(_TASK_STATE[state] for state in wanted.task_states))
    return terms


def _among(wanted: Criteria) -> Collection[JobId] | None:
    """The only jobs that can be meant, if ids were given."""
    named = [wanted.job_ids, None if wanted.task_ids is None else frozenset(map(job_of, wanted.task_ids))]
    given = [ids for ids in named if ids is not None]
    return frozenset.intersection(*given) if given else None


def order_of(job: Job) -> Order:
    """The job's place among all others."""
    return round(job.created_at.timestamp() * 1_000), job.id


def progressed(
    history: tuple[StateChange, ...], of: Sequence[StateChange], furthest: State = _LAST_OPEN
) -> tuple[StateChange, ...]:
    """A job's history after one of its tasks has that of *of*: the furthest that any got (A6)."""
    now = history[-1].state
    further = [step for step in of if now < step.state <= furthest]
    if now.is_final or not further:
        return history
    steps = list(history)
    for step in further:
        # Tasks bring the times, and a clock may be set back between two of them.
        steps.append(StateChange(state=step.state, at=max(step.at, steps[-1].at)))
    return tuple(steps)


def _forget_oldest(entry: Entry) -> None:
    if len(entry.tasks) <= ENDED_TASKS_MAX:
        return
    ended: Mapping[TaskId, Seat] = {id: seat for id, seat in entry.tasks.items() if seat.state.is_final}
    if len(ended) > ENDED_TASKS_MAX:
        entry.put(min(ended, key=lambda id: (ended[id].since, id)), None)
