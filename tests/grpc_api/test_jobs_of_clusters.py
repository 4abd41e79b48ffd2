"""What jobs have of their clusters, and Mantis jobs, as clients meet them."""

from __future__ import annotations

from typing import Final

import pytest

from tests.grpc_api.clusters import (
    CODE,
    MANY,
    NOBODY,
    at_once,
    batch_cluster,
    job_in,
    made,
    mantis,
    mantis_cluster,
    service_cluster,
    service_job,
)
from tests.grpc_api.world import World, descriptor, refused
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.descriptor import JobType, MantisSpec
from titus_celery.core.model import JobId
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

CLUSTER_KEY: Final = "x-titus-job-cluster-id"
IDEMPOTENCY_KEY: Final = "x-titus-idempotency-key"

# ------------------------------------------------------------------------------ jobs of clusters


async def test_every_job_says_which_cluster_it_belongs_to(titus: World) -> None:
    for make, job in (
        (batch_cluster, descriptor()),
        (service_cluster, service_job()),
        (mantis_cluster, mantis()),
    ):
        named = await made(titus, make())
        assert (await job_in(titus, named, job)).jobClusterId == named
        plain = await titus.jobs.FindJob(await titus.jobs.CreateJob(job))
        assert plain.jobClusterId == BUILT_IN[JobType(job.WhichOneof("jobSpec"))].id


async def test_metadata_names_the_cluster_of_a_job_that_names_none(titus: World) -> None:
    id, other = await made(titus), await made(titus)
    for named in ("", id):
        reply = await titus.jobs.CreateJob(mantis(jobClusterId=named), metadata=((CLUSTER_KEY, id),))
        assert (await titus.jobs.FindJob(reply)).jobClusterId == id
    error = await refused(titus.jobs.CreateJob(mantis(jobClusterId=other), metadata=((CLUSTER_KEY, id),)))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "jobClusterId: " in error.details
    error = await refused(titus.jobs.CreateJob(mantis(), metadata=((CLUSTER_KEY, NOBODY),)))
    assert error.code is CODE.NOT_FOUND


async def test_a_cluster_named_by_metadata_is_part_of_what_a_key_stands_for(titus: World) -> None:
    id, other = await made(titus), await made(titus)
    first = await titus.jobs.CreateJob(mantis(), metadata=((CLUSTER_KEY, id), (IDEMPOTENCY_KEY, "k")))
    again = await titus.jobs.CreateJob(mantis(jobClusterId=id), metadata=((IDEMPOTENCY_KEY, "k"),))
    assert again == first
    call = titus.jobs.CreateJob(mantis(), metadata=((CLUSTER_KEY, other), (IDEMPOTENCY_KEY, "k")))
    assert (await refused(call)).code is CODE.ALREADY_EXISTS


async def test_a_job_joins_no_cluster_of_another_kind(titus: World) -> None:
    id = await made(titus)
    for cluster in (id, BUILT_IN[JobType.MANTIS].id, BUILT_IN[JobType.SERVICE].id):
        error = await refused(titus.jobs.CreateJob(descriptor(jobClusterId=cluster)))
        assert error.code is CODE.INVALID_ARGUMENT
        assert "jobClusterId: " in error.details


async def test_a_job_without_labels_or_parameters_has_those_of_the_template(titus: World) -> None:
    template = mantis(labels={"team": "a"}, parameters={"p": "1"})
    id = await made(titus, mantis_cluster(template))
    job = (await job_in(titus, id)).jobDescriptor
    assert (dict(job.labels), dict(job.mantis.parameters)) == ({"team": "a"}, {"p": "1"})
    own = mantis(labels={"x": "y"}, parameters={"q": "2"})
    job = (await job_in(titus, id, own)).jobDescriptor
    assert (dict(job.labels), dict(job.mantis.parameters)) == ({"x": "y"}, {"q": "2"})


async def test_of_many_creations_at_once_exactly_as_many_succeed_as_may_live(titus: World) -> None:
    id = await made(titus, mantis_cluster(max=7))
    ends = await at_once(*(titus.jobs.CreateJob(mantis(jobClusterId=id)) for _ in range(MANY)))
    jobs = {end.id for end in ends if isinstance(end, pb.JobId)}
    assert len(jobs) == 7
    assert [end for end in ends if not isinstance(end, pb.JobId)] == [CODE.RESOURCE_EXHAUSTED] * (MANY - 7)
    error = await refused(titus.jobs.CreateJob(mantis(jobClusterId=id)))
    assert f"7 jobs in cluster {id} are alive" in error.details
    # A place is free once a job is over.
    titus.store.finish(JobId(jobs.pop()))
    assert (await job_in(titus, id)).jobClusterId == id


@pytest.mark.parametrize("most", [0, 1])
async def test_of_many_jobs_of_one_type_at_once_one_is_made(titus: World, most: int) -> None:
    """Also where it is as many as may live: who asks for the job that is there, has it."""
    id = await made(titus, mantis_cluster(max=most))
    agreement = pb.MantisJobSLA(userProvidedType=" mine ")
    calls = (titus.jobs.CreateJob(mantis(jobClusterId=id, jobSLA=agreement)) for _ in range(MANY))
    ends = await at_once(*calls)
    assert len({end.id for end in ends}) == 1
    # Whatever else is wrong with the request.
    again = descriptor(jobClusterId=id)
    again.mantis.jobSLA.userProvidedType = "mine"
    assert await titus.jobs.CreateJob(again) == ends[0]
    other = await made(titus, mantis_cluster(max=most))
    assert (await job_in(titus, other, mantis(jobSLA=agreement))).id != ends[0].id


async def test_a_key_finds_its_job_though_as_many_live_as_may(titus: World) -> None:
    id = await made(titus, mantis_cluster(max=1))
    key = ((IDEMPOTENCY_KEY, "k"),)
    calls = (titus.jobs.CreateJob(mantis(jobClusterId=id), metadata=key) for _ in range(MANY))
    assert len({end.id for end in await at_once(*calls)}) == 1


# ------------------------------------------------------------------------------ Mantis jobs


async def test_a_mantis_job_is_found_as_it_was_described_with_its_defaults(titus: World) -> None:
    agreement = pb.MantisJobSLA(
        runtimeLimitSecs=60, minRuntimeSecs=5, durationType=pb.MantisJobSLA.Transient, userProvidedType="t"
    )
    sent = mantis(2, 1, jobSLA=agreement, parameters={"p": "1"})
    sent.mantis.stages[1].retryPolicy.immediate.retries = 3
    sent.mantis.stages[1].instances.max = 4
    job = await titus.jobs.FindJob(await titus.jobs.CreateJob(sent))
    kept = job.jobDescriptor.mantis
    assert kept.subscriptionTimeoutSecs == 300
    kept.subscriptionTimeoutSecs = 0
    assert kept == sent.mantis
    assert [task.id.removeprefix(job.id) for task in job.tasks] == ["-0.0-1", "-0.1-1", "-1.0-1"]
    assert [task.taskContext["task.stage"] for task in job.tasks] == ["0", "0", "1"]


async def test_the_number_of_workers_of_a_stage_is_changed_by_its_index(titus: World) -> None:
    id = (await titus.jobs.CreateJob(mantis(1, 1))).id

    async def resize(stage: int, **numbers: int) -> None:
        await titus.jobs.UpdateJobInstances(
            pb.JobInstancesUpdate(jobId=id, instances=pb.TaskInstances(**numbers), stageIndex=stage)
        )

    await resize(1, desired=3, max=5)
    await resize(0, desired=2)
    stages = (await titus.jobs.FindJob(pb.JobId(id=id))).jobDescriptor.mantis.stages
    assert [stage.instances for stage in stages] == [
        pb.TaskInstances(desired=2),
        pb.TaskInstances(desired=3, max=5),
    ]
    for stage, numbers, path in (
        (2, {"desired": 1}, "stageIndex"),
        (2**32 - 1, {"desired": 1}, "stageIndex"),
        (1, {"desired": 9, "max": 3}, "instances.desired"),
        (1, {"desired": 1_501}, "instances.desired"),
    ):
        error = await refused(resize(stage, **numbers))
        assert error.code is CODE.INVALID_ARGUMENT
        assert f"{path}: " in error.details
    assert (await titus.jobs.FindJob(pb.JobId(id=id))).jobDescriptor.mantis.stages == stages


async def test_a_service_has_no_stage_but_the_first(titus: World) -> None:
    id = (await titus.jobs.CreateJob(service_job())).id
    update = pb.JobInstancesUpdate(jobId=id, instances=pb.TaskInstances(desired=2), stageIndex=1)
    error = await refused(titus.jobs.UpdateJobInstances(update))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "stageIndex: " in error.details


async def test_the_scaling_of_a_mantis_job_is_switched_on_and_off(titus: World) -> None:
    id = (await titus.jobs.CreateJob(mantis())).id
    for is_on in (False, True, True):
        await titus.jobs.UpdateJobStatus(pb.JobStatusUpdate(id=id, enableStatus=is_on))
        spec = titus.store.records.job(JobId(id))[0].descriptor.spec
        assert isinstance(spec, MantisSpec)
        assert spec.enabled is is_on


async def test_scaling_policies_of_stages_are_refused_by_name(titus: World) -> None:
    scaled = mantis()
    scaled.mantis.stages[0].autoScalingPolicy.increment = 1
    error = await refused(titus.jobs.CreateJob(scaled))
    assert error.code is CODE.UNIMPLEMENTED
    assert "mantis.stages.autoScalingPolicy" in error.details
