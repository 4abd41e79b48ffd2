"""Clusters, Mantis jobs and firings between the wire and the model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.core.cluster import BUILT_IN, Cluster, ClusterDescriptor, Firing, MantisRules, Outcome
from titus_celery.core.descriptor import (
    BatchSpec,
    JobDescriptor,
    JobType,
    MantisAgreement,
    MantisSpec,
    Owner,
    RetryKind,
    RetryPolicy,
    ServiceSpec,
    Stage,
)
from titus_celery.core.model import ClusterId, JobId
from titus_celery.errors import InvalidRequest, TitusError
from titus_celery.grpc import convert, convert_clusters
from titus_celery.grpc.convert_descriptor import LONGEST
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

UINT32: Final = 2**32 - 1
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)

_uint32: Final = st.integers(0, UINT32)
_numbers: Final = {"desired": _uint32, "min": _uint32, "max": _uint32}
_maps: Final = st.dictionaries(st.text(), st.text(), max_size=3)
_seconds: Final = st.integers(0, LONGEST // timedelta(seconds=1)).map(lambda count: timedelta(seconds=count))
_retries: Final = st.none() | st.builds(RetryPolicy, retries=_uint32)
_stages: Final = st.builds(Stage, **_numbers, retry=_retries, container_id=st.text())
_agreements: Final = st.builds(
    MantisAgreement,
    runtime_limit=_seconds,
    min_runtime=_seconds,
    is_transient=st.booleans(),
    user_type=st.text(),
)
_mantis: Final = st.builds(
    MantisSpec,
    name=st.text(),
    stages=st.lists(_stages, max_size=3).map(tuple),
    agreement=_agreements,
    parameters=_maps,
    subscription_timeout=_seconds,
    enabled=st.just(True),
)
_specs: Final = _mantis | st.builds(BatchSpec, **_numbers) | st.builds(ServiceSpec, **_numbers)
_templates: Final = st.builds(JobDescriptor, spec=_specs, labels=_maps, app_name=st.text())
_rules: Final = st.builds(MantisRules, min=_uint32, max=_uint32, cron=st.text(), policy=st.text())
_common: Final[dict[str, Any]] = {
    "name": st.text(),
    "owner": st.builds(Owner, owner_email=st.text(), team_email=st.text()),
    "template": st.none() | _templates,
}
_clusters: Final = st.builds(
    ClusterDescriptor, kind=st.just(JobType.MANTIS), rules=_rules, enabled=st.booleans(), **_common
) | st.builds(ClusterDescriptor, kind=st.sampled_from([JobType.BATCH, JobType.SERVICE]), **_common)


@given(_clusters)
def test_a_cluster_survives_the_wire(cluster: ClusterDescriptor) -> None:
    sent = convert_clusters.cluster_descriptor_to_pb(cluster).SerializeToString()
    message = pb.JobClusterDescriptor.FromString(sent)
    assert convert_clusters.cluster_descriptor_from_pb(message) == cluster


@given(_mantis)
def test_a_mantis_job_survives_the_wire(spec: MantisSpec) -> None:
    sent = convert.descriptor_to_pb(JobDescriptor(spec=spec)).SerializeToString()
    assert convert.descriptor_from_pb(pb.JobDescriptor.FromString(sent)).spec == spec


def test_each_field_of_a_cluster_goes_where_it_belongs() -> None:
    """The round trip alone would not notice two fields that are swapped in both directions."""
    message = pb.JobClusterDescriptor(
        owner=pb.Owner(ownerEmail="o@x", teamEmail="t@x"),
        name="c",
        jobDescriptor=pb.JobDescriptor(
            appName="app",
            batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=2), containerId="main"),
        ),
        mantis=pb.MantisClusterSpec(
            enabled=True, min=1, max=2, cronSpec="0 0 * * * ?", cronPolicy="KEEP_NEW"
        ),
    )
    cluster = ClusterDescriptor(
        name="c",
        kind=JobType.MANTIS,
        owner=Owner(owner_email="o@x", team_email="t@x"),
        template=JobDescriptor(app_name="app", spec=BatchSpec(desired=2, container_id="main")),
        rules=MantisRules(min=1, max=2, cron="0 0 * * * ?", policy="KEEP_NEW"),
        enabled=True,
    )
    assert convert_clusters.cluster_descriptor_from_pb(message) == cluster
    assert convert_clusters.cluster_descriptor_to_pb(cluster) == message


def test_each_field_of_a_mantis_job_goes_where_it_belongs() -> None:
    message = pb.MantisJobSpec(
        name="m",
        jobSLA=pb.MantisJobSLA(
            runtimeLimitSecs=3, minRuntimeSecs=2, durationType=pb.MantisJobSLA.Transient, userProvidedType="t"
        ),
        parameters={"p": "1"},
        subscriptionTimeoutSecs=4,
        stages=[
            pb.MantisStage(
                instances=pb.TaskInstances(min=1, max=3, desired=2),
                containerId="main",
                retryPolicy=pb.RetryPolicy(
                    delayed=pb.RetryPolicy.Delayed(initialDelayMs=1_000, delayMs=2_000, retries=5)
                ),
            ),
            pb.MantisStage(containerId="second"),
        ],
    )
    first = Stage(
        desired=2,
        min=1,
        max=3,
        retry=RetryPolicy(
            kind=RetryKind.DELAYED,
            retries=5,
            delay_first=timedelta(seconds=1),
            delay=timedelta(seconds=2),
        ),
        container_id="main",
    )
    spec = MantisSpec(
        name="m",
        stages=(first, Stage(desired=0, container_id="second")),
        agreement=MantisAgreement(
            runtime_limit=timedelta(seconds=3),
            min_runtime=timedelta(seconds=2),
            is_transient=True,
            user_type="t",
        ),
        parameters={"p": "1"},
        subscription_timeout=timedelta(seconds=4),
    )
    assert convert.descriptor_from_pb(pb.JobDescriptor(mantis=message)).spec == spec
    sent = convert.descriptor_to_pb(JobDescriptor(spec=spec)).mantis
    message.stages[1].instances.SetInParent()
    assert sent == message


def test_a_scaling_policy_of_a_stage_is_seen() -> None:
    stage = pb.MantisStage(autoScalingPolicy=pb.MantisAutoScalingPolicy())
    spec = convert.descriptor_from_pb(pb.JobDescriptor(mantis=pb.MantisJobSpec(stages=[stage]))).spec
    assert isinstance(spec, MantisSpec)
    assert spec.stages[0].is_scaled


def test_only_a_mantis_cluster_is_disabled_unless_it_says_otherwise() -> None:
    for message, is_enabled in (
        (pb.JobClusterDescriptor(mantis=pb.MantisClusterSpec()), False),
        (pb.JobClusterDescriptor(mantis=pb.MantisClusterSpec(enabled=True)), True),
        (pb.JobClusterDescriptor(batch=pb.BatchClusterSpec()), True),
        (pb.JobClusterDescriptor(service=pb.ServiceClusterSpec()), True),
    ):
        assert convert_clusters.cluster_descriptor_from_pb(message).enabled is is_enabled


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (pb.JobClusterDescriptor(name="c"), "batch"),
        (
            pb.JobClusterDescriptor(batch=pb.BatchClusterSpec(), jobDescriptor=pb.JobDescriptor()),
            "jobDescriptor.batch",
        ),
    ],
)
def test_what_is_of_no_kind_is_refused_naming_the_three(message: pb.JobClusterDescriptor, path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        convert_clusters.cluster_descriptor_from_pb(message)
    assert str(refused.value) == f"{path}: one of batch, service or mantis must be set"


@given(st.binary(max_size=200))
def test_whatever_parses_gives_a_cluster_or_an_error_of_ours(data: bytes) -> None:
    message = pb.JobClusterDescriptor(mantis=pb.MantisClusterSpec(), jobDescriptor=pb.JobDescriptor())
    try:
        message.MergeFromString(data)
    except DecodeError:  # gRPC answers these itself
        return
    try:
        assert isinstance(convert_clusters.cluster_descriptor_from_pb(message), ClusterDescriptor)
    except TitusError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("rules", "field"), [(MantisRules(min=UINT32 + 1), "min"), (MantisRules(max=-1), "max")]
)
def test_numbers_that_the_wire_cannot_carry_are_refused_with_their_path(
    rules: MantisRules, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        convert_clusters.cluster_descriptor_to_pb(
            ClusterDescriptor(name="c", kind=JobType.MANTIS, rules=rules)
        )
    assert [violation.field for violation in refused.value.violations] == [f"mantis.{field}"]


@pytest.mark.parametrize("cluster", BUILT_IN.values(), ids=lambda cluster: cluster.descriptor.kind.value)
def test_the_built_in_clusters_can_be_told(cluster: Cluster) -> None:
    message = convert_clusters.cluster_to_pb(cluster)
    assert (message.id, message.descriptor.name) == (cluster.id, cluster.descriptor.name)
    assert convert_clusters.cluster_descriptor_from_pb(message.descriptor) == cluster.descriptor


def test_a_cluster_is_told_by_id_and_descriptor_alone() -> None:
    descriptor = ClusterDescriptor(name="c", kind=JobType.BATCH)
    cluster = Cluster(id=ClusterId("x"), descriptor=descriptor, created_by="ann", created_at=NOON, gate=7)
    message = pb.JobClusterDescriptor(name="c", batch=pb.BatchClusterSpec())
    assert convert_clusters.cluster_to_pb(cluster) == pb.JobCluster(id="x", descriptor=message)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_firing_is_told_with_all_that_became_of_it(outcome: Outcome) -> None:
    firing = Firing(
        at=NOON,
        until=NOON + timedelta(seconds=1),
        count=2,
        outcome=outcome,
        why="so",
        job_id=JobId("j"),
        decided_at=NOON + timedelta(seconds=2),
    )
    assert convert_clusters.firing_to_pb(firing) == v1.Firing(
        at="2026-03-01T12:00:00.000Z",
        until="2026-03-01T12:00:01.000Z",
        count=2,
        outcome=v1.Firing.Outcome.Value(outcome.name),
        why="so",
        job_id="j",
        decided_at="2026-03-01T12:00:02.000Z",
    )
