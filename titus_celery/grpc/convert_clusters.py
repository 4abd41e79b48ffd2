"""Clusters between the wire and the model."""

from __future__ import annotations

from titus_celery.core.cluster import Cluster, ClusterDescriptor, MantisRules
from titus_celery.core.descriptor import JobType, Owner
from titus_celery.grpc.convert_descriptor import descriptor_to_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["cluster_descriptor_to_pb", "cluster_to_pb"]


def cluster_to_pb(cluster: Cluster) -> pb.JobCluster:
    """The cluster as it goes over the wire."""
    return pb.JobCluster(id=cluster.id, descriptor=cluster_descriptor_to_pb(cluster.descriptor))


def cluster_descriptor_to_pb(descriptor: ClusterDescriptor) -> pb.JobClusterDescriptor:
    """*descriptor* as it goes over the wire."""
    owner, rules = descriptor.owner, descriptor.rules or MantisRules()
    message = pb.JobClusterDescriptor(name=descriptor.name)
    if owner != Owner():
        message.owner.CopyFrom(pb.Owner(ownerEmail=owner.owner_email, teamEmail=owner.team_email))
    if descriptor.template is not None:
        message.jobDescriptor.CopyFrom(descriptor_to_pb(descriptor.template))
    match descriptor.kind:
        case JobType.BATCH:
            message.batch.SetInParent()
        case JobType.SERVICE:
            message.service.SetInParent()
        case JobType.MANTIS:
            message.mantis.CopyFrom(
                pb.MantisClusterSpec(
                    enabled=descriptor.enabled,
                    min=rules.min,
                    max=rules.max,
                    cronSpec=rules.cron,
                    cronPolicy=rules.policy,
                )
            )
    return message
