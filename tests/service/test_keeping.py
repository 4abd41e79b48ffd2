"""Control keeps as many jobs of a Mantis cluster running as it should (docs/semantics.md A12, B6.2, B6.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.mantis import a_cluster, live, mantis_job, run_all, settle
from tests.service.world import ANN, World
from titus_celery.core.states import State
from titus_celery.errors import FailedPrecondition, LimitReached


def ready() -> World:
    world = World()
    world.host(cores=64, slots=64)
    return world


def test_a_floor_is_filled_from_the_template_and_kept() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(min=2, max=3), ANN)
    world.sweep()
    first, second = live(world, id)
    world.jobs.kill(first, ANN)
    settle(world)
    assert second in live(world, id)
    assert first not in live(world, id)
    assert len(live(world, id)) == 2
    assert world.job(second).descriptor.labels == {"from": "template"}


def test_a_disabled_cluster_starts_nothing_and_refuses_jobs() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(enabled=False, min=1, max=1), ANN)
    settle(world)
    assert live(world, id) == []
    with pytest.raises(FailedPrecondition, match="disabled"):
        world.jobs.create(mantis_job(cluster_id=id), ANN)


def test_disabling_ends_all_jobs_and_enabling_fills_the_floor_again() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(min=1, max=2), ANN)
    world.sweep()
    (floor,) = live(world, id)
    other = world.jobs.create(mantis_job(cluster_id=id), ANN)
    run_all(world)
    world.clusters.enable(id, False)
    settle(world)
    assert live(world, id) == []
    for job_id in (floor, other):
        ended = world.job(job_id)
        assert (ended.state, str(ended.reason)) == (State.FINISHED, "normal: job cluster disabled")
        (task,) = world.jobs.find(job_id).tasks
        assert str(task.reason) == "killed: its job ends (normal: job cluster disabled)"
    world.clusters.enable(id, True)
    settle(world)
    assert len(live(world, id)) == 1


def test_at_its_max_a_cluster_takes_no_further_job() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(max=2), ANN)
    first = world.jobs.create(mantis_job(cluster_id=id), ANN)
    world.jobs.create(mantis_job(cluster_id=id), ANN)
    before = world.keyspace.dump()
    with pytest.raises(LimitReached):
        world.jobs.create(mantis_job(cluster_id=id), ANN)
    assert world.keyspace.dump() == before
    world.jobs.kill(first, ANN)
    settle(world)
    world.jobs.create(mantis_job(cluster_id=id), ANN)


def test_a_lowered_max_ends_old_jobs_once_newer_ones_run() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(max=2), ANN)
    old = world.jobs.create(mantis_job(cluster_id=id), ANN)
    runs = run_all(world)
    world.sleep(1)
    new = world.jobs.create(mantis_job(cluster_id=id), ANN)
    world.clusters.update(id, a_cluster(max=1), ANN)
    world.sweep()
    assert live(world, id) == [old, new]
    assert world.job(old).kill is None
    run_all(world)
    assert world.job(new).state is State.RUNNING
    settle(world)
    assert live(world, id) == [new]
    assert str(world.job(old).reason) == "normal: SLA enforcement"
    assert world.job(old).state is State.FINISHED
    assert runs


def test_two_controls_fill_a_floor_once() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(min=1, max=5), ANN)
    other = world.new_control()
    seen: list[int] = []

    def overtaken(change: object) -> None:
        world.records.before_commit = lambda change: None
        other.run()
        seen.append(len(live(world, id)))

    world.records.before_commit = overtaken
    world.sweep()
    assert seen == [1]
    assert len(live(world, id)) == 1


def test_a_floor_that_cannot_be_filled_is_tried_again() -> None:
    world = World()
    id = world.clusters.create(a_cluster(min=1, max=1), ANN)
    world.sweep()
    assert live(world, id) == []
    # Only now somebody has the image.
    world.host()
    world.sleep(5)
    world.sweep()
    assert len(live(world, id)) == 1


def test_a_mantis_job_runs_once_all_workers_of_all_stages_do() -> None:
    world = ready()
    id = world.jobs.create(mantis_job(2, 1), ANN)
    world.sweep()
    assert sorted(world.jobs.find(id).tasks[n].id.removeprefix(id) for n in range(3)) == [
        "-0.0-1",
        "-0.1-1",
        "-1.0-1",
    ]
    orders = world.deliver()
    for run in orders:
        run.until(State.RUNNING)
    assert world.job(id).state is State.STARTING
    world.sweep()
    assert world.job(id).state is State.RUNNING


def test_a_mantis_job_ends_at_its_limit_since_it_was_submitted() -> None:
    world = ready()
    id = world.jobs.create(mantis_job(agreement={"runtime_limit": timedelta(seconds=20)}), ANN)
    run_all(world)
    world.sleep(19)
    world.sweep()
    assert world.job(id).kill is None
    world.sleep(2)
    settle(world)
    ended = world.job(id)
    assert (ended.state, str(ended.reason)) == (
        State.FINISHED,
        "runtimeLimitExceeded: runtime limit reached",
    )


def test_a_type_of_a_user_is_one_jobs_at_a_time() -> None:
    world = ready()
    wanted = mantis_job(agreement={"user_type": "mine"})
    first = world.jobs.create(wanted, ANN)
    assert world.jobs.create(replace(wanted, labels={"other": "x"}), ANN) == first
    world.jobs.kill(first, ANN)
    settle(world)
    assert world.jobs.create(wanted, ANN) != first
