"""Job files: YAML or JSON, one job a document, in one of two forms.

The short form covers what most jobs need (`shortform.py`, `staged.py`). The full form is `JobDescriptor` in
proto3 JSON, which `-o json` prints. A document that names one of its own parts is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import BinaryIO, Final, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from yaml.nodes import Node

from titus_celery.cli import nodes, shortform, staged
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["content_of", "is_full", "job", "message", "read"]

#: Bytes. A job is a few lines; what is larger is another kind of file.
FILE_MAX: Final = 4 * 1024 * 1024

M = TypeVar("M", bound=Message)

#: Names that only the full form has.
_FULL_MARKS: Final = frozenset({"containers", "batch", "service", "mantis", "jobClusterId"})


def content_of(file: BinaryIO) -> tuple[str, str]:
    """The text of a file, and what messages call it. FileInvalid if it is no text, or far too long."""
    name = str(getattr(file, "name", "-"))
    content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise nodes.FileInvalid(name, f"larger than {FILE_MAX // 2**20} MiB; this is no job file")
    try:
        return content.decode("utf-8-sig"), name
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise nodes.FileInvalid(f"{name}:{line}", "this is not UTF-8 text") from error


def read(content: str, name: str) -> list[pb.JobDescriptor]:
    """The jobs that a file describes; *name* is what messages call it. FileInvalid names the line."""
    documents = nodes.documents(content, name)
    if not documents:
        raise nodes.FileInvalid(name, "there is no job in it; it needs at least `image`")
    return [job(document, name) for document in documents]


def job(node: Node, file: str, name: str = "") -> pb.JobDescriptor:
    """The job of a document, in either form; a Mantis job in the short form is called *name* by default."""
    found = nodes.entries(node, file, "a job")
    if not is_full(found):
        if staged.is_meant(found):
            return staged.job(node, found, file, name)
        return shortform.job(node, found, file)
    return message(node, file, "the job", pb.JobDescriptor())


def is_full(found: Mapping[str, object]) -> bool:
    """Whether these are the entries of a job in the full form."""
    return bool(_FULL_MARKS & found.keys())


def message(node: Node, file: str, what: str, into: M) -> M:
    """*into*, with what the proto3 JSON at *node* says. FileInvalid names the line."""
    data = _message(node, file, what, cast(Descriptor, into.DESCRIPTOR))
    try:
        return ParseDict(data, into)
    except ParseError as error:
        # Two members of one `oneof`, a number past its range: what the walk does not look at.
        raise nodes.fault(node, file, f"{what} cannot be used: {error}") from error


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
