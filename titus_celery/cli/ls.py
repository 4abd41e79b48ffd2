"""`titus ls`: the jobs that live, and those that are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, count, epilog, pair, with_server

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["ls"]

#: Characters of an id that tell it apart from the next thousands of jobs as well.
PREFIX_MIN: Final = 8
#: Rows that are still looked at.
ROWS_MAX: Final = 100
#: What the table is made of; a name comes with each job.
FIELDS: Final = (
    "jobDescriptor.owner",
    "jobDescriptor.batch.instances",
    "jobDescriptor.service.instances",
    "jobDescriptor.mantis.stages.instances",
    "tasks.state",
    "jobState",
    "stateChanges",
)
_LIVE: Final = ("QUEUED", "DISPATCHED", "STARTING", "RUNNING")
_OVER: Final = ("FINISHED", "FAILED")

_EPILOG: Final = epilog(
    {
        "titus ls": "the jobs that live",
        "titus ls --all --label team=blue": "and those that are over, of one team",
        "titus ls --state FAILED -n 5": "the last five that failed",
        "titus ls --type service --owner ann@example.com": "",
        "titus ls --filter taskStates=QUEUED": "any criterion of FindJobs",
        "titus ls -o json --all": "everything about all of them",
    }
)


@click.command(epilog=_EPILOG)
@click.option("--all", "-a", "is_all", is_flag=True, help="Also the jobs that are over.")
@click.option(
    "--state",
    type=click.Choice([*_LIVE, *_OVER], case_sensitive=False),
    metavar="STATE",
    help=f"Those in this state: {', '.join(_LIVE)}; or {' and '.join(_OVER)}, which are over.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["batch", "service", "mantis"], case_sensitive=False),
    help="Of this kind.",
)
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="K[=V]",
    help="With this label. Repeatable: with all of them; of one label any of its values.",
)
@click.option("--owner", metavar="EMAIL", help="Of this owner or team.")
@click.option("--name", "--app", "app_name", metavar="APP", help="Of this name.")
@click.option("--image", metavar="NAME", help="With this image, with or without its tag.")
@click.option(
    "--cluster", metavar="CLUSTER", help="Of this cluster: its id, the beginning of it, or its name."
)
@click.option("--stack", metavar="NAME", help="Of this stack of their job group.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CRITERION=V",
    help="With any criterion of FindJobs, such as jobIds, imageTag or taskStates. Repeatable.",
)
@click.option(
    "--limit",
    "-n",
    callback=count,
    metavar="N",
    help=f"The newest N; 0: all.  [default: {ROWS_MAX}; with -o json and -q all]",
)
@click.option("--quiet", "-q", is_flag=True, help="Print whole ids and nothing else.")
@as_json
@with_server
def ls(
    is_all: bool,
    state: str | None,
    kind: str | None,
    labels: tuple[str, ...],
    owner: str | None,
    app_name: str | None,
    image: str | None,
    cluster: str | None,
    stack: str | None,
    filters: tuple[str, ...],
    limit: int | None,
    quiet: bool,
    form: str,
    server: str,
) -> None:
    """List the jobs that live, the newest first; several options narrow it down together.

    The ids of live jobs are shortened to what tells them apart, which every command understands; those
    of jobs that are over are whole.
    """
    from titus_celery.cli import listing, pages
    from titus_celery.cli.cluster_lookup import look_up_cluster

    given = {
        "jobState": state,
        "jobType": kind,
        "owner": owner,
        "appName": app_name,
        "imageName": image,
        "jobGroupStack": stack,
    }
    criteria = {name: value for name, value in given.items() if value} | _label_criteria(labels)
    for name, value in (pair(entry, "--filter") for entry in filters):
        if name in criteria or (name == "jobClusterId" and cluster is not None):
            raise click.UsageError(f"{name} is given twice, as --filter and as an option or another --filter")
        criteria[name] = value
    if is_all and "jobState" in criteria:
        raise click.UsageError("--all is about every state, --state about one; give one of them")
    several = [criteria, *({**criteria, "jobState": each} for each in _OVER)] if is_all else [criteria]
    is_table = form == "table" and not quiet
    most = limit if limit is not None else ROWS_MAX if is_table else 0
    fields = () if form == "json" else FIELDS if is_table else ("stateChanges",)
    with connect(server) as client:
        if cluster is not None:
            of_cluster = {"jobClusterId": look_up_cluster(client, cluster).id}
            several = [{**each, **of_cluster} for each in several]
        jobs, total = listing.of_all(client, several, fields, most)
    if quiet:
        click.echo("".join(f"{job.id}\n" for job in jobs), nl=False)
    elif form == "json":
        pages.print_json(jobs)
    else:
        _print(jobs)
    if len(jobs) < total:
        console.note(f"these are the newest {len(jobs)} of {total} jobs; --limit 0 lists all of them")


def _label_criteria(labels: Sequence[str]) -> dict[str, str]:
    """Criteria that a job must have each of these labels, or one of its values if it is named again."""
    criteria: dict[str, str] = {}
    listed: list[str] = []
    for entry in labels:
        name, _, value = entry.partition("=")
        if not name.strip():
            raise click.BadParameter(f"{entry!r} names no label", param_hint="--label")
        key = f"labels.{name}"
        # `labels.op` says how labels go together, so that a label of this name is asked for in the list.
        if key not in criteria and name != "op":
            criteria[key] = value
        elif "," in entry or ":" in name:
            raise click.BadParameter(f"{entry!r} cannot be asked for as one of several", param_hint="--label")
        else:
            listed.append(entry)
    return criteria | ({"labels": ",".join(listed)} if listed else {})


def _print(jobs: Sequence[pb.Job]) -> None:
    from titus_celery.cli import pages

    size = _unique(job.id for job in jobs if not pages.is_over(job))
    rows = [_row(job, size) for job in jobs]
    console.table(("JOB", "NAME", "TYPE", "STATE", "TASKS", "OWNER", "SINCE"), rows)


def _unique(ids: Iterable[str]) -> int:
    """How many characters tell these ids apart, and no fewer than PREFIX_MIN."""
    known = sorted(ids)
    size = PREFIX_MIN
    while any(one[:size] == other[:size] for one, other in pairwise(known)):
        size += 1
    return size


def _row(job: pb.Job, size: int) -> tuple[str, ...]:
    from titus_celery.cli import pages
    from titus_celery.cli.specs import wanted

    descriptor = job.jobDescriptor
    is_over = pages.is_over(job)
    desired = wanted(descriptor)
    running = Counter(pages.state(task.state) for task in job.tasks)["RUNNING"]
    return (
        job.id if is_over else job.id[:size],
        descriptor.appName,
        pages.kind(descriptor),
        pages.state(job.jobState),
        str(desired) if is_over else f"{running}/{desired} running",
        descriptor.owner.ownerEmail,
        pages.local_time(job.stateChanges[0].timestamp) if job.stateChanges else "",
    )
