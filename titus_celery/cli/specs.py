"""What batch jobs and services have in common, in the messages of the API."""

from __future__ import annotations

from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["container_of", "is_service", "spec_of"]


def is_service(descriptor: pb.JobDescriptor) -> bool:
    """Whether it is a service, which does not end by itself."""
    return descriptor.HasField("service")


def spec_of(descriptor: pb.JobDescriptor) -> pb.BatchJobSpec | pb.ServiceJobSpec:
    """The part that says how many tasks, how often and which container; all of it can be set."""
    return descriptor.service if is_service(descriptor) else descriptor.batch


def container_of(descriptor: pb.JobDescriptor) -> pb.Container:
    """What its tasks run; nothing in particular if it does not say."""
    return descriptor.containers.get(spec_of(descriptor).containerId) or pb.Container()
