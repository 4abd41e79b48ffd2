"""`titus kill`: ends a job or a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from titus_celery.cli import console
from titus_celery.cli.options import connect, given, with_server

if TYPE_CHECKING:
    from titus_celery.client import TitusClient

__all__ = ["kill"]


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...", callback=given)
@click.option("--wait", is_flag=True, help="Return when it has ended.")
@with_server
def kill(ids: tuple[str, ...], wait: bool, server: str, owner: str) -> None:
    """End each job or task ID.

    The beginning of a live job's id is enough. A job that is over and a task need the whole id.

    The wish is on record when this returns; with --wait, the containers are gone too. The first id
    that cannot be ended stops it.
    """
    with connect(server, owner) as client:
        for id in ids:
            click.echo(_kill(client, id, wait))


def _kill(client: TitusClient, id: str, wait: bool) -> str:
    from titus_celery.cli.lookup import look_up
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

    found = look_up(client, id)
    if isinstance(found, pb.Job):
        client.kill(found.id)
    else:
        client.kill_task(found.id)
    if wait:
        _wait(client, found.id, is_job=isinstance(found, pb.Job))
    return found.id


def _wait(client: TitusClient, id: str, *, is_job: bool) -> None:
    from titus_celery.client import Disconnected

    # Both streams end when their subject has ended.
    for item in client.observe(id) if is_job else client.tail(id):
        if isinstance(item, Disconnected):
            console.note("the server went away; waiting for it")
