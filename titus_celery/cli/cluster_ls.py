"""`titus cluster ls`: the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, epilog, with_server

if TYPE_CHECKING:
    from titus_celery.client import TitusClient
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["ls"]

#: Clusters asked for at a time.
PAGE_SIZE: Final = 1_000

_HEADINGS: Final = ("NAME", "ID", "TYPE", "ENABLED", "MIN", "MAX", "LIVE JOBS", "SCHEDULE")
_EPILOG: Final = epilog(
    {
        "titus cluster ls": "all of them",
        "titus cluster ls --type mantis --owner ann@example.com": "",
        "titus cluster ls -q --name nightly": "the ids of those of this name",
    }
)


@click.command(epilog=_EPILOG)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["batch", "service", "mantis"], case_sensitive=False),
    help="Of jobs of this kind.",
)
@click.option("--name", metavar="NAME", help="Of this name.")
@click.option("--owner", metavar="EMAIL", help="Of this owner or team.")
@click.option("--quiet", "-q", is_flag=True, help="Print ids and nothing else.")
@as_json
@with_server
def ls(kind: str | None, name: str | None, owner: str | None, quiet: bool, form: str, server: str) -> None:
    """List clusters, the oldest first, those that are always there among them."""
    from titus_celery.cli import pages

    given = {"jobType": kind, "name": name, "owner": owner}
    criteria = {criterion: value for criterion, value in given.items() if value}
    with connect(server) as client:
        clusters = list(client.ls_clusters(criteria, page_size=PAGE_SIZE))
        rows = [] if quiet or form == "json" else _rows(client, clusters)
    if quiet:
        click.echo("".join(f"{cluster.id}\n" for cluster in clusters), nl=False)
    elif form == "json":
        pages.print_json(clusters)
    else:
        console.table(_HEADINGS, rows)


def _rows(client: TitusClient, clusters: Sequence[pb.JobCluster]) -> list[tuple[str, ...]]:
    from titus_celery.cli import words

    disabled = _disabled(client, clusters)
    rows: list[tuple[str, ...]] = []
    for cluster in clusters:
        live = client.find_jobs({"jobClusterId": cluster.id}, ["id"], page_size=1).pagination.totalItems
        descriptor = cluster.descriptor
        rules = descriptor.mantis if descriptor.HasField("mantis") else None
        rows.append(
            (
                descriptor.name,
                cluster.id,
                descriptor.WhichOneof("clusterSpec") or "",
                "no" if cluster.id in disabled else "yes",
                str(rules.min) if rules else "",
                str(rules.max or "") if rules else "",
                str(live),
                words.schedule(descriptor),
            )
        )
    return rows


def _disabled(client: TitusClient, clusters: Sequence[pb.JobCluster]) -> set[str]:
    """The ids of those that are disabled; of batch and service jobs the descriptions do not say it."""
    found = {
        each.id
        for each in clusters
        if each.descriptor.HasField("mantis") and not each.descriptor.mantis.enabled
    }
    if any(not each.descriptor.HasField("mantis") for each in clusters):
        found |= {each.id for each in client.ls_clusters({"enabled": "false"}, ["id"], page_size=PAGE_SIZE)}
    return found
