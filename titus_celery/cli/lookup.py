"""What an id on the command line names: a job, a task, or the beginning of a live one's id."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from titus_celery.cli.console import Fault
from titus_celery.client import CallFailed, TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["look_up", "look_up_job"]

#: That many candidates are named when the beginning of an id fits several.
NAMED_MAX: Final = 5
#: Ids looked at at a time: the most that a server answers with.
PAGE_SIZE: Final = 1_000
#: A task's id without the number of its attempt: the job's, the stage if it has some, and the slot.
_SLOT: Final = re.compile(r"(.{36})-(?:[0-9]+\.)?[0-9]+", re.ASCII)

_Find = Callable[[str], pb.Job | pb.Task]


def look_up(client: TitusClient, id: str) -> pb.Job | pb.Task:
    """The job or the task. Fault if there is none, or several jobs' ids begin like this."""
    finds: tuple[_Find, ...] = (client.find, client.find_task)
    for find in finds:
        try:
            return find(id)
        except CallFailed as error:
            if error.status != "NOT_FOUND":
                raise
    found = _in_slot(client, id) or _only_one(client, id)
    if found is None:
        raise Fault(f"no job or task is called {id!r}", "", "`titus ls` lists the jobs that live")
    return found


def look_up_job(client: TitusClient, id: str) -> pb.Job:
    """The job. Fault if there is none, several jobs' ids begin like this, or it is a task's."""
    found = look_up(client, id)
    if isinstance(found, pb.Job):
        return found
    raise Fault(
        f"{id!r} is a task", "only a job can have that done", f"its job is {found.id.rsplit('-', 2)[0]}"
    )


def _in_slot(client: TitusClient, id: str) -> pb.Task | None:
    """The task that lives in the slot, if that is what the id says."""
    match = _SLOT.fullmatch(id)
    page, has_more = 0, match is not None
    while match and has_more:
        try:
            found = client.find_tasks(match[1], fields=["id"], page=page, page_size=PAGE_SIZE)
        except CallFailed as error:
            if error.status != "NOT_FOUND":
                raise
            return None
        for task in found.items:
            if task.id.startswith(f"{id}-"):
                return client.find_task(task.id)
        page, has_more = page + 1, found.pagination.hasMore
    return None


def _only_one(client: TitusClient, id: str) -> pb.Job | None:
    """The live job whose id begins like this; Fault if there are several."""
    alike = [job.id for job in client.ls(fields=["id"], page_size=PAGE_SIZE) if job.id.startswith(id)]
    if len(alike) > 1:
        more = f" and {len(alike) - NAMED_MAX} more" if len(alike) > NAMED_MAX else ""
        raise Fault(
            f"{id!r} could be any of {len(alike)} jobs",
            f"{', '.join(alike[:NAMED_MAX])}{more}",
            "write more of it",
        )
    return client.find(alike[0]) if alike else None
