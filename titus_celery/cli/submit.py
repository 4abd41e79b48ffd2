"""`titus submit`: the jobs of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from titus_celery.cli import console
from titus_celery.cli.console import Fault
from titus_celery.cli.options import connect, with_server

if TYPE_CHECKING:
    from titus_celery.client import TitusClient
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["submit"]

#: Bytes. A job is a few lines; what is larger is another kind of file.
FILE_MAX: Final = 4 * 1024 * 1024
#: Statuses of a call that may have been carried out all the same.
_UNSURE: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN"})


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--quiet", "-q", is_flag=True, help="Print the ids and nothing else.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is that of `titus run`.")
@click.option("--follow", is_flag=True, help="Wait, and show what the containers write.")
@with_server
@click.pass_context
def submit(
    ctx: click.Context, file: BinaryIO, quiet: bool, wait: bool, follow: bool, server: str, owner: str
) -> None:
    """Submit the jobs of FILE (- for standard input) and print their ids.

    FILE is YAML or JSON, one job a document, either short (image, command, env, cpu, memory,
    instances, retries, timeout, name, owner, labels) or a whole JobDescriptor in proto3 JSON.

    \b
      image: titus/hello
      command: echo hello
      instances: 3
      retries: 2
      timeout: 10m

    Nothing is submitted if one document is wrong. If the server refuses one, those before it stay
    submitted, and it is said which. --wait and --follow go through several jobs one after another,
    so of output that the server keeps only for a while (after the end of a task) some may be gone.
    """
    descriptors = _read(file)
    with connect(server, owner) as client:
        ids = _submitted(client, descriptors)
    if not (wait or follow):
        return
    ctx.exit(next(filter(None, [_watched(each, follow, quiet, server, owner) for each in ids]), 0))


def _submitted(client: TitusClient, descriptors: Sequence[pb.JobDescriptor]) -> list[str]:
    """The ids of the jobs, printed as they come. Fault says how far it came when one fails."""
    from titus_celery.client import CallFailed

    ids: list[str] = []
    for number, descriptor in enumerate(descriptors, 1):
        try:
            ids.append(client.submit(descriptor))
        except CallFailed as error:
            if len(descriptors) == 1:
                raise
            done = ", ".join(f"document {at} is job {id}" for at, id in enumerate(ids, 1))
            left = [f"document {at}" for at in range(number, len(descriptors) + 1)]
            if error.status in _UNSURE:
                left[0] += " (or it was, and the answer was lost: see `titus ls`)"
            raise Fault(
                f"document {number} of {len(descriptors)}: {error}",
                f"submitted: {done or 'none'}",
                f"not submitted: {', '.join(left)}",
            ) from error
        click.echo(ids[-1])
    return ids


def _read(file: BinaryIO) -> list[pb.JobDescriptor]:
    from titus_celery.cli import jobfile
    from titus_celery.cli.nodes import FileInvalid

    name = getattr(file, "name", "-")
    content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise FileInvalid(name, f"larger than {FILE_MAX // 2**20} MiB; this is no job file")
    try:
        return jobfile.read(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileInvalid(f"{name}:{line}", "this is not UTF-8 text") from error


def _watched(job_id: str, follow: bool, quiet: bool, server: str, owner: str) -> int:
    from titus_celery.cli.follow import Follower
    from titus_celery.cli.watch import watch

    tell = console.silent if quiet else console.note
    with connect(server, owner) as client:
        return watch(client, job_id, Follower(job_id, with_output=follow), note=tell)
