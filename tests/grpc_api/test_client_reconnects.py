"""The client's streams against a real gateway that goes away and comes back: each change once, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.grpc_api.line import line
from tests.grpc_api.world import ME, PATIENCE, Store, World, descriptor, world
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Delete, Kind
from titus_celery.client import Disconnected, Reconnected, TitusClient
from titus_celery.core.lifecycle import replaced
from titus_celery.core.model import Caller, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.server import build_server

RETRIED = pb.BatchJobSpec(
    instances=pb.TaskInstances(desired=1),
    containerId="main",
    retryPolicy=pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=3)),
)


class Reader:
    """A stream of a client, read by a thread of its own."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def read() -> None:
            for item in stream:
                loop.call_soon_threadsafe(self._items.put_nowait, item)
            loop.call_soon_threadsafe(self._items.put_nowait, None)

        self._thread = threading.Thread(target=read)
        self._thread.start()

    async def next(self) -> Any:
        """The next item; None at the end."""
        async with asyncio.timeout(PATIENCE):
            return await self._items.get()

    async def change(self) -> tuple[str, str]:
        """What is told next: of what, and what."""
        return told(await self.next())

    async def changes(self, count: int) -> list[tuple[str, str]]:
        """So many of them."""
        return [await self.change() for _ in range(count)]

    async def reconnected(self) -> None:
        """Hear that the server went away and came back, and that nothing was missed."""
        assert isinstance(await self.next(), Disconnected)
        assert await self.next() == Reconnected(resumed=True)

    def join(self) -> None:
        """Wait for the thread, once the client is closed."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def told(item: pb.JobChangeNotification | None) -> tuple[str, str]:
    """A notification in two words."""
    if item is None:
        return "", "end"
    match item.WhichOneof("notification"):
        case "jobSnapshot":
            return item.jobSnapshot.job.id, "snapshot"
        case "jobDefinitionUpdate":
            return item.jobDefinitionUpdate.id, "definition"
        case "taskUdate":
            return item.taskUdate.task.id, pb.State.Name(item.taskUdate.task.state.state)
        case "jobFinished":
            return item.jobFinished.id, "over"
        case kind:
            return "", str(kind)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[TitusClient]:
    with TitusClient(f"127.0.0.1:{port}", ME) as made:
        yield made


@asynccontextmanager
async def reader(titus: TitusClient, job_id: str = "") -> AsyncIterator[Reader]:
    reading = Reader(titus.observe(job_id) if job_id else titus.observe_jobs())
    try:
        yield reading
    finally:
        titus.close()
        reading.join()


async def created(titus: World, **changes: Any) -> JobId:
    return JobId((await titus.jobs.CreateJob(descriptor(**changes), timeout=PATIENCE)).id)


def retry(store: Store, task: TaskId) -> None:
    """Make the replacement of a failed task, as control does."""
    store.writes.on_task(task, replaced)


@pytest.mark.parametrize("is_lost", [False, True], ids=["changes while away", "changes lost on the way"])
async def test_however_often_the_line_is_cut_each_change_is_told_once(titus: World, is_lost: bool) -> None:
    id = await created(titus, batch=RETRIED)
    first, second = TaskId(f"{id}-0-1"), TaskId(f"{id}-0-2")
    store = titus.store
    story: list[tuple[Callable[[], object], list[tuple[str, str]]]] = [
        (lambda: store.advance(first, State.STARTING), [(first, "DISPATCHED"), (first, "STARTING")]),
        (lambda: store.advance(first, State.RUNNING), [(first, "RUNNING")]),
        (lambda: store.advance(first, State.FAILED), [(first, "FAILED")]),
        # This also changes the record of the first one, of which observers hear nothing.
        (lambda: retry(store, first), [(second, "QUEUED")]),
        (
            lambda: store.advance(second, State.RUNNING),
            [(second, s) for s in ("DISPATCHED", "STARTING", "RUNNING")],
        ),
        # Its record changes, and not how it looks.
        (lambda: store.jobs().kill_task(second, Caller(id=ME)), []),
        (lambda: store.finish(id), [(second, "FINISHED"), (id, "over")]),
    ]
    async with line(titus.gateway.port) as way, client(way.port) as cut, reader(cut, id) as heard:
        assert await heard.changes(2) == [(id, "snapshot"), ("", "snapshotEnd")]
        for step, changes in story:
            if is_lost:
                way.is_deaf = True
                step()
                # The gateway has told of it by the time that it answers this.
                await titus.jobs.FindJobs(pb.JobQuery())
                way.cut()
                way.is_deaf = False
            else:
                way.cut()
                step()
            await heard.reconnected()
            assert await heard.changes(len(changes)) == changes
        assert await heard.change() == ("", "end")


async def test_a_gateway_that_is_restarted_costs_observers_nothing() -> None:
    store = Store()
    async with world(store) as titus, client(titus.gateway.port) as observer:
        id = await created(titus, desired=3)
        async with reader(observer) as heard:
            assert await heard.changes(2) == [(id, "snapshot"), ("", "snapshotEnd")]
            store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
            assert [await heard.change() for _ in range(3)][-1] == (f"{id}-0-1", "RUNNING")
            await titus.gateway.stop()
            store.advance(TaskId(f"{id}-1-1"), State.DISPATCHED)
            again = build_server(store.services(), titus.address)
            await again.start()
            try:
                await heard.reconnected()
                assert await heard.change() == (f"{id}-1-1", "DISPATCHED")
                store.advance(TaskId(f"{id}-1-1"), State.STARTING)
                assert await heard.change() == (f"{id}-1-1", "STARTING")
            finally:
                await again.stop()


async def test_an_observer_that_cannot_go_on_is_told_so_and_gets_a_snapshot(titus: World) -> None:
    id = await created(titus)
    store = titus.store
    async with line(titus.gateway.port) as way, client(way.port) as cut, reader(cut, id) as heard:
        await heard.changes(2)
        way.cut()
        assert isinstance(await heard.next(), Disconnected)
        store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
        lose_log(store)
        await created(titus)
        back = await heard.next()
        assert isinstance(back, Reconnected)
        assert not back.resumed
        assert "no longer holds position" in back.why_not
        assert await heard.changes(2) == [(id, "snapshot"), ("", "snapshotEnd")]
        store.finish(id)
        assert await heard.changes(2) == [(f"{id}-0-1", "FINISHED"), (id, "over")]


async def test_an_observer_that_fell_behind_misses_nothing() -> None:
    async with world(events_max=10) as titus, client(titus.gateway.port) as slow, reader(slow) as heard:
        assert await heard.changes(1) == [("", "snapshotEnd")]
        id = await created(titus, desired=50)
        away = await heard.next()
        assert isinstance(away, Disconnected)
        assert "fell more than 10 events behind" in away.why
        assert await heard.next() == Reconnected(resumed=True)
        assert await heard.change() == (id, "definition")
        assert {state for _, state in await heard.changes(50)} == {"QUEUED"}
        titus.store.advance(TaskId(f"{id}-7-1"), State.DISPATCHED)
        assert await heard.change() == (f"{id}-7-1", "DISPATCHED")


async def test_an_observer_of_a_job_that_ended_meanwhile_hears_how(titus: World) -> None:
    id = await created(titus)
    async with line(titus.gateway.port) as way, client(way.port) as cut, reader(cut, id) as heard:
        await heard.changes(2)
        way.cut()
        titus.store.finish(id)
        await heard.reconnected()
        states = ("DISPATCHED", "STARTING", "RUNNING", "FINISHED")
        assert await heard.changes(5) == [*((f"{id}-0-1", state) for state in states), (id, "over")]
        assert await heard.change() == ("", "end")


def lose_log(store: Store) -> None:
    """Let the store forget its change log, and the time move on, so that places of the old one are none."""
    store.keyspace.transact([], [Delete(Keys(store.keyspace.namespace).log, Kind.STREAM)])
    store.clock.now = store.clock.now.replace(year=2027)
