"""Creating jobs: what is filled in, what is refused, what limits there are (docs/semantics.md B1.9, B2)."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from tests.conformance.installation import Hand, Loop, Titus, batch, container, service, serving
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

KIB = 1_024


def grouped(sequence: str = "", **parts: str) -> pb.JobDescriptor:
    """A job of such a group."""
    return batch(appName="web", jobGroupInfo=pb.JobGroupInfo(sequence=sequence, **parts))


# ---------------------------------------------------------------------------------------- what is made


def test_a_new_job_and_all_of_its_tasks_are_queued_and_nothing_is_waited_for(titus: Titus) -> None:
    id = titus.create(batch(3))
    job = titus.job(id)
    assert job.jobState.state == pb.QUEUED
    assert [task.state.state for task in job.tasks] == [pb.QUEUED] * 3
    assert [change.state for change in job.stateChanges] == ["QUEUED"]


def test_what_was_answered_is_stored(titus: Titus, loop: Loop) -> None:
    """Another gateway, which knows what is stored and nothing else, has it at once."""
    with serving(titus.hand, loop) as other:
        for _ in range(5):
            id = titus.create()
            assert other.job(id).id == id
            titus.jobs.KillJob(pb.JobId(id=id))
            titus.inside.sweep()
            assert other.store.records.job(id)[0].kill is not None


def test_sent_twice_it_is_two_jobs(titus: Titus) -> None:
    assert titus.create() != titus.create()


def test_texts_are_trimmed_and_what_is_blank_has_its_default(titus: Titus) -> None:
    me = " me@example.com "
    sent = batch(appName=" web ", owner=pb.Owner(ownerEmail=me, teamEmail=me))
    sent.containers["main"].image.name = " busybox:1 "
    made = titus.job(titus.create(sent)).jobDescriptor
    assert (made.appName, made.owner.teamEmail) == ("web", "me@example.com")
    assert made.containers["main"].image.name == "busybox:1"
    for make, name in ((batch, "batchJob"), (service, "serviceJob")):
        assert titus.job(titus.create(make(appName=" "))).jobDescriptor.appName == name


def test_what_was_sent_comes_back(titus: Titus) -> None:
    sent = container(
        env={"A": "1", "debug": "x y"},
        command=["a", "b c"],
        parameters={"x": "y"},
        softConstraints=pb.Constraints(constraints={"zoneBalance": "true"}),
    )
    sent.labels["note"] = "two\nlines"
    sent.jobGroupInfo.detail = "d"
    sent.batch.instances.min, sent.batch.instances.max = 5, 2
    made = titus.job(titus.create(sent)).jobDescriptor
    assert made.labels == sent.labels
    assert made.jobGroupInfo == pb.JobGroupInfo(detail="d")
    # Of a batch job they mean nothing.
    assert made.batch.instances == sent.batch.instances
    for field in ("env", "command", "parameters", "softConstraints"):
        assert getattr(made.containers["main"], field) == getattr(sent.containers["main"], field)


# ---------------------------------------------------------------------------------------- containers


@pytest.mark.parametrize("make", [batch, service], ids=["batch", "service"])
def test_a_job_has_exactly_one_container(titus: Titus, make: Callable[..., pb.JobDescriptor]) -> None:
    titus.wrong(make(containers={}), "containers:", "exactly one container, not 0")
    two = make()
    two.containers["side"].CopyFrom(two.containers["main"])
    titus.wrong(two, "containers:", "exactly one container, not 2")


@pytest.mark.parametrize("make", [batch, service], ids=["batch", "service"])
@pytest.mark.parametrize("id", ["", "other", "Main", "main "])
def test_the_jobs_specification_names_its_container(
    titus: Titus, make: Callable[..., pb.JobDescriptor], id: str
) -> None:
    job = make()
    spec = job.batch if job.HasField("batch") else job.service
    spec.containerId = id
    titus.wrong(job, "containerId:")


# ---------------------------------------------------------------------------------------- reserved names


@pytest.mark.parametrize("name", ["titus", "titus.x", "TITUS", "TiTuS-anything", "titusParameter.x"])
def test_labels_that_begin_with_titus_in_any_case_are_reserved(titus: Titus, name: str) -> None:
    titus.wrong(batch(labels={name: ""}), f"labels[{name}]", "reserved")


def test_other_labels_may_hold_titus(titus: Titus) -> None:
    labels = {"my.titus": "titus", "t\N{LATIN SMALL LETTER DOTLESS I}tus": ""}
    assert titus.job(titus.create(batch(labels=labels))).jobDescriptor.labels == labels


def test_a_label_has_a_name(titus: Titus) -> None:
    for name in ("", "  "):
        titus.wrong(batch(labels={name: "x"}), "labels: a label needs a name")


# ---------------------------------------------------------------------------------------- groups


def test_a_sequence_is_one_live_jobs_of_its_application_stack_and_detail(titus: Titus) -> None:
    first = titus.create(grouped("v1", stack="s", detail="d"))
    error = titus.refused(titus.jobs.CreateJob, grouped("v1", stack="s", detail="d"))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "jobGroupInfo.sequence" in error.details
    for other in (grouped("v2", stack="s", detail="d"), grouped("v1", stack="s"), grouped("v1", detail="d")):
        titus.create(other)
    titus.over(first)
    titus.create(grouped("v1", stack="s", detail="d"))


def test_a_sequence_is_free_once_its_job_is_over_not_when_its_kill_began(titus: Titus) -> None:
    id = titus.create(grouped("v1"))
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    titus.jobs.KillJob(pb.JobId(id=id))
    titus.inside.sweep()
    error = titus.refused(titus.jobs.CreateJob, grouped("v1"))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    titus.over(id, State.FAILED)
    titus.create(grouped("v1"))


def test_without_a_sequence_any_number_of_jobs_may_be_of_a_group(titus: Titus) -> None:
    for _ in range(2):
        job = titus.job(titus.create(grouped(stack="", detail="d")))
        assert job.jobDescriptor.jobGroupInfo.stack == ""


# ---------------------------------------------------------------------------------------- limits


def test_a_batch_job_has_one_to_a_thousand_tasks(titus: Titus) -> None:
    assert titus.find().pagination.totalItems == 0
    assert len(titus.job(titus.create(batch(1_000))).tasks) == 1_000
    for wrong in (0, 1_001, 2**32 - 1):
        titus.wrong(batch(wrong), "batch.instances.desired")
    titus.wrong(batch(batch=pb.BatchJobSpec(containerId="main")), "batch.instances.desired")


def test_a_service_has_at_most_two_thousand_tasks_and_says_so_of_an_explicit_max(titus: Titus) -> None:
    assert titus.job(titus.create(service(1, max=2_000))).jobDescriptor.service.instances.max == 2_000
    titus.wrong(service(2_001), "service.instances.desired")
    titus.wrong(service(1, max=2_001), "service.instances.max")
    titus.wrong(service(2**32 - 1, min=2**32 - 1, max=2**32 - 1), "service.instances.desired")


def test_a_service_may_have_none_and_its_numbers_fit_each_other(titus: Titus) -> None:
    given = titus.job(titus.create(service(0))).jobDescriptor.service.instances
    assert (given.min, given.desired, given.max) == (0, 0, 2**31 - 1)
    for wrong in (service(1, min=2), service(3, max=2), service(1, min=3, max=2)):
        titus.wrong(wrong, "service.instances")


def test_an_installation_may_have_other_limits(hand: Hand, loop: Loop) -> None:
    with serving(hand, loop, batch_tasks_max=2, service_tasks_max=3, cpu_max=1) as titus:
        titus.wrong(batch(3), "batch.instances.desired")
        titus.wrong(service(4), "service.instances.desired")
        titus.wrong(container(resources={"cpu": "2"}), "resources[cpu]")


def test_retries_and_delays_may_be_any_number(titus: Titus) -> None:
    job = batch()
    job.batch.retryPolicy.exponentialBackOff.retries = 2**32 - 1
    job.batch.retryPolicy.exponentialBackOff.initialDelayMs = 2**64 - 1
    assert (
        titus.job(titus.create(job)).jobDescriptor.batch.retryPolicy.exponentialBackOff.retries == 2**32 - 1
    )


def test_the_environment_is_at_most_32_kib(titus: Titus) -> None:
    # Two bytes more for each variable.
    titus.create(container(env={"A": "x" * (32 * KIB - 3)}))
    titus.wrong(container(env={"A": "x" * (32 * KIB - 2)}), "containers[main].env: has", "32768")


def test_entry_point_and_command_are_at_most_16_kib_each(titus: Titus) -> None:
    # And one for each part.
    most = ["x" * (16 * KIB - 1)]
    titus.create(container(entryPoint=most, command=most))
    titus.wrong(container(entryPoint=["x" * 16 * KIB]), "containers[main].entryPoint: has", "16384")
    titus.wrong(container(command=["x" * 16 * KIB]), "containers[main].command: has", "16384")


def test_a_variable_has_a_name_and_no_nul(titus: Titus) -> None:
    for env in ({"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "\0"}):
        titus.wrong(container(env=env), "containers[main].env[")


@pytest.mark.parametrize("make", ["labels", "env", "parameters", "resources", "securityProfile"])
def test_no_map_has_more_than_a_thousand_entries_or_32_kib_or_long_names(titus: Titus, make: str) -> None:
    def job(texts: dict[str, str]) -> pb.JobDescriptor:
        return batch(labels=texts) if make == "labels" else container(**{make: texts})

    titus.create(job({f"x{number}": "" for number in range(998)}))
    titus.wrong(job({f"x{number}": "" for number in range(1_001)}), f"{make}: has 10", "the most is 1000")
    titus.wrong(job({"x": "y" * 33 * KIB}), f"{make}: has 33", "the most is 32768")
    titus.create(job({"x" * 256: ""}))
    titus.wrong(job({"x" * 257: ""}), make, "has 257 characters; the most is 256")
    titus.wrong(job({"x\n": ""}), make, "cannot be shown")


def test_names_are_at_most_256_characters_that_can_be_shown(titus: Titus) -> None:
    for name, fault in (
        ("x" * 257, "the most is 256"),
        ("a\x1b[31mb", "cannot be shown"),
        ("a\nb", "cannot"),
    ):
        titus.wrong(batch(appName=name), "appName", fault)
        titus.wrong(grouped(stack=name), "jobGroupInfo.stack", fault)
        titus.wrong(grouped(detail=name), "jobGroupInfo.detail", fault)
        titus.wrong(grouped(name), "jobGroupInfo.sequence", fault)
        titus.wrong(batch(owner=pb.Owner(ownerEmail=f"{name}@", teamEmail="a@b")), "owner.ownerEmail", "")
        job = batch(containers={name: batch().containers["main"]})
        job.batch.containerId = name
        titus.wrong(job, "containers", fault)


def test_a_description_is_at_most_a_million_bytes(hand: Hand, loop: Loop) -> None:
    huge = batch(labels={"x": "x" * 2**20})
    with serving(hand, loop) as titus:
        titus.wrong(huge, "jobDescriptor: has 1048", "the most is 1000000")
    with serving(hand, loop, descriptor_bytes_max=300) as titus:
        titus.create()
        titus.wrong(batch(labels={"x": "x" * 300}), "jobDescriptor: has", "the most is 300")
