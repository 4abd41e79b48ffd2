"""What clients see of every error, over a real connection."""

from __future__ import annotations

import logging
import random
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from tests.grpc_api.world import Refused, World, descriptor, refused, world
from titus_celery import errors
from titus_celery.core.descriptor import Image
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.status import (
    DETAILS_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    STATUS,
    TRAILER_CHARS_MAX,
    refusal_of,
)

SERVICES = (
    pb.DESCRIPTOR.services_by_name["JobManagementService"],
    v1.DESCRIPTOR.services_by_name["TaskOutputService"],
    v1.DESCRIPTOR.services_by_name["ObservationService"],
    v1.DESCRIPTOR.services_by_name["ClusterService"],
)
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
OFFERED = {
    "ComingTimes",
    "CreateJob",
    "CreateJobCluster",
    "FindFirings",
    "FindJob",
    "FindJobCluster",
    "FindJobClusters",
    "FindJobs",
    "FindTask",
    "FindTasks",
    "KillJob",
    "KillJobs",
    "KillTask",
    "KillTasks",
    "ObserveJob",
    "ObserveJobCluster",
    "ObserveJobClusters",
    "ObserveJobs",
    "RemoveJobCluster",
    "TailTask",
    "UpdateJobCluster",
    "UpdateJobClusterStatus",
    "UpdateJobInstances",
    "UpdateJobStatus",
}
#: gRPC refuses more than this in one reply's trailers.
TRAILERS_BYTES_MAX = 8 * 1024

#: One of each class that can be raised.
ERRORS: list[errors.TitusError] = [
    errors.AlreadyExists("key", "1"),
    errors.AlreadyExists("key", "1", "cluster"),
    errors.AnswerPending("the registry of app:1"),
    errors.Busy("tails", 64),
    errors.Conflict("job 1"),
    errors.EngineFault("start", "it is gone"),
    errors.FailedPrecondition("job", "1", "it is over"),
    errors.Fenced("host-1", 3),
    errors.Full("agent 1"),
    errors.ImageMissing("app:1"),
    errors.InvalidRequest([errors.Violation("owner", "is empty")]),
    errors.InvalidSchedule("* *", "UTC", "it has 2 fields", "spec"),
    errors.LimitReached("jobs", 10),
    errors.NotFound("job", "1"),
    errors.PartialFailure(
        "KillJobs",
        [("1", errors.NotFound("job", "1")), ("2", errors.FailedPrecondition("job", "2", "it is over"))],
        ["3"],
    ),
    errors.PlaceTaken("host-1", "a/1/2", 8.0),
    errors.PositionLost("1-1"),
    errors.SettingsError("TITUS_LISTEN", "is taken"),
    errors.SlowObserver(10),
    errors.StartRefused(127, "no such file"),
    errors.StoreCorrupt("{titus}:job:1", "a list"),
    errors.StoreFull(900, 1_000),
    errors.StoreUnavailable("connection refused"),
    errors.Taken("this sequence"),
    errors.Unavailable("the broker", "connection refused"),
    errors.Unsupported("FindTasks"),
]


def every_error() -> set[type[errors.TitusError]]:
    """The whole tree but its root; errors of the command line never come to the gateway."""
    return {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.TitusError) and each is not errors.TitusError
    }


def violations(error: Refused) -> list[tuple[str, str]]:
    """What google.rpc.BadRequest says in the error's details."""
    data = error.trailers["grpc-status-details-bin"]
    assert isinstance(data, bytes)
    status = status_pb2.Status.FromString(data)
    # Clients refuse details that contradict the status they come with.
    assert (status.code, status.message) == (error.code.value[0], error.details)
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    return [(each.field, each.description) for each in bad.field_violations]


class Raises:
    """An image resolver that only ever fails, so that CreateJob does."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def resolve(self, image: Image) -> Image:
        raise self._error


def test_every_error_has_a_row_in_the_table() -> None:
    """A class without one would end INTERNAL. Every one is tried below, too."""
    assert set(STATUS) == every_error()
    assert {type(error) for error in ERRORS} == every_error()


# An image that is missing is a violation by the time it leaves the use case.
@pytest.mark.parametrize(
    "error",
    [error for error in ERRORS if not isinstance(error, errors.ImageMissing)],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_arrives_with_its_status_message_and_trailer(error: errors.TitusError) -> None:
    async with world(resolver=Raises(error)) as titus:
        seen = await refused(titus.jobs.CreateJob(descriptor()))
        assert seen.code is STATUS[type(error)]
        assert seen.details == str(error)
        assert seen.trailers["x-titus-error"] == f"{type(error).__name__}: {error}"
        assert titus.gateway.internal_errors == 0


async def test_a_fault_of_ours_is_internal_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with world(resolver=Raises(ZeroDivisionError("secret"))) as titus:
        with caplog.at_level(logging.ERROR):
            seen = await refused(titus.jobs.CreateJob(descriptor()))
        assert seen.code is grpc.StatusCode.INTERNAL
        assert "secret" not in seen.details
        assert titus.gateway.internal_errors == 1
    (record,) = [each for each in caplog.records if each.name == "titus_celery.grpc.interceptor"]
    assert record.getMessage() == "internal error in /netflix.titus.JobManagementService/CreateJob"
    assert record.exc_info


async def test_every_violation_is_named_in_the_message_and_in_the_details(titus: World) -> None:
    bad = descriptor(owner=pb.Owner(ownerEmail="x", teamEmail="y"), labels={"titus.a": "b"})
    bad.batch.instances.desired = 0
    seen = await refused(titus.jobs.CreateJob(bad))
    fields = {"owner.ownerEmail", "owner.teamEmail", "labels[titus.a]", "batch.instances.desired"}
    assert {field for field, _ in violations(seen)} == fields
    assert all(f"{field}: {text}" in seen.details for field, text in violations(seen))


@pytest.mark.parametrize("name", ["titus.x", "titus-\N{EURO SIGN}\n", "titus" + "long" * 2_000], ids=len)
@pytest.mark.parametrize("count", [1, 100])
async def test_however_many_violations_the_reply_fits(titus: World, name: str, count: int) -> None:
    bad = descriptor(labels={f"{name}{number}": "" for number in range(count)})
    bad.batch.instances.desired = 0
    seen = await refused(titus.jobs.CreateJob(bad))
    assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
    told = violations(seen)
    assert told
    if count > 1:
        assert "more" in seen.details
        assert len(told) < count
    else:
        assert len({field for field, _ in told}) == count + 1


@pytest.mark.parametrize("text", ["x", "\N{SNOWMAN}", "\n", "%", "\0", "\\", "\ud800"], ids=ascii)
@pytest.mark.parametrize("count", [1, 100, 100_000])
def test_no_text_makes_trailers_that_grpc_refuses(text: str, count: int) -> None:
    for error in (
        errors.NotFound("job", text * count),
        errors.Unsupported(text * count),
        errors.InvalidRequest([errors.Violation(text * count, text * count)] * 10),
        errors.InvalidRequest([errors.Violation(text, text)] * count),
    ):
        refusal = refusal_of(error)
        wire = sum(
            1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode()) for char in refusal.message
        )
        assert 0 < wire <= MESSAGE_BYTES_MAX
        size = len("grpc-message") + 32 + wire
        for key, value in refusal.trailers:
            if isinstance(value, bytes):
                assert len(value) <= DETAILS_BYTES_MAX
                size += len(value) * 4 // 3 + 4
            else:
                assert value.isascii()
                assert value.isprintable()
                assert len(value) <= TRAILER_CHARS_MAX
                size += len(value)
            size += len(key) + 32
        assert size < TRAILERS_BYTES_MAX - 512


async def test_a_hostile_message_arrives_cut_and_in_ascii() -> None:
    async with world(resolver=Raises(errors.Unsupported("\N{SNOWMAN}\n" * 5_000))) as titus:
        seen = await refused(titus.jobs.CreateJob(descriptor()))
        assert seen.code is grpc.StatusCode.UNIMPLEMENTED
        assert seen.details.endswith("...")
        assert str(seen.trailers["x-titus-error"]).startswith("Unsupported: \\u2603\\n\\u2603")


def test_every_method_is_offered() -> None:
    assert {method.name for method in METHODS} == OFFERED


def call(titus: World, method: MethodDescriptor, data: bytes) -> Any:
    """The method called with these very bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    make: Any = titus.channel.unary_stream if method.server_streaming else titus.channel.unary_unary
    return make(path)(data)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    titus: World, method: MethodDescriptor
) -> None:
    """Left to itself, gRPC would call it INTERNAL."""
    seen = await refused(call(titus, method, b"\xff\xff\xff\xff"))
    assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
    assert method.name in seen.details


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_no_bytes_make_a_fault_of_ours(titus: World, method: MethodDescriptor) -> None:
    draw = random.Random(method.name)
    for _ in range(100):
        running = call(titus, method, draw.randbytes(draw.randrange(24)))
        try:
            if method.server_streaming:
                await running.read()
                running.cancel()
            else:
                await running
        except grpc.aio.AioRpcError as error:
            assert error.code() in {
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.UNIMPLEMENTED,
            }


HOSTILE_IDS = ["{titus}:log", "a:open", "../..", "\0", "\N{SNOWMAN}", "*", " ", "x" * 100_000, "a\r\nKEYS *"]


def by_id(titus: World, id: str) -> list[Any]:
    """Every call that takes an id, with this one."""
    return [
        titus.jobs.FindJob(pb.JobId(id=id)),
        titus.jobs.ObserveJob(pb.JobId(id=id)),
        titus.jobs.KillJob(pb.JobId(id=id)),
        titus.jobs.FindTask(pb.TaskId(id=id)),
        titus.jobs.KillTask(pb.TaskId(id=id)),
        titus.outputs.TailTask(v1.TailTaskRequest(task_id=id)),
    ]


@pytest.mark.parametrize("id", ["no-such", *HOSTILE_IDS], ids=lambda id: ascii(id[:20]))
async def test_an_id_that_nothing_has_is_not_found(titus: World, id: str) -> None:
    for each in by_id(titus, id):
        seen = await refused(each)
        assert seen.code is grpc.StatusCode.NOT_FOUND


async def test_keys_beside_a_record_are_not_reached_by_an_id(titus: World) -> None:
    id = await titus.create()
    seen = await refused(titus.jobs.FindJob(pb.JobId(id=f"{id}:open")))
    assert seen.code is grpc.StatusCode.NOT_FOUND


async def test_an_empty_id_is_an_invalid_argument_that_names_the_field(titus: World) -> None:
    for each, field in zip(by_id(titus, ""), ["id"] * 5 + ["task_id"], strict=True):
        seen = await refused(each)
        assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
        assert violations(seen) == [(field, "is empty")]


async def test_a_request_that_is_too_large_is_refused(titus: World) -> None:
    seen = await refused(titus.jobs.CreateJob(descriptor(labels={"x": "x" * 17 * 2**20})))
    assert seen.code is grpc.StatusCode.RESOURCE_EXHAUSTED
