"""How messages of the server are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from titus_celery.cli.console import printable
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["bound", "is_over", "kind", "local_time", "print_facts", "print_json", "state"]

#: What the API calls an upper bound that is none.
_NO_BOUND: Final = (0, 2**31 - 1)
_OVER: Final = (pb.FINISHED, pb.FAILED)


def state(value: pb.JobState | pb.TaskState) -> str:
    """The name of a state."""
    return pb.State.Name(value.state)


def is_over(job: pb.Job) -> bool:
    """Whether the job has ended."""
    return job.jobState.state in _OVER


def kind(descriptor: pb.JobDescriptor) -> str:
    """batch, service or mantis."""
    return descriptor.WhichOneof("jobSpec") or ""


def bound(most: int) -> str:
    """An upper bound in words."""
    return "unbounded" if most in _NO_BOUND else str(most)


def local_time(timestamp: str) -> str:
    """A time of the server, in the zone of this machine, to the second."""
    return datetime.fromisoformat(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values, without those that have none."""
    given = {name: value for name, value in facts.items() if value}
    width = max(map(len, given))
    for name, value in given.items():
        click.echo(f"{name:<{width}}  {printable(value)}")


def print_json(found: Message | Sequence[Message]) -> None:
    """Print in proto3 JSON, fields without a value too; several messages as one list."""
    data = [_plain(each) for each in found] if isinstance(found, Sequence) else _plain(found)
    click.echo(json.dumps(data, indent=2))


def _plain(message: Message) -> dict[str, object]:
    plain: dict[str, object] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return plain
