"""`titus run`: a command in a container, as if it ran here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from titus_celery.cli import console
from titus_celery.cli.options import connect, with_server

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["run"]


def _checked(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """What the option holds, if its parser accepts it; its ValueError says what is wrong."""
    from titus_celery.cli import quantities
    from titus_celery.core import resources

    parsers: dict[str | None, Callable[[str], int]] = {
        "cpu": resources.cpu_millis,
        "memory": resources.memory_bytes,
        "timeout": quantities.seconds,
    }
    try:
        if value is not None:
            parsers[param.name](value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


class _Run(click.Command):
    """Says what to do about `titus run IMAGE sh -c ...`, whose -c would be ours."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The order in which it reads best."""
        return ["IMAGE", "[OPTIONS]", "[-- COMMAND...]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As usual, with a hint."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = f"{error.message} Write -- before the command for the container."
            raise click.UsageError(hint, ctx) from error


@click.command(cls=_Run)
@click.option("--env", "-e", multiple=True, metavar="K=V", help="Set an environment variable. Repeatable.")
@click.option("--cpu", callback=_checked, help="Cores, such as 0.5.  [default: the server's]")
@click.option("--memory", callback=_checked, help="Memory, such as 256MiB.  [default: the server's]")
@click.option(
    "--instances", type=click.IntRange(1, 2**32 - 1), default=1, show_default=True, help="How many tasks."
)
@click.option(
    "--retries", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Retries of each task."
)
@click.option("--timeout", callback=_checked, help="Longest run of a task, such as 10m.")
@click.option("--name", "app_name", metavar="APP", default="", help="A name for the job.")
@click.option("--quiet", "-q", is_flag=True, help="The containers' output alone.")
@with_server
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    env: tuple[str, ...],
    cpu: str | None,
    memory: str | None,
    instances: int,
    retries: int,
    timeout: str | None,
    app_name: str,
    quiet: bool,
    server: str,
    owner: str,
    image: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a container of IMAGE and show what it writes.

    Standard output and error come through unchanged; several instances are marked by line. What
    happens is told on standard error. The exit code is the container's (of several: the first that
    is not 0); 124 is a run-time limit, 128+n signal n, 125 that titus could not run it.

    Ctrl-C ends the job; a second one leaves it running and prints its id.
    """
    from titus_celery.cli.follow import Follower
    from titus_celery.cli.watch import watch

    job = _descriptor(image, command, env, cpu=cpu, memory=memory, timeout=timeout)
    job.appName = app_name
    job.batch.instances.desired = instances
    if retries:
        job.batch.retryPolicy.immediate.retries = retries
    with connect(server, owner) as client:
        job_id = client.submit(job)
        if not quiet:
            console.note(f"job {job_id}")
        tell = console.silent if quiet else console.note
        ctx.exit(watch(client, job_id, Follower(job_id), note=tell))


def _descriptor(
    image: str,
    command: tuple[str, ...],
    env: tuple[str, ...],
    *,
    cpu: str | None,
    memory: str | None,
    timeout: str | None,
) -> pb.JobDescriptor:
    from titus_celery.cli import quantities
    from titus_celery.cli.jobfile import CONTAINER_ID
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

    is_id = image.startswith("sha256:")
    # Only what was asked for is sent: the defaults are the server's.
    container = pb.Container(
        image=pb.Image(imageId=image) if is_id else pb.Image(name=image),
        command=command,
        env=dict(_variable(entry) for entry in env),
        resources={kind: amount for kind, amount in (("cpu", cpu), ("memory", memory)) if amount},
    )
    job = pb.JobDescriptor(
        containers={CONTAINER_ID: container}, batch=pb.BatchJobSpec(containerId=CONTAINER_ID)
    )
    if timeout:
        job.batch.runtimeLimitSecs = quantities.seconds(timeout)
    return job


def _variable(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint="--env")
    return name, value
