"""How messages of the server are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["local_time", "print_json", "state"]


def state(value: pb.JobState | pb.TaskState) -> str:
    """The name of a state."""
    return pb.State.Name(value.state)


def local_time(timestamp: str) -> str:
    """A time of the server, in the zone of this machine, to the second."""
    return datetime.fromisoformat(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_json(found: Message | Sequence[Message]) -> None:
    """Print in proto3 JSON, fields without a value too; several messages as one list."""
    data = [_plain(each) for each in found] if isinstance(found, Sequence) else _plain(found)
    click.echo(json.dumps(data, indent=2))


def _plain(message: Message) -> dict[str, object]:
    plain: dict[str, object] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return plain
