"""`titus cluster`: the commands about job clusters."""

from __future__ import annotations

from typing import ClassVar

import click

from titus_celery.cli.lazy import LazyGroup
from titus_celery.cli.options import epilog

__all__ = ["cluster"]

_EPILOG = epilog(
    {
        "titus cluster create nightly.yaml": "from a file",
        "titus cluster create --name nightly --cron '0 2 * * *' IMAGE": "a job at two each night",
        "titus cluster next nightly": "when the next jobs are made",
        "titus cluster history nightly": "what became of past times",
        "titus cluster disable nightly": "no jobs any more; its jobs are ended",
        "titus run --cluster nightly IMAGE": "one more job of it, now",
    }
)


class _Clusters(LazyGroup):
    table: ClassVar = {
        "create": ("cluster_create", "Create a cluster."),
        "update": ("cluster_update", "Replace the description of a cluster."),
        "ls": ("cluster_ls", "List clusters."),
        "show": ("cluster_show", "Show one cluster, with its jobs and its times."),
        "enable": ("cluster_change", "Let jobs be made in clusters."),
        "disable": ("cluster_change", "Let no jobs be made in clusters."),
        "rm": ("cluster_change", "Remove clusters in which no job lives."),
        "next": ("cluster_times", "Show the next times of a schedule."),
        "history": ("cluster_times", "Show what became of the times of a schedule."),
    }


@click.group(cls=_Clusters, epilog=_EPILOG)
def cluster() -> None:
    """Job clusters: what their jobs are made of and, of those of Mantis jobs, how many run, and when.

    CLUSTER is the id of a cluster, the beginning of it, or its name if no other cluster is called that.
    """
