"""Job files: YAML or JSON, one job a document, in one of two forms.

The short form covers what most jobs need (image, command, env, cpu, memory, instances, retries,
timeout, ...). The full form is `JobDescriptor` in proto3 JSON, which `-o json` prints. A document
that names one of the full form's own parts is in the full form.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from yaml.nodes import MappingNode, Node, SequenceNode

from titus_celery.cli import nodes, quantities
from titus_celery.core import resources
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["CONTAINER_ID", "read"]

#: The name of the one container of a job in the short form.
CONTAINER_ID: Final = "main"

#: Names that only the full form has.
_FULL_MARKS: Final = frozenset({"containers", "batch", "service", "mantis", "jobGroupInfo", "jobClusterId"})


def read(content: str, name: str) -> list[pb.JobDescriptor]:
    """The jobs that a file describes; *name* is what messages call it. FileInvalid names the line."""
    documents = nodes.documents(content, name)
    if not documents:
        raise nodes.FileInvalid(name, "there is no job in it; it needs at least `image`")
    return [_job(document, name) for document in documents]


def _job(node: Node, file: str) -> pb.JobDescriptor:
    found = nodes.entries(node, file, "a job")
    if _FULL_MARKS & found.keys():
        data = _message(node, file, "the job", pb.JobDescriptor.DESCRIPTOR)
        try:
            return ParseDict(data, pb.JobDescriptor())
        except ParseError as error:
            # Two members of one `oneof`, a number past its range: what the walk does not look at.
            raise nodes.fault(node, file, f"the job cannot be used: {error}") from error
    values = nodes.known(found, _SHORT, file, "a job")
    if "image" not in values:
        raise nodes.fault(node, file, "the job has no `image`")
    if "name" in values and "appName" in values:
        raise nodes.fault(values["appName"], file, "`name` and `appName` mean the same; give one of them")
    job = pb.JobDescriptor(
        batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=1), containerId=CONTAINER_ID)
    )
    # An empty container would otherwise not come into being when nothing is set in it.
    job.containers[CONTAINER_ID].SetInParent()
    for name, value in values.items():
        _SHORT[name](job, value, file, name)
    return job


# ------------------------------------------------------------------------------------------- short form


def _image(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    image = nodes.text(node, file, name)
    if image.startswith("sha256:"):
        job.containers[CONTAINER_ID].image.imageId = image
    else:
        job.containers[CONTAINER_ID].image.name = image


def _words(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    words = job.containers[CONTAINER_ID].command
    if name == "entryPoint":
        words = job.containers[CONTAINER_ID].entryPoint
    if isinstance(node, SequenceNode):
        words.extend(nodes.text(item, file, f"each word of {name}") for item in node.value)
        return
    try:
        words.extend(shlex.split(nodes.text(node, file, name)))
    except ValueError as error:
        raise nodes.fault(node, file, f"{name} cannot be split into words: {error}") from error


def _env(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    job.containers[CONTAINER_ID].env.update(nodes.texts(node, file, name))


def _amount(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    written = nodes.text(node, file, name)
    measure = resources.cpu_millis if name == resources.CPU else resources.memory_bytes
    try:
        measure(written)
    except ValueError as error:
        raise nodes.fault(node, file, f"{name}: {error}") from error
    job.containers[CONTAINER_ID].resources[name] = written


def _instances(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    job.batch.instances.desired = nodes.whole(node, file, name, least=1)


def _timeout(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    try:
        job.batch.runtimeLimitSecs = quantities.seconds(nodes.text(node, file, name))
    except ValueError as error:
        raise nodes.fault(node, file, f"{name}: {error}") from error


def _app_name(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    job.appName = nodes.text(node, file, name)


def _owner(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    job.owner.ownerEmail = job.owner.teamEmail = nodes.text(node, file, name)


def _labels(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    job.labels.update(nodes.texts(node, file, name))


#: The kinds of retry policy in a file: what each is called in the contract, and its delays there.
_RETRIES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "immediate": ("immediate", {}),
    "delayed": ("delayed", {"initialDelay": "initialDelayMs", "delay": "delayMs"}),
    "exponential": (
        "exponentialBackOff",
        {"initialDelay": "initialDelayMs", "maxDelay": "maxDelayIntervalMs"},
    ),
}


def _retries(job: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    policy = job.batch.retryPolicy
    if not isinstance(node, MappingNode):
        policy.immediate.retries = nodes.whole(node, file, name)
        return
    kinds = nodes.known(nodes.entries(node, file, name), _RETRIES, file, name)
    if len(kinds) != 1:
        raise nodes.fault(node, file, f"{name} needs exactly one of {', '.join(_RETRIES)}")
    [(kind, body)] = kinds.items()
    field, delays = _RETRIES[kind]
    what = f"{name}.{kind}"
    values = nodes.known(nodes.entries(body, file, what), ("retries", *delays), file, what)
    if "retries" not in values:
        raise nodes.fault(body, file, f"{what} does not say how many `retries`")
    chosen = getattr(policy, field)
    chosen.retries = nodes.whole(values.pop("retries"), file, f"{what}.retries")
    for delay, value in values.items():
        try:
            length = quantities.span(nodes.text(value, file, f"{what}.{delay}"))
        except ValueError as error:
            raise nodes.fault(value, file, f"{what}.{delay}: {error}") from error
        setattr(chosen, delays[delay], round(length.total_seconds() * 1000))


_Setter = Callable[[pb.JobDescriptor, Node, str, str], None]

#: The short form: each name, and who puts its value into the descriptor.
_SHORT: Final[Mapping[str, _Setter]] = {
    "image": _image,
    "command": _words,
    "entryPoint": _words,
    "env": _env,
    "cpu": _amount,
    "memory": _amount,
    "instances": _instances,
    "retries": _retries,
    "timeout": _timeout,
    "name": _app_name,
    "appName": _app_name,
    "owner": _owner,
    "labels": _labels,
}


# -------------------------------------------------------------------------------------------- full form


def _message(node: Node, file: str, what: str, kind: Descriptor) -> dict[str, object]:
    values = nodes.known(nodes.entries(node, file, what), kind.fields_by_name, file, what)
    return {name: _field(value, file, name, kind.fields_by_name[name]) for name, value in values.items()}


def _field(node: Node, file: str, what: str, field: FieldDescriptor) -> object:
    one: Callable[[Node, str, str], object] = partial(_single, field=field)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = kind.fields_by_name["value"]
        return {
            key: _single(entry, file, f"{what}.{key}", field=value)
            for key, (_, entry) in nodes.entries(node, file, what).items()
        }
    if field.is_repeated:
        return [one(item, file, f"each of {what}") for item in nodes.items(node, file, what)]
    return one(node, file, what)


def _single(node: Node, file: str, what: str, *, field: FieldDescriptor) -> object:
    if field.message_type is not None:
        return _message(node, file, what, field.message_type)
    if field.enum_type is not None:
        names = field.enum_type.values_by_name
        word = nodes.text(node, file, what)
        if word not in names:
            raise nodes.fault(node, file, f"{what} must be one of {', '.join(names)}, but is {word!r}")
        return word
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        return nodes.whole(node, file, what)
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        return nodes.whole(node, file, what, most=nodes.UINT64_MAX)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return nodes.flag(node, file, what)
    return nodes.text(node, file, what)
