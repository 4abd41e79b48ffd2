"""CreateJob sent again: one job for a key, one live job for a sequence, and never too many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.mantis import a_cluster, mantis_job
from tests.service.world import ANN, LIMITS, SameIds, World, a_job
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import JobDescriptor, JobGroup
from titus_celery.core.model import Caller, JobId
from titus_celery.core.states import State
from titus_celery.errors import AlreadyExists, LimitReached, Taken
from titus_celery.service.jobs import Jobs

BOB = Caller(id="bob", email="bob@example.com")


def ready() -> World:
    world = World()
    world.host()
    return world


def grouped(sequence: str) -> JobDescriptor:
    return replace(a_job(), group=JobGroup(stack="prod", sequence=sequence))


def live(world: World) -> int:
    """How many jobs are alive."""
    return world.keyspace.members("{titus}:jobs:live", 0, 0)[1]


def over(world: World, id: JobId) -> None:
    """End a job that was not placed."""
    world.jobs.kill(id, ANN)
    world.sweep()
    assert world.job(id).state is State.FAILED


def test_the_same_request_with_the_same_key_is_one_job() -> None:
    world = ready()
    first = world.jobs.create(a_job(), ANN, "k")
    before = world.keyspace.dump()
    assert world.jobs.create(a_job(), ANN, "k") == first
    assert world.keyspace.dump() == before


def test_without_a_key_it_is_two_jobs() -> None:
    world = ready()
    assert world.jobs.create(a_job(), ANN) != world.jobs.create(a_job(), ANN)


def test_another_request_under_a_used_key_is_told_whose_it_is_and_makes_nothing() -> None:
    world = ready()
    first = world.jobs.create(a_job(), ANN, "k")
    before = world.keyspace.dump()
    with pytest.raises(AlreadyExists) as refusal:
        world.jobs.create(a_job(2), ANN, "k")
    assert (refusal.value.id, refusal.value.key) == (first, "k")
    assert world.keyspace.dump() == before


def test_a_key_is_its_callers_own() -> None:
    world = ready()
    assert world.jobs.create(a_job(), ANN, "k") != world.jobs.create(a_job(), BOB, "k")


def test_a_key_counts_although_its_job_is_over_and_no_longer_than_a_day() -> None:
    world = ready()
    first = world.jobs.create(a_job(), ANN, "k")
    over(world, first)
    assert world.jobs.create(a_job(), ANN, "k") == first
    world.now += timedelta(hours=23, minutes=59)
    assert world.jobs.create(a_job(), ANN, "k") == first
    world.now += timedelta(minutes=2)
    world.sleep(1)
    assert world.jobs.create(a_job(), ANN, "k") != first


def test_of_the_same_request_twice_at_once_one_makes_the_job_and_both_hear_of_it() -> None:
    """The other comes between our look for the key and our commit."""
    world = ready()
    heard: list[JobId] = []

    def other_is_first(change: Change) -> None:
        if not heard:
            heard.append(world.jobs.create(a_job(), ANN, "k"))

    world.records.before_commit = other_is_first
    assert world.jobs.create(a_job(), ANN, "k") == heard[0]
    assert live(world) == 1


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("most", [0, 1])
def test_who_asks_for_the_job_that_another_makes_at_that_moment_has_it(most: int, key: str) -> None:
    """Of a type of its user's, or of a key; also where it is as many as may live in its cluster."""
    world = ready()
    cluster = world.clusters.create(a_cluster(max=most), ANN)
    agreement = {} if key else {"user_type": "mine"}
    wanted = mantis_job(cluster_id=cluster, agreement=agreement)
    heard: list[JobId] = []

    def other_is_first(change: Change) -> None:
        if not heard:
            heard.append(world.jobs.create(wanted, ANN, key))

    world.records.before_commit = other_is_first
    assert world.jobs.create(wanted, ANN, key) == heard[0]
    assert live(world) == 1


def test_a_hundred_at_once_are_one_job() -> None:
    world = ready()
    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(lambda _: world.jobs.create(a_job(), ANN, "k"), range(100)))
    assert len(ids) == 1
    assert live(world) == 1


def test_of_the_live_jobs_only_one_has_a_sequence() -> None:
    world = ready()
    first = world.jobs.create(grouped("v001"), ANN)
    world.jobs.create(grouped("v002"), ANN)
    before = world.keyspace.dump()
    with pytest.raises(Taken, match=r"this jobGroupInfo\.sequence"):
        world.jobs.create(grouped("v001"), ANN)
    assert world.keyspace.dump() == before
    over(world, first)
    world.jobs.create(grouped("v001"), ANN)


def test_a_job_keeps_its_sequence_while_it_is_being_killed() -> None:
    world = ready()
    id, runs = world.started(grouped("v001"))
    world.jobs.kill(id, ANN)
    with pytest.raises(Taken):
        world.jobs.create(grouped("v001"), ANN)
    world.sweep()
    world.deliver()
    runs[0].end()
    world.sweep()
    world.jobs.create(grouped("v001"), ANN)


def test_a_key_is_told_before_a_sequence() -> None:
    """Who repeats a request with both wants the job, and not to hear that it is there."""
    world = ready()
    first = world.jobs.create(grouped("v001"), ANN, "k")
    assert world.jobs.create(grouped("v001"), ANN, "k") == first


def test_past_the_limit_of_live_jobs_there_are_no_more_until_one_is_over() -> None:
    world = ready()
    jobs = Jobs(
        world.records,
        world.writes,
        ClusterStore(world.keyspace),
        InventoryResolver(world.registry),
        SameIds(),
        replace(LIMITS, jobs_max=2),
        world,
    )
    first = jobs.create(a_job(), ANN, "k")
    jobs.create(a_job(), ANN)
    before = world.keyspace.dump()
    with pytest.raises(LimitReached) as refusal:
        jobs.create(a_job(), ANN)
    assert "2" in str(refusal.value)
    assert world.keyspace.dump() == before
    # What was accepted is found by its key all the same.
    assert jobs.create(a_job(), ANN, "k") == first
    over(world, first)
    jobs.create(a_job(), ANN)
