"""Clusters: made, found, changed, switched off and removed (docs/semantics.md A2, A19, B1.1 to B1.6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.clusters import (
    NOBODY,
    OWNER,
    batch_cluster,
    mantis,
    mantis_cluster,
    service_cluster,
    service_job,
)
from tests.grpc_api.world import PATIENCE
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.model import JobId
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

CODE: Final = grpc.StatusCode
KEY: Final = "x-titus-idempotency-key"
Make = Callable[[], pb.JobClusterDescriptor]
MAKERS: Final = [batch_cluster, service_cluster, mantis_cluster]


def cluster(titus: Titus, descriptor: pb.JobClusterDescriptor | None = None, key: str = "") -> str:
    """A new cluster's id."""
    metadata = ((KEY, key),) if key else ()
    made = titus.jobs.CreateJobCluster(descriptor or mantis_cluster(), metadata=metadata, timeout=PATIENCE)
    id: str = made.id
    return id


def found(titus: Titus, id: str) -> pb.JobClusterDescriptor:
    """Its descriptor."""
    return titus.jobs.FindJobCluster(pb.JobClusterId(id=id), timeout=PATIENCE).descriptor


def switch(titus: Titus, id: str, is_on: bool) -> None:
    """UpdateJobClusterStatus."""
    titus.jobs.UpdateJobClusterStatus(pb.JobClusterStatusUpdate(id=id, enableStatus=is_on), timeout=PATIENCE)


def update(titus: Titus, id: str, descriptor: pb.JobClusterDescriptor) -> None:
    """UpdateJobCluster."""
    titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=descriptor), timeout=PATIENCE)


def within(job: pb.JobDescriptor, id: str) -> pb.JobDescriptor:
    """The job, which is to join the cluster."""
    joining = pb.JobDescriptor()
    joining.CopyFrom(job)
    joining.jobClusterId = id
    return joining


# ---------------------------------------------------------------------------------------- made


@pytest.mark.parametrize("make", MAKERS)
def test_a_cluster_has_an_id_and_is_found_with_its_defaults(titus: Titus, make: Make) -> None:
    sent = make()
    sent.name, sent.jobDescriptor.appName = " c ", " "
    sent.ClearField("owner")
    made = titus.jobs.CreateJobCluster(sent, metadata=(("x-titus-caller-email", "it@example.com"),))
    assert str(uuid.UUID(made.id)) == made.id
    kept = found(titus, made.id)
    kind = sent.WhichOneof("clusterSpec")
    assert (kept.WhichOneof("clusterSpec"), kept.name) == (kind, "c")
    assert kept.owner == pb.Owner(ownerEmail="it@example.com", teamEmail="it@example.com")
    assert kept.jobDescriptor.appName == f"{kind}Job"
    assert cluster(titus, make()) != made.id


def test_the_image_of_a_template_is_looked_up_for_each_job(titus: Titus) -> None:
    template = batch()
    template.containers["main"].image.name = "no-such:1"
    id = cluster(titus, batch_cluster(template))
    assert found(titus, id).jobDescriptor.containers["main"].image == pb.Image(name="no-such:1")
    job = titus.job(titus.create(within(batch(), id)))
    assert job.jobDescriptor.containers["main"].image.imageId == "sha256:1"


WRONG: Final[list[tuple[pb.JobClusterDescriptor, str]]] = [
    (pb.JobClusterDescriptor(owner=OWNER, name="c"), "batch"),
    (pb.JobClusterDescriptor(owner=OWNER, name=" ", batch=pb.BatchClusterSpec()), "name"),
    (pb.JobClusterDescriptor(name="c", batch=pb.BatchClusterSpec()), "owner.ownerEmail"),
    (batch_cluster(pb.JobDescriptor()), "jobDescriptor.batch"),
    (batch_cluster(mantis()), "jobDescriptor"),
    (batch_cluster(batch(0)), "jobDescriptor.batch.instances.desired"),
    (service_cluster(service_job(labels={"titus.x": ""})), "jobDescriptor.labels[titus.x]"),
]


@pytest.mark.parametrize(("wrong", "path"), WRONG)
def test_a_wrong_cluster_is_refused_with_the_path_of_what_is_wrong(
    titus: Titus, wrong: pb.JobClusterDescriptor, path: str
) -> None:
    titus.invalid(titus.jobs.CreateJobCluster, wrong, f"{path}: ")
    titus.invalid(
        titus.jobs.UpdateJobCluster, pb.JobCluster(id=cluster(titus), descriptor=wrong), f"{path}: "
    )


def test_a_description_of_a_cluster_is_at_most_a_million_bytes(titus: Titus) -> None:
    large = batch_cluster(batch(labels={"x": "x" * 1_000_000}))
    titus.invalid(titus.jobs.CreateJobCluster, large, "jobClusterDescriptor: has 1000", "1000000")
    titus.invalid(
        titus.jobs.UpdateJobCluster,
        pb.JobCluster(id=cluster(titus), descriptor=large),
        "descriptor: has 1000",
    )


def test_the_same_key_and_body_are_one_cluster(titus: Titus) -> None:
    id = cluster(titus, key="k")
    before = titus.hand.dump()
    assert cluster(titus, key="k") == id
    assert titus.hand.dump() == before
    error = titus.refused(titus.jobs.CreateJobCluster, batch_cluster(), ((KEY, "k"),))
    assert error.code is CODE.ALREADY_EXISTS
    assert id in error.details
    assert cluster(titus, key="other") != id
    assert titus.create(x_titus_idempotency_key="k") != id


# ---------------------------------------------------------------------------------------- changed


@pytest.mark.parametrize("make", MAKERS)
def test_an_update_replaces_all_of_a_cluster_and_nothing_of_its_jobs(titus: Titus, make: Make) -> None:
    first, other = make(), make()
    first.jobDescriptor.labels["is"], other.jobDescriptor.labels["is"] = "old", "new"
    other.name = "other"
    id = cluster(titus, first)
    plain = within(make().jobDescriptor, id)
    old = titus.create(plain)
    update(titus, id, other)
    assert found(titus, id).name == "other"
    assert titus.job(old).jobDescriptor.labels["is"] == "old"
    assert titus.job(titus.create(plain)).jobDescriptor.labels["is"] == "new"


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_definition_again_writes_nothing(titus: Titus, make: Make) -> None:
    id = cluster(titus, make())
    before = titus.hand.dump()
    for same in (make(), found(titus, id)):
        update(titus, id, same)
    assert titus.hand.dump() == before


def test_a_cluster_keeps_its_kind(titus: Titus) -> None:
    change = pb.JobCluster(id=cluster(titus), descriptor=batch_cluster())
    titus.invalid(titus.jobs.UpdateJobCluster, change, "batch: ", "mantis")


def test_a_cluster_is_removed_once_none_of_its_jobs_lives(titus: Titus) -> None:
    id = cluster(titus, batch_cluster())
    job = titus.create(within(batch(), id))
    error = titus.refused(titus.jobs.RemoveJobCluster, pb.JobClusterId(id=id))
    assert error.code is CODE.FAILED_PRECONDITION
    assert job in error.details
    titus.over(JobId(job))
    titus.jobs.RemoveJobCluster(pb.JobClusterId(id=id))
    assert titus.job(job).jobClusterId == id
    for method, request in (
        (titus.jobs.RemoveJobCluster, pb.JobClusterId(id=id)),
        (titus.jobs.FindJobCluster, pb.JobClusterId(id=id)),
        (titus.jobs.CreateJob, within(batch(), id)),
    ):
        assert titus.refused(method, request).code is CODE.NOT_FOUND


@pytest.mark.parametrize("id", ["", NOBODY, "*", "{titus}:clusters", "x" * 1_000])
def test_a_cluster_that_is_not_there_is_not_found_and_an_empty_id_is_a_wrong_one(
    titus: Titus, id: str
) -> None:
    calls: list[tuple[Any, Any]] = [
        (titus.jobs.FindJobCluster, pb.JobClusterId(id=id)),
        (titus.jobs.RemoveJobCluster, pb.JobClusterId(id=id)),
        (titus.jobs.UpdateJobCluster, pb.JobCluster(id=id, descriptor=mantis_cluster())),
        (titus.jobs.UpdateJobClusterStatus, pb.JobClusterStatusUpdate(id=id)),
    ]
    for method, request in calls:
        wanted = CODE.NOT_FOUND if id else CODE.INVALID_ARGUMENT
        assert titus.refused(method, request).code is wanted


@pytest.mark.parametrize("make", MAKERS)
def test_a_disabled_cluster_takes_no_jobs_until_it_is_enabled(titus: Titus, make: Make) -> None:
    id = cluster(titus, make())
    job = within(make().jobDescriptor, id)
    switch(titus, id, False)
    before = titus.hand.dump()
    switch(titus, id, False)
    assert titus.hand.dump() == before
    error = titus.refused(titus.jobs.CreateJob, job)
    assert error.code is CODE.FAILED_PRECONDITION
    assert "disabled" in error.details
    switch(titus, id, True)
    assert titus.job(titus.create(job)).jobClusterId == id


@pytest.mark.parametrize("make", [batch_cluster, service_cluster])
def test_jobs_of_a_batch_or_service_cluster_live_on_when_it_is_disabled(titus: Titus, make: Make) -> None:
    id = cluster(titus, make())
    job = titus.create(within(make().jobDescriptor, id))
    switch(titus, id, False)
    # Its descriptor does not say so, and changes nothing about it.
    other = make()
    other.name = "other"
    update(titus, id, other)
    titus.wait(10)
    assert titus.job(job).jobState.state == pb.QUEUED
    assert (
        titus.refused(titus.jobs.CreateJob, within(make().jobDescriptor, id)).code is CODE.FAILED_PRECONDITION
    )


# ---------------------------------------------------------------------------------------- jobs


def test_a_job_joins_the_cluster_that_it_names(titus: Titus) -> None:
    for make, job in ((batch_cluster, batch()), (service_cluster, service()), (mantis_cluster, mantis())):
        id = cluster(titus, make())
        assert titus.job(titus.create(within(job, id))).jobClusterId == id
    titus.wrong(within(batch(), cluster(titus)), "jobClusterId", "mantis")
    assert titus.refused(titus.jobs.CreateJob, within(batch(), NOBODY)).code is CODE.NOT_FOUND


def test_metadata_names_the_cluster_of_a_job_that_names_none(titus: Titus) -> None:
    id, other = cluster(titus, batch_cluster()), cluster(titus, batch_cluster())
    for job in (batch(), within(batch(), id)):
        assert titus.job(titus.create(job, x_titus_job_cluster_id=id)).jobClusterId == id
    metadata = (("x-titus-job-cluster-id", other),)
    error = titus.refused(titus.jobs.CreateJob, within(batch(), id), metadata)
    assert error.code is CODE.INVALID_ARGUMENT
    assert "jobClusterId: " in error.details
    metadata = (("x-titus-job-cluster-id", NOBODY),)
    assert titus.refused(titus.jobs.CreateJob, batch(), metadata).code is CODE.NOT_FOUND


def test_a_job_without_labels_or_parameters_has_those_of_the_template(titus: Titus) -> None:
    id = cluster(titus, mantis_cluster(mantis(labels={"team": "a"}, parameters={"p": "1"})))
    made = titus.job(titus.create(within(mantis(), id))).jobDescriptor
    assert (dict(made.labels), dict(made.mantis.parameters)) == ({"team": "a"}, {"p": "1"})
    own = within(mantis(labels={"x": "y"}, parameters={"q": "2"}), id)
    made = titus.job(titus.create(own)).jobDescriptor
    assert (dict(made.labels), dict(made.mantis.parameters)) == ({"x": "y"}, {"q": "2"})


@pytest.mark.parametrize("id", [each.id for each in BUILT_IN.values()])
def test_a_built_in_cluster_is_found_and_can_be_neither_removed_nor_changed(titus: Titus, id: str) -> None:
    kept = found(titus, id)
    calls: list[tuple[Any, Any]] = [
        (titus.jobs.RemoveJobCluster, pb.JobClusterId(id=id)),
        (titus.jobs.UpdateJobCluster, pb.JobCluster(id=id, descriptor=kept)),
        (titus.jobs.UpdateJobClusterStatus, pb.JobClusterStatusUpdate(id=id, enableStatus=False)),
    ]
    for method, request in calls:
        assert titus.refused(method, request).code is CODE.FAILED_PRECONDITION
    switch(titus, id, True)
    assert found(titus, id) == kept
