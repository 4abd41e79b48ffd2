"""`titus cluster next` and `history`: the times of a schedule, to come and past."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import as_json, connect, count, epilog, given, with_owner

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["FIRING_HEADINGS", "firing_rows", "history", "next", "time_rows"]

#: Times that are told at once.
TIMES_MAX: Final = 1_000
FIRING_HEADINGS: Final = ("AT", "OUTCOME", "JOB", "WHY")


@click.command(epilog=epilog({"titus cluster next nightly": "", "titus cluster next nightly -n 30": ""}))
@click.argument("cluster", callback=given)
@click.option("--number", "-n", callback=count, default="5", show_default=True, metavar="N", help="How many.")
@as_json
@with_owner
def next(cluster: str, number: int, form: str, server: str, owner: str) -> None:
    """Show the next times of the schedule of CLUSTER, here and in the zone in which it is meant."""
    from titus_celery.cli import pages
    from titus_celery.cli.cluster_lookup import look_up_cluster

    _check(number)
    with connect(server, owner) as client:
        found = look_up_cluster(client, cluster)
        coming = client.coming_times(found.id, number)
    if form == "json":
        pages.print_json(coming)
        return
    if not coming.times:
        console.note(f"no times are to come: {_why_none(found.descriptor.mantis)}")
        return
    console.table(("HERE", f"IN {coming.time_zone}"), time_rows(coming))


@click.command(epilog=epilog({"titus cluster history nightly": "", "titus cluster history 3f2a -n 100": ""}))
@click.argument("cluster", callback=given)
@click.option(
    "--number", "-n", callback=count, default="20", show_default=True, metavar="N", help="How many."
)
@as_json
@with_owner
def history(cluster: str, number: int, form: str, server: str, owner: str) -> None:
    """Show what became of the times of the schedule of CLUSTER, the newest first.

    FIRED: a job was made. SKIPPED: none, as its policy has it. MISSED: none, although one should have
    been; several in a row are one line, with how many they are.
    """
    from titus_celery.cli import pages
    from titus_celery.cli.cluster_lookup import look_up_cluster

    _check(number)
    with connect(server, owner) as client:
        found = client.firings(look_up_cluster(client, cluster).id, page_size=number)
    if form == "json":
        pages.print_json(found.items)
        return
    console.table(FIRING_HEADINGS, firing_rows(found.items))
    if len(found.items) < (total := found.pagination.totalItems):
        console.note(f"these are the newest {len(found.items)} of {total} entries; -n has more of them")


def _why_none(rules: pb.MantisClusterSpec) -> str:
    if not rules.cronSpec:
        return "the cluster has no schedule"
    return "its schedule is over" if rules.enabled else "the cluster is disabled"


def time_rows(coming: v1.ComingTimesReply) -> list[tuple[str, str]]:
    """Each of the coming times here, and in the zone of the schedule."""
    zone = _zone(coming.time_zone)
    return [(_words(time, None), _words(time, zone)) for time in coming.times]


def firing_rows(firings: Sequence[v1.Firing]) -> list[tuple[str, str, str, str]]:
    """A row for each of them."""
    return [(_at(each), _outcome(each), each.job_id, each.why) for each in firings]


def _check(number: int) -> None:
    if not 1 <= number <= TIMES_MAX:
        raise click.BadParameter(f"{number} is not within 1 and {TIMES_MAX}", param_hint="-n")


def _outcome(firing: v1.Firing) -> str:
    from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1

    return v1.Firing.Outcome.Name(firing.outcome)


def _at(firing: v1.Firing) -> str:
    from titus_celery.cli import pages

    at = pages.local_time(firing.at)
    return f"{at} to {pages.local_time(firing.until)} ({firing.count:,} times)" if firing.count > 1 else at


def _words(timestamp: str, zone: tzinfo | None) -> str:
    """A time in a zone, or in that of this machine, with how far that is from UTC."""
    return datetime.fromisoformat(timestamp).astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %z")


def _zone(name: str) -> tzinfo:
    """The zone; UTC if this machine does not know it, which then shows in the times."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
