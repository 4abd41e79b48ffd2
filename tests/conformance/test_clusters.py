"""What this release does not have yet is refused by name and changes nothing (A11, A12, A15, A16, B1, B5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.conformance.installation import Titus, batch, service
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.descriptor import JobType
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

BATCH_CLUSTER = BUILT_IN[JobType.BATCH].id
MANTIS = pb.JobClusterDescriptor(
    name="m", mantis=pb.MantisClusterSpec(enabled=True, min=1, max=2, cronSpec="0 0 * * * ?")
)
REQUESTS: dict[str, Any] = {
    "CreateJobCluster": MANTIS,
    "UpdateJobCluster": pb.JobCluster(id="x", descriptor=MANTIS),
    "RemoveJobCluster": pb.JobClusterId(id="x"),
    "FindJobCluster": pb.JobClusterId(id="x"),
    "UpdateJobClusterStatus": pb.JobClusterStatusUpdate(id="x", enableStatus=False),
}


def unsupported(titus: Titus, method: Callable[..., Any], request: Any, *said: str, **metadata: str) -> None:
    """This release does not have it, says so by name, and nothing changes."""
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    error = titus.refused(method, request, sent)
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert "is not supported by this release" in error.details
    for text in said:
        assert text in error.details


@pytest.mark.parametrize("name", REQUESTS)
def test_the_methods_of_clusters_are_refused_by_name(titus: Titus, name: str) -> None:
    titus.create()
    unsupported(titus, getattr(titus.jobs, name), REQUESTS[name], name)


def test_a_cluster_is_refused_with_a_key_too(titus: Titus) -> None:
    unsupported(titus, titus.jobs.CreateJobCluster, MANTIS, x_titus_idempotency_key="k")


def test_a_built_in_cluster_can_be_neither_removed_nor_disabled(titus: Titus) -> None:
    unsupported(titus, titus.jobs.RemoveJobCluster, pb.JobClusterId(id=BATCH_CLUSTER), "RemoveJobCluster")
    status = pb.JobClusterStatusUpdate(id=BATCH_CLUSTER, enableStatus=False)
    unsupported(titus, titus.jobs.UpdateJobClusterStatus, status, "UpdateJobClusterStatus")
    titus.create()


def mantis(**sla: Any) -> pb.JobDescriptor:
    """A Mantis job."""
    job = batch()
    job.mantis.name = "m"
    job.mantis.jobSLA.CopyFrom(pb.MantisJobSLA(**sla))
    job.mantis.stages.add(containerId="main").instances.desired = 1
    return job


def test_mantis_jobs_are_refused_by_name_whatever_their_agreement(titus: Titus) -> None:
    """So there is no maximum of them, no subscriber, no user-provided type and no idle end."""
    for job in (mantis(), mantis(userProvidedType="x"), mantis(durationType=pb.MantisJobSLA.Transient)):
        unsupported(titus, titus.jobs.CreateJob, job, "mantis")


POLICY = pb.ScalingPolicy(
    condition="avg(CPUUtilization) > 80% AND max(queue.depth) >= 2.5 OR min(x) == 0",
    action="addInstances 10%",
)


def test_a_scaling_policy_that_can_be_read_is_refused_by_name(titus: Titus) -> None:
    for action in ("addInstances 1", "removeInstances 10%", "setInstances 3"):
        policy = pb.ScalingPolicy(condition=POLICY.condition, action=action, durationSecs=60)
        unsupported(titus, titus.jobs.CreateJob, service(1, scalingPolices=[policy]), "scalingPolices")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("condition", ""),
        ("condition", "CPUUtilization > 80%"),
        ("condition", "avg(CPU) > 80 AND"),
        ("condition", "median(CPU) > 80"),
        ("condition", "avg(CPU) <> 80"),
        ("condition", "avg(CPU) > NaN"),
        ("condition", "avg(CPU) > -1"),
        ("condition", "x" * 1_025),
        ("action", ""),
        ("action", "addInstances"),
        ("action", "addInstances -1"),
        ("action", "add 1"),
        ("action", "addInstances 1.5"),
    ],
)
def test_a_scaling_policy_that_cannot_be_read_is_a_wrong_one(titus: Titus, field: str, text: str) -> None:
    policy = pb.ScalingPolicy()
    policy.CopyFrom(POLICY)
    setattr(policy, field, text)
    titus.wrong(service(1, scalingPolices=[policy]), f"service.scalingPolices[0].{field}")


def test_scaling_policies_have_their_bounds(titus: Titus) -> None:
    titus.wrong(service(1, scalingPolices=[POLICY] * 21), "service.scalingPolices:", "the most is 20")
    long = pb.ScalingPolicy(condition="avg(x) > 1", action="addInstances 1", durationSecs=2**64 - 1)
    titus.wrong(service(1, scalingPolices=[long]), "service.scalingPolices[0].durationSecs")
    wide = pb.ScalingPolicy(condition="avg(x) > 1", action="addInstances 1", labels={"x": "x" * 2**16})
    titus.wrong(service(1, scalingPolices=[wide]), "service.scalingPolices[0].labels: has 65537 bytes")
