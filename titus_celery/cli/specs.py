"""What the kinds of jobs have in common, in the messages of the API.

A job has *parts* that say how many tasks, how often each is tried and which container it runs: a batch
job and a service have one, a Mantis job has one for each of its stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["Part", "container_of", "is_scalable", "is_service", "parts_of", "stage_of", "wanted"]

Part = pb.BatchJobSpec | pb.ServiceJobSpec | pb.MantisStage


def is_service(descriptor: pb.JobDescriptor) -> bool:
    """Whether it is a service, which does not end by itself."""
    return descriptor.HasField("service")


def is_scalable(descriptor: pb.JobDescriptor) -> bool:
    """Whether its slots come and go with the number of tasks that are wanted: a service or a Mantis job."""
    return descriptor.HasField("service") or descriptor.HasField("mantis")


def parts_of(descriptor: pb.JobDescriptor) -> Sequence[Part]:
    """Its parts; those of a Mantis job are its stages in their order."""
    if descriptor.HasField("mantis"):
        return descriptor.mantis.stages
    return [descriptor.service if is_service(descriptor) else descriptor.batch]


def wanted(descriptor: pb.JobDescriptor) -> int:
    """How many tasks it is to have, in all of its parts."""
    return sum(part.instances.desired for part in parts_of(descriptor))


def container_of(descriptor: pb.JobDescriptor, part: Part) -> pb.Container:
    """What the tasks of a part run; nothing in particular if it does not say."""
    return descriptor.containers.get(part.containerId) or pb.Container()


def stage_of(context: Mapping[str, str]) -> int | None:
    """The stage to which a task with this taskContext belongs; None: its job has none."""
    stage = context.get("task.stage")
    return None if stage is None else int(stage)
