"""`titus ls`: the jobs that live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, with_server

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["ls"]

#: Characters of an id that tell it apart from the next thousands of jobs as well.
PREFIX_MIN: Final = 8


@click.command()
@as_json
@with_server
def ls(form: str, server: str, owner: str) -> None:
    """List the jobs that live, the newest first.

    Ids are shortened to what tells them apart, which every command understands; -o json has them whole.
    """
    from titus_celery.cli import pages

    with connect(server, owner) as client:
        jobs = list(client.ls())[::-1]
    if form == "json":
        pages.print_json(jobs)
    else:
        size = _unique(job.id for job in jobs)
        rows = [_row(job, size) for job in jobs]
        console.table(("JOB", "NAME", "STATE", "TASKS", "OWNER", "SINCE"), rows)


def _unique(ids: Iterable[str]) -> int:
    """How many characters tell these ids apart, and no fewer than PREFIX_MIN."""
    known = sorted(ids)
    size = PREFIX_MIN
    while any(one[:size] == other[:size] for one, other in pairwise(known)):
        size += 1
    return size


def _row(job: pb.Job, size: int) -> tuple[str, ...]:
    from titus_celery.cli import pages

    descriptor = job.jobDescriptor
    states = Counter(pages.state(task.state) for task in job.tasks)
    return (
        job.id[:size],
        descriptor.appName,
        pages.state(job.jobState),
        f"{states['RUNNING']}/{descriptor.batch.instances.desired} running",
        descriptor.owner.ownerEmail,
        pages.local_time(job.stateChanges[0].timestamp) if job.stateChanges else "",
    )
