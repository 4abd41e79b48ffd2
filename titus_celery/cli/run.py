"""`titus run`: a command in a container, as if it ran here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from titus_celery.cli import console
from titus_celery.cli.describe import Describing, Wanted, describing
from titus_celery.cli.options import connect, epilog, once_told, with_cluster, with_key, with_owner

if TYPE_CHECKING:
    from titus_celery.client import TitusClient
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["run"]

_EPILOG = epilog(
    {
        "titus run titus/hello -- echo hello": "its output and exit code become yours",
        "titus run -d --retries 2 IMAGE -- ./work": "print the job's id and leave it to itself",
        "titus run --instances 3 -e A=1 IMAGE -- ./work": "three containers, output by line",
        "titus run --cluster web IMAGE": "into the cluster of that name",
        "titus run --service -p 8080 --instances 2 IMAGE": "two that are started again when they end",
    },
    {
        "N": "the container's own; of several the first that is not 0",
        "0": "with -d and --service: the job was accepted",
        "2": "the command line is wrong",
        "124": "it ran into its run-time limit",
        "125": "titus could not run it; standard error says why",
        "128+n": "signal n ended it",
        "130": "Ctrl-C",
    },
)


@click.command(cls=Describing, epilog=_EPILOG)
@describing
@click.option("--detach", "-d", is_flag=True, help="Print the job's id and leave it to itself.")
@with_cluster
@with_key
@click.option("--quiet", "-q", is_flag=True, help="The containers' output (or the id) alone.")
@with_owner
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    detach: bool,
    cluster: str | None,
    key: str | None,
    quiet: bool,
    server: str,
    owner: str,
    image: str,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """Run COMMAND in a container of IMAGE and show what it writes.

    Standard output and error come through unchanged; several instances are marked by line. What
    happens is told on standard error. Ctrl-C ends the job; a second one leaves it running and prints
    its id.

    A job is tried again as often as --retries says if it fails, and then it is over (docker's
    --restart=on-failure:N). With --service it never is by itself (docker's --restart=always), so its id
    is printed and it is left to itself, as with -d. With --cluster of Mantis jobs it becomes one of a single
    stage.
    """
    from titus_celery.cli.follow import Follower
    from titus_celery.cli.watch import watch

    wanted = Wanted(**options)
    tell = console.silent if quiet else console.note
    with connect(server, owner) as client:
        job = _job(client, cluster, wanted, image, command)
        job_id = client.submit(job, key, on_wait=once_told(tell))
        if wanted.is_service or detach:
            click.echo(job_id)
            if wanted.is_service:
                tell(f"a service, kept running until `titus kill {job_id}`")
            return
        tell(f"job {job_id}")
        ctx.exit(watch(client, job_id, Follower(job_id), note=tell))


def _job(
    client: TitusClient, cluster: str | None, wanted: Wanted, image: str, command: Sequence[str]
) -> pb.JobDescriptor:
    """The job that is wanted, as one of the cluster if that is named."""
    from titus_celery.cli.cluster_lookup import look_up_cluster

    if cluster is None:
        return wanted.descriptor(image, command)
    found = look_up_cluster(client, cluster)
    if found.descriptor.HasField("mantis"):
        name = wanted.app_name or found.descriptor.name
        # As of any other job here, what fails is over unless more is asked for.
        job = replace(wanted, app_name=name, retries=wanted.retries or 0).staged(image, command)
    else:
        job = wanted.descriptor(image, command)
    job.jobClusterId = found.id
    return job
