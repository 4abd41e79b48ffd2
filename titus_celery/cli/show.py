"""`titus show`: one job with its tasks, or one task."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, given, with_server

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["show"]


@click.command()
@click.argument("id", callback=given)
@as_json
@with_server
def show(id: str, form: str, server: str, owner: str) -> None:
    """Show the job or the task ID, live or finished.

    The beginning of a live job's id is enough. A job that is over and a task need the whole id.
    """
    from titus_celery.cli import pages
    from titus_celery.cli.lookup import look_up
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

    with connect(server, owner) as client:
        found = look_up(client, id)
    if form == "json":
        pages.print_json(found)
    elif isinstance(found, pb.Job):
        _print_job(found)
    else:
        _print_facts({"task": found.id, **_outcome(found.state), **dict(sorted(found.taskContext.items()))})
        _print_history(found.stateChanges)


def _print_job(job: pb.Job) -> None:
    from titus_celery.cli import pages

    descriptor = job.jobDescriptor
    container = descriptor.containers.get(descriptor.batch.containerId)
    facts = {"job": job.id, "name": descriptor.appName, "owner": descriptor.owner.ownerEmail}
    facts |= _outcome(job.jobState)
    if container:
        facts |= {
            "image": container.image.name,
            "image id": container.image.imageId,
            "command": shlex.join([*container.entryPoint, *container.command]),
            **dict(sorted(container.resources.items())),
        }
    facts |= {f"label {name}": value for name, value in sorted(descriptor.labels.items())}
    _print_facts(facts)
    _print_history(job.stateChanges)
    click.echo()
    tasks = sorted(job.tasks, key=lambda task: (int(task.taskContext["task.index"]), _attempt(task)))
    console.table(
        ("TASK", "ATTEMPT", "STATE", "HOST", "SINCE", "REASON"),
        [
            (
                task.taskContext["task.index"],
                str(_attempt(task)),
                pages.state(task.state),
                task.taskContext["agent.host"],
                pages.local_time(task.stateChanges[-1].timestamp),
                task.state.reason,
            )
            for task in tasks
        ],
    )


def _outcome(state: pb.JobState | pb.TaskState) -> dict[str, str]:
    from titus_celery.cli import pages

    return {"state": pages.state(state), "reason": state.reason}


def _attempt(task: pb.Task) -> int:
    return int(task.taskContext["task.resubmitNumber"]) + 1


def _print_facts(facts: dict[str, str]) -> None:
    given = {name: value for name, value in facts.items() if value}
    width = max(map(len, given))
    for name, value in given.items():
        click.echo(f"{name:<{width}}  {console.printable(value)}")


def _print_history(history: Iterable[pb.StateChange]) -> None:
    from titus_celery.cli import pages

    click.echo()
    console.table(("SINCE", "STATE"), [(pages.local_time(each.timestamp), each.state) for each in history])
