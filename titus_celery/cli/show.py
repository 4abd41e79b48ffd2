"""`titus show`: one job with its tasks, or one task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, epilog, given, with_owner

if TYPE_CHECKING:
    from titus_celery.cli.specs import Part
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["show"]

#: How the reason begins of a task whose slot went because its job was made smaller.
_SURPLUS: Final = "scaledDown"

_EPILOG: Final = epilog(
    {
        "titus show 0b0e7a52": "the job whose id begins like this",
        "titus show JOB-3": "the task that lives in slot 3",
        "titus show JOB-1.3": "that of the second stage of a Mantis job",
        "titus show JOB --all": "a service or Mantis job with the earlier runs of its tasks",
        "titus show -o json JOB": "every field, as the API has it",
    }
)


@click.command(epilog=_EPILOG)
@click.argument("id", callback=given)
@click.option(
    "--all", "-a", "is_all", is_flag=True, help="Of a service or Mantis job, also runs that were replaced."
)
@as_json
@with_owner
def show(id: str, is_all: bool, form: str, server: str, owner: str) -> None:
    """Show the job or the task ID, live or finished.

    The beginning of a live job's id is enough. A job that is over and a task need the whole id; of a task
    that lives, JOB-SLOT is, and of a Mantis job JOB-STAGE.SLOT.

    A job comes with its tasks; PORTS says by which ports of the host those of a container are reached. Of
    a service or a Mantis job only the latest run of each slot is listed, and the ATTEMPT tells how often it
    was started.
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
        pages.print_facts(
            {"task": found.id, **_outcome(found.state), **dict(sorted(found.taskContext.items()))}
        )
        _print_history(found.stateChanges)


def _print_job(job: pb.Job, is_all: bool) -> None:
    from titus_celery.cli import pages
    from titus_celery.cli.specs import is_scalable

    tasks = sorted(job.tasks, key=lambda task: (_slot(task), _attempt(task)))
    latest = _latest(tasks)
    pages.print_facts(_facts(job, latest))
    _print_history(job.stateChanges)
    _print_stages(job, latest)
    click.echo()
    shown = latest if is_scalable(job.jobDescriptor) and not is_all else tasks
    _print_tasks(shown)
    if len(shown) < len(tasks):
        console.note(f"{len(tasks) - len(shown)} earlier runs are not listed; --all lists them")


def _latest(tasks: Sequence[pb.Task]) -> Sequence[pb.Task]:
    """The latest run of each slot that is still the job's."""
    by_slot = {_slot(task): task for task in tasks}
    return [task for task in by_slot.values() if not task.state.reason.startswith(_SURPLUS)]


def _facts(job: pb.Job, latest: Sequence[pb.Task]) -> Mapping[str, str]:
    from titus_celery.cli import pages, words
    from titus_celery.cli.specs import container_of, is_scalable, parts_of, wanted
    from titus_celery.core.cluster import BUILT_IN

    descriptor = job.jobDescriptor
    is_of_ours = job.jobClusterId in {cluster.id for cluster in BUILT_IN.values()}
    facts = {
        "job": job.id,
        "name": descriptor.appName,
        "type": pages.kind(descriptor),
        **words.owner(descriptor.owner),
        **words.group(descriptor.jobGroupInfo),
        "cluster": "" if is_of_ours else job.jobClusterId,
        **_outcome(job.jobState),
    }
    if descriptor.HasField("mantis"):
        facts |= _running(latest, wanted(descriptor)) | words.mantis(descriptor.mantis)
        return facts | words.labels(descriptor.labels)
    [part] = parts_of(descriptor)
    if is_scalable(descriptor):
        facts |= _running(latest, part.instances.desired) | _bounds(part)
    else:
        facts["tasks"] = str(part.instances.desired)
        facts["time limit"] = words.seconds(descriptor.batch.runtimeLimitSecs)
    facts["retries"] = words.retries(part)
    return facts | words.container(container_of(descriptor, part)) | words.labels(descriptor.labels)


def _running(latest: Sequence[pb.Task], desired: int) -> dict[str, str]:
    """How many tasks there are of what is kept running, and how often some were started again."""
    from titus_celery.cli import pages

    running = Counter(pages.state(task.state) for task in latest)["RUNNING"]
    restarts = sum(_attempt(task) - 1 for task in latest)
    return {"tasks": f"{running} running of {desired} wanted", "restarts": str(restarts)}


def _bounds(part: Part) -> dict[str, str]:
    from titus_celery.cli import pages

    return {"bounds": f"min {part.instances.min}, max {pages.bound(part.instances.max)}"}


def _print_stages(job: pb.Job, latest: Sequence[pb.Task]) -> None:
    """What each stage of a Mantis job is, and how many of its tasks run."""
    from titus_celery.cli import pages, words
    from titus_celery.cli.specs import container_of, parts_of, stage_of

    if not job.jobDescriptor.HasField("mantis"):
        return
    for number, part in enumerate(parts_of(job.jobDescriptor)):
        tasks = [task for task in latest if stage_of(task.taskContext) == number]
        click.echo()
        pages.print_facts(
            {
                "stage": str(number),
                **_running(tasks, part.instances.desired),
                **_bounds(part),
                "retries": words.retries(part),
                **words.container(container_of(job.jobDescriptor, part)),
            }
        )


def _print_tasks(tasks: Sequence[pb.Task]) -> None:
    from titus_celery.cli import pages

    has_stages = any("task.stage" in task.taskContext for task in tasks)
    has_ports = any(task.taskContext.get("task.ports") for task in tasks)
    rows = [
        (
            *([task.taskContext["task.stage"]] if has_stages else []),
            str(_slot(task)[1]),
            str(_attempt(task)),
            pages.state(task.state),
            task.taskContext.get("agent.host", ""),
            *([task.taskContext.get("task.ports", "").replace(";", " ")] if has_ports else []),
            pages.local_time(task.stateChanges[-1].timestamp),
            task.state.reason,
        )
        for task in tasks
    ]
    stages, ports = ("STAGE",) if has_stages else (), ("PORTS",) if has_ports else ()
    console.table((*stages, "TASK", "ATTEMPT", "STATE", "HOST", *ports, "SINCE", "REASON"), rows)


def _outcome(state: pb.JobState | pb.TaskState) -> dict[str, str]:
    from titus_celery.cli import pages

    return {"state": pages.state(state), "reason": state.reason}


def _slot(task: pb.Task) -> tuple[int, int]:
    """Its stage, 0 without one, and its slot."""
    from titus_celery.cli.specs import stage_of

    return stage_of(task.taskContext) or 0, int(task.taskContext["task.index"])


def _attempt(task: pb.Task) -> int:
    return int(task.taskContext["task.resubmitNumber"]) + 1


def _print_history(history: Iterable[pb.StateChange]) -> None:
    from titus_celery.cli import pages

    click.echo()
    console.table(("SINCE", "STATE"), [(pages.local_time(each.timestamp), each.state) for each in history])
