"""A job description crosses the wire as it was, and nothing that arrives can break the server."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.core.descriptor import (
    BatchSpec,
    Constraints,
    Container,
    Image,
    JobDescriptor,
    JobGroup,
    Owner,
    RetryKind,
    RetryPolicy,
    ScalingPolicy,
    ServiceSpec,
)
from titus_celery.errors import InvalidRequest, TitusError
from titus_celery.grpc import convert
from titus_celery.grpc.convert_descriptor import LONGEST
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

UINT32: Final = 2**32 - 1
UINT64: Final = 2**64 - 1

SPEC: Final = BatchSpec(desired=1, container_id="main")


# ------------------------------------------------------------------------------ descriptors

_maps: Final = st.dictionaries(st.text(), st.text(), max_size=3)
_constraints: Final = st.builds(Constraints, constraints=_maps, expression=st.text())
_delays: Final = st.integers(0, LONGEST // timedelta(milliseconds=1)).map(
    lambda count: timedelta(milliseconds=count)
)
_uint32: Final = st.integers(0, UINT32)
_retries: Final = st.one_of(
    st.none(),
    st.builds(RetryPolicy, kind=st.just(RetryKind.IMMEDIATE), retries=_uint32),
    st.builds(
        RetryPolicy,
        kind=st.sampled_from([RetryKind.DELAYED, RetryKind.EXPONENTIAL]),
        retries=_uint32,
        delay_first=_delays,
        delay=_delays,
    ),
)
_containers: Final = st.builds(
    Container,
    image=st.builds(Image, name=st.text(), id=st.text()),
    resources=_maps,
    security_profile=_maps,
    parameters=_maps,
    entry_point=st.lists(st.text(), max_size=3).map(tuple),
    command=st.lists(st.text(), max_size=3).map(tuple),
    env=_maps,
    soft_constraints=_constraints,
    hard_constraints=_constraints,
)
_seconds: Final = st.integers(0, LONGEST // timedelta(seconds=1)).map(lambda count: timedelta(seconds=count))
_numbers: Final = {"desired": _uint32, "min": _uint32, "max": _uint32}
_batches: Final = st.builds(
    BatchSpec, **_numbers, runtime_limit=_seconds, retry=_retries, container_id=st.text()
)
_policies: Final = st.builds(
    ScalingPolicy, condition=st.text(), action=st.text(), duration=_seconds, labels=_maps
)
_services: Final = st.builds(
    ServiceSpec,
    **_numbers,
    enabled=st.booleans(),
    scaling=st.lists(_policies, max_size=2).map(tuple),
    retry=_retries,
    container_id=st.text(),
)
_descriptors: Final = st.builds(
    JobDescriptor,
    spec=_batches | _services,
    owner=st.builds(Owner, owner_email=st.text(), team_email=st.text()),
    app_name=st.text(),
    group=st.none() | st.builds(JobGroup, stack=st.text(), detail=st.text(), sequence=st.text()),
    labels=_maps,
    containers=st.dictionaries(st.text(), _containers, max_size=2),
)


@given(_descriptors)
def test_a_descriptor_survives_the_wire(descriptor: JobDescriptor) -> None:
    sent = convert.descriptor_to_pb(descriptor).SerializeToString()
    assert convert.descriptor_from_pb(pb.JobDescriptor.FromString(sent)) == descriptor


def test_each_field_goes_where_it_belongs() -> None:
    """The round trip alone would not notice two fields that are swapped in both directions."""
    message = pb.JobDescriptor(
        owner=pb.Owner(ownerEmail="o@x", teamEmail="t@x"),
        appName="app",
        jobGroupInfo=pb.JobGroupInfo(stack="s", detail="d", sequence="1"),
        labels={"l": "1"},
        containers={
            "main": pb.Container(
                resources={"cpu": "1"},
                securityProfile={"iamProfile": "p"},
                image=pb.Image(imageId="sha256:0", name="app:1"),
                parameters={"p": "1"},
                entryPoint=["/bin/app"],
                command=["-v"],
                env={"E": "1"},
                softConstraints=pb.Constraints(constraints={"zoneBalance": "true"}),
                hardConstraints=pb.Constraints(constraints={"uniqueHost": "true"}, expression="x"),
            )
        },
        batch=pb.BatchJobSpec(
            instances=pb.TaskInstances(min=1, max=3, desired=2),
            runtimeLimitSecs=60,
            retryPolicy=pb.RetryPolicy(
                delayed=pb.RetryPolicy.Delayed(initialDelayMs=1, delayMs=2, retries=3)
            ),
            containerId="main",
        ),
    )
    descriptor = JobDescriptor(
        owner=Owner(owner_email="o@x", team_email="t@x"),
        app_name="app",
        group=JobGroup(stack="s", detail="d", sequence="1"),
        labels={"l": "1"},
        containers={
            "main": Container(
                resources={"cpu": "1"},
                security_profile={"iamProfile": "p"},
                image=Image(id="sha256:0", name="app:1"),
                parameters={"p": "1"},
                entry_point=("/bin/app",),
                command=("-v",),
                env={"E": "1"},
                soft_constraints=Constraints(constraints={"zoneBalance": "true"}),
                hard_constraints=Constraints(constraints={"uniqueHost": "true"}, expression="x"),
            )
        },
        spec=BatchSpec(
            min=1,
            max=3,
            desired=2,
            runtime_limit=timedelta(seconds=60),
            retry=RetryPolicy(
                kind=RetryKind.DELAYED,
                retries=3,
                delay_first=timedelta(milliseconds=1),
                delay=timedelta(milliseconds=2),
            ),
            container_id="main",
        ),
    )
    assert convert.descriptor_from_pb(message) == descriptor
    assert convert.descriptor_to_pb(descriptor) == message


def test_exponential_back_off_keeps_its_cap_apart_from_its_first_delay() -> None:
    message = pb.RetryPolicy(
        exponentialBackOff=pb.RetryPolicy.ExponentialBackOff(
            initialDelayMs=1_000, maxDelayIntervalMs=30_000, retries=5
        )
    )
    policy = RetryPolicy(
        kind=RetryKind.EXPONENTIAL,
        retries=5,
        delay_first=timedelta(seconds=1),
        delay=timedelta(seconds=30),
    )
    assert convert.retry_from_pb(message) == policy
    assert convert.retry_to_pb(policy) == message


def test_what_is_unset_is_empty_in_the_model_and_left_to_validation() -> None:
    descriptor = convert.descriptor_from_pb(pb.JobDescriptor(batch=pb.BatchJobSpec()))
    assert descriptor == JobDescriptor(spec=BatchSpec(desired=0))
    assert isinstance(descriptor.spec, BatchSpec)
    assert descriptor.spec.retry is None


def test_a_retry_policy_of_no_kind_is_none() -> None:
    batch = pb.BatchJobSpec(retryPolicy=pb.RetryPolicy())
    assert convert.descriptor_from_pb(pb.JobDescriptor(batch=batch)).spec == BatchSpec(desired=0)


def test_without_a_job_spec_the_three_that_could_be_are_named() -> None:
    with pytest.raises(InvalidRequest) as refused:
        convert.descriptor_from_pb(pb.JobDescriptor(appName="app"))
    assert str(refused.value) == "batch: one of batch, service or mantis must be set"


def test_a_cluster_is_carried_over_as_it_is_named() -> None:
    message = pb.JobDescriptor(batch=pb.BatchJobSpec(), jobClusterId="c")
    assert convert.descriptor_from_pb(message).cluster_id == "c"
    assert convert.descriptor_to_pb(convert.descriptor_from_pb(message)).jobClusterId == "c"


# ---------------------------------------------------------------------------------- extremes

_edges64: Final = st.sampled_from([0, 1, 2**31, 2**63, UINT64]) | st.integers(0, UINT64)
_edges32: Final = st.sampled_from([0, 1, 2**31, UINT32]) | _uint32
_any_retry: Final = st.one_of(
    st.just(pb.RetryPolicy()),
    st.builds(
        lambda retries: pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=retries)), retries=_edges32
    ),
    st.builds(
        lambda first, then, retries: pb.RetryPolicy(
            delayed=pb.RetryPolicy.Delayed(initialDelayMs=first, delayMs=then, retries=retries)
        ),
        _edges64,
        _edges64,
        _edges32,
    ),
    st.builds(
        lambda first, most, retries: pb.RetryPolicy(
            exponentialBackOff=pb.RetryPolicy.ExponentialBackOff(
                initialDelayMs=first, maxDelayIntervalMs=most, retries=retries
            )
        ),
        _edges64,
        _edges64,
        _edges32,
    ),
)
_any_batch: Final = st.builds(
    lambda low, high, count, limit, retry, text: pb.BatchJobSpec(
        instances=pb.TaskInstances(min=low, max=high, desired=count),
        runtimeLimitSecs=limit,
        retryPolicy=retry,
        containerId=text,
    ),
    _edges32,
    _edges32,
    _edges32,
    _edges64,
    _any_retry,
    st.text(),
)


@given(_any_batch, st.text())
def test_numbers_of_any_size_are_taken_and_can_be_sent_back(batch: pb.BatchJobSpec, text: str) -> None:
    message = pb.JobDescriptor(batch=batch, appName=text, containers={text: pb.Container()})
    descriptor = convert.descriptor_from_pb(message)
    again = convert.descriptor_from_pb(convert.descriptor_to_pb(descriptor))
    assert again == descriptor


@given(st.binary(max_size=200))
def test_whatever_parses_gives_a_descriptor_or_an_error_of_ours(data: bytes) -> None:
    batch = pb.BatchJobSpec(containerId="main").SerializeToString()
    # Field 6 as bytes on the wire, so that most examples reach the conversion of a batch job.
    prefix = bytes([6 << 3 | 2, len(batch)]) + batch
    message = pb.JobDescriptor()
    try:
        message.MergeFromString(prefix + data)
    except DecodeError:  # gRPC answers these itself
        return
    try:
        assert isinstance(convert.descriptor_from_pb(message), JobDescriptor)
    except TitusError as error:
        assert str(error)


def test_durations_past_a_century_count_as_a_century() -> None:
    batch = pb.BatchJobSpec(
        runtimeLimitSecs=UINT64,
        retryPolicy=pb.RetryPolicy(
            delayed=pb.RetryPolicy.Delayed(initialDelayMs=UINT64, delayMs=UINT64, retries=UINT32)
        ),
    )
    spec = convert.descriptor_from_pb(pb.JobDescriptor(batch=batch)).spec
    assert isinstance(spec, BatchSpec)
    assert spec.runtime_limit == LONGEST
    assert spec.retry == RetryPolicy(
        kind=RetryKind.DELAYED, retries=UINT32, delay_first=LONGEST, delay=LONGEST
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(SPEC, desired=-1), "batch.instances.desired"),
        (replace(SPEC, min=UINT32 + 1), "batch.instances.min"),
        (replace(SPEC, max=-1), "batch.instances.max"),
        (replace(SPEC, runtime_limit=timedelta(seconds=-1)), "batch.runtimeLimitSecs"),
        (replace(SPEC, retry=RetryPolicy(retries=-1)), "batch.retryPolicy.immediate.retries"),
        (
            replace(SPEC, retry=RetryPolicy(kind=RetryKind.DELAYED, delay=timedelta(days=-1))),
            "batch.retryPolicy.delayed.delayMs",
        ),
        (
            replace(SPEC, retry=RetryPolicy(kind=RetryKind.EXPONENTIAL, delay_first=timedelta(days=-1))),
            "batch.retryPolicy.exponentialBackOff.initialDelayMs",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_the_wire_cannot_carry_are_refused_with_their_path(spec: BatchSpec, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        convert.descriptor_to_pb(JobDescriptor(spec=spec))
    assert [violation.field for violation in refused.value.violations] == [field]


def test_text_that_is_not_unicode_is_refused_without_repeating_it() -> None:
    """Command lines bring it along as lone surrogates."""
    container = Container(env={"TOKEN": "secret\udcff"})
    with pytest.raises(InvalidRequest, match="character 6") as refused:
        convert.descriptor_to_pb(JobDescriptor(spec=SPEC, containers={"main": container}))
    assert "secret" not in str(refused.value)


def test_a_fraction_of_a_second_does_not_become_no_limit() -> None:
    spec = replace(
        SPEC,
        runtime_limit=timedelta(milliseconds=1),
        retry=RetryPolicy(kind=RetryKind.DELAYED, delay_first=timedelta(microseconds=1)),
    )
    sent = convert.descriptor_to_pb(JobDescriptor(spec=spec)).batch
    assert (sent.runtimeLimitSecs, sent.retryPolicy.delayed.initialDelayMs) == (1, 1)
