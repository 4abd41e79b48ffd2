"""Mantis jobs in the short form of job files: stages, each described as a job is, or just one.

What is said of a stage is read as it is of a service (`shortform.py`), and then put into its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yaml.nodes import Node, ScalarNode

from titus_celery.cli import nodes, quantities, shortform
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["TYPE", "add_stage", "is_meant", "job"]

TYPE: Final = "mantis"
_STAGES: Final = "stages"
_PARAMETERS: Final = "parameters"
#: What is said of the job as a whole, and put there as for any other job.
_OF_JOB: Final = ("name", "appName", "owner", "labels", "jobGroupInfo")
#: What is said of each stage, or of the job that is one.
_OF_STAGE: Final = tuple(name for name in shortform.NAMES if name not in (*_OF_JOB, "type", "timeout"))

_Entries = Mapping[str, tuple[ScalarNode, Node]]


def is_meant(found: _Entries) -> bool:
    """Whether these are the entries of a Mantis job."""
    kind = found["type"][1] if "type" in found else None
    return _STAGES in found or (isinstance(kind, ScalarNode) and kind.value == TYPE)


def job(node: Node, found: _Entries, file: str, name: str = "") -> pb.JobDescriptor:
    """The Mantis job of a document, called *name* unless it says otherwise. FileInvalid names the line."""
    names = (*shortform.NAMES, _STAGES)
    values = nodes.known(found, names, file, "a job")
    kind = values.pop("type", None)
    if kind is not None and nodes.text(kind, file, "type") != TYPE:
        raise nodes.fault(kind, file, f"`{_STAGES}` make it a Mantis job; write `type: {TYPE}`, or no type")
    whole: dict[str, Node] = {key: values.pop(key) for key in _OF_JOB if key in values}
    made = pb.JobDescriptor(appName=name)
    made.MergeFrom(_whole(whole, file))
    if not made.appName:
        raise nodes.fault(node, file, "a Mantis job needs a `name`")
    made.mantis.name = made.appName
    if "timeout" in values:
        made.mantis.jobSLA.runtimeLimitSecs = _seconds(values.pop("timeout"), file)
    if _STAGES not in values:
        _add(made, node, values, file, "the job")
        return made
    stages = nodes.items(values.pop(_STAGES), file, _STAGES)
    if not stages:
        raise nodes.fault(node, file, f"there is no stage in `{_STAGES}`; each needs at least `image`")
    if _PARAMETERS in values:
        made.mantis.parameters.update(nodes.texts(values.pop(_PARAMETERS), file, _PARAMETERS))
    for key in values:
        raise nodes.fault(found[key][0], file, f"`{key}` belongs into each of the `{_STAGES}`")
    for stage in stages:
        entries = nodes.entries(stage, file, "a stage")
        _add(made, stage, nodes.known(entries, _OF_STAGE, file, "a stage"), file, "the stage")
    return made


def add_stage(job: pb.JobDescriptor, container: pb.Container) -> pb.MantisStage:
    """A new stage of the job, which runs this container."""
    stages = job.mantis.stages
    container_id = f"stage-{len(stages)}" if stages else shortform.CONTAINER_ID
    job.containers[container_id].CopyFrom(container)
    return stages.add(containerId=container_id)


def _add(made: pb.JobDescriptor, node: Node, values: Mapping[str, Node], file: str, what: str) -> None:
    if "image" not in values:
        raise nodes.fault(node, file, f"{what} has no `image`")
    read = shortform.put(values, file, "service")
    if read.service.instances.desired == 0:
        raise nodes.fault(values["instances"], file, "a stage begins with one task at least")
    stage = add_stage(made, read.containers[shortform.CONTAINER_ID])
    stage.instances.CopyFrom(read.service.instances)
    if read.service.HasField("retryPolicy"):
        stage.retryPolicy.CopyFrom(read.service.retryPolicy)


def _whole(values: Mapping[str, Node], file: str) -> pb.JobDescriptor:
    """What is said of the job as a whole."""
    read = shortform.put(values, file, "service")
    read.ClearField("service")
    read.ClearField("containers")
    return read


def _seconds(node: Node, file: str) -> int:
    try:
        return quantities.seconds(nodes.text(node, file, "timeout"))
    except ValueError as error:
        raise nodes.fault(node, file, f"timeout: {error}") from error
