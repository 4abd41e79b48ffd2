"""How refusals look, and which status each has (docs/semantics.md A18, B0.8, B0.10)."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.conformance.installation import Hand, Loop, Titus, batch, container, service, serving
from tests.grpc_api.world import Refused
from titus_celery.core.descriptor import Image
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable, TitusError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.ports import ImageResolver


def violations(error: Refused) -> dict[str, str]:
    """What google.rpc.BadRequest says in the error's details, by field."""
    data = error.trailers["grpc-status-details-bin"]
    assert isinstance(data, bytes)
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message) == (error.code.value[0], error.details)
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    return {each.field: each.description for each in bad.field_violations}


def all_wrong() -> pb.JobDescriptor:
    """A job that breaks a rule of every part."""
    wrong = container(
        image=pb.Image(),
        resources={"cpu": "x"},
        env={"A=B": ""},
        parameters={"titus.x": ""},
        hardConstraints=pb.Constraints(constraints={"colour": "red"}),
    )
    wrong.owner.ownerEmail = "nobody"
    wrong.labels["Titus.x"] = ""
    wrong.batch.instances.desired = 0
    wrong.batch.runtimeLimitSecs = 864_001
    wrong.batch.containerId = "other"
    return wrong


FIELDS = {
    "owner.ownerEmail",
    "labels[Titus.x]",
    "batch.instances.desired",
    "batch.runtimeLimitSecs",
    "batch.containerId",
    "containers[main].image",
    "containers[main].resources[cpu]",
    "containers[main].env[A=B]",
    "containers[main].parameters[titus.x]",
    "containers[main].hardConstraints.constraints[colour]",
}


def test_everything_that_is_wrong_is_told_at_once_in_the_message_and_in_the_details(titus: Titus) -> None:
    error = titus.refused(titus.jobs.CreateJob, all_wrong())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    told = violations(error)
    assert set(told) == FIELDS
    assert all(told.values())
    for field, text in told.items():
        assert f"{field}: {text}" in error.details


def test_without_a_type_that_alone_is_told(titus: Titus) -> None:
    error = titus.refused(titus.jobs.CreateJob, pb.JobDescriptor())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(error) == {"batch": "one of batch, service or mantis must be set"}


def test_what_is_lacking_is_named_once_nothing_is_wrong(titus: Titus) -> None:
    policy = pb.ScalingPolicy(condition="avg(CPUUtilization) > 80%", action="addInstances 1")
    scaled = service(1, scalingPolices=[policy])
    error = titus.refused(titus.jobs.CreateJob, scaled)
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert "service.scalingPolices" in error.details
    scaled.owner.ownerEmail = "nobody"
    assert titus.refused(titus.jobs.CreateJob, scaled).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_reply_that_would_be_too_long_says_how_much_more_there_is(titus: Titus) -> None:
    wrong = batch(labels={f"titus.{number}": "" for number in range(300)})
    error = titus.refused(titus.jobs.CreateJob, wrong)
    assert error.details.endswith("more")
    assert len(violations(error)) > 20


def test_every_refusal_carries_its_kind_and_message(titus: Titus) -> None:
    policy = pb.ScalingPolicy(condition="avg(CPUUtilization) > 80%", action="addInstances 1")
    for error, kind in (
        (titus.refused(titus.jobs.FindJob, pb.JobId(id="nobody")), "NotFound"),
        (titus.refused(titus.jobs.CreateJob, pb.JobDescriptor()), "InvalidRequest"),
        (titus.refused(titus.jobs.CreateJob, service(1, scalingPolices=[policy])), "Unsupported"),
        (titus.refused(titus.jobs.ObserveJob, pb.JobId(id="nobody")), "NotFound"),
    ):
        assert error.trailers["x-titus-error"] == f"{kind}: {error.details}"


def test_the_text_of_a_refusal_is_ascii_in_its_trailer(titus: Titus) -> None:
    error = titus.refused(titus.jobs.FindJob, pb.JobId(id="\N{SNOWMAN}\n\x1b[31m"))
    told = error.trailers["x-titus-error"]
    assert isinstance(told, str)
    assert told.isascii() and told.isprintable()


# ---------------------------------------------------------------------------------------- statuses


class Broken(ImageResolver):
    """Whoever knows about images fails."""

    def __init__(self, error: TitusError) -> None:
        self._error = error

    def resolve(self, image: Image) -> Image:
        raise self._error


def test_whoever_does_not_answer_is_unavailable(hand: Hand, loop: Loop) -> None:
    with serving(hand, loop, resolver=Broken(StoreUnavailable("connection refused"))) as titus:
        error = titus.refused(titus.jobs.CreateJob, batch())
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert "connection refused" in error.details


def test_more_live_jobs_than_are_taken_exhaust_the_installation(hand: Hand, loop: Loop) -> None:
    with serving(hand, loop, jobs_max=2) as titus:
        id, _ = titus.create(), titus.create()
        one = TaskId(f"{id}-0-1")
        titus.store.advance(one, State.RUNNING)
        # The place is free once the job is over, not when its kill began.
        for begin in (None, titus.jobs.KillJob):
            if begin:
                begin(pb.JobId(id=id))
            error = titus.refused(titus.jobs.CreateJob, batch())
            assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "2 jobs are alive" in error.details
        titus.over(id, State.FAILED)
        titus.create()


def test_a_store_that_is_nearly_full_takes_nothing_new_and_lets_the_rest_end(titus: Titus) -> None:
    id = titus.create()
    titus.inside.passed += timedelta(seconds=2)
    with titus.hand.crowded():
        error = titus.refused(titus.jobs.CreateJob, batch())
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        titus.jobs.KillJob(pb.JobId(id=id))
        titus.inside.sweep()
        assert titus.job(id).jobState.state == pb.FAILED


@pytest.mark.parametrize("name", ["KillJob", "ObserveJob", "FindJob"])
def test_an_empty_id_is_a_wrong_one(titus: Titus, name: str) -> None:
    titus.invalid(getattr(titus.jobs, name), pb.JobId(id=""), "id: is empty")
