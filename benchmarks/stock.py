"""Fills a store with jobs, as the write path leaves them: live ones, and archived ones that are over.

Live jobs are made by the write path itself. Of those that are over only the end is written, many at a
time, because nothing else is left of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from titus_celery.adapters.archive import Archive, archive_writes
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Keyspace, SetAdd, Write, to_ms
from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.system import SystemIds
from titus_celery.core.catalog import progressed
from titus_celery.core.decision import Decision, change_of
from titus_celery.core.descriptor import BatchSpec, Container, Demand, Image, JobDescriptor, Owner
from titus_celery.core.jobs import created, settled
from titus_celery.core.lifecycle import claimed, dispatched, ended, running
from titus_celery.core.model import (
    Address,
    Agent,
    AgentId,
    Caller,
    Capacity,
    EngineId,
    Exit,
    Job,
    JobId,
    Task,
)
from titus_celery.core.placement import Need
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.validation import effective
from titus_celery.service.change import WritePath
from titus_celery.settings import Settings

__all__ = ["LABEL", "described", "fill", "progress"]

#: The label that a third of all jobs have.
LABEL: Final = ("tier", "gold")
_TIERS: Final = ("gold", "silver", "bronze")
_APPS: Final = 50
#: Of ten live jobs so many run; the others wait for room.
_RUNNING: Final = 8

#: Writes of one transaction: the server is busy with them for some milliseconds.
_CHUNK: Final = 500
#: What the change log keeps.
_LOG_BYTES: Final = 10_000_000
#: Seconds between two words of how far it is.
_SAY_EVERY: Final = 10

_SECOND: Final = timedelta(seconds=1)
_NOTHING: Final = Capacity(cpu_millis=0, memory_bytes=0, slots=0)
_IDS: Final = SystemIds()
_SPANS: Final = Settings().spans()
_LIMITS: Final = Settings().limits()
_NEED: Final = Need(demand=Demand(cpu_millis=500, memory_bytes=256_000_000))
_AGENT: Final = Agent(
    id=AgentId("host-1"),
    engine_id=EngineId("engine-1"),
    host="host-1.example.com",
    zone="zone-a",
    region="region-1",
    queues=("default",),
    capacity=Capacity(cpu_millis=10**9, memory_bytes=2**60, slots=10**7),
    used=_NOTHING,
    lease_until=datetime.fromtimestamp(0, UTC),
    proved_at=datetime.fromtimestamp(0, UTC),
)

Step = Callable[[Job, Task, datetime], Decision]
#: What control and an agent do with a task until it runs.
_STEPS: Final[Sequence[Step]] = (
    lambda job, task, now: dispatched(job, task, _AGENT, _NEED, now, _SPANS),
    lambda job, task, now: claimed(job, task, _AGENT.id, 1, now, _SPANS),
    lambda job, task, now: running(job, task, 1, Address(ip="10.0.0.1"), now),
)
_ENDS: Final[Step] = lambda job, task, now: ended(  # noqa: E731
    job, task, Reason(Code.NORMAL), now, exit=Exit(code=0), number=1
)
_FAILS: Final[Step] = lambda job, task, now: ended(  # noqa: E731
    job, task, Reason(Code.FAILED, "exit code 3"), now, exit=Exit(code=3), number=1
)


def fill(keyspace: Keyspace, live: int, over: int) -> Sequence[JobId]:
    """Make so many jobs; the ids of the live ones."""
    records = RecordStore(keyspace)
    writes = WritePath(records, MemoryQueue())
    ids = []
    for number in progress("live jobs", live):
        ids.append(_live(records, writes, number))
    if over:
        _fill_over(keyspace, over)
    # Of all this the log would not reach back to more than the last minutes.
    Archive(keyspace).trim_log(_LOG_BYTES)
    return ids


def progress(what: str, count: int) -> Iterator[int]:
    """The numbers below *count*; says now and then how far it is."""
    began = said = time.monotonic()
    for number in range(count):
        yield number
        if time.monotonic() - said >= _SAY_EVERY:
            said = time.monotonic()
            print(f"  {what}: {number + 1:,} of {count:,}", flush=True)
    print(f"  {what}: {count:,} in {time.monotonic() - began:.0f} s", flush=True)


def described(number: int) -> JobDescriptor:
    """A job such as people send, with everything filled in."""
    container = Container(
        image=Image(name="team/worker:1.42", id=f"sha256:{'0123456789abcdef' * 4}"),
        resources={"cpu": "0.5", "memory": "256MB"},
        entry_point=("/usr/bin/worker",),
        command=("--shard", str(number)),
        env={"LOG_LEVEL": "info", "REGION": "local"},
    )
    job = JobDescriptor(
        spec=BatchSpec(desired=1, runtime_limit=timedelta(hours=1), container_id="main"),
        owner=Owner(owner_email="ann@example.com", team_email="team@example.com"),
        app_name=f"app-{number % _APPS}",
        labels={LABEL[0]: _TIERS[number % len(_TIERS)], "batch": str(number // _CHUNK)},
        containers={"main": container},
    )
    return effective(job, Caller(), _LIMITS)


def _live(records: RecordStore, writes: WritePath, number: int) -> JobId:
    id = JobId(_IDS.new())
    writes.create(lambda now: created(id, described(number), "ann", now))
    if number % 10 < _RUNNING:
        (task,) = records.open_tasks(id)
        for step in _STEPS:
            writes.on_task(task.id, step)
    return id


def _fill_over(keyspace: Keyspace, count: int) -> None:
    keys = Keys(keyspace.namespace)
    first = keyspace.now() - count * _SECOND
    writes: list[Write] = []
    for number in progress("jobs that are over", count):
        job, task = _over(number, first + number * _SECOND)
        writes += archive_writes(keys, job, [task])
        writes.append(SetAdd(keys.over, job.id, to_ms(job.history[-1].at)))
        if len(writes) >= _CHUNK or number == count - 1:
            keyspace.transact([], writes)
            writes.clear()


def _over(number: int, now: datetime) -> tuple[Job, Task]:
    """A job that was made then, and its task, both as they ended; of ten jobs one failed."""
    fails = number % 10 == 0
    new = change_of(None, (), created(JobId(_IDS.new()), described(number), "ann", now))
    (task,) = (change.after for change in new.tasks)
    assert new.job_after is not None
    job = new.job_after
    for step in (*_STEPS, _FAILS if fails else _ENDS):
        now += _SECOND
        (change,) = change_of(job, (task,), step(job, task, now)).tasks
        task = change.after
    # The store itself moves these with the task's commits.
    so_far = replace(job, history=progressed(job.history, task.history))
    counted = replace(so_far, slots_failed=1) if fails else replace(so_far, slots_ok=1)
    ended_job = change_of(counted, (), settled(counted, has_open=False, now=now)).job_after
    assert ended_job is not None
    return ended_job, task
