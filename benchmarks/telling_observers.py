"""How long until all of very many observers heard of a change, against gRPC alone.

    python benchmarks/telling_observers.py [--observers N] [--jobs N] [--rounds N] [--changes N]

It starts a store and a gateway of its own; `--observers 100 --changes 100` is a quick look. Both ways of a
round are measured right after each other, in turns:

- titus: a change of a job is committed to the store, as any other process of an installation does it,
  until the last of the observers of all jobs (ObserveJobs) has its bytes;
- grpc: a call brings the same bytes to the same server, which hands them to as many streams that do
  nothing else, until the last of them has them.

Then many more changes follow, one after the other, with all of these streams open: the gateway's memory
must stay what it was. What is wanted is told, not asserted: what else a machine does misses it now and
then, and the exit code is 0 if everything could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import grpc.aio
from bare import LISTEN, SEND
from comparison import in_turns, ninety_ninth, sign_interval, verdict
from stage import Process, gateway, store
from stock import described, fill

from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.store import RecordStore
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import ServiceSpec
from titus_celery.core.jobs import created
from titus_celery.core.model import Job, JobId
from titus_celery.core.sizing import status_requested
from titus_celery.errors import TitusError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.service.change import WritePath

#: Connections that the observers share: each client has its own, or one for several streams.
CONNECTIONS: Final = 20
#: Rounds before the first that counts.
WARM_UP: Final = 3
#: Reports of the memory during the changes.
REPORTS: Final = 4
#: Seconds for all observers to hear of one change; beyond, something is wrong.
PATIENCE: Final = 60
#: What is wanted: the time in times of gRPC alone, and the memory after all changes in that before.
TIME_BOUND: Final = 2
MEMORY_BOUND: Final = 1.05

_OBSERVE_JOBS: Final = f"/{pb.DESCRIPTOR.services_by_name['JobManagementService'].full_name}/ObserveJobs"
_JOB: Final = JobId("the-job-that-changes")


class Changes:
    """The job that everybody observes."""

    def __init__(self, keyspace: RedisKeyspace) -> None:
        self._writes = WritePath(RecordStore(keyspace), MemoryQueue())
        service = replace(described(0), spec=ServiceSpec(desired=1, max=1, container_id="main"))
        self._writes.create(lambda now: created(_JOB, service, "ann", now))

    def make(self) -> None:
        """Change it: one commit that observers hear of as one definition update."""

        def decide(job: Job, now: object) -> Decision:
            spec = job.descriptor.spec
            assert isinstance(spec, ServiceSpec)
            return status_requested(job, spec, not spec.enabled)

        self._writes.on_job(_JOB, decide)


class Ears:
    """Many streams of one kind."""

    def __init__(self) -> None:
        self.count = 0
        #: What was heard last.
        self.last = b""
        self._missing = 0
        self._all_heard = asyncio.Event()

    async def join(self, calls: Sequence[Any], begun: Callable[[Any], Any]) -> None:
        """Listen to these streams, once each has *begun*."""
        ready = [asyncio.Event() for _ in calls]
        self._tasks = [
            asyncio.create_task(self._listen(*each, begun)) for each in zip(calls, ready, strict=True)
        ]
        await asyncio.gather(*(each.wait() for each in ready))
        self.count = len(calls)

    async def _listen(self, call: Any, ready: asyncio.Event, begun: Callable[[Any], Any]) -> None:
        await begun(call)
        ready.set()
        while True:
            self.last = await call.read()
            self._missing -= 1
            if not self._missing:
                self._all_heard.set()

    def expect(self) -> None:
        """From now on each stream is to hear one thing."""
        self._missing = self.count
        self._all_heard.clear()

    async def heard(self) -> None:
        """Return once it has."""
        async with asyncio.timeout(PATIENCE):
            await self._all_heard.wait()


async def past_snapshot(call: Any) -> None:
    """Return when what follows is changes."""
    while not pb.JobChangeNotification.FromString(await call.read()).HasField("snapshotEnd"):
        pass


class Hall:
    """Observers of the gateway, and listeners to gRPC alone on the same server."""

    def __init__(self, process: Process, channels: Sequence[grpc.aio.Channel], changes: Changes) -> None:
        self._process = process
        self._channels = channels
        self._changes = changes
        self.observers, self.listeners = Ears(), Ears()
        #: Seconds of the gateway's processor time for each measurement, by kind.
        self.costs: dict[str, list[float]] = {"titus": [], "grpc": []}

    async def fill(self, count: int) -> None:
        """Let so many of either join, and tell what each kind costs."""
        empty = self._process.memory()
        for ears, method, begun in (
            (self.observers, _OBSERVE_JOBS, past_snapshot),
            (self.listeners, LISTEN, lambda call: call.initial_metadata()),
        ):
            began = time.monotonic()
            make: list[Any] = [channel.unary_stream(method) for channel in self._channels]
            await ears.join([make[number % len(make)](b"") for number in range(count)], begun)
            took, kind = time.monotonic() - began, method.rpartition("/")[2]
            more = (self._process.memory() - empty) / count / 1e3
            print(f"  {count:,} streams of {kind} in {took:.0f} s, {more:.0f} kB of memory each", flush=True)
            empty = self._process.memory()
        # The first change says what the bytes are that gRPC alone has to bring.
        await self.tell()

    async def tell(self) -> float:
        """Seconds from before the commit of a change until all observers heard of it."""
        self.observers.expect()
        began = time.perf_counter()
        # In a thread, as a process of its own would.
        await asyncio.to_thread(self._changes.make)
        await self.observers.heard()
        return time.perf_counter() - began

    async def bring(self) -> float:
        """Seconds from the call with these bytes until all listeners have them."""
        self.listeners.expect()
        began = time.perf_counter()
        send: Any = self._channels[0].unary_unary(SEND)
        await send(self.observers.last)
        await self.listeners.heard()
        return time.perf_counter() - began

    async def costing(self, kind: str, measure: Callable[[], Any]) -> float:
        """What *measure* gives; its cost is kept."""
        before = self._process.cpu()
        took: float = await measure()
        self.costs[kind].append(self._process.cpu() - before)
        return took


def measure_time(runner: asyncio.Runner, hall: Hall, rounds: int) -> None:
    """Measure and print."""
    turns = in_turns(
        range(-WARM_UP, rounds),
        lambda _: runner.run(hall.costing("titus", hall.tell)),
        lambda _: runner.run(hall.costing("grpc", hall.bring)),
    )
    size, count = len(hall.observers.last), hall.observers.count
    print(f"One change of {size} bytes to {count:,} observers ({rounds} rounds)")
    for kind, seconds in (("titus", turns.ours), ("grpc", turns.theirs)):
        middle, high, cost = (
            statistics.median(seconds),
            ninety_ninth(seconds),
            statistics.mean(hall.costs[kind]),
        )
        spread = f"median {middle * 1e3:7.1f} ms   p99 {high * 1e3:7.1f} ms"
        print(f"  {kind:<6} {spread}   {cost * 1e3:5.1f} ms of the gateway's processor each")
    low, high, sure = sign_interval(turns.ratios)
    print(f"  ratio  {low:.2f} to {high:.2f} ({sure:.0%} sign interval)")
    ratio = statistics.median(turns.ratios)
    print("  " + verdict("time in times of gRPC alone", ratio, most=TIME_BOUND), flush=True)


def measure_memory(runner: asyncio.Runner, hall: Hall, process: Process, changes: int) -> None:
    """Measure and print."""
    before = process.memory()
    print(f"Memory of the gateway while {hall.observers.count:,} observers hear of {changes:,} changes more")
    print(f"  before                  {before / 1e6:6.1f} MB", flush=True)
    for number in range(1, changes + 1):
        runner.run(hall.tell())
        if number * REPORTS % changes < REPORTS:
            print(f"  after {number:>7,} changes   {process.memory() / 1e6:6.1f} MB", flush=True)
    after = process.memory()
    print("  " + verdict("memory in that of before", after / before, most=MEMORY_BOUND), flush=True)


def measure(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Start a store and a gateway, let observers join, measure and print."""
    url = stack.enter_context(store())
    keyspace = stack.enter_context(contextlib.closing(RedisKeyspace(url)))
    fill(keyspace, arguments.jobs, 0)
    changes = Changes(keyspace)
    process = stack.enter_context(gateway(url))
    runner = stack.enter_context(asyncio.Runner())
    channels = runner.run(_connected(process.address))
    stack.callback(lambda: runner.run(_closed(channels)))
    hall = Hall(process, channels, changes)
    runner.run(hall.fill(arguments.observers))
    print()
    measure_time(runner, hall, arguments.rounds)
    measure_memory(runner, hall, process, arguments.changes)


async def _connected(address: str) -> list[grpc.aio.Channel]:
    # Without this, gRPC would make one connection of them all.
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    return channels


async def _closed(channels: Sequence[grpc.aio.Channel]) -> None:
    for channel in channels:
        await channel.close()


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--observers", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=100, help="jobs that live besides the one that changes")
    parser.add_argument("--rounds", type=int, default=50, help="changes that are timed")
    parser.add_argument("--changes", type=int, default=1_000, help="changes while memory is watched")
    with contextlib.ExitStack() as stack:
        measure(parser.parse_args(), stack)


if __name__ == "__main__":
    try:
        main()
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
