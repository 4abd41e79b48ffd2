"""Jobs that are over: each with all of its tasks as one compressed text, until they are let go.

Most of what a store holds is history. A job of a thousand tasks is some thousand keys while it lives,
and one text of a twentieth of their size afterwards. The text is the job's line and one line for each
task, oldest end first, each as the codec writes it; so one task is found without reading the others.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from titus_celery.adapters.codec import to_text
from titus_celery.adapters.keys import Keys, deadline_member
from titus_celery.adapters.keyspace import (
    Absent,
    Append,
    Check,
    Delete,
    FieldIs,
    HashAdd,
    Keyspace,
    Kind,
    ScoreIs,
    SetRemove,
    TextSet,
    Write,
    from_ms,
    to_ms,
)
from titus_celery.adapters.layout import LOG_KEPT
from titus_celery.adapters.records import VERSION, entry_fields, job_of, task_of, value_of
from titus_celery.core.decision import JobGone
from titus_celery.core.model import DeadlineKind, Job, JobId, Task, TaskId
from titus_celery.core.retention import Ended, Freed, Kept
from titus_celery.errors import Conflict, StoreCorrupt

__all__ = ["Archive", "archive_writes"]

_LOG: Final = logging.getLogger(__name__)

#: Keys removed by one script, which takes the server some 2 ms; the tasks of a large job are several.
CHUNK: Final = 500
#: Field of the hash `kept`: the bytes of all archives together.
_BYTES: Final = "bytes"
#: Members of one job's sets are bounded by its size, so that all of them are asked for.
_ALL: Final = 1_000_000_000


class Archive:
    """The jobs of an installation that are over: the Retained over this keyspace."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    # ------------------------------------------------------------------------------------------------ reading

    def job(self, job_id: JobId) -> Job | None:
        """The job, if it is archived."""
        lines = self._lines(job_id)
        return value_of(Job, self._keys.archive(job_id), lines[0]) if lines else None

    def jobs(self, ids: Sequence[JobId]) -> Sequence[Job]:
        """Those of these jobs that are over, in this order, archived already or not.

        Some that cannot be read are left out, with a warning: they must not hide all others.
        """
        keys = [(self._keys.job(id), self._keys.archive(id)) for id in ids]
        found, _ = self._keyspace.hashes([job for job, _ in keys]) if keys else ([], None)
        # Archived some time after its end, maybe at this moment.
        late = [archive for (_, archive), fields in zip(keys, found, strict=True) if not fields]
        packed = dict(zip(late, self._keyspace.blobs(late), strict=True))
        jobs = (
            _job_over(job, fields, archive, packed.get(archive))
            for (job, archive), fields in zip(keys, found, strict=True)
        )
        return [job for job in jobs if job is not None]

    def whole(self, job_id: JobId) -> tuple[Job, Sequence[Task]] | None:
        """The job and all of its tasks, the oldest ended first, if it is archived."""
        key = self._keys.archive(job_id)
        packed = self._keyspace.blob(key)
        return None if packed is None else _contents(key, packed)

    def tasks(self, job_id: JobId) -> Sequence[Task]:
        """All tasks of the job, the oldest ended first, if it is archived."""
        found = self.whole(job_id)
        return [] if found is None else found[1]

    def task(self, task_id: TaskId) -> tuple[Job, Task] | None:
        """The task and its job, if they are archived."""
        job_id = self._keys.job_id(task_id)
        key, mark = self._keys.archive(job_id), f'"id":"{task_id}"'.encode()
        head, *lines = self._lines(job_id) or [b""]
        # Quotes within texts are escaped, so that nothing else in a task's line reads like its id.
        found = next((line for line in lines if mark in line), None)
        return (value_of(Job, key, head), value_of(Task, key, found)) if found else None

    def _lines(self, job_id: JobId) -> Sequence[bytes]:
        """The job's line and those of its tasks; none if it is not archived."""
        key = self._keys.archive(job_id)
        if (packed := self._keyspace.blob(key)) is None:
            return []
        return _unpacked(key, packed)

    # ------------------------------------------------------------------------------------------------ writing

    def put(self, job_id: JobId) -> bool:
        """Archive the job if it is over; safe to repeat (see Records.archive). False: it is alive."""
        key = self._keys.job(job_id)
        (fields,), _ = self._keyspace.hashes([key])
        if fields:
            job = job_of(key, fields)
            if not job.state.is_final:
                return False
            gone = self._pack(job)
        else:
            gone = [self._keys.task(task.id) for task in self.tasks(job_id)]
        self._clear(job_id, gone, Kind.HASH)
        return True

    def _pack(self, job: Job) -> Sequence[str]:
        """Write the archive in the place of the job; the keys of its tasks, which are still there."""
        keys, what = self._keys, f"job {job.id}"
        ids, _ = self._keyspace.members(keys.done(job.id), 0, _ALL)
        task_keys = [keys.task(id) for id, _ in ids]
        found, _ = self._keyspace.hashes(task_keys) if task_keys else ([], None)
        tasks = [task_of(key, fields) for key, fields in zip(task_keys, found, strict=True) if fields]
        # Nothing about a job that is over changes any more, its tasks included.
        check = FieldIs(keys.job(job.id), VERSION, str(job.version), what)
        writes: list[Write] = [
            *archive_writes(keys, job, tasks),
            Delete(keys.job(job.id), Kind.HASH),
            Delete(keys.done(job.id), Kind.SORTED),
        ]
        # Another control may be first, which packs the same; for any other reason clearing is refused too.
        with suppress(Conflict):
            self._keyspace.transact([check], writes)
        return task_keys

    def _clear(self, job_id: JobId, keys: Sequence[str], kind: Kind) -> None:
        """Remove what the archive stands for."""
        # A store that restarted may have lost the archive and have the job again: then all stays.
        check = Absent(self._keys.job(job_id), Kind.HASH, f"job {job_id}")
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            self._keyspace.transact([check], [Delete(key, kind) for key in chunk])

    # ---------------------------------------------------------------------------------------------- retention

    def kept(self, limit: int) -> Kept:
        """What is kept, with at most *limit* of the oldest jobs by end."""
        members, total = self._keyspace.members(self._keys.over, 0, limit)
        (fields,), now = self._keyspace.hashes([self._keys.kept])
        oldest = [Ended(JobId(member), from_ms(score)) for member, score in members]
        try:
            size = int(fields.get(_BYTES, "0"))
        except ValueError as error:
            raise StoreCorrupt(self._keys.kept, f"no number in {_BYTES}") from error
        return Kept(oldest=oldest, jobs=total, bytes=size, now=now)

    def remove(self, ended: Ended) -> Freed:
        """Remove a job with everything that belongs to it (see Retained)."""
        id, keys = ended.job_id, self._keys
        # Archived first if it is not, so that it can be found until all of it goes at once.
        if not self.put(id):
            raise StoreCorrupt(keys.over, f"job {id}, which is alive")
        packed = self._keyspace.blob(keys.archive(id))
        tasks = _contents(keys.archive(id), packed)[1] if packed is not None else []
        self._clear(id, [keys.output(task.id) for task in tasks], Kind.STREAM)
        size = len(packed or b"")
        writes: list[Write] = [
            SetRemove(keys.over, id),
            SetRemove(keys.deadlines, deadline_member(DeadlineKind.ARCHIVE, id)),
            Delete(keys.archive(id), Kind.TEXT),
            HashAdd(keys.kept, _BYTES, -size),
            Append(keys.log, entry_fields(JobGone(id)), LOG_KEPT),
        ]
        checks: list[Check] = [
            Absent(keys.job(id), Kind.HASH, f"job {id}"),
            ScoreIs(keys.over, id, to_ms(ended.at), f"job {id}"),
        ]
        self._keyspace.transact(checks, writes)
        return Freed(bytes=size, tasks=len(tasks))

    def trim_log(self, bytes_max: int) -> None:
        """Let the oldest entries of the change log go until it takes about so many bytes."""
        self._keyspace.trim(self._keys.log, bytes_max)


def _job_over(key: str, fields: Mapping[str, str], archive: str, packed: bytes | None) -> Job | None:
    """The job of these fields, or else in this archive; None if it lives, is gone or cannot be read."""
    try:
        if fields:
            job = job_of(key, fields)
            return job if job.state.is_final else None
        return None if packed is None else value_of(Job, archive, _unpacked(archive, packed)[0])
    except StoreCorrupt as error:
        _LOG.warning("left out: %s", error)
        return None


def archive_writes(keys: Keys, job: Job, tasks: Sequence[Task]) -> Sequence[Write]:
    """What writes the archive of a job with these tasks, the oldest ended first."""
    packed = zlib.compress("\n".join(map(to_text, (job, *tasks))).encode())
    return TextSet(keys.archive(job.id), packed), HashAdd(keys.kept, _BYTES, len(packed))


def _contents(key: str, packed: bytes) -> tuple[Job, Sequence[Task]]:
    head, *rest = _unpacked(key, packed)
    return value_of(Job, key, head), [value_of(Task, key, line) for line in rest]


def _unpacked(key: str, packed: bytes) -> Sequence[bytes]:
    try:
        return zlib.decompress(packed).split(b"\n")
    except zlib.error as error:
        raise StoreCorrupt(key, f"no archive: {error}") from error
