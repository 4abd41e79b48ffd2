"""Whatever a client sends: it gets an answer that is its own fault, and nothing is written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.installation import Hand, Loop, Titus, batch, container, service, serving
from tests.contracts.stores import MemoryBench
from tests.grpc_api.clusters import mantis_cluster
from tests.grpc_api.world import PATIENCE
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.core.cluster import BUILT_IN
from titus_celery.core.descriptor import JobType
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

SERVICES: Final = (
    pb.DESCRIPTOR.services_by_name["JobManagementService"],
    v1.DESCRIPTOR.services_by_name["TaskOutputService"],
    v1.DESCRIPTOR.services_by_name["ObservationService"],
    v1.DESCRIPTOR.services_by_name["ClusterService"],
)
METHODS: Final[list[MethodDescriptor]] = [each for service in SERVICES for each in service.methods]
#: How a call may end that is wrong, or asks for what is not there.
CLIENTS_FAULT: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
    # As many jobs, or one of a sequence, as may live.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
#: What an image, a shell, a store, a log or a person might take for something else.
TEXTS: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "../../etc/passwd",
    "..",
    "/",
    "*",
    "{titus}:log",
    "[a-z]*",
    "job:*",
    "a:open",
    "'; return redis.call('FLUSHALL') --",
    "]] .. error('x') .. [[",
    "a\r\nKEYS *\r\n",
    "new\nline",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe",
    "t\u0456tus.label",
    "\N{SNOWMAN}\U0001f600",
    "%s%n{}{0}$(reboot)`id`",
    "NaN",
    "-1",
    "1e999",
    "0x10",
    "titus.x",
    "TITUS_JOB_ID",
    "x" * 10_000,
)


@dataclass(frozen=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""


def call(titus: Titus, method: MethodDescriptor, data: bytes) -> Answer:
    """The method, called with these very bytes. Of a stream that begins one message is read."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    make: Any = titus.channel.unary_stream if method.server_streaming else titus.channel.unary_unary
    try:
        reply = make(path)(data, timeout=PATIENCE)
        if method.server_streaming:
            next(reply)
            reply.cancel()
    except grpc.RpcError as error:
        failed: Any = error
        return Answer(failed.code(), failed.details() or "")
    return Answer(grpc.StatusCode.OK)


def send(titus: Titus, method: MethodDescriptor, message: bytes) -> Answer:
    """Call it; if that is refused, the store is as it was, and why is the client's fault."""
    before = titus.hand.dump()
    answer = call(titus, method, message)
    if answer.code is not grpc.StatusCode.OK:
        assert titus.hand.dump() == before, "a refused call wrote something"
        assert answer.code in CLIENTS_FAULT, answer
    return answer


# ---------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bytes_that_are_no_message_are_wrong(titus: Titus, method: MethodDescriptor) -> None:
    answer = send(titus, method, b"\xff\xff\xff\xff")
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert method.name in answer.details


def test_text_that_is_not_utf_8_is_wrong(titus: Titus) -> None:
    for name in ("FindJob", "KillJob", "KillTask"):
        answer = send(titus, method_of(name), b"\x0a\x02\xff\xfe")
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT


def test_fields_that_are_not_known_are_passed_over(titus: Titus) -> None:
    unknown = b"\xf2\x3f\x03abc"
    assert send(titus, method_of("CreateJob"), batch().SerializeToString() + unknown).code is (
        grpc.StatusCode.OK
    )
    assert send(titus, method_of("FindJobs"), unknown).code is grpc.StatusCode.OK


def test_what_is_too_large_to_be_read_is_refused_by_grpc_itself(titus: Titus) -> None:
    before = titus.hand.dump()
    # As much as is read is told which limit it was.
    most = batch(labels={"x": "x" * (15 * 2**20)})
    titus.wrong(most, "jobDescriptor: has 157", "the most is 1000000")
    more = batch(labels={"x": "x" * (16 * 2**20)})
    with pytest.raises(grpc.RpcError) as error:
        titus.create(more)
    failed: Any = error.value
    assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert titus.hand.dump() == before


def test_a_label_of_5_mb_ten_thousand_variables_and_such_are_refused_by_their_limit(
    hand: Hand, loop: Loop
) -> None:
    """Also where an operator allows descriptions so large."""
    many = {f"A{number}": "" for number in range(10_000)}
    with serving(hand, loop, descriptor_bytes_max=16_000_000) as titus:
        titus.wrong(batch(labels={"x": "x" * 5_000_000}), "labels: has 5000001 bytes", "32768")
        titus.wrong(batch(labels={"x" * 5_000_000: ""}), "has 5000000 characters", "256")
        titus.wrong(container(env=many), "containers[main].env: has 10000 entries", "1000")
        titus.wrong(batch(labels=many), "labels: has 10000 entries")
        titus.wrong(container(parameters=many), "containers[main].parameters: has 10000 entries")
        wishes = pb.Constraints(constraints=many)
        titus.wrong(container(hardConstraints=wishes), "hardConstraints.constraints: has 10000 entries")
        titus.wrong(container(entryPoint=["a 'b" * 1_000_000]), "containers[main].entryPoint: has 4000001")
        titus.wrong(container(resources={"ports": "1," * 1_000_000}), "containers[main].resources")
        titus.wrong(batch(containers={"c" * 5_000_000: batch().containers["main"]}), "containers")
        titus.wrong(container(image=pb.Image(name="a" * 5_000_000)), "containers[main].image")


# ---------------------------------------------------------------------------------------- texts


def method_of(name: str) -> MethodDescriptor:
    """The method of this name."""
    return next(each for each in METHODS if each.name == name)


def places(message: Message, path: str = "") -> Iterator[tuple[str, Callable[[str], None]]]:
    """Every place in the message where a text can be put: its path, and how."""
    for field in message.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield here, partial(setattr, message, field.name)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield here, getattr(message, field.name).append
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = field.message_type.fields_by_name["value"]
            yield from places_in_map(getattr(message, field.name), values.message_type is None, here)
        elif field.message_type is not None and not field.is_repeated and message.HasField(field.name):
            yield from places(getattr(message, field.name), here)


def places_in_map(entries: Any, is_of_texts: bool, here: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    if is_of_texts:
        yield f"{here}[...]", lambda text: entries.update({text: "x"})
        yield f"{here}=", lambda text: entries.update({"x": text})
        return
    for key in entries:
        yield from places(entries[key], f"{here}[{key}]")


def requests() -> dict[str, Message]:
    """A good request for each method."""
    job = batch(jobGroupInfo=pb.JobGroupInfo(stack="s"))
    job.containers["main"].softConstraints.expression = ""
    job.containers["main"].hardConstraints.expression = ""
    for name in ("softConstraints", "hardConstraints"):
        getattr(job.containers["main"], name).SetInParent()
    made: dict[str, Message] = {each.name: GetMessageClass(each.input_type)() for each in METHODS}
    made["CreateJob"] = job
    cluster = mantis_cluster(cronSpec="0 0 * * * ?", cronPolicy="KEEP_NEW")
    made["CreateJobCluster"] = cluster
    made["UpdateJobCluster"] = pb.JobCluster(id="x", descriptor=cluster)
    made["UpdateJobInstances"] = pb.JobInstancesUpdate(instances=pb.TaskInstances(desired=1))
    return made


PLACES: Final = [(name, path) for name, message in requests().items() for path, _ in places(message)]


@pytest.mark.parametrize(("name", "path"), PLACES, ids=lambda part: part)
def test_any_text_in_any_field_is_taken_or_refused_and_never_a_fault_of_ours(
    titus: Titus, name: str, path: str
) -> None:
    for text in TEXTS:
        request = requests()[name]
        dict(places(request))[path](text)
        answer = send(titus, method_of(name), request.SerializeToString())
        if name == "CreateJob" and answer.code is grpc.StatusCode.OK:
            # What was taken can be shown, listed, observed and ended.
            jobs = titus.find().items
            assert len(jobs) == 1
            assert titus.job(jobs[0].id) == jobs[0]
            titus.jobs.KillJob(pb.JobId(id=jobs[0].id))
            titus.inside.sweep()
            assert titus.find().pagination.totalItems == 0
        if name == "CreateJobCluster" and answer.code is grpc.StatusCode.OK:
            # What was taken can be shown, replaced by itself, and asked for its times.
            (id,) = live_clusters(titus)
            kept = titus.jobs.FindJobCluster(id)
            titus.jobs.UpdateJobCluster(kept)
            assert titus.jobs.FindJobCluster(id) == kept
            titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id.id, count=100))
            titus.inside.sweep()
            titus.jobs.RemoveJobCluster(id)


def live_clusters(titus: Titus) -> list[pb.JobClusterId]:
    """The clusters that there are."""
    found, _ = ClusterStore(titus.hand.keyspace).page(None, 10)
    return [pb.JobClusterId(id=each.id) for each in found]


@pytest.mark.parametrize(
    "key",
    [
        "x-titus-callerid",
        "x-titus-caller-email",
        "x-titus-idempotency-key",
        "x-titus-job-cluster-id",
        "x-titus-resume",
    ],
)
def test_any_text_in_metadata_is_taken_or_refused(titus: Titus, key: str) -> None:
    for text in ("x" * 4_000, "*", "{titus}:log", "'; --", " ", "a@b" * 50):
        for name in ("CreateJob", "CreateJobCluster", "ObserveJobs", "KillJob"):
            method: Any = getattr(titus.jobs, name)
            request = requests()[name]
            try:
                reply = method(request, metadata=((key, text),), timeout=PATIENCE)
                if name == "ObserveJobs":
                    next(reply)
                    reply.cancel()
            except grpc.RpcError as error:
                failed: Any = error
                assert failed.code() in CLIENTS_FAULT


# ---------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("number", [1, 2**31 - 1, 2**31, 2**32 - 1])
def test_no_number_of_tasks_is_a_fault_of_ours(titus: Titus, number: int) -> None:
    for job in (batch(number), service(number), service(1, min=number), service(1, max=number)):
        send(titus, method_of("CreateJob"), job.SerializeToString())
    id = titus.create(service(1))
    for numbers in ({"desired": number}, {"desired": 1, "min": number}, {"desired": 1, "max": number}):
        update = pb.JobInstancesUpdate(jobId=id, instances=pb.TaskInstances(**numbers), stageIndex=number)
        send(titus, method_of("UpdateJobInstances"), update.SerializeToString())


@pytest.mark.parametrize("number", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_no_page_is_a_fault_of_ours(titus: Titus, number: int) -> None:
    id = titus.create()
    for page in (pb.Page(pageNumber=number, pageSize=10), pb.Page(pageNumber=0, pageSize=number)):
        send(titus, method_of("FindJobs"), pb.JobQuery(page=page).SerializeToString())
        send(titus, method_of("FindTasks"), pb.TaskQuery(jobId=id, page=page).SerializeToString())
        firings = v1.FindFiringsRequest(cluster_id=BUILT_IN[JobType.MANTIS].id, page=page)
        send(titus, method_of("FindFirings"), firings.SerializeToString())


@pytest.mark.parametrize("number", [0, 1, 2**63, 2**64 - 1])
def test_no_duration_is_a_fault_of_ours(titus: Titus, number: int) -> None:
    job = batch()
    job.batch.runtimeLimitSecs = number
    job.batch.retryPolicy.exponentialBackOff.initialDelayMs = number
    job.batch.retryPolicy.exponentialBackOff.maxDelayIntervalMs = number
    send(titus, method_of("CreateJob"), job.SerializeToString())
    id = titus.create()
    titus.over(id)
    tail = v1.TailTaskRequest(task_id=f"{id}-0-1", offset=number)
    send(titus, method_of("TailTask"), tail.SerializeToString())


def test_a_query_has_its_limits(titus: Titus) -> None:
    many = {f"labels.{number}": "" for number in range(101)}
    for method, make in (
        (titus.jobs.FindJobs, pb.JobQuery),
        (titus.jobs.FindTasks, lambda **parts: pb.TaskQuery(jobId="x", **parts)),
    ):
        titus.invalid(method, make(fiterlingCriteria=many), "has 101 criteria", "100")
        long = {"appName": "x" * 2**20}
        titus.invalid(method, make(fiterlingCriteria=long), "fiterlingCriteria[appName]", "65536")
        named = {"labels." + "x" * 2**20: ""}
        titus.invalid(method, make(fiterlingCriteria=named), "65536")
        listed = {"jobIds": ",".join(map(str, range(1_001)))}
        titus.invalid(method, make(fiterlingCriteria=listed), "lists 1001 values", "1000")
        titus.invalid(method, make(fiterlingCriteria={"labels": listed["jobIds"]}), "lists 1001 values")
        titus.invalid(method, make(fields=["id"] * 201), "fields", "200")
        titus.invalid(method, make(fields=["x" * 257]), "fields", "256")
    deep = ".".join(["jobDescriptor"] * 18)
    titus.create()
    assert len(titus.find(fields=[deep]).items) == 1


def test_a_store_shows_whether_anything_was_written(titus: Titus) -> None:
    """The whole suite compares it around each refusal."""
    before = titus.hand.dump()
    assert titus.hand.dump() == before
    titus.create()
    assert titus.hand.dump() != before


# ---------------------------------------------------------------------------------------- anything

#: Any field of any type, mostly of numbers that there are.
FIELDS: Final = st.builds(
    lambda number, kind, data: varint(number << 3 | kind) + (varint(len(data)) if kind == 2 else b"") + data,
    st.integers(1, 12),
    st.sampled_from([0, 1, 2, 5]),
    st.binary(max_size=12),
)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_bytes_are_a_fault_of_ours(loop: Loop, method: MethodDescriptor) -> None:
    hand: Hand = MemoryBench()
    with serving(hand, loop) as titus:

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(st.one_of(st.binary(max_size=40), st.lists(FIELDS, max_size=6).map(b"".join)))
        def try_out(data: bytes) -> None:
            send(titus, method, data)

        try_out()
