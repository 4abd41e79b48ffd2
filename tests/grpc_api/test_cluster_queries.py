"""Finding clusters, and Mantis jobs that run (docs/semantics.md B1.4, B4, A6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from tests.grpc_api.kept_clusters import ME, Control, clusters_of, make, mantis, start
from tests.grpc_api.test_streams import snapshots
from tests.grpc_api.world import World, refused
from tests.service.mantis import a_cluster, mantis_job
from titus_celery.core.cluster import BUILT_IN, ClusterDescriptor
from titus_celery.core.descriptor import JobType, Owner
from titus_celery.grpc.convert_clusters import cluster_to_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

BUILT_IN_IDS = [cluster.id for cluster in BUILT_IN.values()]


async def found(titus: World, **criteria: str) -> list[str]:
    """The ids of the clusters that are found."""
    return await found_by(titus, criteria)


async def found_by(titus: World, criteria: Mapping[str, str]) -> list[str]:
    """The same, by criteria whose names are no names of Python's."""
    reply = await titus.jobs.FindJobClusters(pb.JobClusterQuery(fiterlingCriteria=criteria))
    return [each.id for each in reply.items]


async def test_what_is_found_is_told_whole_the_built_in_ones_first(titus: World) -> None:
    id = make(titus.store)
    reply = await titus.jobs.FindJobClusters(pb.JobClusterQuery())
    assert [each.id for each in reply.items] == [*BUILT_IN_IDS, id]
    assert list(reply.items) == [
        cluster_to_pb(clusters_of(titus.store).find(each)) for each in [*BUILT_IN_IDS, id]
    ]
    assert reply.items[3].descriptor.mantis.max == 9
    assert reply.items[0].descriptor.WhichOneof("clusterSpec") == "batch"


async def test_each_criterion_asks_for_what_it_says(titus: World) -> None:
    store = titus.store
    ann = make(store, replace(a_cluster(max=1), name="web", owner=Owner(owner_email="ann@x.org")))
    team = Owner(owner_email="bob@x.org", team_email="team@x.org")
    bob = make(store, replace(a_cluster(enabled=False), name="db", owner=team))
    plain = make(store, ClusterDescriptor(name="web", kind=JobType.BATCH, owner=team))
    assert sorted(await found(titus, name="web")) == sorted([ann, plain])
    assert await found(titus, name="we") == []
    assert await found(titus, owner="ann@x.org") == [ann]
    assert sorted(await found(titus, owner="team@x.org")) == sorted([bob, plain])
    assert await found(titus, jobType="Mantis", enabled="FALSE") == [bob]
    assert sorted(await found(titus, enabled="true")) == sorted([*BUILT_IN_IDS, ann, plain])
    assert sorted(await found(titus, clusterIds=f"{ann}, {plain},x")) == sorted([ann, plain])
    assert await found(titus, clusterIds=f"{ann},{plain}", jobType="batch") == [plain]
    assert sorted(await found(titus, labels="from=template")) == sorted([ann, bob])
    assert sorted(await found_by(titus, {"labels.from": ""})) == sorted([ann, bob])
    assert await found(titus, labels="from=template,x") == []
    either = {"attributes": "from:template,x", "attributes.op": "or"}
    assert sorted(await found_by(titus, either)) == sorted([ann, bob])
    assert len(await found(titus, name=" ", clusterIds="", owner="")) == 6


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("jobState", "RUNNING", "is unknown; there are clusterIds, jobType, enabled, labels"),
        ("appName", "a", "is unknown"),
        ("applicationName", "a", "is unknown"),
        ("enabled", "yes", "'yes' is neither true nor false"),
        ("jobType", "cron", "'cron' is none of batch, service, mantis"),
        ("labels.op", "xor", "is neither and nor or"),
        ("clusterIds", "a," * 1_001, "the most is 1000"),
    ],
)
async def test_a_criterion_that_cannot_be_heeded_is_refused_by_name(
    titus: World, name: str, text: str, said: str
) -> None:
    seen = await refused(titus.jobs.FindJobClusters(pb.JobClusterQuery(fiterlingCriteria={name: text})))
    assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"fiterlingCriteria[{name}]" in seen.details
    assert said in seen.details


async def test_pages_are_stable_and_their_totals_exact(titus: World) -> None:
    store = titus.store
    made = []
    for _ in range(4):
        made.append(make(store))
        store.clock.now += timedelta(seconds=1)
    # Two of one moment: by their ids then.
    made += sorted(make(store) for _ in range(2))
    seen: list[str] = []
    for number in range(5):
        query = pb.JobClusterQuery(page=pb.Page(pageNumber=number, pageSize=2))
        reply = await titus.jobs.FindJobClusters(query)
        seen += [each.id for each in reply.items]
        at = reply.pagination
        assert (at.totalItems, at.totalPages, at.hasMore) == (9, 5, number < 4)
        assert (at.currentPage.pageNumber, at.currentPage.pageSize) == (number, 2)
    assert seen == [*BUILT_IN_IDS, *made]
    past = await titus.jobs.FindJobClusters(pb.JobClusterQuery(page=pb.Page(pageNumber=9, pageSize=2)))
    assert (len(past.items), past.pagination.totalItems, past.pagination.hasMore) == (0, 9, False)
    wrong = await refused(titus.jobs.FindJobClusters(pb.JobClusterQuery(page=pb.Page())))
    assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_what_is_asked_for_of_each_and_the_id(titus: World) -> None:
    id = make(titus.store)
    query = pb.JobClusterQuery(
        fiterlingCriteria={"clusterIds": id}, fields=["descriptor.name", "descriptor.mantis.max", "nothing"]
    )
    (only,) = (await titus.jobs.FindJobClusters(query)).items
    assert only == pb.JobCluster(
        id=id, descriptor=pb.JobClusterDescriptor(name="c", mantis=pb.MantisClusterSpec(max=9))
    )


async def test_what_was_written_through_this_gateway_is_found_at_once(titus: World) -> None:
    store = titus.store
    clusters = clusters_of(store)
    for number in range(20):
        id = make(store)
        assert id in await found(titus)
        clusters.update(id, replace(clusters.find(id).descriptor, name=f"n{number}"), ME)
        assert await found(titus, name=f"n{number}") == [id]
        clusters.enable(id, False)
        assert await found(titus, clusterIds=id, enabled="true") == []
        clusters.remove(id)
        assert await found(titus, clusterIds=id) == []


async def test_a_mantis_job_is_found_running_once_all_of_its_workers_run(titus: World) -> None:
    store = titus.store
    control, id = Control(store), start(store, mantis())

    async def by_state(state: str) -> list[str]:
        reply = await titus.jobs.FindJobs(pb.JobQuery(fiterlingCriteria={"jobState": state}))
        return [each.id for each in reply.items]

    assert await by_state("QUEUED") == [id]
    control.run(id)
    assert (await by_state("RUNNING"), await by_state("STARTING")) == ([id], [])
    job = await titus.jobs.FindJob(pb.JobId(id=id))
    assert job.jobState.state == pb.RUNNING
    assert [each.state for each in job.stateChanges] == ["QUEUED", "DISPATCHED", "STARTING", "RUNNING"]
    (seen,) = await snapshots(titus.jobs.ObserveJob(pb.JobId(id=id)))
    assert (seen.jobState.state, seen.stateChanges) == (pb.RUNNING, job.stateChanges)


async def test_a_mantis_job_lacking_a_worker_is_not_running(titus: World) -> None:
    store = titus.store
    id = start(store, mantis_job(1, 1))
    first, second = store.records.open_tasks(id)
    control = Control(store)
    control.run_tasks(first.id)
    assert (await titus.jobs.FindJob(pb.JobId(id=id))).jobState.state == pb.STARTING
    control.run_tasks(second.id)
    assert (await titus.jobs.FindJob(pb.JobId(id=id))).jobState.state == pb.RUNNING
