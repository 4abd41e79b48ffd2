"""Who shares an engine with whom, and everything else that a dispatch reserves, on every store.

Control chooses on what it has read; the commit checks it again, because others dispatch at the same time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import agent, commit, dispatched, failed, job, replacement, saved, to_be_retried
from tests.contracts.over import settled
from tests.contracts.stores import Bench, nobody
from titus_celery.core.decision import Company
from titus_celery.core.descriptor import Demand
from titus_celery.core.model import Capacity, EngineId, Job, Task
from titus_celery.errors import Full

ENGINE = EngineId("ENGINE:1")
#: More than any test takes.
ROOM = Capacity(
    cpu_millis=10_000, memory_bytes=2**40, slots=100, disk_bytes=1_000, network_mbps=1_000, gpus=("a", "b")
)


def sent(one: Task, *, demand: Demand | None = None, **parts: Any) -> Task:
    """The task on its way to the one engine."""
    there = dispatched(one)
    assert there.dispatch
    order = replace(there.dispatch, demand=demand or there.dispatch.demand, **parts)
    return replace(there, dispatch=order)


def demand(*, disk: int = 0, network: int = 0) -> Demand:
    return Demand(cpu_millis=1, memory_bytes=1, disk_bytes=disk, network_mbps=network)


def queued(bench: Bench, of: Job) -> Task:
    """The one task of a new job."""
    (one,) = saved(bench.records, of)
    return one


def place(bench: Bench, of: Job, one: Task, company: Company | None = None, **parts: Any) -> Task:
    (after,) = commit(bench.records, of, [one], to=[sent(one, **parts)], room=ROOM, company=company)
    return after


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"demand": demand(disk=600)}, {"demand": demand(disk=401)}),
        ({"demand": demand(network=600)}, {"demand": demand(network=401)}),
        ({"gpus": ("a",)}, {"gpus": ("a",)}),
        ({"gpus": ("b",)}, {"gpus": ("a", "b")}),
    ],
    ids=["disk", "network", "gpu", "one-of-two-gpus"],
)
def test_what_is_reserved_is_not_given_twice_and_comes_back_at_the_end(
    bench: Bench, first: dict[str, Any], second: dict[str, Any]
) -> None:
    new = job(desired=2)
    one, other = saved(bench.records, new, 2)
    one = place(bench, new, one, **first)
    before = bench.world.dump()
    with pytest.raises(Full, match="host-1"):
        place(bench, new, other, **second)
    assert bench.world.dump() == before
    commit(bench.records, new, [one], to=[failed(one)])
    place(bench, new, other, **second)


def test_what_nobody_measured_is_counted_and_never_full(bench: Bench) -> None:
    host = agent()
    bench.registry.hold(host, timedelta(seconds=10), nobody)
    new = job()
    (one,) = saved(bench.records, new)
    unknown = replace(ROOM, disk_bytes=0, network_mbps=0)
    much = demand(disk=10**12, network=10**6)
    commit(bench.records, new, [one], to=[sent(one, demand=much)], room=unknown)
    used = bench.registry.agents()[0][0].used
    assert (used.disk_bytes, used.network_mbps) == (10**12, 10**6)


def test_an_agent_shows_which_gpus_are_taken_and_who_its_company_is(bench: Bench) -> None:
    host = agent()
    bench.registry.hold(host, timedelta(seconds=10), nobody)
    new = job(desired=2)
    one, other = saved(bench.records, new, 2)
    one = place(bench, new, one, gpus=("b",), is_exclusive=True)
    place(bench, new, other)
    (seen,) = bench.registry.agents()[0]
    assert (seen.used.gpus, seen.engine_tasks, seen.engine_exclusive) == (("b",), 2, 1)
    commit(bench.records, new, [one], to=[failed(one)])
    (seen,) = bench.registry.agents()[0]
    assert (seen.used.gpus, seen.engine_tasks, seen.engine_exclusive) == ((), 1, 0)


def test_two_tasks_of_a_job_that_must_be_apart_never_share_an_engine(bench: Bench) -> None:
    new = job(desired=2)
    one, other = saved(bench.records, new, 2)
    apart = Company(is_unique=True)
    one = place(bench, new, one, apart)
    with pytest.raises(Full, match="host-1"):
        place(bench, new, other, apart)
    # Another job's do not matter.
    stranger = job()
    place(bench, stranger, queued(bench, stranger), apart)
    commit(bench.records, new, [one], to=[failed(one)])
    place(bench, new, other, apart)


def test_who_wants_an_engine_for_itself_gets_none_with_others(bench: Bench) -> None:
    stranger, new = job(), job(desired=2)
    theirs = place(bench, stranger, queued(bench, stranger))
    one, other = saved(bench.records, new, 2)
    with pytest.raises(Full, match="host-1"):
        place(bench, new, one, Company(is_exclusive=True), is_exclusive=True)
    commit(bench.records, stranger, [theirs], to=[failed(theirs)])
    place(bench, new, one, Company(is_exclusive=True), is_exclusive=True)
    # Its own are no others, as long as whoever chooses knows of them.
    with pytest.raises(Full):
        place(bench, new, other, Company(is_exclusive=True, own=0), is_exclusive=True)
    place(bench, new, other, Company(is_exclusive=True, own=1), is_exclusive=True)


def test_nobody_comes_to_an_engine_that_a_job_has_for_itself(bench: Bench) -> None:
    new, stranger = job(), job()
    mine = place(bench, new, queued(bench, new), Company(is_exclusive=True), is_exclusive=True)
    (theirs,) = saved(bench.records, stranger)
    with pytest.raises(Full, match="host-1"):
        place(bench, stranger, theirs, Company())
    commit(bench.records, new, [mine], to=[failed(mine)])
    place(bench, stranger, theirs, Company())


def test_where_a_jobs_tasks_are_is_counted_until_they_end(bench: Bench) -> None:
    new = job(desired=2)
    one, other = saved(bench.records, new, 2)
    assert bench.records.spread(new.id) == {}
    one, other = place(bench, new, one), place(bench, new, other)
    assert bench.records.spread(new.id) == {ENGINE: 2}
    (one,) = commit(bench.records, new, [one], to=[to_be_retried(one, due=30)])
    commit(bench.records, new, [one], to=replacement(one, when=30))
    assert bench.records.spread(new.id) == {ENGINE: 1}


def test_a_job_that_is_over_leaves_no_count_behind(bench: Bench) -> None:
    new = job()
    one = place(bench, new, queued(bench, new))
    commit(bench.records, new, [one], to=[failed(one)])
    settled(bench, new)
    assert bench.records.spread(new.id) == {}
    assert bench.keyspace.hashes([bench.keys.spread(new.id)])[0] == [{}]
