"""`titus cluster update`: another description of a cluster."""

from __future__ import annotations

from typing import BinaryIO, Final

import click

from titus_celery.cli.options import connect, epilog, given, with_owner

__all__ = ["update"]

_EPILOG: Final = epilog(
    {
        "titus cluster update nightly nightly.yaml": "",
        "titus cluster update nightly -": "from standard input",
    }
)


@click.command(epilog=_EPILOG)
@click.argument("cluster", callback=given)
@click.argument("file", type=click.File("rb"))
@with_owner
def update(cluster: str, file: BinaryIO, server: str, owner: str) -> None:
    """Put the description in FILE in the place of that of CLUSTER, as a whole, and print its id.

    FILE is as for `titus cluster create`. Jobs that live keep what they were made of. In the short form a
    cluster that does not say `enabled` stays enabled or disabled as it is. The owner is yours (--owner)
    unless FILE says otherwise, and the type of a cluster cannot be changed.
    """
    from titus_celery.cli import clusterfile, jobfile
    from titus_celery.cli.cluster_lookup import look_up_cluster

    content, name = jobfile.content_of(file)
    clusterfile.read(content, name)
    with connect(server, owner) as client:
        found = look_up_cluster(client, cluster)
        descriptor = clusterfile.read(content, name, is_enabled=found.descriptor.mantis.enabled)
        client.update_cluster(found.id, descriptor)
    click.echo(found.id)
