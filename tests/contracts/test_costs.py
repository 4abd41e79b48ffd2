"""What one transition costs does not depend on how big its job or the store is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.builders import commit, deadline, dispatched, finished, job, moved, saved
from tests.contracts.stores import Bench, RedisBench, server_binary
from titus_celery.adapters.redis_server import start_server
from titus_celery.core.model import Capacity, DeadlineKind, Task
from titus_celery.core.states import State

ROOM: Final = Capacity(cpu_millis=10**9, memory_bytes=2**50, slots=10**6)
#: Times and positions have more or fewer digits by chance.
BYTES_BY_CHANCE: Final = 20


#: What a step costs: how often the server ran which command, in scripts too, and bytes to and fro.
Cost = tuple[dict[str, int], int]


@dataclass(frozen=True)
class Filled:
    """A store with 10,000 jobs, and what the life of a task cost when it was empty."""

    bench: Bench
    base: list[Cost]


@pytest.fixture(scope="module", params=["bundled", "debian"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """On a server that nobody else talks to."""
    server = start_server(tmp_path_factory.mktemp("costs"), binary=server_binary(request.param))
    try:
        with closing(RedisBench(server.url)) as world:
            bench = Bench(world)
            # What is paid once: connections are opened, the script is sent.
            life(bench, 100, tasks=2)
            base = life(bench, 101, tasks=2)
            for number in range(10_000, 20_000):
                saved(bench.records, job(number))
            yield Filled(bench, base)
    finally:
        server.stop()


def cost(bench: Bench, step: Callable[[], object]) -> Cost:
    """What *step* costs."""
    raw = bench.world.raw if isinstance(bench.world, RedisBench) else None
    assert raw
    calls, asking = _calls(raw), _traffic(raw)
    start = _traffic(raw)
    step()
    # Less what asking for it costs.
    traffic = _traffic(raw) - start - (start - asking)
    more = {name: count - calls.get(name, 0) for name, count in _calls(raw).items() if name != "info"}
    return {name: count for name, count in more.items() if count}, traffic


def _calls(raw: Any) -> dict[str, int]:
    stats = raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}


def _traffic(raw: Any) -> int:
    stats = raw.info("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


def life(bench: Bench, number: int, *, tasks: int) -> list[Cost]:
    """What each transition of a task costs, its load included, in a new job with so many tasks."""
    # All jobs have the same descriptor, so that they differ in nothing but their tasks.
    (one, *_) = saved(bench.records, job(number, desired=1_000), tasks)
    costs = []

    def step(to: Callable[[Task], Task], **rest: Any) -> None:
        def act() -> None:
            view = bench.records.task(one.id)
            commit(bench.records, view.job, [view.task], to=[to(view.task)], **rest)

        costs.append(cost(bench, act))

    step(dispatched, room=ROOM, arm=(deadline(DeadlineKind.REPUBLISH, one.id, 3),))
    step(lambda task: moved(task, State.STARTING, 2), disarm=((DeadlineKind.REPUBLISH, one.id),))
    step(lambda task: moved(task, State.RUNNING, 3))
    step(finished)
    return costs


@pytest.mark.parametrize(("number", "tasks"), [(102, 2), (103, 1_000)])
def test_a_transition_costs_the_same_in_small_and_large_jobs_and_stores(
    filled: Filled, number: int, tasks: int
) -> None:
    assert filled.bench.records.live_jobs(0, 1)[1] > 10_000
    costs = life(filled.bench, number, tasks=tasks)
    for (calls, size), (calls_then, size_then) in zip(costs, filled.base, strict=True):
        assert calls == calls_then and calls["evalsha"] == 1
        assert abs(size - size_then) <= BYTES_BY_CHANCE and size > 1_000


def test_a_page_of_jobs_costs_the_page(filled: Filled) -> None:
    calls, _ = cost(filled.bench, lambda: filled.bench.records.live_jobs(5_000, 10))
    assert calls == {"zrange": 1, "zcard": 1, "hgetall": 10, "time": 1}


def test_a_tick_costs_what_is_due(filled: Filled) -> None:
    records = filled.bench.records
    calls, _ = cost(filled.bench, lambda: records.due(records.now(), 100))
    assert calls == {"time": 1, "zrangebyscore": 1}
