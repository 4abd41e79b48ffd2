"""`titus submit`: the jobs of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import connect, with_server

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["submit"]

#: Bytes. A job is a few lines; what is larger is another kind of file.
FILE_MAX: Final = 4 * 1024 * 1024


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
    """
    descriptors = _read(file)
    ids = []
    with connect(server, owner) as client:
        for descriptor in descriptors:
            ids.append(client.submit(descriptor))
            click.echo(ids[-1])
    if not (wait or follow):
        return
    ctx.exit(next(filter(None, [_watched(each, follow, quiet, server, owner) for each in ids]), 0))


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
