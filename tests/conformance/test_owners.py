"""Whose a job is, and which cluster's (docs/semantics.md A2, A3)."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.clusters import mantis
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

BATCH_CLUSTER = "00000000-0000-4000-8000-000000000001"
SERVICE_CLUSTER = "00000000-0000-4000-8000-000000000002"
MANTIS_CLUSTER = "00000000-0000-4000-8000-000000000003"
UNOWNED = pb.Owner()


@pytest.mark.parametrize(
    ("make", "cluster"), [(batch, BATCH_CLUSTER), (service, SERVICE_CLUSTER), (mantis, MANTIS_CLUSTER)]
)
def test_a_job_belongs_to_the_built_in_cluster_of_its_type(
    titus: Titus, make: Callable[..., pb.JobDescriptor], cluster: str
) -> None:
    for named in ("", cluster):
        job = titus.job(titus.create(make(jobClusterId=named)))
        assert job.jobClusterId == cluster


def test_the_built_in_cluster_of_another_type_is_a_wrong_one(titus: Titus) -> None:
    titus.wrong(batch(jobClusterId=SERVICE_CLUSTER), "jobClusterId", "service")
    titus.wrong(service(jobClusterId=BATCH_CLUSTER), "jobClusterId", "batch")
    titus.wrong(mantis(jobClusterId=BATCH_CLUSTER), "jobClusterId", "batch")


def test_what_the_owner_leaves_out_is_the_callers_address(titus: Titus) -> None:
    me = "me@example.com"
    filled = titus.job(titus.create(batch(owner=UNOWNED), x_titus_caller_email=me)).jobDescriptor.owner
    assert (filled.ownerEmail, filled.teamEmail) == (me, me)
    team = pb.Owner(teamEmail="team@example.com")
    filled = titus.job(titus.create(batch(owner=team), x_titus_caller_email=me)).jobDescriptor.owner
    assert (filled.ownerEmail, filled.teamEmail) == (me, "team@example.com")


def test_a_caller_id_that_is_an_address_is_one(titus: Titus) -> None:
    job = titus.job(titus.create(batch(owner=UNOWNED), x_titus_callerid="person@example.com"))
    assert job.jobDescriptor.owner.ownerEmail == "person@example.com"


def test_an_address_that_is_told_counts_more_than_the_caller_id(titus: Titus) -> None:
    id = titus.create(batch(owner=UNOWNED), x_titus_callerid="a@example.com", x_titus_caller_email="b@c.d")
    assert titus.job(id).jobDescriptor.owner.teamEmail == "b@c.d"


def test_a_job_that_is_nobodys_is_refused(titus: Titus) -> None:
    titus.wrong(batch(owner=UNOWNED), "owner.ownerEmail", "owner.teamEmail")


def test_an_address_has_an_at_sign(titus: Titus) -> None:
    titus.wrong(batch(owner=pb.Owner(ownerEmail="me", teamEmail="a@b")), "owner.ownerEmail")
    titus.wrong(batch(owner=pb.Owner(ownerEmail="a@b", teamEmail="us")), "owner.teamEmail")


def test_nobody_has_to_say_who_they_are(titus: Titus) -> None:
    id = titus.create()
    titus.jobs.KillJob(pb.JobId(id=id))
    titus.inside.sweep()
    assert titus.job(id).jobState.reason.startswith("killed: by anonymous at ")


@pytest.mark.parametrize(
    ("metadata", "who"),
    [
        ((("x-titus-callerid", "app:1"), ("x-titus-caller-email", "me@example.com")), "app:1"),
        ((("x-titus-caller-email", "me@example.com"),), "me@example.com"),
    ],
)
def test_a_kill_is_recorded_under_the_callers_id_or_address(
    titus: Titus, metadata: tuple[tuple[str, str], ...], who: str
) -> None:
    id = titus.create()
    titus.jobs.KillJob(pb.JobId(id=id), metadata=metadata)
    titus.inside.sweep()
    assert titus.job(id).jobState.reason.startswith(f"killed: by {who} at ")


def test_a_caller_who_is_absurdly_long_is_refused(titus: Titus) -> None:
    for key in ("x-titus-callerid", "x-titus-caller-email"):
        error = titus.refused(titus.jobs.CreateJob, batch(), ((key, "x" * 321),))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert key in error.details
