"""Who observes a transient Mantis job, through whichever gateway, keeps it (docs/semantics.md A15)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from tests.grpc_api.kept_clusters import ME, Control, batch_job, mantis, start
from tests.grpc_api.test_streams import ending, following, snapshots
from tests.grpc_api.world import PATIENCE, Store, World, world
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import ObservationServiceStub
from titus_celery.grpc.server import build_server
from titus_celery.service.subscriptions import SPAN

TIMEOUT = 60
LONG = 5 * TIMEOUT


def lonely(store: Store, control: Control) -> JobId:
    """A RUNNING job that ends after TIMEOUT without subscribers."""
    job = mantis(transient=True, subscription_timeout=timedelta(seconds=TIMEOUT))
    id = start(store, job)
    control.run(id)
    assert store.records.job(id)[0].state is State.RUNNING
    return id


def is_kept(store: Store, id: JobId) -> bool:
    """Whether nothing wants its end."""
    return store.records.job(id)[0].kill is None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def control(store: Store) -> Control:
    return Control(store)


@pytest.fixture
async def one(store: Store) -> AsyncIterator[World]:
    async with world(store) as running:
        yield running


async def gone(store: Store, id: JobId) -> None:
    """Wait until the store was told that nobody observes the job any more."""
    async with asyncio.timeout(PATIENCE):
        while (until := SubscriberStore(store.keyspace).until(id)) is None or until > store.clock.now:
            await asyncio.sleep(0)


async def placed(stream: Any) -> v1.JobEvent:
    """The next event with its place."""
    async with asyncio.timeout(PATIENCE):
        event = await stream.read()
    assert isinstance(event, v1.JobEvent), "the stream ended"
    return event


async def test_a_job_that_nobody_observes_ends_finished_and_says_why(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    control.wait(TIMEOUT - 1)
    assert is_kept(store, id)
    control.wait(2)
    assert not is_kept(store, id)
    store.end(TaskId(f"{id}-0.0-1"), Reason(Code.KILLED))
    control.wait(1)
    job = await one.jobs.FindJob(pb.JobId(id=id))
    assert (job.jobState.state, job.jobState.reason) == (
        pb.FINISHED,
        f"normal: no subscriptions for {TIMEOUT} secs",
    )


async def test_an_observer_keeps_it_and_once_it_left_the_time_begins(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    stream = one.jobs.ObserveJob(pb.JobId(id=id))
    await snapshots(stream)
    control.wait(LONG)
    assert is_kept(store, id)
    stream.cancel()
    await gone(store, id)
    control.wait(TIMEOUT - 4)
    assert is_kept(store, id)
    control.wait(8)
    assert not is_kept(store, id)


async def test_the_store_knows_of_a_stream_before_its_first_event(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    await following(one.jobs.ObserveJob(pb.JobId(id=id)))
    assert SubscriberStore(store.keyspace).until(id) == store.clock.now + SPAN


async def test_an_observer_through_any_gateway_keeps_it(store: Store, control: Control, one: World) -> None:
    async with world(store) as two:
        id = lonely(store, control)
        streams = [each.jobs.ObserveJob(pb.JobId(id=id)) for each in (one, two)]
        for stream in streams:
            await snapshots(stream)
        streams[0].cancel()
        await one.until(lambda: one.gateway.observers == 0)
        control.wait(LONG)
        assert is_kept(store, id)
        # The other one tells all that it still holds, too.
        streams[1].cancel()
        await gone(store, id)
        control.wait(TIMEOUT + 4)
        assert not is_kept(store, id)


async def test_of_two_observers_at_one_gateway_either_keeps_it(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    streams = [one.jobs.ObserveJob(pb.JobId(id=id)) for _ in range(2)]
    for stream in streams:
        await snapshots(stream)
    streams[0].cancel()
    await one.until(lambda: one.gateway.observers == 1)
    control.wait(LONG)
    assert is_kept(store, id)


async def test_a_stream_with_places_keeps_it_and_so_does_one_that_goes_on(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    own = ObservationServiceStub(one.channel)
    stream = own.ObserveJob(v1.ObserveJobRequest(job_id=id))
    while not (event := await placed(stream)).notification.HasField("snapshotEnd"):
        pass
    control.wait(LONG)
    assert is_kept(store, id)
    stream.cancel()
    await gone(store, id)
    again = own.ObserveJob(v1.ObserveJobRequest(job_id=id, resume=event.position))
    assert (await placed(again)).beginning.resumed
    control.wait(LONG)
    assert is_kept(store, id)


async def test_who_observes_all_jobs_keeps_none(store: Store, control: Control, one: World) -> None:
    id = lonely(store, control)
    await snapshots(one.jobs.ObserveJobs(Empty()))
    control.wait(TIMEOUT + 4)
    assert not is_kept(store, id)


async def test_of_other_jobs_nothing_is_said(store: Store, one: World) -> None:
    for job in (mantis(), batch_job()):
        id = start(store, job)
        stream = one.jobs.ObserveJob(pb.JobId(id=id))
        await snapshots(stream)
        assert SubscriberStore(store.keyspace).until(id) is None


async def test_a_gateway_that_dies_holds_a_job_for_a_span_only(store: Store, control: Control) -> None:
    id = lonely(store, control)
    dead = store.subscribing(SubscriberStore(store.keyspace))
    store.subscriptions.clear()
    dead.opened(id).result(PATIENCE)
    control.wait(TIMEOUT + SPAN.total_seconds() - 4)
    assert is_kept(store, id)
    control.wait(8)
    assert not is_kept(store, id)


async def test_when_a_job_has_ended_nothing_is_left_of_its_observers(
    store: Store, control: Control, one: World
) -> None:
    id = lonely(store, control)
    stream = one.jobs.ObserveJob(pb.JobId(id=id))
    await snapshots(stream)
    store.jobs().kill(id, ME)
    control.wait(1)
    store.end(TaskId(f"{id}-0.0-1"), Reason(Code.KILLED))
    control.wait(1)
    assert await ending(stream) is grpc.StatusCode.OK
    # After whatever the gateway still had to say.
    store.subscriptions[0].renew()
    assert SubscriberStore(store.keyspace).until(id) is None


class Deaf:
    """Subscribers that cannot be said, and are slow to say so once it is told."""

    def __init__(self) -> None:
        self.is_slow = False
        self.released = threading.Event()

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        if self.is_slow:
            self.released.wait(PATIENCE)
        raise StoreUnavailable("it is away")

    def until(self, job_id: JobId) -> datetime | None:
        return None


@pytest.mark.parametrize("is_slow", [False, True], ids=["fails", "hangs"])
async def test_a_store_that_does_not_answer_keeps_no_observer_waiting(
    store: Store, control: Control, is_slow: bool
) -> None:
    deaf = Deaf()
    deaf.is_slow = is_slow
    id = lonely(store, control)
    services = replace(store.services(), subscriptions=store.subscribing(deaf))
    gateway = build_server(services, "127.0.0.1:0")
    await gateway.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            there = World(store, gateway, channel)
            stream = there.jobs.ObserveJob(pb.JobId(id=id))
            (job,) = await snapshots(stream)
            assert job.id == id
    finally:
        deaf.released.set()
        await gateway.stop()
    assert gateway.internal_errors == 0
