"""FindJobs and FindJob among very many jobs, against what Redis, protobuf and gRPC need alone.

    python benchmarks/finding_jobs.py [--live N] [--over N] [--rounds N] [--pairs N] [--seconds N]

It fills a store of its own with jobs (a minute or two for the 100,000 of the default), and asks a gateway
of its own. `--live 600 --over 2400 --rounds 100 --pairs 3` is a quick look. Both ways of a pair are
measured right after each other, in turns:

- FindJobs, a page of 100 jobs by criteria, from the call to the parsed reply. Its reference: one pipeline
  that reads these jobs' records through plain redis-py, and the same reply built by protobuf from plain
  values and serialised. The 99th of 100 calls may take as long as three references.
- FindJob by many callers at once, in calls a second. Its reference: an empty method of the same server. At
  least half of its rate is wanted.

A third of all jobs have the label that is asked for. Jobs that live are known to a gateway, and the bounds
are made for them; jobs that are over it reads from the store, and they are held against the same bounds to
show what that costs. The bounds are told, not asserted: what else a machine does misses them now and then,
and the exit code is 0 if everything could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
import redis
from bare import ECHO
from comparison import Turns, in_turns, ninety_ninth, sign_interval, verdict
from google.protobuf.message import Message
from stage import Process, gateway, store
from stock import LABEL, fill

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.core.model import JobId
from titus_celery.errors import TitusError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub

PAGE: Final = 100
#: Pages of a list that are asked for in turn, from all over it.
PAGES_MAX: Final = 40
#: Calls of each kind before the first that counts.
WARM_UP: Final = 5
#: Who calls FindJob at the same time: enough that the gateway is never idle.
CALLERS: Final = 32
#: What is wanted: the slowest of a hundred pages, in references; the rate of FindJob, in echo's.
PAGE_BOUND: Final = 3
RATE_BOUND: Final = 0.5

_LABELLED: Final = {"labels": "=".join(LABEL)}
_FIND_JOB: Final = f"/{pb.DESCRIPTOR.services_by_name['JobManagementService'].full_name}/FindJob"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for, in words and in criteria."""

    name: str
    criteria: Mapping[str, str]

    def page(self, number: int) -> pb.JobQuery:
        """The request for a page."""
        page = pb.Page(pageNumber=number, pageSize=PAGE)
        return pb.JobQuery(page=page, fiterlingCriteria=self.criteria)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a page is made of without us: commands that read its records, and the reply as plain values."""

    commands: Sequence[tuple[str, str]]
    items: Sequence[Any]


QUERIES: Final = (
    Query("live jobs by label", _LABELLED),
    Query("live jobs by label and state", {**_LABELLED, "jobState": "RUNNING"}),
    Query("finished jobs by label", {**_LABELLED, "jobState": "FINISHED"}),
)


def plain(message: Message) -> dict[str, Any]:
    """The fields of a message as dictionaries and lists."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            holds_messages = field.message_type.fields_by_name["value"].message_type is not None
            found[field.name] = {key: plain(one) if holds_messages else one for key, one in value.items()}
        elif field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
        else:
            found[field.name] = [plain(one) for one in value] if field.is_repeated else plain(value)
    return found


def reference(keys: Keys, reply: pb.JobQueryResult) -> Reference:
    """What this reply can be compared with."""
    commands: list[tuple[str, str]] = []
    for job in reply.items:
        if job.jobState.state in (pb.FINISHED, pb.FAILED):
            commands.append(("GET", keys.archive(job.id)))
        else:
            commands.append(("HGETALL", keys.job(job.id)))
            commands += (("HGETALL", keys.task(task.id)) for task in job.tasks)
    items: list[Any] = [plain(job) for job in reply.items]
    if list(pb.JobQueryResult(items=items).items) != list(reply.items):
        raise SystemExit("benchmark: the reference is not the same reply")
    return Reference(commands, items)


def through_titus(stub: JobManagementServiceStub, query: pb.JobQuery) -> float:
    """Seconds from the call to the parsed reply."""
    began = time.perf_counter()
    stub.FindJobs(query)
    return time.perf_counter() - began


def alone(client: Any, of: Reference) -> float:
    """Seconds to read the records, and to build and serialise the reply."""
    began = time.perf_counter()
    pipeline = client.pipeline(transaction=False)
    for command in of.commands:
        pipeline.execute_command(*command)
    records = pipeline.execute()
    pb.JobQueryResult(items=of.items).SerializeToString()
    took = time.perf_counter() - began
    if not all(records):
        raise SystemExit("benchmark: the reference read records that are not there")
    return took


def measure_pages(stub: JobManagementServiceStub, client: Any, keys: Keys, query: Query, rounds: int) -> None:
    """Measure one query and print."""
    found = stub.FindJobs(query.page(0)).pagination
    count = min(found.totalPages, PAGES_MAX)
    requests = [query.page(number * found.totalPages // count) for number in range(count)]
    references = [reference(keys, stub.FindJobs(request)) for request in requests]
    turns = in_turns(
        range(-WARM_UP, rounds),
        lambda number: through_titus(stub, requests[number % count]),
        lambda number: alone(client, references[number % count]),
    )
    print(f"FindJobs, {PAGE} of {found.totalItems:,} {query.name} ({rounds:,} rounds)")
    print(f"  titus                {_spread(turns.ours)}")
    print(f"  Redis and protobuf   {_spread(turns.theirs)}")
    slow, usual = ninety_ninth(turns.ours), statistics.median(turns.theirs)
    print("  " + verdict("p99 in medians of the reference", slow / usual, most=PAGE_BOUND), flush=True)


def _spread(seconds: Sequence[float]) -> str:
    middle, high, top = statistics.median(seconds), ninety_ninth(seconds), max(seconds)
    return f"median {middle * 1e3:7.2f} ms   p99 {high * 1e3:7.2f} ms   slowest {top * 1e3:7.2f} ms"


class Callers:
    """Many callers of one gateway, on an event loop of their own."""

    def __init__(self, runner: asyncio.Runner, process: Process, channel: grpc.aio.Channel) -> None:
        self._runner = runner
        self._process = process
        self._channel = channel

    def rate(self, method: str, requests: Iterator[bytes], seconds: float) -> tuple[float, float]:
        """Calls a second, and seconds of the gateway's processor time for each."""
        return self._runner.run(self._rate(method, requests, seconds))

    async def _rate(self, method: str, requests: Iterator[bytes], seconds: float) -> tuple[float, float]:
        call: Any = self._channel.unary_unary(method)
        calls = 0
        began, used = time.perf_counter(), self._process.cpu()

        async def calling() -> None:
            nonlocal calls
            while time.perf_counter() - began < seconds:
                await call(next(requests))
                calls += 1

        await asyncio.gather(*(calling() for _ in range(CALLERS)))
        return calls / (time.perf_counter() - began), (self._process.cpu() - used) / calls


def measure_rates(callers: Callers, name: str, ids: Sequence[JobId], pairs: int, seconds: float) -> None:
    """Measure FindJob of these jobs and print."""
    shuffled = [pb.JobId(id=id).SerializeToString() for id in ids]
    random.Random(0).shuffle(shuffled)
    requests, nothing = itertools.cycle(shuffled), itertools.repeat(b"")
    costs: dict[str, list[float]] = {_FIND_JOB: [], ECHO: []}

    def rate(method: str, bodies: Iterator[bytes]) -> float:
        found, cost = callers.rate(method, bodies, seconds)
        costs[method].append(cost)
        return found

    turns = in_turns(range(-1, pairs), lambda _: rate(_FIND_JOB, requests), lambda _: rate(ECHO, nothing))
    print(f"FindJob of {len(ids):,} {name} ({pairs} pairs of {seconds:g} s, {CALLERS} callers)")
    print(f"  titus      {_rate(turns.ours, costs[_FIND_JOB])}")
    print(f"  empty echo {_rate(turns.theirs, costs[ECHO])}")
    _tell_rates(turns)


def _rate(rates: Sequence[float], costs: Sequence[float]) -> str:
    cost = statistics.median(costs)
    return f"{statistics.median(rates):7,.0f} calls/s, {cost * 1e6:5.0f} us of the gateway's processor each"


def _tell_rates(turns: Turns) -> None:
    low, high, sure = sign_interval(turns.ratios)
    print(f"  ratio      {low:.2f} to {high:.2f} ({sure:.0%} sign interval)")
    print(
        "  " + verdict("rate in rates of the echo", statistics.median(turns.ratios), least=RATE_BOUND),
        flush=True,
    )


def until_known(stub: JobManagementServiceStub, process: Process) -> None:
    """Return once the gateway knows all jobs; tells how long that took."""
    began = time.monotonic()
    for what, query in (("live", QUERIES[0]), ("finished", QUERIES[2])):
        while True:
            try:
                stub.FindJobs(query.page(0), wait_for_ready=True)
                break
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.5)
        took = time.monotonic() - began
        print(f"  the gateway knows all {what} jobs after {took:.0f} s", flush=True)
    print(f"  and has {process.memory() / 1e6:.0f} MB of memory", flush=True)


def measure(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Fill a store, start a gateway, measure and print."""
    url = stack.enter_context(store())
    keyspace = stack.enter_context(contextlib.closing(RedisKeyspace(url)))
    client: Any = stack.enter_context(contextlib.closing(redis.Redis.from_url(url, protocol=2)))
    keys = Keys(keyspace.namespace)
    live = fill(keyspace, arguments.live, arguments.over)
    process = stack.enter_context(gateway(url))
    channel = stack.enter_context(grpc.insecure_channel(process.address))
    stub = JobManagementServiceStub(channel)
    until_known(stub, process)
    print()
    for query in QUERIES:
        measure_pages(stub, client, keys, query, arguments.rounds)
    over = [JobId(id.decode()) for id in client.zrange(keys.over, 0, -1)]
    runner = stack.enter_context(asyncio.Runner())
    calls = runner.run(_connected(process.address))
    stack.callback(lambda: runner.run(calls.close()))
    callers = Callers(runner, process, calls)
    for name, ids in (("live jobs", live), ("finished jobs", over)):
        measure_rates(callers, name, ids, arguments.pairs, arguments.seconds)


async def _connected(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--live", type=int, default=12_000, help="jobs that live")
    parser.add_argument("--over", type=int, default=88_000, help="jobs that are over")
    parser.add_argument("--rounds", type=int, default=1_000, help="pages of each query")
    parser.add_argument("--pairs", type=int, default=15, help="of FindJob and echo")
    parser.add_argument("--seconds", type=float, default=1, help="of either")
    with contextlib.ExitStack() as stack:
        measure(parser.parse_args(), stack)


if __name__ == "__main__":
    try:
        main()
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
