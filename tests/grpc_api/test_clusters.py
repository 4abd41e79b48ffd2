"""The methods about clusters, each on its happy path and on what it refuses."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest

from tests.grpc_api.clusters import (
    CODE,
    MANY,
    NOBODY,
    OWNER,
    at_once,
    batch_cluster,
    job_in,
    made,
    mantis,
    mantis_cluster,
    service_cluster,
    service_job,
)
from tests.grpc_api.world import PATIENCE, World, descriptor, refused
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.descriptor import JobType
from titus_celery.core.model import ClusterId, JobId
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

IDEMPOTENCY_KEY: Final = "x-titus-idempotency-key"
Make = Callable[[], pb.JobClusterDescriptor]
MAKERS: Final = [batch_cluster, service_cluster, mantis_cluster]


async def found(titus: World, id: str) -> pb.JobClusterDescriptor:
    """The cluster's descriptor as FindJobCluster tells it."""
    reply = await titus.jobs.FindJobCluster(pb.JobClusterId(id=id), timeout=PATIENCE)
    assert reply.id == id
    return reply.descriptor


# ------------------------------------------------------------------------------ created and found


@pytest.mark.parametrize("make", MAKERS)
async def test_a_cluster_is_found_as_it_was_described_with_its_defaults(titus: World, make: Make) -> None:
    sent = make()
    sent.name, sent.jobDescriptor.appName, sent.jobDescriptor.labels["a"] = " c ", " ", "1"
    id = await made(titus, sent)
    assert str(uuid.UUID(id)) == id
    kept = await found(titus, id)
    assert (kept.name, kept.owner) == ("c", OWNER)
    assert kept.WhichOneof("clusterSpec") == sent.WhichOneof("clusterSpec")
    assert kept.jobDescriptor.WhichOneof("jobSpec") == sent.WhichOneof("clusterSpec")
    assert kept.jobDescriptor.appName == f"{sent.WhichOneof('clusterSpec')}Job"
    assert dict(kept.jobDescriptor.labels) == {"a": "1"}
    for container in kept.jobDescriptor.containers.values():
        # Each job gets what the name means when it is made.
        assert container.image == pb.Image(name="busybox:1")


@pytest.mark.parametrize("make", MAKERS)
async def test_two_calls_make_two_clusters_of_one_name(titus: World, make: Make) -> None:
    assert await made(titus, make()) != await made(titus, make())


async def test_a_cluster_needs_no_template(titus: World) -> None:
    id = await made(titus, pb.JobClusterDescriptor(owner=OWNER, name="c", batch=pb.BatchClusterSpec()))
    assert not (await found(titus, id)).HasField("jobDescriptor")
    assert (await job_in(titus, id, descriptor())).jobClusterId == id


async def test_what_the_owner_leaves_out_is_the_callers_address(titus: World) -> None:
    nobodys = mantis_cluster()
    nobodys.ClearField("owner")
    nobodys.jobDescriptor.ClearField("owner")
    kept = await found(titus, await made(titus, nobodys, x_titus_caller_email="it@example.com"))
    assert kept.owner == pb.Owner(ownerEmail="it@example.com", teamEmail="it@example.com")
    assert kept.jobDescriptor.owner == kept.owner
    error = await refused(titus.jobs.CreateJobCluster(nobodys))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "owner.ownerEmail" in error.details


async def test_a_schedule_forces_min_zero_and_max_one_and_has_a_policy(titus: World) -> None:
    kept = await found(titus, await made(titus, mantis_cluster(min=3, max=9, cronSpec=" 0 0 * * * ? ")))
    assert kept.mantis == pb.MantisClusterSpec(
        enabled=True, min=0, max=1, cronSpec="0 0 * * * ?", cronPolicy="KEEP_EXISTING"
    )
    kept = await found(titus, await made(titus, mantis_cluster(cronSpec="0 12 * * *", cronPolicy="keep_new")))
    assert kept.mantis.cronPolicy == "KEEP_NEW"
    kept = await found(titus, await made(titus, mantis_cluster(min=1, max=2, cronPolicy="KEEP_NEW")))
    assert kept.mantis == pb.MantisClusterSpec(enabled=True, min=1, max=2)


async def test_a_mantis_cluster_is_disabled_unless_it_says_otherwise(titus: World) -> None:
    sent = mantis_cluster()
    sent.mantis.CopyFrom(pb.MantisClusterSpec(max=2))
    id = await made(titus, sent)
    assert not (await found(titus, id)).mantis.enabled
    error = await refused(titus.jobs.CreateJob(mantis(jobClusterId=id)))
    assert error.code is CODE.FAILED_PRECONDITION
    assert "disabled" in error.details


WRONG: Final[list[tuple[pb.JobClusterDescriptor, str]]] = [
    (pb.JobClusterDescriptor(owner=OWNER, name="c", jobDescriptor=mantis()), "batch"),
    (pb.JobClusterDescriptor(owner=OWNER, name=" ", batch=pb.BatchClusterSpec()), "name"),
    (mantis_cluster(pb.JobDescriptor()), "jobDescriptor.batch"),
    (mantis_cluster(descriptor()), "jobDescriptor"),
    (batch_cluster(descriptor(desired=0)), "jobDescriptor.batch.instances.desired"),
    (service_cluster(service_job(labels={"titus.x": ""})), "jobDescriptor.labels[titus.x]"),
    (mantis_cluster(mantis(0)), "jobDescriptor.mantis.stages[0].instances.desired"),
    (mantis_cluster(min=6, max=6), "mantis.min"),
    (mantis_cluster(max=101), "mantis.max"),
    (mantis_cluster(min=1), "mantis.max"),
    (mantis_cluster(min=2**32 - 1, max=2**32 - 1), "mantis.min"),
    (mantis_cluster(cronSpec="every day"), "mantis.cronSpec"),
    (mantis_cluster(cronSpec="0 0 0 1 1 ? 1999"), "mantis.cronSpec"),
    (mantis_cluster(cronSpec="0 0 * * * ?", cronPolicy="KEEP_BOTH"), "mantis.cronPolicy"),
    (
        mantis_cluster(mantis(parameters={"cron.timeZone": "Nowhere/At all"}), cronSpec="0 0 * * * ?"),
        "jobDescriptor.mantis.parameters[cron.timeZone]",
    ),
    (
        mantis_cluster(mantis(parameters={"cron.catchUp": "twice"}), cronSpec="0 0 * * * ?"),
        "jobDescriptor.mantis.parameters[cron.catchUp]",
    ),
]


@pytest.mark.parametrize(("wrong", "path"), WRONG)
async def test_a_wrong_cluster_is_refused_with_the_path_of_what_is_wrong(
    titus: World, wrong: pb.JobClusterDescriptor, path: str
) -> None:
    id = await made(titus)
    before = await found(titus, id)
    for call in (
        titus.jobs.CreateJobCluster(wrong),
        titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=wrong)),
    ):
        error = await refused(call)
        assert error.code is CODE.INVALID_ARGUMENT
        assert f"{path}: " in error.details
    assert await found(titus, id) == before


async def test_jobs_that_are_made_by_rules_need_a_template(titus: World) -> None:
    for rules in ({"min": 1, "max": 1}, {"cronSpec": "0 0 * * * ?"}):
        wrong = mantis_cluster(**rules)
        wrong.ClearField("jobDescriptor")
        error = await refused(titus.jobs.CreateJobCluster(wrong))
        assert error.code is CODE.INVALID_ARGUMENT
        assert "jobDescriptor: " in error.details


async def test_scaling_policies_of_a_template_are_refused_once_nothing_is_wrong(titus: World) -> None:
    scaled = mantis_cluster()
    scaled.jobDescriptor.mantis.stages[0].autoScalingPolicy.increment = 1
    error = await refused(titus.jobs.CreateJobCluster(scaled))
    assert error.code is CODE.UNIMPLEMENTED
    assert "autoScalingPolicy" in error.details
    scaled.name = ""
    error = await refused(titus.jobs.CreateJobCluster(scaled))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "name: " in error.details


async def test_a_description_that_is_too_large_is_refused_whole(titus: World) -> None:
    large = mantis_cluster(mantis(labels={"x": "x" * 1_000_000}))
    for call, name in (
        (titus.jobs.CreateJobCluster(large), "jobClusterDescriptor"),
        (titus.jobs.UpdateJobCluster(pb.JobCluster(id=NOBODY, descriptor=large)), "descriptor"),
    ):
        error = await refused(call)
        assert error.code is CODE.INVALID_ARGUMENT
        assert f"{name}: has 1000" in error.details


# ------------------------------------------------------------------------------ keys


async def test_a_key_makes_one_cluster_however_often_and_at_once_it_is_sent(titus: World) -> None:
    key = ((IDEMPOTENCY_KEY, "k"),)
    calls = (titus.jobs.CreateJobCluster(mantis_cluster(), metadata=key) for _ in range(MANY))
    ids = {reply.id for reply in await at_once(*calls)}
    assert len(ids) == 1
    assert await made(titus, x_titus_callerid="other", x_titus_idempotency_key="k") not in ids
    # A job's keys are others.
    await titus.jobs.CreateJob(descriptor(), metadata=key)


async def test_a_key_that_made_another_cluster_is_refused_naming_that(titus: World) -> None:
    id = await made(titus, x_titus_idempotency_key="k")
    call = titus.jobs.CreateJobCluster(mantis_cluster(max=2), metadata=((IDEMPOTENCY_KEY, "k"),))
    error = await refused(call)
    assert error.code is CODE.ALREADY_EXISTS
    assert f"cluster {id}" in error.details


# ------------------------------------------------------------------------------ changed


@pytest.mark.parametrize("make", MAKERS)
async def test_an_update_replaces_the_whole_descriptor(titus: World, make: Make) -> None:
    id = await made(titus, make())
    other = make()
    other.name = "other"
    other.jobDescriptor.appName = "other"
    other.owner.teamEmail = "team@example.com"
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=other))
    kept = await found(titus, id)
    assert (kept.name, kept.jobDescriptor.appName) == ("other", "other")
    assert kept.owner.teamEmail == "team@example.com"
    other.ClearField("jobDescriptor")
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=other))
    assert not (await found(titus, id)).HasField("jobDescriptor")


@pytest.mark.parametrize("make", MAKERS)
async def test_the_same_descriptor_again_changes_nothing(titus: World, make: Make) -> None:
    id = await made(titus, make())
    kept, record = await found(titus, id), titus.store.job_clusters().find(ClusterId(id))
    for same in (make(), kept):
        await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=same))
    assert titus.store.job_clusters().find(ClusterId(id)) == record


async def test_a_cluster_keeps_its_kind(titus: World) -> None:
    id = await made(titus)
    error = await refused(titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=batch_cluster())))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "batch: " in error.details
    assert (await found(titus, id)).HasField("mantis")


async def test_jobs_that_live_keep_their_description_and_new_ones_get_the_new_template(titus: World) -> None:
    id = await made(titus, batch_cluster(descriptor(labels={"is": "old"})))
    old = await job_in(titus, id, descriptor())
    changed = batch_cluster(descriptor(labels={"is": "new"}))
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=changed))
    assert (await titus.jobs.FindJob(pb.JobId(id=old.id))).jobDescriptor.labels["is"] == "old"
    assert (await job_in(titus, id, descriptor())).jobDescriptor.labels["is"] == "new"


@pytest.mark.parametrize("make", MAKERS)
async def test_a_disabled_cluster_takes_no_jobs_until_it_is_enabled(titus: World, make: Make) -> None:
    id = await made(titus, make())
    job = make().jobDescriptor
    job.jobClusterId = id
    for _ in range(2):
        await titus.jobs.UpdateJobClusterStatus(pb.JobClusterStatusUpdate(id=id, enableStatus=False))
        error = await refused(titus.jobs.CreateJob(job))
        assert error.code is CODE.FAILED_PRECONDITION
    # What is no part of a description of batch and service jobs stays as it is.
    other = make()
    other.name = "other"
    if other.HasField("mantis"):
        assert not (await found(titus, id)).mantis.enabled
        other.mantis.enabled = False
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=other))
    assert (await refused(titus.jobs.CreateJob(job))).code is CODE.FAILED_PRECONDITION
    for _ in range(2):
        await titus.jobs.UpdateJobClusterStatus(pb.JobClusterStatusUpdate(id=id, enableStatus=True))
    assert (await job_in(titus, id, job)).jobClusterId == id


async def test_an_update_may_enable_a_mantis_cluster(titus: World) -> None:
    id = await made(titus, mantis_cluster(enabled=False))
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=mantis_cluster()))
    assert (await job_in(titus, id)).jobClusterId == id


async def test_a_cluster_goes_once_none_of_its_jobs_lives(titus: World) -> None:
    id = await made(titus)
    job = await job_in(titus, id)
    error = await refused(titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id)))
    assert error.code is CODE.FAILED_PRECONDITION
    assert job.id in error.details
    titus.store.finish(JobId(job.id))
    await titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id))
    for call in (
        titus.jobs.FindJobCluster(pb.JobClusterId(id=id)),
        titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id)),
        titus.jobs.CreateJob(mantis(jobClusterId=id)),
    ):
        assert (await refused(call)).code is CODE.NOT_FOUND
    assert (await titus.jobs.FindJob(pb.JobId(id=job.id))).jobClusterId == id


async def test_of_a_removal_and_creations_at_once_no_job_is_left_without_its_cluster(titus: World) -> None:
    id = await made(titus)
    creations = [titus.jobs.CreateJob(mantis(jobClusterId=id)) for _ in range(MANY // 2)]
    later = [titus.jobs.CreateJob(mantis(jobClusterId=id)) for _ in range(MANY // 2)]
    removal = titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id))
    ends = await at_once(*creations, removal, *later)
    made_jobs = [end for end in ends if isinstance(end, pb.JobId)]
    if isinstance(ends[len(creations)], grpc.StatusCode):
        assert ends[len(creations)] is CODE.FAILED_PRECONDITION
        assert (await found(titus, id)).name == "c"
    else:
        assert made_jobs == []
    others = {end for end in ends if isinstance(end, grpc.StatusCode)}
    assert others <= {CODE.NOT_FOUND, CODE.FAILED_PRECONDITION}


# ------------------------------------------------------------------------------ ids


def _calls(titus: World, id: str) -> dict[str, Any]:
    return {
        "UpdateJobCluster": titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=mantis_cluster())),
        "RemoveJobCluster": titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id)),
        "FindJobCluster": titus.jobs.FindJobCluster(pb.JobClusterId(id=id)),
        "UpdateJobClusterStatus": titus.jobs.UpdateJobClusterStatus(
            pb.JobClusterStatusUpdate(id=id, enableStatus=False)
        ),
        "ComingTimes": titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id, count=1)),
        "FindFirings": titus.schedules.FindFirings(v1.FindFiringsRequest(cluster_id=id)),
    }


async def test_an_empty_id_is_a_wrong_one(titus: World) -> None:
    for name, call in _calls(titus, "").items():
        error = await refused(call)
        assert error.code is CODE.INVALID_ARGUMENT, name
        assert "id: is empty" in error.details


@pytest.mark.parametrize("id", [NOBODY, "no-such", "*", "{titus}:clusters", "../x", "x" * 1_000, "a\0b", " "])
async def test_an_id_that_no_cluster_has_is_not_found(titus: World, id: str) -> None:
    for name, call in _calls(titus, id).items():
        assert (await refused(call)).code is CODE.NOT_FOUND, name
    assert (await refused(titus.jobs.CreateJob(mantis(jobClusterId=id)))).code is CODE.NOT_FOUND


@pytest.mark.parametrize("kind", JobType)
async def test_the_built_in_clusters_are_found_and_stay_as_they_are(titus: World, kind: JobType) -> None:
    id = BUILT_IN[kind].id
    kept = await found(titus, id)
    assert kept.WhichOneof("clusterSpec") == kind.value
    update = pb.JobClusterStatusUpdate(id=id, enableStatus=False)
    for call in (
        titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id)),
        titus.jobs.UpdateJobClusterStatus(update),
        titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=kept)),
    ):
        error = await refused(call)
        assert error.code is CODE.FAILED_PRECONDITION
        assert "built in" in error.details
    # It is enabled as it is.
    await titus.jobs.UpdateJobClusterStatus(pb.JobClusterStatusUpdate(id=id, enableStatus=True))
    assert await found(titus, id) == kept
    assert (await titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id, count=1))).times == []
