"""Job files: YAML or JSON, one job a document, in one of two forms.

The short form covers what most jobs need (`shortform.py`). The full form is `JobDescriptor` in proto3
JSON, which `-o json` prints. A document that names one of the full form's own parts is in the full form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from yaml.nodes import Node

from titus_celery.cli import nodes, shortform
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["read"]

#: Names that only the full form has.
_FULL_MARKS: Final = frozenset({"containers", "batch", "service", "mantis", "jobClusterId"})


def read(content: str, name: str) -> list[pb.JobDescriptor]:
    """The jobs that a file describes; *name* is what messages call it. FileInvalid names the line."""
    documents = nodes.documents(content, name)
    if not documents:
        raise nodes.FileInvalid(name, "there is no job in it; it needs at least `image`")
    return [_job(document, name) for document in documents]


def _job(node: Node, file: str) -> pb.JobDescriptor:
    found = nodes.entries(node, file, "a job")
    if not _FULL_MARKS & found.keys():
        return shortform.job(node, found, file)
    data = _message(node, file, "the job", pb.JobDescriptor.DESCRIPTOR)
    try:
        return ParseDict(data, pb.JobDescriptor())
    except ParseError as error:
        # Two members of one `oneof`, a number past its range: what the walk does not look at.
        raise nodes.fault(node, file, f"the job cannot be used: {error}") from error


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
        return nodes.choice(node, file, what, list(field.enum_type.values_by_name))
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        return nodes.whole(node, file, what)
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        return nodes.whole(node, file, what, most=nodes.UINT64_MAX)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return nodes.flag(node, file, what)
    return nodes.text(node, file, what)
