"""What the gateway knows when: queries and streams, while it learns of the log a moment later than others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from tests.grpc_api.world import PATIENCE, Store
from tests.unit.stories import B, job, summary
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.core.decision import JobGone, LogEntry
from titus_celery.core.descriptor import BatchSpec, Container, Image, JobDescriptor
from titus_celery.core.jobs import created
from titus_celery.core.model import JobId
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable
from titus_celery.grpc.hub import Hub
from titus_celery.grpc.streams import Beginning, Progress, Streams
from titus_celery.grpc.threads import Threads
from titus_celery.ports import Position
from titus_celery.service.subscriptions import Subscriptions

NOTHING = JobGone(JobId("nobody"))


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_query_waits_until_what_was_written_through_this_gateway_is_known() -> None:
    hub = Hub(ready_within=timedelta(seconds=PATIENCE))
    hub.ready(Position("1-0"))
    await hub.caught_up()
    hub.wrote(Position("3-0"))
    query = asyncio.create_task(hub.caught_up())
    hub.hear([(Position("2-0"), NOTHING)])
    await settle()
    assert not query.done()
    hub.hear([(Position("3-0"), NOTHING)])
    await query


async def test_what_does_not_become_known_in_time_is_an_outage() -> None:
    hub = Hub(ready_within=timedelta(milliseconds=1))
    hub.ready(Position("1-0"))
    hub.wrote(Position("2-0"))
    with pytest.raises(StoreUnavailable, match="could not be followed"):
        await hub.caught_up()


async def test_the_garbage_collector_is_spared_what_is_learnt_in_bulk_until_it_is_forgotten() -> None:
    hub = Hub()
    hub.load([summary(job())])
    await settle()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    hub.load_over([job(B, end=State.FINISHED)])
    await settle()
    assert gc.get_freeze_count() > 0
    hub.begin()
    await settle()
    assert gc.get_freeze_count() == 0


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    pool = Threads("test", 2)
    yield pool
    pool.close()


async def test_who_heard_more_than_this_gateway_knows_hears_none_of_it_again(threads: Threads) -> None:
    store, hub = Store(), Hub()
    log = logged(store)
    hub.hear(log[:1])
    hub.ready(log[0][0])
    begun: list[Beginning] = []

    async def begin(beginning: Beginning) -> None:
        begun.append(beginning)

    nobody = Subscriptions(SubscriberStore(store.keyspace), "me")
    streams = Streams(store.jobs(), hub, store.records, threads, nobody)
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(streams.observe(None, log[2][0], begin, Progress())) as told,
    ):
        # What comes first says that there is no snapshot.
        await anext(told)
        hub.hear(log[1:])
        assert (await anext(told)).position == log[3][0]
    assert begun == [Beginning(log[2][0], is_resumed=True)]


def logged(store: Store) -> Sequence[tuple[Position, LogEntry]]:
    """What the log says of a new job with three tasks."""
    spec = BatchSpec(desired=3, container_id="main")
    new = JobDescriptor(spec=spec, containers={"main": Container(image=Image(name="a:1", id="sha256:1"))})
    store.writes.create(lambda now: created(JobId("job"), new, "me", now))
    return store.records.read(Position("0-0"), 100, timedelta(0))
