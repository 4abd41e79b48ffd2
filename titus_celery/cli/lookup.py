"""What an id on the command line names: a job, a task, or the beginning of a live job's id."""

from __future__ import annotations

from typing import Final

from titus_celery.cli.console import Fault
from titus_celery.client import CallFailed, TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["look_up"]

#: That many candidates are named when the beginning of an id fits several.
NAMED_MAX: Final = 5


def look_up(client: TitusClient, id: str) -> pb.Job | pb.Task:
    """The job or the task. Fault if there is none, or several jobs' ids begin like this."""
    for find in (client.find, client.find_task):
        try:
            return find(id)
        except CallFailed as error:
            if error.status != "NOT_FOUND":
                raise
    alike = [job.id for job in client.ls() if job.id.startswith(id)]
    if len(alike) == 1:
        return client.find(alike[0])
    if alike:
        more = f" and {len(alike) - NAMED_MAX} more" if len(alike) > NAMED_MAX else ""
        raise Fault(
            f"{id!r} could be any of {len(alike)} jobs",
            f"{', '.join(alike[:NAMED_MAX])}{more}",
            "write more of it",
        )
    raise Fault(f"no job or task is called {id!r}", "", "`titus ls` lists the jobs that live")
