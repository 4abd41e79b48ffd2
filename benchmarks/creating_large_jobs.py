"""How long CreateJob takes for a job of very many tasks, against one raw Redis pipeline of as many bytes.

    python benchmarks/creating_large_jobs.py [--tasks N] [--rounds N]

It starts a store and a gateway of its own. Both ways of a round are measured right after each other, in
turns:

- titus: CreateJob, from the call to the id of a job that is stored with all of its tasks;
- redis: one pipeline of plain SETs through redis-py, one for each task, that sends as many bytes as the
  commit of such a job does: records, indexes and change log.

There is no bound. After that, jobs are made while somebody counts the queued tasks without a pause: all
tasks of a job must come at once, since one commit makes them (of a job of over 1,000 tasks the first 1,000
only; the others follow).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
import redis
from comparison import in_turns, ninety_ninth, sign_interval
from stage import gateway, store
from stock import described

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.layout import plan
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_wire import wire
from titus_celery.adapters.registry import AgentStore
from titus_celery.core.decision import change_of
from titus_celery.core.jobs import created
from titus_celery.core.model import EngineId, JobId
from titus_celery.core.sizing import SLOTS_PER_COMMIT
from titus_celery.errors import TitusError
from titus_celery.grpc.convert import descriptor_from_pb, descriptor_to_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub

#: Jobs of either kind before the first that counts.
WARM_UP: Final = 2
#: Jobs made while the queue is looked at.
WATCHED: Final = 5
#: Microseconds from which on the server remembers a command.
SLOW_MICROS: Final = 1_000


def job_of(tasks: int) -> pb.JobDescriptor:
    """A job of so many tasks."""
    job = descriptor_to_pb(described(0))
    job.batch.instances.desired = tasks
    return job


def bytes_of(keys: Keys, job: pb.JobDescriptor, keyspace: RedisKeyspace) -> int:
    """What the commit of such a job sends to the store."""
    id = JobId("00000000-0000-4000-8000-000000000000")
    decision = created(id, descriptor_from_pb(job), "ann", keyspace.now())
    names, arguments = wire(*plan(keys, change_of(None, (), decision)))
    return sum(map(len, (*names, *arguments)))


class Maker:
    """Makes jobs through a gateway, and as many bytes without."""

    def __init__(self, stub: JobManagementServiceStub, client: Any, job: pb.JobDescriptor, size: int) -> None:
        self._stub = stub
        self._client = client
        self._job = job
        self._value = b"x" * (size // job.batch.instances.desired)
        #: The jobs made.
        self.ids: list[str] = []

    def through_titus(self) -> float:
        """Seconds of a CreateJob; returns only after the gateway's own reader has seen the job, too."""
        began = time.perf_counter()
        id = self._stub.CreateJob(self._job).id
        took = time.perf_counter() - began
        self.ids.append(id)
        found = self._stub.FindJob(pb.JobId(id=id))
        wanted = min(self._job.batch.instances.desired, SLOTS_PER_COMMIT)
        if len(found.tasks) != wanted:
            raise SystemExit(f"benchmark: job {id} has {len(found.tasks)} tasks instead of {wanted}")
        return took

    def through_redis(self) -> float:
        """Seconds of one pipeline of as many bytes."""
        names = [f"raw:{number}" for number in range(self._job.batch.instances.desired)]
        began = time.perf_counter()
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.set(name, self._value)
        pipeline.execute()
        took = time.perf_counter() - began
        self._client.delete(*names)
        return took


def commit_times(client: Any) -> list[float]:
    """Seconds that the server was busy with each commit that it remembers."""
    entries = client.slowlog_get(10_000)
    return [entry["duration"] / 1e6 for entry in entries if entry["command"].startswith(b"EVALSHA")]


def sizes_seen(url: str, key: str, stop: threading.Event) -> Sequence[int]:
    """The sizes that a sorted set was seen to have, one look after the other, until told to *stop*."""
    client: Any = redis.Redis.from_url(url, protocol=2)
    seen: list[int] = []
    with contextlib.closing(client):
        while not stop.is_set():
            seen.append(client.zcard(key))
    return seen


def watch(url: str, keys: Keys, maker: Maker, tasks: int) -> None:
    """Make jobs while the queue is looked at, and tell whether a part of one was ever seen."""
    stop = threading.Event()
    seen: list[int] = []
    looking = threading.Thread(target=lambda: seen.extend(sizes_seen(url, keys.queued, stop)))
    looking.start()
    for _ in range(WATCHED):
        maker.through_titus()
    stop.set()
    looking.join()
    whole = min(tasks, SLOTS_PER_COMMIT)
    parts = sum(size % whole != 0 for size in seen)
    print(f"  {len(seen):,} looks at the queue while {WATCHED} jobs were made saw {parts} parts of a job")


def measure(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Start a store and a gateway, measure and print."""
    url = stack.enter_context(store())
    keyspace = stack.enter_context(contextlib.closing(RedisKeyspace(url)))
    client: Any = stack.enter_context(contextlib.closing(redis.Redis.from_url(url, protocol=2)))
    client.config_set("slowlog-log-slower-than", SLOW_MICROS)
    client.config_set("slowlog-max-len", 10_000)
    keys = Keys(keyspace.namespace)
    job = job_of(arguments.tasks)
    image = job.containers["main"].image
    AgentStore(keyspace).report_images(EngineId("engine-1"), {image.name: image.imageId})
    process = stack.enter_context(gateway(url))
    channel = stack.enter_context(grpc.insecure_channel(process.address))
    stub = JobManagementServiceStub(channel)
    stub.FindJobs(pb.JobQuery(), wait_for_ready=True)
    size = bytes_of(keys, job, keyspace)
    # The image's name is enough: the gateway finds the id.
    job.containers["main"].image.imageId = ""
    maker = Maker(stub, client, job, size)
    rounds = range(-WARM_UP, arguments.rounds)
    turns = in_turns(rounds, lambda _: maker.through_titus(), lambda _: maker.through_redis())
    print(f"CreateJob of {arguments.tasks:,} tasks, {size / 1e6:.2f} MB ({arguments.rounds} rounds)")
    for name, seconds in (("titus", turns.ours), ("redis", turns.theirs)):
        middle, high = statistics.median(seconds), ninety_ninth(seconds)
        print(f"  {name:<6} median {middle * 1e3:7.1f} ms   p99 {high * 1e3:7.1f} ms")
    low, high, sure = sign_interval(turns.ratios)
    ratio = statistics.median(turns.ratios)
    print(f"  ratio  median {ratio:.1f}   {low:.1f} to {high:.1f} ({sure:.0%} sign interval)")
    if busy := commit_times(client):
        print(f"  the commit keeps the store busy for {statistics.median(busy) * 1e3:.1f} ms (median)")
    watch(url, keys, maker, arguments.tasks)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    with contextlib.ExitStack() as stack:
        measure(parser.parse_args(), stack)


if __name__ == "__main__":
    try:
        main()
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
