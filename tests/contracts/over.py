"""Jobs that are over, with all kinds of ends in them, and what can be asked about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from tests.builders import (
    at,
    commit,
    dispatched,
    failed,
    finished,
    job,
    killed,
    moved,
    replacement,
    saved,
    to_be_retried,
)
from tests.contracts.stores import Bench
from titus_celery.adapters.archive import Archive
from titus_celery.adapters.keyspace import Check, Delete, HashSet, Keyspace, Kind, SetAdd, Write
from titus_celery.adapters.store import RecordStore
from titus_celery.core import jobs as deciding
from titus_celery.core.model import Address, Capacity, Exit, Job, Task
from titus_celery.core.retention import Ended
from titus_celery.core.states import State

__all__ = ["Door", "behind", "ended", "forgets_archive", "kept_bytes", "keys_of", "over", "settled", "told"]

ROOM = Capacity(cpu_millis=10**6, memory_bytes=2**40, slots=10**3)


class Door:
    """A keyspace at whose door a test stands: it is called with the number of each transaction or read
    of hashes, from 1, before that; and sees what went through."""

    def __init__(self, keyspace: Keyspace, at_door: Callable[[str, int], None]) -> None:
        self._keyspace, self._at_door = keyspace, at_door
        self._counts = {"transact": 0, "hashes": 0, "blob": 0}
        self.written: list[Sequence[Write]] = []

    def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> None:
        self._knock("transact")
        self._keyspace.transact(checks, writes)
        self.written.append(writes)

    def hashes(self, keys: Sequence[str]) -> Any:
        self._knock("hashes")
        return self._keyspace.hashes(keys)

    def blob(self, key: str) -> bytes | None:
        self._knock("blob")
        return self._keyspace.blob(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keyspace, name)

    def _knock(self, what: str) -> None:
        self._counts[what] += 1
        self._at_door(what, self._counts[what])


def behind(bench: Bench, at_door: Callable[[str, int], None]) -> tuple[RecordStore, Door]:
    """Records behind a door."""
    door = Door(bench.keyspace, at_door)
    return RecordStore(cast(Keyspace, door)), door


def forgets_archive(bench: Bench, one: Job, number: int) -> Callable[[str, int], None]:
    """Stands at a door: before that transaction the store has the job again in the place of its archive.

    So it is after a restart that cost it its last writes.
    """
    key, done = bench.keys.job(one.id), bench.keys.done(one.id)
    (fields,), _ = bench.keyspace.hashes([key])
    members, _ = bench.keyspace.members(done, 0, 100)

    def forget(what: str, nth: int) -> None:
        if (what, nth) == ("transact", number):
            back: list[Write] = [Delete(bench.keys.archive(one.id), Kind.TEXT), HashSet(key, fields)]
            back += [SetAdd(done, member, score) for member, score in members]
            bench.keyspace.transact([], back)

    return forget


def settled(bench: Bench, one: Job) -> Job:
    """The job, ended, now that its slots are over."""
    now = bench.records.job(one.id)[0]
    end = deciding.settled(now, False, at(500))
    commit(bench.records, now, job=end.job, arm=end.arm, disarm=end.disarm)
    return bench.records.job(one.id)[0]


def over(bench: Bench, count: int = 3, new: Job | None = None) -> tuple[Job, list[Task]]:
    """A job that is over, with all kinds of tasks in it: ended well, killed, lost, tried again."""
    new = new or job(desired=count)
    made = list(saved(bench.records, new, count))
    first = moved(
        moved(dispatched(made[0]), State.STARTING, 2), State.RUNNING, 3, address=Address(ip="10.0.0.7")
    )
    (old,) = commit(bench.records, new, made[:1], to=[to_be_retried(first, due=30)], room=ROOM)
    old, again = commit(bench.records, new, [old], to=replacement(old, when=30))
    (again,) = commit(bench.records, new, [again], to=[replace(failed(again, when=70), exit=Exit(code=3))])
    new = bench.records.job(new.id)[0]
    commit(bench.records, new, job=killed(new))
    new = bench.records.job(new.id)[0]
    rest = [failed(one, when=80) if one.slot % 2 else finished(one, when=80) for one in made[1:]]
    ends = commit(bench.records, new, made[1:], to=rest) if rest else ()
    return settled(bench, new), [old, again, *ends]


def told(bench: Bench, of: Job, known: Sequence[Task]) -> list[object]:
    """Everything that can be asked about the job and its tasks, but for the store's time."""
    views = [bench.records.task(one.id) for one in known]
    return [
        bench.records.job(of.id)[0],
        *((view.job, view.task) for view in views),
        bench.records.open_tasks(of.id),
        *(bench.records.finished_tasks(of.id, limit) for limit in (0, 1, 2, 10_000)),
        bench.records.live_jobs(0, 100),
        bench.records.queued(100),
    ]


def keys_of(bench: Bench, of: Job) -> list[str]:
    """The names of all keys with the job's id in them."""
    dump = cast("dict[str | bytes, object]", bench.world.dump())
    names = [name if isinstance(name, str) else name.decode() for name in dump]
    return [name for name in names if of.id in name]


def kept_bytes(bench: Bench) -> int:
    """What the store says that its archives take."""
    return Archive(bench.keyspace).kept(0).bytes


def ended(one: Job) -> Ended:
    """The job as retention knows it."""
    return Ended(one.id, one.history[-1].at)
