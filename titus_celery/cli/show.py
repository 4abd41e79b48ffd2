"""`titus show`: one job with its tasks, or one task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, epilog, given, with_owner

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["show"]

#: How the reason begins of a task whose slot went because its service was made smaller.
_SURPLUS: Final = "scaledDown"

_EPILOG: Final = epilog(
    {
        "titus show 0b0e7a52": "the job whose id begins like this",
        "titus show JOB-3": "the task that lives in slot 3",
        "titus show JOB --all": "a service with the earlier runs of its tasks",
        "titus show -o json JOB": "every field, as the API has it",
    }
)


@click.command(epilog=_EPILOG)
@click.argument("id", callback=given)
@click.option("--all", "-a", "is_all", is_flag=True, help="Of a service, also runs that were replaced.")
@as_json
@with_owner
def show(id: str, is_all: bool, form: str, server: str, owner: str) -> None:
    """Show the job or the task ID, live or finished.

    The beginning of a live job's id is enough. A job that is over and a task need the whole id; of a task
    that lives, JOB-SLOT is.

    A job comes with its tasks; PORTS says by which ports of the host those of a container are reached. Of
    a service only the latest run of each slot is listed, and the ATTEMPT tells how often it was started.
    """
    from titus_celery.cli import pages
    from titus_celery.cli.lookup import look_up
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

    with connect(server, owner) as client:
        found = look_up(client, id)
    if form == "json":
        pages.print_json(found)
    elif isinstance(found, pb.Job):
        _print_job(found, is_all)
    else:
        _print_facts({"task": found.id, **_outcome(found.state), **dict(sorted(found.taskContext.items()))})
        _print_history(found.stateChanges)


def _print_job(job: pb.Job, is_all: bool) -> None:
    from titus_celery.cli.specs import is_service

    tasks = sorted(job.tasks, key=lambda task: (_slot(task), _attempt(task)))
    latest = _latest(tasks)
    _print_facts(_facts(job, latest))
    _print_history(job.stateChanges)
    click.echo()
    shown = latest if is_service(job.jobDescriptor) and not is_all else tasks
    _print_tasks(shown)
    if len(shown) < len(tasks):
        console.note(f"{len(tasks) - len(shown)} earlier runs are not listed; --all lists them")


def _latest(tasks: Sequence[pb.Task]) -> Sequence[pb.Task]:
    """The latest run of each slot that is still the job's."""
    by_slot = {_slot(task): task for task in tasks}
    return [task for task in by_slot.values() if not task.state.reason.startswith(_SURPLUS)]


def _facts(job: pb.Job, latest: Sequence[pb.Task]) -> Mapping[str, str]:
    from titus_celery.cli import pages, words
    from titus_celery.cli.specs import container_of, is_service, spec_of

    descriptor = job.jobDescriptor
    spec, container = spec_of(descriptor), container_of(descriptor)
    facts = {
        "job": job.id,
        "name": descriptor.appName,
        "type": pages.kind(descriptor),
        **words.owner(descriptor.owner),
        **words.group(descriptor.jobGroupInfo),
        **_outcome(job.jobState),
    }
    numbers = spec.instances
    if is_service(descriptor):
        running = Counter(pages.state(task.state) for task in latest)["RUNNING"]
        facts["tasks"] = f"{running} running of {numbers.desired} wanted"
        facts["bounds"] = f"min {numbers.min}, max {pages.bound(numbers.max)}"
        facts["restarts"] = str(sum(_attempt(task) - 1 for task in latest))
    else:
        facts["tasks"] = str(numbers.desired)
        facts["time limit"] = words.seconds(descriptor.batch.runtimeLimitSecs)
    facts["retries"] = words.retries(descriptor)
    return facts | words.container(container) | words.labels(descriptor.labels)


def _print_tasks(tasks: Sequence[pb.Task]) -> None:
    from titus_celery.cli import pages

    has_ports = any(task.taskContext.get("task.ports") for task in tasks)
    rows = [
        (
            str(_slot(task)),
            str(_attempt(task)),
            pages.state(task.state),
            task.taskContext.get("agent.host", ""),
            *([task.taskContext.get("task.ports", "").replace(";", " ")] if has_ports else []),
            pages.local_time(task.stateChanges[-1].timestamp),
            task.state.reason,
        )
        for task in tasks
    ]
    ports = ("PORTS",) if has_ports else ()
    console.table(("TASK", "ATTEMPT", "STATE", "HOST", *ports, "SINCE", "REASON"), rows)


def _outcome(state: pb.JobState | pb.TaskState) -> dict[str, str]:
    from titus_celery.cli import pages

    return {"state": pages.state(state), "reason": state.reason}


def _slot(task: pb.Task) -> int:
    return int(task.taskContext["task.index"])


def _attempt(task: pb.Task) -> int:
    return int(task.taskContext["task.resubmitNumber"]) + 1


def _print_facts(facts: Mapping[str, str]) -> None:
    given = {name: value for name, value in facts.items() if value}
    width = max(map(len, given))
    for name, value in given.items():
        click.echo(f"{name:<{width}}  {console.printable(value)}")


def _print_history(history: Iterable[pb.StateChange]) -> None:
    from titus_celery.cli import pages

    click.echo()
    console.table(("SINCE", "STATE"), [(pages.local_time(each.timestamp), each.state) for each in history])
