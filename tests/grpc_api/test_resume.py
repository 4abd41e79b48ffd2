"""Streams that go on where another one ended: positions, what was missed, and when there is no going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from tests.grpc_api.test_streams import ending, following, snapshots
from tests.grpc_api.world import PATIENCE, Store, World, descriptor, world
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Delete, Kind
from titus_celery.core.decision import LogEntry
from titus_celery.core.lifecycle import waiting
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import ObservationServiceStub
from titus_celery.grpc.servicer import POSITION_KEY, RESUMED_KEY
from titus_celery.ports import ChangeLog, Position, is_before
from titus_celery.service.change import WritePath

Stream = grpc.aio.UnaryStreamCall[Any, pb.JobChangeNotification]
RESUME_KEY = "x-titus-resume"


def resumed(titus: World, position: str, job_id: str = "") -> Stream:
    """A stream of one job, or of all, from this place on."""
    metadata = ((RESUME_KEY, position),)
    if job_id:
        return titus.jobs.ObserveJob(pb.JobId(id=job_id), metadata=metadata)
    return titus.jobs.ObserveJobs(Empty(), metadata=metadata)


async def beginning(stream: Stream) -> dict[str, str]:
    """What the stream says of itself before its first message."""
    found = await stream.initial_metadata()
    return {str(key): str(value) for key, value in found or ()}


async def got_to(stream: Stream) -> str:
    """How far an ended stream says that it got."""
    return {key: str(value) for key, value in await stream.trailing_metadata() or ()}[POSITION_KEY]


async def states(stream: Stream, count: int) -> list[int]:
    """The states of the next tasks that are told."""
    return [(await following(stream)).taskUdate.task.state.state for _ in range(count)]


async def test_a_stream_says_where_it_begins_and_another_goes_on_from_there(titus: World) -> None:
    id = await titus.create()
    task = TaskId(f"{id}-0-1")
    first = titus.jobs.ObserveJobs(Empty())
    await snapshots(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    titus.store.advance(task, State.RUNNING)
    again = resumed(titus, position)
    assert (await following(again)).HasField("snapshotEnd")
    assert (await beginning(again))[RESUMED_KEY] == "true"
    assert await states(again, 3) == [pb.DISPATCHED, pb.STARTING, pb.RUNNING]
    titus.store.advance(task, State.FINISHED)
    assert await states(again, 1) == [pb.FINISHED]


async def test_a_stream_of_one_job_goes_on_to_its_end(titus: World) -> None:
    id, other = await titus.create(), await titus.create()
    first = titus.jobs.ObserveJob(pb.JobId(id=id))
    await snapshots(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    titus.store.finish(other)
    titus.store.finish(id)
    again = resumed(titus, position, id)
    assert (await following(again)).HasField("snapshotEnd")
    assert await states(again, 4) == [pb.DISPATCHED, pb.STARTING, pb.RUNNING, pb.FINISHED]
    assert (await following(again)).jobFinished.id == id
    assert await ending(again) is grpc.StatusCode.OK
    # And who had heard the end is told it again, with the whole job, rather than nothing.
    [(_, last)] = [
        (key, value) for key, value in await again.trailing_metadata() or () if key == POSITION_KEY
    ]
    whole = resumed(titus, str(last), id)
    (job,) = await snapshots(whole)
    assert job.jobState.state == pb.FINISHED
    assert (await beginning(whole))[RESUMED_KEY] == f"false: job {id} is over"


async def test_however_much_was_missed_is_told_once_and_in_order(titus: World) -> None:
    first = titus.jobs.ObserveJobs(Empty())
    await snapshots(first)
    position = (await beginning(first))[POSITION_KEY]
    first.cancel()
    ids = [await titus.create(300) for _ in range(4)]
    again = resumed(titus, position)
    last = await titus.create()
    heard: list[str] = []
    assert (await following(again)).HasField("snapshotEnd")
    while not heard or heard[-1] != last:
        message = await following(again)
        if message.HasField("jobDefinitionUpdate"):
            heard.append(message.jobDefinitionUpdate.id)
    assert heard == [*ids, last]


@pytest.mark.parametrize("position", ["nonsense", "1-1", "99999999999999-0", "1767268800000-0 or 1=1"])
async def test_a_position_that_is_none_gets_a_snapshot_that_says_so(titus: World, position: str) -> None:
    id = await titus.create()
    stream = resumed(titus, position)
    assert [job.id for job in await snapshots(stream)] == [id]
    why = (await beginning(stream))[RESUMED_KEY]
    assert why.startswith("false: the change log no longer holds position")


async def test_a_position_that_the_log_has_let_go_of_gets_a_snapshot(titus: World) -> None:
    id = await titus.create()
    first = titus.jobs.ObserveJobs(Empty())
    await snapshots(first)
    position = (await beginning(first))[POSITION_KEY]
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    keyspace = titus.store.keyspace
    keyspace.transact([], [Delete(Keys(keyspace.namespace).log, Kind.STREAM)])
    titus.store.clock.now = titus.store.clock.now.replace(year=2027)
    await titus.create()
    stream = resumed(titus, position)
    assert len(await snapshots(stream)) == 2
    assert (await beginning(stream))[RESUMED_KEY].startswith("false: ")


async def test_any_gateway_goes_on_where_another_one_was(titus: World) -> None:
    id = await titus.create()
    first = titus.jobs.ObserveJobs(Empty())
    await snapshots(first)
    position = (await beginning(first))[POSITION_KEY]
    titus.store.advance(TaskId(f"{id}-0-1"), State.STARTING)
    # It began after all of that, and knows of it from the log alone.
    async with world(titus.store) as other:
        again = resumed(other, position)
        assert (await following(again)).HasField("snapshotEnd")
        assert await states(again, 2) == [pb.DISPATCHED, pb.STARTING]


async def test_a_job_made_through_another_gateway_is_observed_at_once() -> None:
    store = Store()
    async with world(store) as one, world(store) as other:
        # Whoever committed is not told to this gateway.
        store.committed.listener = lambda position: None
        for _ in range(20):
            id = await one.create()
            stream = other.jobs.ObserveJob(pb.JobId(id=id))
            assert [job.id for job in await snapshots(stream)] == [id]
            stream.cancel()


async def test_who_falls_behind_is_told_how_far_it_got_and_can_go_on() -> None:
    async with world(events_max=10) as titus:
        stream = titus.jobs.ObserveJobs(Empty())
        await snapshots(stream)
        id = (await titus.jobs.CreateJob(descriptor(desired=50))).id
        assert await ending(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
        again = resumed(titus, await got_to(stream))
        assert (await following(again)).HasField("snapshotEnd")
        assert (await following(again)).jobDefinitionUpdate.id == id


async def test_a_gateway_that_stops_tells_how_far_each_stream_got(titus: World) -> None:
    mine, other = await titus.create(), await titus.create()
    stream = titus.jobs.ObserveJob(pb.JobId(id=mine))
    await snapshots(stream)
    titus.store.finish(other)
    # Known here, and nothing to this stream.
    await titus.jobs.FindJobs(pb.JobQuery())
    await titus.gateway.stop()
    assert await ending(stream) is grpc.StatusCode.UNAVAILABLE
    assert await got_to(stream) == titus.store.records.end()


async def test_before_its_snapshot_is_whole_a_stream_has_no_place(titus: World) -> None:
    stream = titus.jobs.ObserveJob(pb.JobId(id="no-such-job"))
    assert await ending(stream) is grpc.StatusCode.NOT_FOUND
    assert POSITION_KEY not in {key for key, _ in await stream.trailing_metadata() or ()}


# -------------------------------------------------------------------------------- each event's place


async def events(stream: Any, count: int) -> list[v1.JobEvent]:
    """The next events."""
    async with asyncio.timeout(PATIENCE):
        return [await stream.read() for _ in range(count)]


async def test_each_event_has_its_place_and_any_of_them_can_be_gone_on_from(titus: World) -> None:
    observations = ObservationServiceStub(titus.channel)
    id = await titus.create()
    stream = observations.ObserveJob(v1.ObserveJobRequest(job_id=id))
    begun, snapshot, marker = await events(stream, 3)
    assert begun.beginning == v1.Beginning()
    assert snapshot.notification.jobSnapshot.job.id == id
    # With a part of a snapshot nobody can go on.
    assert (begun.position, snapshot.position) == ("", "")
    assert marker.notification.HasField("snapshotEnd")
    titus.store.finish(JobId(id))
    told = await events(stream, 5)
    assert told[-1].notification.jobFinished.id == id
    assert await ending(stream) is grpc.StatusCode.OK
    for place, before in enumerate([marker, *told[:-1]]):
        again = observations.ObserveJob(v1.ObserveJobRequest(job_id=id, resume=before.position))
        begun, marker_again, *rest = await events(again, 2 + len(told) - place)
        assert (begun.beginning.resumed, begun.position) == (True, before.position)
        assert marker_again.notification.HasField("snapshotEnd")
        assert rest == told[place:]


async def test_all_jobs_can_be_observed_with_places_and_a_wrong_one_is_told(titus: World) -> None:
    observations = ObservationServiceStub(titus.channel)
    id = await titus.create()
    begun, snapshot, _ = await events(observations.ObserveJobs(v1.ObserveJobsRequest(resume="x")), 3)
    assert not begun.beginning.resumed
    assert "no longer holds position x" in begun.beginning.why_not
    assert snapshot.notification.jobSnapshot.job.id == id


# ------------------------------------------------------------------------------------------ outages


class Failing:
    """A change log that cannot be read while it is told so."""

    def __init__(self, inner: ChangeLog) -> None:
        self._inner = inner
        self.is_away = False

    def end(self) -> Position:
        return self._inner.end()

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        if self.is_away:
            raise StoreUnavailable("connection refused")
        return self._inner.read(after, limit, block)


async def test_after_an_outage_of_the_store_streams_go_on_without_a_snapshot() -> None:
    store = Store()
    log = Failing(store.records)
    async with world(store, feed=store.feed(log)) as titus:
        id = await titus.create()
        stream = titus.jobs.ObserveJobs(Empty())
        await snapshots(stream)
        log.is_away = True
        assert await ending(stream) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await titus.jobs.FindJobs(pb.JobQuery())
        assert away.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "connection refused" in (away.value.details() or "")
        log.is_away = False
        store.advance(TaskId(f"{id}-0-1"), State.DISPATCHED)
        again = await served(titus, await got_to(stream))
        assert await states(again, 1) == [pb.DISPATCHED]


async def served(titus: World, position: str) -> Stream:
    """A stream from this place, once the gateway can serve one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            stream = resumed(titus, position)
            try:
                assert (await following(stream)).HasField("snapshotEnd")
                return stream
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_one_job_is_found_before_all_are_known_again() -> None:
    store = Store()
    log = Failing(store.records)
    async with world(store, feed=store.feed(log)) as titus:
        id = await titus.create()
        stream = titus.jobs.ObserveJobs(Empty())
        await snapshots(stream)
        log.is_away = True
        assert await ending(stream) is grpc.StatusCode.UNAVAILABLE
        store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
        assert (await titus.jobs.FindJob(pb.JobId(id=id))).jobState.state == pb.RUNNING
        assert (await titus.jobs.FindTask(pb.TaskId(id=f"{id}-0-1"))).state.state == pb.RUNNING


async def test_whoever_asks_when_the_store_is_back_does_not_hear_that_it_was_away() -> None:
    store = Store()
    log = Failing(store.records)
    async with world(store, feed=store.feed(log)) as titus:
        id = await titus.create()
        stream = titus.jobs.ObserveJobs(Empty())
        await snapshots(stream)
        log.is_away = True
        assert await ending(stream) is grpc.StatusCode.UNAVAILABLE
        asked = asyncio.ensure_future(titus.jobs.FindJobs(pb.JobQuery()))
        # The gateway got it before the log can be followed again.
        await titus.jobs.FindJob(pb.JobId(id=id))
        log.is_away = False
        assert [job.id for job in (await asked).items] == [id]


# ------------------------------------------------------------------------------------------ lagging


class Lagging:
    """A change log of which nothing new is heard while it is held."""

    def __init__(self, inner: ChangeLog) -> None:
        self._inner = inner
        self._held_at: Position | None = None

    def hold(self) -> None:
        """From now on it seems that nothing happens."""
        self._held_at = self._inner.end()

    def let_go(self) -> None:
        """What happened meanwhile is heard."""
        self._held_at = None

    def end(self) -> Position:
        return self._inner.end()

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        entries = self._inner.read(after, limit, block)
        held = self._held_at
        return [each for each in entries if held is None or not is_before(held, each[0])]


@asynccontextmanager
async def lagging() -> AsyncIterator[tuple[World, Lagging]]:
    """A gateway that follows a log which can be held."""
    store = Store()
    log = Lagging(store.records)
    async with world(store, feed=store.feed(log)) as titus:
        yield titus, log


async def test_a_query_waits_for_what_was_written_through_its_gateway() -> None:
    async with lagging() as (titus, log):
        first = await titus.create()
        await titus.jobs.FindJobs(pb.JobQuery())
        log.hold()
        second = await titus.create()
        asked = asyncio.ensure_future(titus.jobs.FindJobs(pb.JobQuery()))
        # The gateway has got it, and answers meanwhile what it need not know the jobs for.
        assert await titus.jobs.KillJob(pb.JobId(id="nobody")).code() is grpc.StatusCode.NOT_FOUND
        log.let_go()
        assert {job.id for job in (await asked).items} == {first, second}


async def test_a_stream_from_a_place_that_its_gateway_has_not_reached_yet_is_told_nothing_twice() -> None:
    """As another gateway told of it, which was ahead."""
    async with lagging() as (titus, log):
        id = await titus.create(desired=2)
        await titus.jobs.FindJobs(pb.JobQuery())
        log.hold()
        # Written by others, of which this gateway knows nothing.
        others = WritePath(titus.store.records, titus.store.queue)
        places = []
        for slot in (0, 1):
            others.on_task(TaskId(f"{id}-{slot}-1"), lambda job, task, now: waiting(task, "no room"))
            places.append(titus.store.records.end())
        stream = resumed(titus, places[0])
        assert (await following(stream)).HasField("snapshotEnd")
        log.let_go()
        assert (await following(stream)).taskUdate.task.id == f"{id}-1-1"
