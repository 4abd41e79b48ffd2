"""Observing: order, marker, end, being too slow, and leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from tests.grpc_api.world import PATIENCE, Store, World, descriptor, world
from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.core.model import JobId, JobSummary, TaskId
from titus_celery.core.shelf import Order
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub

Stream = grpc.aio.UnaryStreamCall[Any, pb.JobChangeNotification]


async def following(stream: Stream) -> pb.JobChangeNotification:
    """The next notification; a failure if the stream ends or nothing comes."""
    async with asyncio.timeout(PATIENCE):
        message = await stream.read()
    assert isinstance(message, pb.JobChangeNotification), "the stream ended"
    return message


async def snapshots(stream: Stream) -> list[pb.Job]:
    """What comes before the marker, and the marker."""
    jobs = []
    while (message := await following(stream)).HasField("jobSnapshot"):
        jobs.append(message.jobSnapshot.job)
    assert message.HasField("snapshotEnd")
    return jobs


async def ending(stream: Any) -> grpc.StatusCode:
    """How the stream ends, after whatever still comes."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await stream.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        code: grpc.StatusCode = await stream.code()
        return code


async def test_a_job_is_observed_from_its_snapshot_to_its_end(titus: World) -> None:
    id = await titus.create()
    task = TaskId(f"{id}-0-1")
    titus.store.advance(task, State.DISPATCHED)
    stream = titus.jobs.ObserveJob(pb.JobId(id=id))
    (job,) = await snapshots(stream)
    assert [(each.id, each.state.state) for each in job.tasks] == [(task, pb.DISPATCHED)]
    titus.store.finish(id)
    states = []
    while (message := await following(stream)).HasField("taskUdate"):
        states.append(message.taskUdate.task.state.state)
    assert states == [pb.STARTING, pb.RUNNING, pb.FINISHED]
    assert message.jobFinished.id == id
    assert await ending(stream) is grpc.StatusCode.OK


async def test_a_finished_job_is_told_whole_and_the_stream_closes(titus: World) -> None:
    """docs/semantics.md A14."""
    id = await titus.create()
    titus.store.finish(id)
    stream = titus.jobs.ObserveJob(pb.JobId(id=id))
    (job,) = await snapshots(stream)
    assert job.jobState.state == pb.FINISHED
    assert [task.state.state for task in job.tasks] == [pb.FINISHED]
    assert (await following(stream)).jobFinished.id == id
    assert await ending(stream) is grpc.StatusCode.OK


async def test_an_unknown_job_cannot_be_observed(titus: World) -> None:
    stream = titus.jobs.ObserveJob(pb.JobId(id="no-such-job"))
    assert await ending(stream) is grpc.StatusCode.NOT_FOUND
    assert "no-such-job" in await stream.details()
    assert titus.gateway.observers == 0


async def test_what_happens_to_other_jobs_is_not_told(titus: World) -> None:
    mine, other = await titus.create(), await titus.create()
    stream = titus.jobs.ObserveJob(pb.JobId(id=mine))
    await snapshots(stream)
    titus.store.finish(other)
    titus.store.advance(TaskId(f"{mine}-0-1"), State.DISPATCHED)
    assert (await following(stream)).taskUdate.task.id == f"{mine}-0-1"


async def test_all_live_jobs_are_observed_and_new_ones_and_ends(titus: World) -> None:
    over, old = await titus.create(), await titus.create(2)
    titus.store.finish(over)
    stream = titus.jobs.ObserveJobs(Empty())
    assert [(job.id, len(job.tasks)) for job in await snapshots(stream)] == [(old, 2)]

    new = await titus.create()
    definition = (await following(stream)).jobDefinitionUpdate
    assert (definition.id, definition.jobDescriptor.appName) == (new, "app")
    assert (await following(stream)).taskUdate.task.id == f"{new}-0-1"
    titus.store.finish(old, State.FAILED)
    messages = [await following(stream) for _ in range(9)]
    assert all(each.taskUdate.task.id.startswith(old) for each in messages[:8])
    assert messages[8].jobFinished.id == old
    titus.store.advance(TaskId(f"{new}-0-1"), State.DISPATCHED)
    assert (await following(stream)).taskUdate.task.state.state == pb.DISPATCHED


async def test_the_marker_comes_even_if_there_is_no_job(titus: World) -> None:
    assert await snapshots(titus.jobs.ObserveJobs(Empty())) == []


async def test_every_observer_hears_every_job_once_while_they_are_created_all_around(titus: World) -> None:
    """Subscribing races with creations: whatever the moment, nothing is missing and nothing twice."""

    async def observe(ids: set[str]) -> None:
        stream = titus.jobs.ObserveJobs(Empty())
        heard = [job.id for job in await snapshots(stream)]
        while len(heard) < 40:
            message = await following(stream)
            if message.HasField("jobDefinitionUpdate"):
                heard.append(message.jobDefinitionUpdate.id)
        stream.cancel()
        assert len(heard) == len(set(heard))
        ids.update(heard)

    seen: list[set[str]] = [set() for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        created = [group.create_task(titus.create()) for _ in range(20)]
        for ids in seen:
            group.create_task(observe(ids))
            created += [group.create_task(titus.create())]
        created += [group.create_task(titus.create()) for _ in range(12)]
    expected = {task.result() for task in created}
    assert all(ids == expected for ids in seen)


class Late(SnapshotStore):
    """Jobs that can be read only once it is told."""

    def __init__(self, keyspace: Keyspace) -> None:
        super().__init__(keyspace)
        self.told = threading.Event()

    def live(
        self, after: Order | None, limit: int, ended_max: int
    ) -> tuple[Sequence[JobSummary], Order | None]:
        self.told.wait(PATIENCE)
        return super().live(after, limit, ended_max)


async def test_a_job_that_is_made_while_the_jobs_are_read_is_told_once() -> None:
    """It is in what is read, in the log, or in both."""
    store = Store()
    late = Late(store.keyspace)
    async with world(store, feed=store.feed(store.records, late)) as titus:
        first = await titus.create()
        stream = titus.jobs.ObserveJobs(Empty())
        second = await titus.create()
        late.told.set()
        assert sorted(job.id for job in await snapshots(stream)) == sorted([first, second])


async def test_an_observer_that_falls_behind_is_cut_off_and_told_so() -> None:
    async with world(events_max=10) as titus:
        stream = titus.jobs.ObserveJobs(Empty())
        await snapshots(stream)
        await titus.jobs.CreateJob(descriptor(desired=50))
        assert await ending(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "fell more than 10 events behind" in await stream.details()
        assert titus.gateway.observers == 0
        assert titus.gateway.internal_errors == 0


async def test_an_observer_that_does_not_read_at_all_holds_nothing_of_ours() -> None:
    """Its stream waits for the network for ever; its inbox overflows meanwhile, and is given up."""
    narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1_024))
    async with (
        world(events_max=2_000) as titus,
        grpc.aio.insecure_channel(titus.address, options=narrow) as channel,
    ):
        stream = JobManagementServiceStub(channel).ObserveJobs(Empty())
        await snapshots(stream)
        async with asyncio.timeout(PATIENCE):
            while titus.gateway.observers:
                await titus.create(100)
        assert await ending(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert titus.gateway.internal_errors == 0


@pytest.mark.parametrize("reads", [0, 1], ids=["at-once", "after-the-marker"])
async def test_an_observer_that_leaves_frees_its_place(titus: World, reads: int) -> None:
    id = await titus.create()
    streams: list[Stream] = [titus.jobs.ObserveJobs(Empty()), titus.jobs.ObserveJob(pb.JobId(id=id))]
    for stream in streams * reads:
        await snapshots(stream)
    await titus.until(lambda: reads == 0 or titus.gateway.observers == 2)
    for stream in streams:
        stream.cancel()
    await titus.until(lambda: titus.gateway.observers == 0)


async def test_observers_are_sent_away_when_the_gateway_stops(titus: World) -> None:
    stream = titus.jobs.ObserveJobs(Empty())
    await snapshots(stream)
    stopping = asyncio.create_task(titus.gateway.stop())
    assert await ending(stream) is grpc.StatusCode.UNAVAILABLE
    assert "being stopped" in await stream.details()
    await stopping


async def test_an_updated_task_is_told_once_per_change_that_shows(titus: World) -> None:
    """A kill that is on record, but not carried out, changes nothing that an observer could see."""
    id = await titus.create()
    task = TaskId(f"{id}-0-1")
    titus.store.advance(task, State.RUNNING)
    stream = titus.jobs.ObserveJob(pb.JobId(id=id))
    await snapshots(stream)
    await titus.jobs.KillTask(pb.TaskId(id=task))
    titus.store.finish(JobId(id), State.FAILED)
    assert (await following(stream)).taskUdate.task.state.state == pb.FAILED
    assert (await following(stream)).jobFinished.id == id
