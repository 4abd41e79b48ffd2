"""Mantis jobs, and how many of a cluster there are (docs/semantics.md A12, A15, B1.9 to B1.11, B6)."""

from __future__ import annotations

from typing import Any, Final

import grpc
import pytest

from tests.conformance.installation import Titus, batch
from tests.conformance.test_cluster_methods import cluster, found, switch, update, within
from tests.grpc_api.clusters import mantis, mantis_cluster, service_job
from tests.service.mantis import live, run_all, settle
from titus_celery.core.model import ClusterId, Exit, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

CODE: Final = grpc.StatusCode


def ready(titus: Titus) -> None:
    """Have room for whatever is to run."""
    titus.host(cores=64, slots=64)


def jobs_of(titus: Titus, id: str) -> list[JobId]:
    """The cluster's live jobs, the oldest first."""
    return live(titus.inside, ClusterId(id))


def ended(titus: Titus, id: str) -> tuple[Any, str]:
    """How a job ended."""
    state = titus.job(id).jobState
    return state.state, state.reason


# ---------------------------------------------------------------------------------------- jobs


def test_a_mantis_job_has_its_stages_in_their_order_and_runs_once_all_workers_do(titus: Titus) -> None:
    titus.host(slots=2)
    sent = mantis(2, 1)
    sent.mantis.stages[1].retryPolicy.immediate.retries = 3
    id = titus.create(sent)
    job = titus.job(id)
    assert [stage.instances.desired for stage in job.jobDescriptor.mantis.stages] == [2, 1]
    assert job.jobDescriptor.mantis.stages[1].retryPolicy.immediate.retries == 3
    assert [task.id.removeprefix(id) for task in job.tasks] == ["-0.0-1", "-0.1-1", "-1.0-1"]
    assert [task.taskContext["task.stage"] for task in job.tasks] == ["0", "0", "1"]
    run_all(titus.inside)
    assert titus.job(id).jobState.state == pb.STARTING
    titus.host("host-2")
    run_all(titus.inside)
    assert titus.job(id).jobState.state == pb.RUNNING


def _broken() -> list[tuple[pb.JobDescriptor, str]]:
    nameless, twice, more, lost, large = (mantis(1, 1) for _ in range(5))
    nameless.mantis.name = " "
    twice.mantis.stages[1].containerId = "stage0"
    more.containers["third"].CopyFrom(more.containers["stage0"])
    lost.mantis.stages[1].containerId = "other"
    large.mantis.stages[0].instances.desired = 1_501
    reserved = mantis(parameters={"titus.x": ""})
    without = mantis()
    del without.mantis.stages[:]
    return [
        (nameless, "mantis.name"),
        (twice, "mantis.stages[1].containerId"),
        (more, "containers"),
        (lost, "mantis.stages[1].containerId"),
        (large, "mantis.stages[0].instances.desired"),
        (reserved, "mantis.parameters[titus.x]"),
        (without, "mantis.stages"),
    ]


@pytest.mark.parametrize(("wrong", "path"), _broken())
def test_a_wrong_mantis_job_is_refused_with_the_path_of_what_is_wrong(
    titus: Titus, wrong: pb.JobDescriptor, path: str
) -> None:
    titus.wrong(wrong, f"{path}: ")


def test_a_scaling_policy_of_a_stage_is_refused_by_name(titus: Titus) -> None:
    scaled = mantis()
    scaled.mantis.stages[0].autoScalingPolicy.increment = 1
    error = titus.refused(titus.jobs.CreateJob, scaled)
    assert error.code is CODE.UNIMPLEMENTED
    assert "mantis.stages.autoScalingPolicy" in error.details


def test_a_stage_has_as_many_workers_as_its_index_says(titus: Titus) -> None:
    id = titus.create(mantis(1, 3))

    def resize(stage: int, desired: int) -> pb.JobInstancesUpdate:
        numbers = pb.TaskInstances(desired=desired, max=5)
        return pb.JobInstancesUpdate(jobId=id, instances=numbers, stageIndex=stage)

    titus.jobs.UpdateJobInstances(resize(1, 2))
    titus.jobs.UpdateJobInstances(resize(0, 2))
    titus.inside.sweep()
    lives = [task.id.removeprefix(id) for task in titus.job(id).tasks if task.state.state == pb.QUEUED]
    assert lives == ["-0.0-1", "-0.1-1", "-1.0-1", "-1.1-1"]
    titus.invalid(titus.jobs.UpdateJobInstances, resize(2, 1), "stageIndex: ")
    titus.invalid(titus.jobs.UpdateJobInstances, resize(1, 6), "instances.desired: ")
    plain = titus.create(service_job())
    other = pb.JobInstancesUpdate(jobId=plain, instances=pb.TaskInstances(desired=1), stageIndex=1)
    titus.invalid(titus.jobs.UpdateJobInstances, other, "stageIndex: ")


def test_the_scaling_of_a_mantis_job_is_switched(titus: Titus) -> None:
    id = titus.create(mantis())
    off = pb.JobStatusUpdate(id=id, enableStatus=False)
    titus.jobs.UpdateJobStatus(off)
    before = titus.hand.dump()
    titus.jobs.UpdateJobStatus(off)
    assert titus.hand.dump() == before
    titus.jobs.UpdateJobStatus(pb.JobStatusUpdate(id=id, enableStatus=True))
    assert titus.hand.dump() != before


def test_a_mantis_job_ends_at_its_limit_since_it_was_submitted(titus: Titus) -> None:
    ready(titus)
    id = titus.create(mantis(jobSLA=pb.MantisJobSLA(runtimeLimitSecs=60)))
    titus.wait(30)
    run_all(titus.inside)
    titus.wait(29)
    assert titus.job(id).jobState.state == pb.RUNNING
    titus.wait(2)
    settle(titus.inside)
    assert ended(titus, id) == (pb.FINISHED, "runtimeLimitExceeded: runtime limit reached")


def is_over(titus: Titus, id: JobId) -> bool:
    """Whether the job is, after whatever can happen now; containers end in threads of their own."""
    settle(titus.inside)
    return titus.inside.job(id).state.is_final


def test_a_transient_job_that_nobody_observes_ends(titus: Titus) -> None:
    ready(titus)
    agreement = pb.MantisJobSLA(durationType=pb.MantisJobSLA.Transient, minRuntimeSecs=30)
    job = mantis(jobSLA=agreement, subscriptionTimeoutSecs=10)
    id, lasting = titus.create(job), titus.create(mantis())
    unset = titus.create(mantis(jobSLA=agreement))
    assert titus.job(unset).jobDescriptor.mantis.subscriptionTimeoutSecs == 300
    run_all(titus.inside)
    titus.wait(28)
    assert titus.job(id).jobState.state == pb.RUNNING
    titus.wait(4)
    assert titus.inside.job(id).kill is not None
    titus.until(lambda: is_over(titus, id))
    assert ended(titus, id) == (pb.FINISHED, "normal: no subscriptions for 10 secs")
    assert titus.job(lasting).jobState.state == pb.RUNNING
    assert titus.job(unset).jobState.state == pb.RUNNING


def test_a_mantis_job_does_not_go_on_with_a_worker_less(titus: Titus) -> None:
    ready(titus)
    job = mantis(1, 1)
    job.mantis.stages[1].retryPolicy.immediate.retries = 0
    id = titus.create(job)
    run = next(run for run in run_all(titus.inside) if run.thread.name == f"run {id}-1.0-1")
    titus.end(run, f"{id}-1.0-1", Exit(code=3))
    settle(titus.inside)
    state, reason = ended(titus, id)
    assert state == pb.FAILED
    assert reason.startswith("failed: too many worker resubmits; first: ")


def test_a_type_of_a_user_is_one_jobs_of_the_cluster_at_a_time(titus: Titus) -> None:
    ready(titus)
    id, other = cluster(titus, mantis_cluster(max=1)), cluster(titus)
    job = within(mantis(jobSLA=pb.MantisJobSLA(userProvidedType="mine")), id)
    first = titus.create(job)
    # Before anything else about it is looked at.
    again = within(batch(), id)
    again.mantis.jobSLA.userProvidedType = " mine "
    before = titus.hand.dump()
    assert titus.create(again) == first
    assert titus.hand.dump() == before
    assert titus.create(within(job, other)) != first
    titus.over(first)
    assert titus.create(job) != first


# ---------------------------------------------------------------------------------------- clusters


def test_a_mantis_cluster_is_disabled_unless_it_says_otherwise(titus: Titus) -> None:
    sent = mantis_cluster()
    sent.mantis.CopyFrom(pb.MantisClusterSpec(min=1, max=2))
    id = cluster(titus, sent)
    assert found(titus, id).mantis == sent.mantis
    titus.wait(10)
    assert jobs_of(titus, id) == []
    assert titus.refused(titus.jobs.CreateJob, within(mantis(), id)).code is CODE.FAILED_PRECONDITION


def test_the_numbers_of_a_mantis_cluster_have_their_bounds(titus: Titus) -> None:
    for wrong, path in (
        (mantis_cluster(min=6, max=6), "mantis.min"),
        (mantis_cluster(max=101), "mantis.max"),
        (mantis_cluster(min=1), "mantis.max"),
        (mantis_cluster(min=3, max=2), "mantis.max"),
    ):
        titus.invalid(titus.jobs.CreateJobCluster, wrong, f"{path}: ")
    without = mantis_cluster(min=1, max=1)
    without.ClearField("jobDescriptor")
    titus.invalid(titus.jobs.CreateJobCluster, without, "jobDescriptor: ")


def test_at_its_max_a_cluster_takes_no_job_until_one_is_over(titus: Titus) -> None:
    id = cluster(titus, mantis_cluster(max=2))
    first, _ = titus.create(within(mantis(), id)), titus.create(within(mantis(), id))
    titus.store.advance(TaskId(f"{first}-0.0-1"), State.RUNNING)
    for begin in (None, titus.jobs.KillJob):
        if begin:
            begin(pb.JobId(id=first))
        error = titus.refused(titus.jobs.CreateJob, within(mantis(), id))
        assert error.code is CODE.RESOURCE_EXHAUSTED
        assert "2 jobs in cluster" in error.details
    titus.over(first, State.FAILED)
    titus.create(within(mantis(), id))


def test_a_cluster_has_as_many_jobs_of_its_template_as_its_min(titus: Titus) -> None:
    ready(titus)
    id = cluster(titus, mantis_cluster(mantis(labels={"from": "template"}), min=2, max=3))
    run_all(titus.inside)
    first, second = jobs_of(titus, id)
    assert titus.job(first).jobDescriptor.labels["from"] == "template"
    titus.jobs.KillJob(pb.JobId(id=first))
    settle(titus.inside)
    assert second in jobs_of(titus, id)
    assert first not in jobs_of(titus, id)
    assert len(jobs_of(titus, id)) == 2


def test_a_lowered_max_ends_old_jobs_once_newer_ones_run(titus: Titus) -> None:
    ready(titus)
    id = cluster(titus, mantis_cluster(max=2))
    old = titus.create(within(mantis(), id))
    run_all(titus.inside)
    titus.wait(1)
    new = titus.create(within(mantis(), id))
    update(titus, id, mantis_cluster(max=1))
    titus.inside.sweep()
    assert titus.inside.job(old).kill is None
    run_all(titus.inside)
    settle(titus.inside)
    assert jobs_of(titus, id) == [new]
    assert ended(titus, old) == (pb.FINISHED, "normal: SLA enforcement")


def test_disabling_a_mantis_cluster_ends_its_jobs_and_enabling_it_fills_its_min(titus: Titus) -> None:
    ready(titus)
    id = cluster(titus, mantis_cluster(min=1, max=2))
    run_all(titus.inside)
    (floor,) = jobs_of(titus, id)
    other = titus.create(within(mantis(), id))
    switch(titus, id, False)
    assert not found(titus, id).mantis.enabled
    settle(titus.inside)
    assert jobs_of(titus, id) == []
    for job in (floor, other):
        assert ended(titus, job) == (pb.FINISHED, "normal: job cluster disabled")
    switch(titus, id, True)
    settle(titus.inside)
    assert len(jobs_of(titus, id)) == 1
