"""`titus run`: a command in a container, as if it ran here."""

from __future__ import annotations

from typing import Any

import click

from titus_celery.cli import console
from titus_celery.cli.describe import Wanted, describing
from titus_celery.cli.options import connect, epilog, once_told, with_key, with_owner

__all__ = ["run"]

_EPILOG = epilog(
    {
        "titus run titus/hello -- echo hello": "its output and exit code become yours",
        "titus run -d --retries 2 IMAGE -- ./work": "print the job's id and leave it to itself",
        "titus run --instances 3 -e A=1 IMAGE -- ./work": "three containers, output by line",
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


@click.command(cls=_Run, epilog=_EPILOG)
@describing
@click.option("--detach", "-d", is_flag=True, help="Print the job's id and leave it to itself.")
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
    is printed and it is left to itself, as with -d.
    """
    from titus_celery.cli.follow import Follower
    from titus_celery.cli.watch import watch

    wanted = Wanted(**options)
    job = wanted.descriptor(image, command)
    tell = console.silent if quiet else console.note
    with connect(server, owner) as client:
        job_id = client.submit(job, key, on_wait=once_told(tell))
        if wanted.is_service or detach:
            click.echo(job_id)
            if wanted.is_service:
                tell(f"a service, kept running until `titus kill {job_id}`")
            return
        tell(f"job {job_id}")
        ctx.exit(watch(client, job_id, Follower(job_id), note=tell))
