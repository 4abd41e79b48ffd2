"""The schedules of clusters, as clients meet them (`titus_celery.v1.ClusterService`)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from tests.grpc_api.clusters import CODE, job_in, made, mantis, mantis_cluster
from tests.grpc_api.world import World, refused
from tests.service.control import keeper
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.core.model import Deadline, DeadlineKind
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

HOURLY: Final = "0 0 * * * ?"


async def coming(titus: World, id: str, count: int = 1) -> v1.ComingTimesReply:
    """The next times of the cluster's schedule."""
    return await titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id, count=count))


async def firings(titus: World, id: str, page: pb.Page | None = None) -> v1.FindFiringsReply:
    """A page of what became of them."""
    return await titus.schedules.FindFirings(v1.FindFiringsRequest(cluster_id=id, page=page))


def fire(titus: World, id: str, hours: float = 1) -> None:
    """Let so much time pass, and control decide what came due."""
    store = titus.store
    store.clock.now += timedelta(hours=hours)
    resolver = InventoryResolver(store.registry)
    control = keeper(store.keyspace, store.writes, resolver, store.settings.limits(), store.own)
    control.fire(Deadline(kind=DeadlineKind.CRON, entity=id, due=store.clock.now))


async def test_the_next_times_of_a_schedule_are_told_in_utc(titus: World) -> None:
    id = await made(titus, mantis_cluster(cronSpec=HOURLY))
    reply = await coming(titus, id, 3)
    assert list(reply.times) == [f"2026-01-01T{hour}:00:00.000Z" for hour in (13, 14, 15)]
    assert reply.time_zone == "UTC"
    assert len((await coming(titus, id, 1_000)).times) == 1_000


async def test_a_schedule_may_be_meant_in_a_zone(titus: World) -> None:
    template = mantis(parameters={"cron.timeZone": "Europe/Berlin"})
    id = await made(titus, mantis_cluster(template, cronSpec="0 0 15 * * ?"))
    reply = await coming(titus, id)
    assert (list(reply.times), reply.time_zone) == (["2026-01-01T14:00:00.000Z"], "Europe/Berlin")


async def test_without_a_schedule_or_disabled_no_time_comes(titus: World) -> None:
    assert await coming(titus, await made(titus)) == v1.ComingTimesReply()
    id = await made(titus, mantis_cluster(cronSpec=HOURLY, enabled=False))
    assert (await coming(titus, id)).times == []
    await titus.jobs.UpdateJobClusterStatus(pb.JobClusterStatusUpdate(id=id, enableStatus=True))
    assert len((await coming(titus, id)).times) == 1
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=mantis_cluster()))
    assert (await coming(titus, id)).times == []


@pytest.mark.parametrize("count", [0, 1_001, 2**32 - 1])
async def test_a_number_of_times_has_its_bounds(titus: World, count: int) -> None:
    id = await made(titus, mantis_cluster(cronSpec=HOURLY))
    error = await refused(coming(titus, id, count))
    assert error.code is CODE.INVALID_ARGUMENT
    assert "count: " in error.details


async def test_what_became_of_the_times_is_told_the_newest_first(titus: World) -> None:
    id = await made(titus, mantis_cluster(cronSpec=HOURLY))
    assert await firings(titus, id) == v1.FindFiringsReply(
        pagination=pb.Pagination(currentPage=pb.Page(pageSize=100))
    )
    fire(titus, id)
    fire(titus, id)
    fire(titus, id, hours=3)
    reply = await firings(titus, id)
    newest, overtaken, skipped, fired = reply.items
    (job,) = (await titus.jobs.FindJobs(pb.JobQuery())).items
    assert fired == v1.Firing(
        at="2026-01-01T13:00:00.000Z",
        until="2026-01-01T13:00:00.000Z",
        count=1,
        outcome=v1.Firing.FIRED,
        job_id=job.id,
        decided_at="2026-01-01T13:00:00.000Z",
    )
    assert job.jobClusterId == id
    assert (skipped.at, skipped.outcome) == ("2026-01-01T14:00:00.000Z", v1.Firing.SKIPPED)
    assert job.id in skipped.why
    assert (overtaken.at, overtaken.until) == ("2026-01-01T15:00:00.000Z", "2026-01-01T16:00:00.000Z")
    assert (overtaken.count, overtaken.outcome) == (2, v1.Firing.MISSED)
    assert (newest.at, newest.outcome) == ("2026-01-01T17:00:00.000Z", v1.Firing.SKIPPED)
    assert reply.pagination.totalItems == 4


async def test_firings_are_told_in_pages(titus: World) -> None:
    id = await made(titus, mantis_cluster(cronSpec=HOURLY))
    for _ in range(5):
        fire(titus, id)
    whole = (await firings(titus, id)).items
    pages = [await firings(titus, id, pb.Page(pageNumber=number, pageSize=2)) for number in range(4)]
    assert [item for page in pages for item in page.items] == list(whole)
    assert [page.pagination.hasMore for page in pages] == [True, True, False, False]
    assert {(page.pagination.totalItems, page.pagination.totalPages) for page in pages} == {(5, 3)}
    for page, field in ((pb.Page(pageNumber=-1, pageSize=1), "pageNumber"), (pb.Page(), "pageSize")):
        error = await refused(firings(titus, id, page))
        assert error.code is CODE.INVALID_ARGUMENT
        assert f"page.{field}: " in error.details
    assert (await firings(titus, id, pb.Page(pageNumber=2**31 - 1, pageSize=1_000))).items == []


async def test_a_schedule_begins_anew_only_if_it_is_another(titus: World) -> None:
    id = await made(titus, mantis_cluster(cronSpec="0 0/20 * * * ?"))
    titus.store.clock.now += timedelta(minutes=30)
    other = mantis_cluster(cronSpec="0 0/20 * * * ?")
    other.name = "other"
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=other))
    # It is due, and will be decided.
    assert (await coming(titus, id)).times == ["2026-01-01T12:20:00.000Z"]
    await titus.jobs.UpdateJobCluster(pb.JobCluster(id=id, descriptor=mantis_cluster(cronSpec=HOURLY)))
    assert (await coming(titus, id)).times == ["2026-01-01T13:00:00.000Z"]


async def test_a_job_of_a_clusters_user_counts_for_its_schedule(titus: World) -> None:
    id = await made(titus, mantis_cluster(cronSpec=HOURLY))
    job = await job_in(titus, id)
    fire(titus, id)
    (firing,) = (await firings(titus, id)).items
    assert firing.outcome == v1.Firing.SKIPPED
    assert job.id in firing.why
