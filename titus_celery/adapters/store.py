"""Jobs, tasks, deadlines and the change log, laid out over a keyspace."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from titus_celery.adapters.archive import Archive
from titus_celery.adapters.keys import Keys, deadline_member, deadline_of, queued_task
from titus_celery.adapters.keyspace import (
    NO_ENTRY,
    Absent,
    Delete,
    Keyspace,
    Kind,
    ScoreIs,
    SetAdd,
    SetRemove,
    SetRemoveIf,
    TextSet,
    Write,
    from_ms,
    to_ms,
)
from titus_celery.adapters.layout import plan
from titus_celery.adapters.records import PREVIOUS, job_of, notification_of, task_of, value_of
from titus_celery.adapters.system import SystemIds
from titus_celery.core.claims import Claim, ClaimKind
from titus_celery.core.decision import Change, LogEntry
from titus_celery.core.model import Deadline, EngineId, Job, JobId, Task, TaskId
from titus_celery.core.retention import prunable
from titus_celery.errors import Conflict, NotFound, PositionLost, StoreCorrupt
from titus_celery.ports import Ids, Memory, Position, TaskView

__all__ = ["RecordStore", "read_views"]

_LOG: Final = logging.getLogger(__name__)

#: Deadlines looked through for the first whose kind is known: a later release may have armed others.
_NEXT_LOOK: Final = 100

#: Deadlines moved in one transaction, which takes the store about a millisecond.
_PULL_MAX: Final = 100

#: Tasks let go of in one transaction, which takes the store about a millisecond.
_PRUNE_MAX: Final = 100

#: Ended tasks of a living job whose ids are looked through at a time: far more than it has.
_ENDED_MAX: Final = 100_000

_POSITION: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


class RecordStore:
    """The Records and the ChangeLog of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace, ids: Ids | None = None) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)
        self._ids = ids or SystemIds()
        self._archive = Archive(keyspace)

    # ------------------------------------------------------------------------------------------------ records

    def installation(self) -> str:
        """The id of this installation; the first to ask makes it."""
        key = self._keys.installation
        if (found := self._keyspace.text(key)) is not None:
            return found
        mine = self._ids.new()
        try:
            self._keyspace.transact([Absent(key, Kind.TEXT, "the installation")], [TextSet(key, mine)])
        except Conflict:
            return self.installation()
        return mine

    def now(self) -> datetime:
        """The store's time, in whole milliseconds."""
        return self._keyspace.now()

    def epoch(self) -> str:
        """Which life of the store this is (see Records)."""
        return self._keyspace.epoch()

    def memory(self) -> Memory:
        """How much memory the store uses, and may use."""
        return Memory(*self._keyspace.memory())

    def job(self, job_id: JobId) -> tuple[Job, datetime]:
        """The job, live or finished, and the store's time. NotFound if there is none."""
        key = self._keys.job(job_id)
        (fields,), now = self._keyspace.hashes([key])
        job = job_of(key, fields) if fields else self._archive.job(job_id)
        if job is None:
            raise NotFound("job", job_id)
        return job, now

    def task(self, task_id: TaskId) -> TaskView:
        """The task, its job and the store's time. NotFound if there is none."""
        task_key, job_key = self._keys.task(task_id), self._keys.job_of_task(task_id)
        (task, job), now = self._keyspace.hashes([task_key, job_key])
        if not job and (archived := self._archive.task(task_id)):
            return TaskView(*archived, now=now)
        if not task:
            raise NotFound("task", task_id)
        return TaskView(job=job_of(job_key, job), task=task_of(task_key, task), now=now)

    def commit(self, change: Change) -> Position | None:
        """Make *change* true, whole or not at all (see Records)."""
        # What lets things end goes through even when memory is used up; new jobs do not.
        is_new = change.job_before is None and change.job_after is not None
        grows = is_new or (change.cluster is not None and change.cluster.before is None)
        last = self._keyspace.transact(*plan(self._keys, change), grows=grows)
        return Position(last) if last else None

    def jobs_over(self, ids: Sequence[JobId]) -> Sequence[Job]:
        """Those of these jobs that are over, in this order (see Records)."""
        return self._archive.jobs(ids)

    def archived(self, job_id: JobId) -> tuple[Job, Sequence[Task]] | None:
        """The job and all of its tasks, the oldest ended first, if it is archived."""
        return self._archive.whole(job_id)

    def claimed(self, kind: ClaimKind, name: str) -> Claim | None:
        """Whose the name is, if it is anybody's."""
        key = self._keys.claim(kind, name)
        text = self._keyspace.text(key)
        return None if text is None else value_of(Claim, key, text)

    def open_tasks(self, job_id: JobId) -> Sequence[Task]:
        """The job's open tasks by slot."""
        key = self._keys.open(job_id)
        members, _ = self._keyspace.members(key, 0, _ALL)
        return self._tasks(TaskId(member) for member, _ in members)

    def finished_tasks(self, job_id: JobId, limit: int) -> Sequence[Task]:
        """At most *limit* of the job's other tasks, the newest ended first."""
        members, total = self._keyspace.members(self._keys.done(job_id), 0, limit, newest=True)
        found = self._tasks(TaskId(member) for member, _ in members)
        if total and len(found) == len(members):
            return found
        # Archived, maybe while we were reading.
        return self._archive.tasks(job_id)[::-1][:limit] or found

    def spread(self, job_id: JobId) -> Mapping[EngineId, int]:
        """How many tasks of the job hold room on each engine."""
        key = self._keys.spread(job_id)
        (fields,), _ = self._keyspace.hashes([key])
        try:
            return {EngineId(engine): int(count) for engine, count in fields.items()}
        except ValueError as error:
            raise StoreCorrupt(key, f"no number: {error}") from error

    def live_jobs(self, start: int, limit: int) -> tuple[Sequence[Job], int]:
        """A page of the jobs that are not over, by creation then id, and how many there are."""
        members, total = self._keyspace.members(self._keys.live, start, limit)
        keys = [self._keys.job(member) for member, _ in members]
        found, _ = self._keyspace.hashes(keys) if keys else ([], None)
        # A job may have ended, and gone, between the two reads.
        return [job_of(key, fields) for key, fields in zip(keys, found, strict=True) if fields], total

    def queued(self, limit: int) -> Sequence[TaskView]:
        """At most *limit* queued tasks, oldest first, by slot if they are of one age."""
        members, _ = self._keyspace.members(self._keys.queued, 0, limit)
        return read_views(self._keyspace, self._keys, [queued_task(member) for member, _ in members])

    def due(self, now: datetime, limit: int) -> Sequence[Deadline]:
        """At most *limit* deadlines at or before *now*, earliest first; they stay in the store."""
        members = self._keyspace.members_until(self._keys.deadlines, to_ms(now), limit)
        # What a later release armed is for it to act on.
        return [deadline for member in members if (deadline := deadline_of(*member))]

    def next_due(self) -> datetime | None:
        """When the earliest deadline is due, if there is one."""
        members, _ = self._keyspace.members(self._keys.deadlines, 0, _NEXT_LOOK)
        known = (deadline for member in members if (deadline := deadline_of(*member)))
        return next((deadline.due for deadline in known), None)

    def disarm(self, deadline: Deadline) -> None:
        """Remove a deadline unless it was moved meanwhile."""
        member = deadline_member(deadline.kind, deadline.entity)
        self._keyspace.transact([], [SetRemoveIf(self._keys.deadlines, member, to_ms(deadline.due))])

    def pull_deadlines(self, later_than: datetime, by: timedelta) -> None:
        """Every deadline later than this becomes due *by* sooner (see Records)."""
        key, start = self._keys.deadlines, to_ms(later_than) + 1
        while found := self._keyspace.members_from(key, start, _PULL_MAX):
            try:
                self._move(found, by)
            except Conflict:
                # Somebody moved one of them: each for itself then.
                for one in found:
                    with suppress(Conflict):
                        self._move([one], by)
            # Those with the same score that this page had no room for are still there.
            start = found[-1][1]
            if len(found) < _PULL_MAX:
                return

    def _move(self, deadlines: Sequence[tuple[str, int]], by: timedelta) -> None:
        key = self._keys.deadlines
        self._keyspace.transact(
            [ScoreIs(key, member, due, f"deadline {member}") for member, due in deadlines],
            [SetAdd(key, member, to_ms(from_ms(due) - by)) for member, due in deadlines],
        )

    def prune(self, job_id: JobId, keep: int) -> None:
        """Let go of the job's oldest tasks that were replaced, but for *keep* (see Records)."""
        key = self._keys.done(job_id)
        ended, _ = self._keyspace.members(key, 0, _ENDED_MAX)
        gone = prunable([TaskId(member) for member, _ in ended], keep)
        for start in range(0, len(gone), _PRUNE_MAX):
            writes: list[Write] = []
            for id in gone[start : start + _PRUNE_MAX]:
                writes.append(SetRemove(key, id))
                writes.append(Delete(self._keys.task(id), Kind.HASH))
                writes.append(Delete(self._keys.output(id), Kind.STREAM))
            # Tasks that are over do not change, so whoever does this at the same time does the same.
            self._keyspace.transact([], writes)

    def archive(self, job_id: JobId) -> None:
        """Make the job, if it is over, and its tasks one compressed record (see Records)."""
        self._archive.put(job_id)

    def _tasks(self, ids: Iterable[TaskId]) -> Sequence[Task]:
        keys = [self._keys.task(id) for id in ids]
        if not keys:
            return []
        found, _ = self._keyspace.hashes(keys)
        return [task_of(key, fields) for key, fields in zip(keys, found, strict=True) if fields]

    # --------------------------------------------------------------------------------------------- change log

    def end(self) -> Position:
        """The place after everything committed so far."""
        last = self._keyspace.last_entry(self._keys.log)
        return Position(last.id if last else NO_ENTRY)

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        """What follows *after*, in commit order; waits up to *block* for the first (see ChangeLog)."""
        if not _POSITION.fullmatch(after):
            raise PositionLost(after)
        key = self._keys.log
        entries = self._keyspace.entries(key, after, limit, block)
        # Each entry names the one before it, so that a hole shows.
        reached = entries[0].fields.get(PREVIOUS, b"").decode() if entries else self.end()
        if reached != after and (entries or _older(reached, after)):
            raise PositionLost(after)
        return [(Position(entry.id), notification_of(key, entry)) for entry in entries]


#: Members of one job are bounded by its size, so that all of them are asked for.
_ALL: Final = 1_000_000_000


def _older(one: str, other: str) -> bool:
    return [int(part) for part in one.split("-")] < [int(part) for part in other.split("-")]


def read_views(keyspace: Keyspace, keys: Keys, ids: Sequence[TaskId]) -> Sequence[TaskView]:
    """These tasks with their jobs, each job read once; those that are gone are left out.

    So are those that cannot be read, with a warning: one of them must not hold up all others.
    """
    if not ids:
        return []
    pairs = [(keys.task(id), keys.job_of_task(id)) for id in ids]
    faults: dict[str, StoreCorrupt] = {}
    found, now = _hashes(keyspace, list(dict.fromkeys(key for pair in pairs for key in pair)), faults)
    jobs: dict[str, Job] = {}
    views = []
    for task_key, job_key in pairs:
        if not found.get(task_key) or job_key in faults:
            continue
        try:
            if job_key not in jobs:
                jobs[job_key] = _job_of_task(job_key, found[job_key], task_key)
            views.append(TaskView(job=jobs[job_key], task=task_of(task_key, found[task_key]), now=now))
        except StoreCorrupt as error:
            faults[error.key] = error
    if faults:
        _LOG.warning("left out: %s", "; ".join(map(str, faults.values())))
    return views


def _hashes(
    keyspace: Keyspace, keys: Sequence[str], faults: dict[str, StoreCorrupt]
) -> tuple[Mapping[str, Mapping[str, str]], datetime]:
    """The hashes by key, without those keys that hold another kind, which become *faults*."""
    while True:
        asked = [key for key in keys if key not in faults]
        try:
            found, now = keyspace.hashes(asked)
            return dict(zip(asked, found, strict=True)), now
        except StoreCorrupt as error:
            if error.key not in asked:
                raise
            faults[error.key] = error


def _job_of_task(key: str, fields: Mapping[str, str], task_key: str) -> Job:
    if not fields:
        raise StoreCorrupt(key, f"nothing, while {task_key} is there")
    return job_of(key, fields)
