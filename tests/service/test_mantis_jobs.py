"""Mantis jobs live through agents and control: stages, restarts, ends (docs/semantics.md A6, A15, B6.5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.service.mantis import a_cluster, mantis_job, run_all, settle
from tests.service.test_services import end, resize
from tests.service.world import ANN, World
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import Instances, JobDescriptor, MantisSpec, RetryPolicy
from titus_celery.core.model import Exit, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.errors import FailedPrecondition, InvalidRequest, LimitReached

FAILS = Exit(code=3)
TIMEOUT: dict[str, Any] = {"subscription_timeout": timedelta(seconds=30)}
TRANSIENT: dict[str, Any] = {"agreement": {"is_transient": True}, **TIMEOUT}


def ready() -> World:
    world = World()
    world.host(cores=64, slots=64)
    return world


def with_retries(job: JobDescriptor, *retries: int | None) -> JobDescriptor:
    """The job with so many immediate retries in each stage; None: it says nothing of them."""
    assert isinstance(job.spec, MantisSpec)
    stages = tuple(
        replace(stage, retry=None if count is None else RetryPolicy(retries=count))
        for stage, count in zip(job.spec.stages, retries, strict=True)
    )
    return replace(job, spec=replace(job.spec, stages=stages))


def up(world: World, job: JobDescriptor) -> JobId:
    """A job all of whose workers run."""
    id = world.jobs.create(job, ANN)
    run_all(world)
    assert world.job(id).state is State.RUNNING
    return id


def worker(id: JobId, place: str) -> TaskId:
    """The worker of this stage, slot and attempt, as 0.1-2."""
    return TaskId(f"{id}-{place}")


def names(world: World, id: JobId) -> list[str]:
    """The workers that are open."""
    return [each.id.removeprefix(f"{id}-") for each in world.records.open_tasks(id)]


def verdict(world: World, id: JobId) -> tuple[State, str]:
    return world.job(id).state, world.why(id)


# ------------------------------------------------------------------------------------------ workers


def test_it_ends_well_once_all_workers_of_all_stages_did() -> None:
    world = ready()
    id = up(world, mantis_job(2, 1))
    end(world, worker(id, "0.0-1"))
    end(world, worker(id, "1.0-1"))
    settle(world)
    assert names(world, id) == ["0.1-1"]
    end(world, worker(id, "0.1-1"))
    settle(world)
    assert verdict(world, id) == (State.FINISHED, "normal")


def test_a_worker_that_fails_is_restarted_in_its_place_by_the_ladder() -> None:
    world = ready()
    id = up(world, mantis_job(2, 1))
    end(world, worker(id, "0.1-1"), FAILS)
    run_all(world)
    assert names(world, id) == ["0.0-1", "0.1-2", "1.0-1"]
    end(world, worker(id, "0.1-2"), FAILS)
    world.sleep(4)
    world.sweep()
    assert "0.1-3" not in names(world, id)
    world.sleep(2)
    run_all(world)
    assert "0.1-3" in names(world, id)
    # The job itself never goes back.
    assert world.job(id).state is State.RUNNING


def test_with_a_worker_past_its_retries_the_whole_job_fails() -> None:
    world = ready()
    id = up(world, with_retries(mantis_job(2, 1), 1, None))
    end(world, worker(id, "0.1-1"), FAILS)
    run_all(world)
    end(world, worker(id, "0.1-2"), FAILS)
    settle(world)
    state, why = verdict(world, id)
    assert state is State.FAILED
    assert why.startswith(f"failed: too many worker resubmits; first: {worker(id, '0.1-2')}: failed: ")
    assert world.why(worker(id, "1.0-1")).startswith("killed: its job ends (failed: too many")


def test_a_single_worker_past_its_retries_ends_its_job_for_the_same_reason() -> None:
    world = ready()
    id = up(world, with_retries(mantis_job(1), 0))
    end(world, worker(id, "0.0-1"), FAILS)
    settle(world)
    assert world.why(id).startswith("failed: too many worker resubmits; first: ")


def test_a_worker_that_a_user_kills_is_replaced_at_once() -> None:
    world = ready()
    id = up(world, with_retries(mantis_job(1), 0))
    world.jobs.kill_task(worker(id, "0.0-1"), ANN)
    settle(world)
    assert names(world, id) == ["0.0-2"]
    assert world.job(id).kill is None


def test_a_job_that_a_user_kills_fails() -> None:
    world = ready()
    id = up(world, mantis_job(2))
    world.jobs.kill(id, ANN)
    settle(world)
    state, why = verdict(world, id)
    assert (state, why.partition(" at ")[0]) == (State.FAILED, "killed: by ann")


# ------------------------------------------------------------------------------------------ RUNNING


def test_a_look_that_another_worker_outruns_is_taken_again() -> None:
    world = ready()
    id = world.jobs.create(mantis_job(2), ANN)
    world.sweep()
    first, second = world.orders()
    (host,) = world.hosts.values()
    host.carry(first).until(State.RUNNING)

    def outrun() -> None:
        # After the look, in the very millisecond in which the deadline was armed before.
        world.records.after_look = None
        host.carry(second).until(State.RUNNING)

    world.records.after_look = outrun
    world.sweep()
    world.sweep()
    assert world.job(id).state is State.RUNNING


def test_it_runs_once_the_worker_that_could_not_is_taken_away() -> None:
    world = World()
    world.host(cores=2)
    id = world.jobs.create(mantis_job(3), ANN)
    run_all(world)
    assert world.job(id).state is State.STARTING
    resize(world, id, 2)
    world.sweep()
    assert world.job(id).state is State.RUNNING


# ------------------------------------------------------------------------------------------ sizes


def test_a_stage_grows_and_shrinks_for_itself() -> None:
    world = ready()
    id = up(world, mantis_job(1, 2))
    world.jobs.resize(id, Instances(desired=4), stage=1)
    run_all(world)
    assert names(world, id) == ["0.0-1", "1.0-1", "1.1-1", "1.2-1", "1.3-1"]
    world.jobs.resize(id, Instances(desired=1), stage=1)
    settle(world)
    assert names(world, id) == ["0.0-1", "1.0-1"]
    assert world.why(worker(id, "1.3-1")) == "scaledDown: 1 task is wanted"
    world.jobs.resize(id, Instances(desired=2), stage=1)
    run_all(world)
    # No number comes twice.
    assert names(world, id) == ["0.0-1", "1.0-1", "1.4-1"]
    assert world.job(id).kill is None


@pytest.mark.parametrize(
    ("numbers", "stage", "path"),
    [
        (Instances(desired=1), 2, "stageIndex"),
        (Instances(desired=1_501), 0, "instances.desired"),
        (Instances(desired=3, max=2), 1, "instances.desired"),
        (Instances(min=3, desired=3, max=2), 1, "instances.min"),
    ],
)
def test_numbers_that_do_not_fit_change_nothing(numbers: Instances, stage: int, path: str) -> None:
    world = ready()
    id = up(world, mantis_job(1, 1))
    before = world.keyspace.dump()
    with pytest.raises(InvalidRequest) as refusal:
        world.jobs.resize(id, numbers, stage)
    assert [each.field for each in refusal.value.violations] == [path]
    assert world.keyspace.dump() == before


def test_a_job_that_ends_keeps_its_size() -> None:
    world = ready()
    id = up(world, mantis_job(1))
    world.jobs.kill(id, ANN)
    with pytest.raises(FailedPrecondition):
        world.jobs.resize(id, Instances(desired=2))


# ------------------------------------------------------------------------------------------ subscribers


def test_a_transient_job_ends_once_it_had_no_subscriber_for_too_long() -> None:
    world = ready()
    id = up(world, mantis_job(**TRANSIENT))
    subscribers = SubscriberStore(world.keyspace)
    world.sleep(25)
    world.sweep()
    subscribers.hold(id, "gateway-1", timedelta(seconds=10))
    for _ in range(39):
        world.sleep(1)
        world.sweep()
    assert world.job(id).kill is None
    for _ in range(3):
        world.sleep(1)
        world.sweep()
    settle(world)
    assert verdict(world, id) == (State.FINISHED, "normal: no subscriptions for 30 secs")


def test_a_perpetual_job_stays_without() -> None:
    world = ready()
    id = up(world, mantis_job(**TIMEOUT))
    world.sleep(900)
    world.sweep()
    assert world.job(id).kill is None


@pytest.mark.parametrize("by", [7_200, -7_200])
def test_a_clock_that_is_set_makes_nobody_lonely(by: float) -> None:
    world = ready()
    id = up(world, mantis_job(**TRANSIENT))
    world.sleep(5)
    world.jump(by)
    for _ in range(20):
        world.sleep(1)
        world.sweep()
    assert world.job(id).kill is None
    world.sleep(15)
    settle(world)
    kill = world.job(id).kill
    assert kill is not None
    assert str(kill.reason) == "normal: no subscriptions for 30 secs"


def test_after_an_outage_gateways_have_their_say_first() -> None:
    world = ready()
    id = up(world, mantis_job(**TRANSIENT))
    world.now += timedelta(seconds=300)
    world.passed += timedelta(seconds=300)
    world.sweep()
    assert world.job(id).kill is None
    SubscriberStore(world.keyspace).hold(id, "gateway-1", timedelta(seconds=30))
    world.sleep(15)
    world.sweep()
    assert world.job(id).kill is None


# ------------------------------------------------------------------------------------------ types


def test_of_two_that_ask_for_one_type_at_once_both_get_one_job() -> None:
    world = ready()
    cluster = world.clusters.create(a_cluster(max=1), ANN)
    wanted = mantis_job(cluster_id=cluster, agreement={"user_type": "mine"})
    first: list[JobId] = []

    def overtaken(change: Change) -> None:
        world.records.before_commit = None
        first.append(world.jobs.create(wanted, ANN))

    world.records.before_commit = overtaken
    assert world.jobs.create(wanted, ANN) == first[0]
    # One of another type is one too many.
    with pytest.raises(LimitReached):
        world.jobs.create(mantis_job(cluster_id=cluster), ANN)


def test_of_one_request_sent_twice_at_once_one_job_is_made_also_at_the_max() -> None:
    world = ready()
    cluster = world.clusters.create(a_cluster(max=1), ANN)
    wanted = mantis_job(cluster_id=cluster)
    first: list[JobId] = []

    def overtaken(change: Change) -> None:
        world.records.before_commit = None
        first.append(world.jobs.create(wanted, ANN, "key"))

    world.records.before_commit = overtaken
    assert world.jobs.create(wanted, ANN, "key") == first[0]


def test_a_type_is_of_one_cluster_alone() -> None:
    world = ready()
    wanted = mantis_job(agreement={"user_type": "mine"})
    cluster = world.clusters.create(a_cluster(), ANN)
    assert world.jobs.create(wanted, ANN) != world.jobs.create(replace(wanted, cluster_id=cluster), ANN)
