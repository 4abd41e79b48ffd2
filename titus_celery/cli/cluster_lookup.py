"""What an id of a cluster on the command line names: all of it, its beginning, or the cluster's name."""

from __future__ import annotations

from typing import Final

from titus_celery.cli.console import Fault
from titus_celery.client import CallFailed, TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["look_up_cluster"]

#: That many candidates are named when several fit.
NAMED_MAX: Final = 5
#: Clusters looked at at a time: the most that a server answers with.
PAGE_SIZE: Final = 1_000
#: What is needed to tell them apart.
_FIELDS: Final = ("id", "descriptor.name")


def look_up_cluster(client: TitusClient, wanted: str) -> pb.JobCluster:
    """The cluster. Fault if there is none, or several are called or begin like this."""
    try:
        return client.find_cluster(wanted)
    except CallFailed as error:
        if error.status != "NOT_FOUND":
            raise
    alike = [
        cluster
        for cluster in client.ls_clusters(fields=_FIELDS, page_size=PAGE_SIZE)
        if cluster.id.startswith(wanted) or cluster.descriptor.name == wanted
    ]
    if not alike:
        raise Fault(f"no cluster is called {wanted!r}", "", "`titus cluster ls` lists them")
    if len(alike) > 1:
        named = [f"{cluster.id} ({cluster.descriptor.name})" for cluster in alike[:NAMED_MAX]]
        more = f" and {len(alike) - NAMED_MAX} more" if len(alike) > NAMED_MAX else ""
        raise Fault(
            f"{wanted!r} could be any of {len(alike)} clusters",
            f"{', '.join(named)}{more}",
            "write more of its id",
        )
    return client.find_cluster(alike[0].id)
