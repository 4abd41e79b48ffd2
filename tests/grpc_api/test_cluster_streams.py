"""Observing clusters: snapshots, definitions, jobs that come and go, and what ends a stream (B5.3, B5.4)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from tests.grpc_api.kept_clusters import (
    ME,
    Control,
    batch_job,
    clusters_of,
    make,
    mantis,
    notified,
    snapshot,
    start,
)
from tests.grpc_api.test_resume import RESUME_KEY, beginning, got_to
from tests.grpc_api.test_streams import ending
from tests.grpc_api.world import Store, World, refused, world
from titus_celery.core.cluster import BUILT_IN, ClusterDescriptor
from titus_celery.core.descriptor import Instances, JobType
from titus_celery.core.model import ClusterId, JobId
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.servicer import POSITION_KEY, RESUMED_KEY

BATCH, MANTIS = BUILT_IN[JobType.BATCH].id, BUILT_IN[JobType.MANTIS].id
BUILT_IN_IDS = [cluster.id for cluster in BUILT_IN.values()]


def observed(titus: World, id: str = "", resume: str = "") -> Any:
    """A stream of this cluster, or of all."""
    metadata = ((RESUME_KEY, resume),) if resume else ()
    if id:
        return titus.jobs.ObserveJobCluster(pb.JobClusterId(id=id), metadata=metadata)
    return titus.jobs.ObserveJobClusters(Empty(), metadata=metadata)


def rename(store: Store, id: ClusterId, name: str) -> None:
    """Change a cluster's definition."""
    clusters = clusters_of(store)
    clusters.update(id, replace(clusters.find(id).descriptor, name=name), ME)


def end(store: Store, id: JobId) -> None:
    """End a job in which nothing runs."""
    store.jobs().kill(id, ME)
    Control(store).wait(1)


async def test_a_cluster_is_observed_from_its_snapshot_to_its_removal(titus: World) -> None:
    store = titus.store
    id = make(store)
    first = start(store, mantis(id))
    stream = observed(titus, id)
    told = (await notified(stream)).jobClusterSnapshot
    assert (told.jobCluster.id, told.jobCluster.descriptor.name, list(told.jobIds)) == (id, "c", [first])
    assert (await notified(stream)).HasField("snapshotEnd")

    second = start(store, mantis(id))
    assert (await notified(stream)).jobAdded.jobId == second
    rename(store, id, "d")
    update = (await notified(stream)).jobClusterDefinitionUpdate
    assert (update.id, update.descriptor.name, update.descriptor.mantis.max) == (id, "d", 9)
    for job in (first, second):
        end(store, job)
        assert (await notified(stream)).jobFinished.jobId == job
    clusters_of(store).remove(id)
    assert (await notified(stream)).jobClusterRemoved.id == id
    assert await ending(stream) is grpc.StatusCode.OK
    assert titus.gateway.observers == 0


async def test_an_unknown_cluster_and_none_cannot_be_observed(titus: World) -> None:
    gone = make(titus.store)
    clusters_of(titus.store).remove(gone)
    for id in ("no-such-cluster", gone):
        seen = await refused(observed(titus, id))
        assert seen.code is grpc.StatusCode.NOT_FOUND
        assert id in seen.details
    empty = await refused(titus.jobs.ObserveJobCluster(pb.JobClusterId()))
    assert empty.code is grpc.StatusCode.INVALID_ARGUMENT
    assert titus.gateway.observers == 0


async def test_nothing_is_told_of_other_clusters_and_their_jobs(titus: World) -> None:
    store = titus.store
    mine, other = make(store), make(store)
    theirs = start(store, mantis(other))
    stream = observed(titus, mine)
    assert await snapshot(stream) == {mine: []}
    start(store, mantis(other))
    start(store, mantis())
    end(store, theirs)
    rename(store, other, "d")
    job = start(store, mantis(mine))
    assert (await notified(stream)).jobAdded.jobId == job


async def test_what_becomes_of_a_job_in_between_is_not_told(titus: World) -> None:
    """Its tasks, that it runs, and that its definition changes: it is not added again."""
    store = titus.store
    id = make(store)
    stream = observed(titus, id)
    await snapshot(stream)
    job = start(store, mantis(id))
    assert (await notified(stream)).jobAdded.jobId == job
    Control(store).run(job)
    store.jobs().resize(job, Instances(min=0, desired=2, max=2))
    store.jobs().kill(job, ME)
    rename(store, id, "d")
    assert (await notified(stream)).jobClusterDefinitionUpdate.descriptor.name == "d"


async def test_all_clusters_are_observed_built_in_and_new_ones_too(titus: World) -> None:
    store = titus.store
    old = make(store)
    inside, plain = start(store, mantis(old)), start(store, batch_job())
    stream = observed(titus)
    first = await snapshot(stream)
    assert list(first) == [*BUILT_IN_IDS, old]
    assert (first[old], first[BATCH], first[MANTIS]) == ([inside], [plain], [])

    new = make(store)
    update = (await notified(stream)).jobClusterDefinitionUpdate
    assert (update.id, update.descriptor.name) == (new, "c")
    job, other = start(store, mantis(new)), start(store, batch_job())
    assert [(await notified(stream)).jobAdded.jobId for _ in range(2)] == [job, other]
    for each in (job, other):
        end(store, each)
        assert (await notified(stream)).jobFinished.jobId == each
    clusters_of(store).remove(new)
    assert (await notified(stream)).jobClusterRemoved.id == new
    end(store, inside)
    assert (await notified(stream)).jobFinished.jobId == inside


async def test_a_built_in_cluster_is_observed_by_itself(titus: World) -> None:
    stream = observed(titus, BATCH)
    assert await snapshot(stream) == {BATCH: []}
    start(titus.store, mantis())
    job = await titus.create()
    assert (await notified(stream)).jobAdded.jobId == job
    titus.store.finish(job)
    assert (await notified(stream)).jobFinished.jobId == job


async def test_what_changes_nothing_that_can_be_seen_is_not_told(titus: World) -> None:
    """The wire does not say whether a cluster of batch jobs is enabled."""
    store = titus.store
    id = make(store, ClusterDescriptor(name="b", kind=JobType.BATCH))
    stream, everything = observed(titus, id), observed(titus)
    position = (await beginning(stream))[POSITION_KEY]
    await snapshot(stream)
    await snapshot(everything)
    rename(store, id, "b")
    rename(store, id, "c")
    clusters_of(store).enable(id, False)
    rename(store, id, "d")
    for each in (stream, everything, resumed := observed(titus, id, position)):
        if each is resumed:
            assert (await notified(each)).HasField("snapshotEnd")
        names = [(await notified(each)).jobClusterDefinitionUpdate.descriptor.name for _ in range(2)]
        assert names == ["c", "d"]


async def test_a_snapshot_is_of_now_however_many_observers_had_one_before(titus: World) -> None:
    store = titus.store
    id = make(store)
    jobs: list[str] = []
    for _ in range(2):
        # They come by creation.
        store.clock.now += timedelta(seconds=1)
        jobs.append(start(store, mantis(id)))
        assert await snapshot(observed(titus, id)) == {id: jobs}
    end(store, JobId(jobs.pop(0)))
    assert await snapshot(observed(titus, id)) == {id: jobs}
    rename(store, id, "d")
    told = (await notified(observed(titus, id))).jobClusterSnapshot.jobCluster
    assert told.descriptor.name == "d"


async def test_a_cluster_that_was_made_through_another_gateway_is_observed_here() -> None:
    store = Store()
    async with world(store) as here:
        other = Store(at=store.keyspace)
        for _ in range(5):
            id = make(other)
            assert await snapshot(observed(here, id)) == {id: []}


async def test_a_gateway_that_starts_later_knows_all_clusters() -> None:
    store = Store()
    ids = [make(store) for _ in range(3)]
    job = start(store, mantis(ids[1]))
    rename(store, ids[2], "d")
    async with world(store) as titus:
        told = await snapshot(observed(titus))
        assert {id: told[id] for id in ids} == {ids[0]: [], ids[1]: [job], ids[2]: []}
        found = await titus.jobs.FindJobClusters(pb.JobClusterQuery(fiterlingCriteria={"name": "d"}))
        assert [each.id for each in found.items] == [ids[2]]


async def test_every_observer_hears_every_cluster_once_while_they_are_made_all_around(titus: World) -> None:
    """Subscribing races with creations: whatever the moment, nothing is missing and nothing twice."""

    async def observe() -> list[str]:
        stream = observed(titus)
        heard = [id for id in await snapshot(stream) if id not in BUILT_IN_IDS]
        while len(heard) < 40:
            heard.append((await notified(stream)).jobClusterDefinitionUpdate.id)
        return heard

    async def some() -> list[str]:
        return [await asyncio.to_thread(make, titus.store) for _ in range(10)]

    async with asyncio.TaskGroup() as group:
        made = [group.create_task(some()) for _ in range(4)]
        heard = [group.create_task(observe()) for _ in range(8)]
    expected = sorted(id for each in made for id in each.result())
    assert all(sorted(each.result()) == expected for each in heard)


async def test_an_observer_of_clusters_that_falls_behind_is_cut_off_and_told_how_far_it_got() -> None:
    async with world(events_max=10) as titus:
        stream = observed(titus)
        await snapshot(stream)
        begun = (await beginning(stream))[POSITION_KEY]
        id = make(titus.store)
        # The gateway learns of all of them in one step, in which nobody can read.
        for number in range(50):
            rename(titus.store, id, f"c{number}")
        assert await ending(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "events behind" in await stream.details()
        assert titus.gateway.observers == 0
        again = observed(titus, resume=await got_to(stream) or begun)
        assert (await beginning(again))[RESUMED_KEY] == "true"


async def test_a_stream_goes_on_where_it_ended(titus: World) -> None:
    store = titus.store
    id, other = make(store), make(store)
    first = observed(titus, id)
    await snapshot(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    job = start(store, mantis(id))
    start(store, mantis(other))
    rename(store, other, "e")
    rename(store, id, "d")
    again = observed(titus, id, position)
    assert (await beginning(again))[RESUMED_KEY] == "true"
    assert (await notified(again)).HasField("snapshotEnd")
    assert (await notified(again)).jobAdded.jobId == job
    assert (await notified(again)).jobClusterDefinitionUpdate.descriptor.name == "d"
    end(store, job)
    assert (await notified(again)).jobFinished.jobId == job


async def test_a_stream_of_a_cluster_that_went_meanwhile_goes_on_to_its_end(titus: World) -> None:
    store = titus.store
    id = make(store)
    first = observed(titus, id)
    await snapshot(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    clusters_of(store).remove(id)
    # More than is read of the log at once.
    for _ in range(2):
        await titus.create(600)
    again = observed(titus, id, position)
    assert (await notified(again)).HasField("snapshotEnd")
    assert (await notified(again)).jobClusterRemoved.id == id
    assert await ending(again) is grpc.StatusCode.OK


async def test_a_removal_that_lies_far_on_is_found(titus: World) -> None:
    store = titus.store
    id = make(store)
    first = observed(titus, id)
    await snapshot(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    for _ in range(2):
        await titus.create(600)
    clusters_of(store).remove(id)
    again = observed(titus, id, position)
    assert (await notified(again)).HasField("snapshotEnd")
    assert (await notified(again)).jobClusterRemoved.id == id
    # After its end there is nothing to go on with.
    seen = await refused(observed(titus, id, await got_to(again)))
    assert seen.code is grpc.StatusCode.NOT_FOUND


async def test_what_was_no_place_is_told_with_the_reason(titus: World) -> None:
    id = make(titus.store)
    stream = observed(titus, id, "nonsense")
    assert (await beginning(stream))[RESUMED_KEY].startswith("false: ")
    assert await snapshot(stream) == {id: []}
