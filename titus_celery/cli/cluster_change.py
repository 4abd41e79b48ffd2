"""`titus cluster enable`, `disable` and `rm`: what is done to several clusters at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import connect, epilog, given, with_owner
from titus_celery.errors import EXIT_OURS, TitusError

if TYPE_CHECKING:
    from titus_celery.client import TitusClient

__all__ = ["disable", "enable", "rm"]

_CODES: Final = {
    "0": "all of them",
    "2": "the command line is wrong",
    "125": "not all of them; standard error says which, and why",
}


@click.command(epilog=epilog({"titus cluster enable nightly": ""}, _CODES))
@click.argument("clusters", nargs=-1, required=True, metavar="CLUSTER...", callback=given)
@with_owner
@click.pass_context
def enable(ctx: click.Context, /, clusters: tuple[str, ...], server: str, owner: str) -> None:
    """Let jobs be made in each CLUSTER, and print its id.

    One of Mantis jobs makes those that it should have, and follows its schedule from now on. Every one is
    tried, whatever becomes of the others.
    """
    with connect(server, owner) as client:
        ctx.exit(_each(client, clusters, client.enable_cluster))


@click.command(
    epilog=epilog({"titus cluster disable nightly web": "", "titus cluster disable 3f2a": ""}, _CODES)
)
@click.argument("clusters", nargs=-1, required=True, metavar="CLUSTER...", callback=given)
@with_owner
@click.pass_context
def disable(ctx: click.Context, /, clusters: tuple[str, ...], server: str, owner: str) -> None:
    """Let no jobs be made in each CLUSTER, and print its id.

    The jobs of one of Mantis jobs are ended. Those of others go on. Every one is tried, whatever becomes of
    the others.
    """
    with connect(server, owner) as client:
        ctx.exit(_each(client, clusters, client.disable_cluster))


@click.command(
    epilog=epilog(
        {
            "titus cluster rm nightly": "",
            "titus kill $(titus ls -q --cluster web); titus cluster rm web": "its jobs first",
        },
        _CODES,
    )
)
@click.argument("clusters", nargs=-1, required=True, metavar="CLUSTER...", callback=given)
@with_owner
@click.pass_context
def rm(ctx: click.Context, /, clusters: tuple[str, ...], server: str, owner: str) -> None:
    """Remove each CLUSTER, and print its id.

    One in which a job lives stays. Jobs that are over can be found as before. Every one is tried, whatever
    becomes of the others.
    """
    with connect(server, owner) as client:
        ctx.exit(_each(client, clusters, client.remove_cluster))


def _each(client: TitusClient, clusters: Sequence[str], call: Callable[[str], Any]) -> int:
    """*call* for each; the exit code. What goes wrong with one is told, and costs the others nothing."""
    from titus_celery.cli.cluster_lookup import look_up_cluster
    from titus_celery.client import AWAY, CallFailed

    code = 0
    for number, wanted in enumerate(clusters):
        try:
            id = look_up_cluster(client, wanted).id
            call(id)
        except TitusError as error:
            console.complain(str(error))
            code = EXIT_OURS
            if isinstance(error, CallFailed) and error.status in AWAY:
                # Whoever does not answer about one, does not about the others.
                if left := clusters[number + 1 :]:
                    console.complain(f"not tried for that reason: {', '.join(left)}")
                break
        else:
            click.echo(id)
    return code
