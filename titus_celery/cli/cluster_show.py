"""`titus cluster show`: one cluster, with its jobs and the times of its schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, epilog, given, with_owner

if TYPE_CHECKING:
    from titus_celery.client import TitusClient
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["show"]

#: Jobs, coming times and past times that are shown.
JOBS_MAX: Final = 20
TIMES: Final = 3
FIRINGS: Final = 5

_EPILOG: Final = epilog(
    {
        "titus cluster show nightly": "",
        "titus cluster show 3f2a": "the one whose id begins like this",
        "titus cluster show -o json nightly": "every field, as the API has it",
    }
)


@click.command(epilog=_EPILOG)
@click.argument("cluster", callback=given)
@as_json
@with_owner
def show(cluster: str, form: str, server: str, owner: str) -> None:
    """Show CLUSTER: what its jobs are made of, those that live, and of a schedule the nearest times."""
    from titus_celery.cli import pages
    from titus_celery.cli.cluster_lookup import look_up_cluster

    with connect(server, owner) as client:
        found = look_up_cluster(client, cluster)
        if form == "json":
            pages.print_json(found)
            return
        pages.print_facts(_facts(client, found))
        _print_template(found.descriptor)
        _print_jobs(client, found.id)
        if found.descriptor.mantis.cronSpec:
            _print_times(client, found.id)


def _facts(client: TitusClient, cluster: pb.JobCluster) -> dict[str, str]:
    from titus_celery.cli import words

    descriptor = cluster.descriptor
    facts = {
        "cluster": cluster.id,
        "name": descriptor.name,
        "type": descriptor.WhichOneof("clusterSpec") or "",
        **words.owner(descriptor.owner),
    }
    if not descriptor.HasField("mantis"):
        criteria = {"clusterIds": cluster.id, "enabled": "false"}
        is_disabled = bool(client.find_clusters(criteria, ["id"], page_size=1).items)
        return {**facts, "enabled": "no" if is_disabled else "yes"}
    rules = descriptor.mantis
    return {
        **facts,
        "enabled": "yes" if rules.enabled else "no",
        "jobs": f"min {rules.min}, max {rules.max or 'unbounded'}",
        "schedule": words.schedule(descriptor),
    }


def _print_template(of: pb.JobClusterDescriptor) -> None:
    """What its jobs are made of."""
    from titus_celery.cli import pages, words
    from titus_celery.cli.specs import container_of, parts_of

    if not of.HasField("jobDescriptor"):
        return
    job = of.jobDescriptor
    click.echo()
    whole = words.mantis(job.mantis) if job.HasField("mantis") else {}
    limit = words.seconds(job.batch.runtimeLimitSecs)
    name = job.appName or words.kind(job)
    pages.print_facts({"template": name, "time limit": limit, **whole, **words.labels(job.labels)})
    for number, part in enumerate(parts_of(job)):
        click.echo()
        pages.print_facts(
            {
                "stage": str(number) if job.HasField("mantis") else "",
                "tasks": str(part.instances.desired),
                "retries": words.retries(part),
                **words.container(container_of(job, part)),
            }
        )


def _print_jobs(client: TitusClient, cluster_id: str) -> None:
    from titus_celery.cli import listing, pages

    fields = ("jobState", "stateChanges")
    jobs, total = listing.newest(client, {"jobClusterId": cluster_id}, fields, JOBS_MAX)
    click.echo()
    rows = [
        (
            job.id,
            job.jobDescriptor.appName,
            pages.state(job.jobState),
            pages.local_time(job.stateChanges[0].timestamp) if job.stateChanges else "",
        )
        for job in jobs
    ]
    console.table(("LIVE JOB", "NAME", "STATE", "SINCE"), rows)
    if len(jobs) < total:
        console.note(
            f"these are the newest {len(jobs)} of {total} jobs; `titus ls --cluster` lists all of them"
        )


def _print_times(client: TitusClient, cluster_id: str) -> None:
    from titus_celery.cli.cluster_times import FIRING_HEADINGS, firing_rows, time_rows

    coming = client.coming_times(cluster_id, TIMES)
    click.echo()
    console.table(("NEXT", f"IN {coming.time_zone}"), time_rows(coming))
    click.echo()
    console.table(FIRING_HEADINGS, firing_rows(client.firings(cluster_id, page_size=FIRINGS).items))
