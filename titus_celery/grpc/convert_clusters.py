"""Job clusters and their schedules between the wire and the model.

Like convert_descriptor.py it carries over and does not judge. Field paths are those of the cluster's
descriptor, so what is wrong with its template begins with `jobDescriptor.` (docs/semantics.md B1.1).
"""

from __future__ import annotations

from typing import Final, TypedDict

from titus_celery.core.cluster import Cluster, ClusterDescriptor, Firing, MantisRules, Outcome
from titus_celery.core.descriptor import JobDescriptor, JobType, Owner
from titus_celery.errors import InvalidRequest, Violation
from titus_celery.grpc.convert import timestamp
from titus_celery.grpc.convert_descriptor import (
    UINT32_MAX,
    descriptor_from_pb,
    descriptor_to_pb,
    owner_to_pb,
    uint,
)
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "cluster_descriptor_from_pb",
    "cluster_descriptor_to_pb",
    "cluster_to_pb",
    "firing_to_pb",
]

_TEMPLATE: Final = "jobDescriptor"
_OUTCOMES: Final = {
    Outcome.FIRED: v1.Firing.FIRED,
    Outcome.SKIPPED: v1.Firing.SKIPPED,
    Outcome.MISSED: v1.Firing.MISSED,
}


def cluster_descriptor_from_pb(message: pb.JobClusterDescriptor) -> ClusterDescriptor:
    """The cluster that *message* describes; nothing is filled in, nothing is checked.

    InvalidRequest if it, or its template, is of no kind. Only a Mantis cluster is described with being
    enabled or not, and is not unless it says so; the others are enabled (docs/semantics.md B6.1).
    """
    kind = _kind_of(message)
    mantis = message.mantis if kind is JobType.MANTIS else None
    return ClusterDescriptor(
        name=message.name,
        kind=kind,
        owner=Owner(owner_email=message.owner.ownerEmail, team_email=message.owner.teamEmail),
        template=_template_from_pb(message.jobDescriptor) if message.HasField("jobDescriptor") else None,
        rules=None if mantis is None else _rules_from_pb(mantis),
        enabled=mantis is None or mantis.enabled,
    )


def cluster_descriptor_to_pb(descriptor: ClusterDescriptor) -> pb.JobClusterDescriptor:
    """*descriptor* as it goes over the wire; InvalidRequest as in `descriptor_to_pb`.

    Whether a cluster of batch or service jobs is enabled has no place there.
    """
    return pb.JobClusterDescriptor(
        owner=owner_to_pb(descriptor.owner),
        name=descriptor.name,
        jobDescriptor=None if descriptor.template is None else descriptor_to_pb(descriptor.template),
        **_spec_to_pb(descriptor),
    )


def cluster_to_pb(cluster: Cluster) -> pb.JobCluster:
    """The cluster with the descriptor that is in effect."""
    return pb.JobCluster(id=cluster.id, descriptor=cluster_descriptor_to_pb(cluster.descriptor))


def firing_to_pb(firing: Firing) -> v1.Firing:
    """What became of a time of a schedule."""
    return v1.Firing(
        at=timestamp(firing.at),
        until=timestamp(firing.until),
        count=firing.count,
        outcome=_OUTCOMES[firing.outcome],
        why=firing.why,
        job_id=firing.job_id or "",
        decided_at=timestamp(firing.decided_at),
    )


def _kind_of(message: pb.JobClusterDescriptor) -> JobType:
    match message.WhichOneof("clusterSpec"):
        case "batch":
            return JobType.BATCH
        case "service":
            return JobType.SERVICE
        case "mantis":
            return JobType.MANTIS
        case None:
            raise InvalidRequest([Violation("batch", "one of batch, service or mantis must be set")])


def _template_from_pb(message: pb.JobDescriptor) -> JobDescriptor:
    try:
        return descriptor_from_pb(message)
    except InvalidRequest as error:
        within = [Violation(f"{_TEMPLATE}.{each.field}", each.text) for each in error.violations]
        raise InvalidRequest(within) from None


def _rules_from_pb(message: pb.MantisClusterSpec) -> MantisRules:
    return MantisRules(min=message.min, max=message.max, cron=message.cronSpec, policy=message.cronPolicy)


class _Spec(TypedDict, total=False):
    """The one member that a cluster's kind becomes."""

    batch: pb.BatchClusterSpec
    service: pb.ServiceClusterSpec
    mantis: pb.MantisClusterSpec


def _spec_to_pb(descriptor: ClusterDescriptor) -> _Spec:
    match descriptor.kind:
        case JobType.BATCH:
            return {"batch": pb.BatchClusterSpec()}
        case JobType.SERVICE:
            return {"service": pb.ServiceClusterSpec()}
        case JobType.MANTIS:
            rules = descriptor.rules or MantisRules()
            return {
                "mantis": pb.MantisClusterSpec(
                    enabled=descriptor.enabled,
                    min=uint(rules.min, UINT32_MAX, "mantis.min"),
                    max=uint(rules.max, UINT32_MAX, "mantis.max"),
                    cronSpec=rules.cron,
                    cronPolicy=rules.policy,
                )
            }
