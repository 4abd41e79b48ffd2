"""The client's calls against a real gateway: what they send, what they raise, and what is safe to repeat."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

import pytest

from tests.grpc_api.line import line
from tests.grpc_api.world import ME, PATIENCE, Store, World, descriptor, world
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.client import CallFailed, Failed, Instances, Resized, TitusClient
from titus_celery.client.repeating import IDS_PER_CALL
from titus_celery.core.descriptor import Image
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.states import State
from titus_celery.core.validation import INSTANCES_MAX
from titus_celery.errors import Unavailable
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

P = ParamSpec("P")
T = TypeVar("T")

NOBODY = "00000000-0000-4000-8000-000000000000"


def service(desired: int = 2, low: int = 0, high: int = 0) -> pb.JobDescriptor:
    """A service job of so many tasks."""
    instances = pb.TaskInstances(desired=desired, min=low, max=high)
    return descriptor(batch=None, service=pb.ServiceJobSpec(instances=instances, containerId="main"))


@pytest.fixture
async def client(titus: World) -> AsyncIterator[TitusClient]:
    """A client of the gateway."""
    with TitusClient(titus.address, ME) as made:
        yield made


async def done(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call gives; it is made in a thread, because the gateway is in this one."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(call, *args, **kwargs)


async def failed(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> CallFailed:
    """How a call fails."""
    with pytest.raises(CallFailed) as caught:
        await done(call, *args, **kwargs)
    return caught.value


# ------------------------------------------------------------------------------------------- submit


async def test_the_same_job_under_the_same_key_is_one_job(titus: World, client: TitusClient) -> None:
    first = await done(client.submit, descriptor(), "nightly-7")
    assert await done(client.submit, descriptor(), "nightly-7") == first
    assert await done(client.submit, descriptor()) != first, "without a key each is one of its own"
    other = await failed(client.submit, descriptor(desired=2), "nightly-7")
    assert other.status == "ALREADY_EXISTS"
    assert first in other.why
    assert "another key" in other.hint


@pytest.mark.parametrize("key", ["", " ", "k\u00e4y", "a\nb"])
async def test_what_can_be_no_key_is_not_sent(client: TitusClient, key: str) -> None:
    error = await failed(client.submit, descriptor(), key)
    assert error.status == "INVALID_ARGUMENT"
    assert "is no key" in error.why


async def test_a_submission_whose_answer_was_lost_is_sent_again_and_makes_no_second_job(titus: World) -> None:
    async with line(titus.gateway.port) as way:
        with TitusClient(f"127.0.0.1:{way.port}", ME) as client:
            await done(client.find_jobs)
            way.is_deaf = True
            submitting = asyncio.create_task(done(client.submit, descriptor()))
            await titus.until(lambda: bool(jobs_of(titus.store)))
            way.cut()
            way.is_deaf = False
            assert [await submitting] == jobs_of(titus.store)


def jobs_of(store: Store) -> list[str]:
    """The ids of all live jobs."""
    found, _ = store.snapshots.live(None, 100, 0)
    return [summary.job.id for summary in found]


class Moody:
    """Knows no image for so many times, because its registry is away."""

    def __init__(self, store: Store, times: int) -> None:
        self._inner = InventoryResolver(store.registry)
        self.times = times

    def resolve(self, image: Image) -> Image:
        self.times -= 1
        if self.times >= 0:
            raise Unavailable("the registry", "it is being restarted")
        return self._inner.resolve(image)


async def test_a_submission_waits_for_a_server_that_is_not_ready_and_says_so() -> None:
    store = Store()
    async with world(store, resolver=Moody(store, 2)) as titus:
        with TitusClient(titus.address, ME) as client:
            waits: list[CallFailed] = []
            id = await done(client.submit, descriptor(), on_wait=waits.append)
            assert jobs_of(store) == [id]
            assert [each.why for each in waits] == [
                "the registry is unavailable: it is being restarted",
                "the registry is unavailable: it is being restarted",
            ]


async def test_a_submission_is_given_up_in_time_and_can_go_on_with_its_key() -> None:
    store = Store()
    resolver = Moody(store, 1_000_000)
    async with world(store, resolver=resolver) as titus:
        with TitusClient(titus.address, ME, deadline=timedelta(milliseconds=250)) as client:
            error = await failed(client.submit, descriptor(), "mine")
            assert error.status == "UNAVAILABLE"
            assert "sent again with the key mine" in error.hint
            resolver.times = 0
            assert await done(client.submit, descriptor(), "mine") in jobs_of(store)


async def test_a_server_that_never_came_got_nothing() -> None:
    with TitusClient("127.0.0.1:1", ME, deadline=timedelta(milliseconds=250)) as client:
        error = await failed(client.submit, descriptor())
    assert "no Titus server answers" in error.why
    assert "titus dev" in error.hint, "nothing was sent, so there is nothing to be unsure of"


# --------------------------------------------------------------------------------------------- find


async def test_jobs_are_found_by_criteria_with_the_fields_that_are_wanted_page_by_page(
    titus: World, client: TitusClient
) -> None:
    ids = []
    for team in ("a", "b", "a", "a"):
        titus.store.clock.now += timedelta(seconds=1)
        ids.append(await done(client.submit, descriptor(labels={"team": team})))
    found = await done(client.find_jobs, {"labels.team": "a"}, ["jobState"], page=1, page_size=2)
    assert [job.id for job in found.items] == [ids[3]]
    assert (found.pagination.totalItems, found.pagination.hasMore) == (3, False)
    [job] = found.items
    assert job.jobDescriptor == pb.JobDescriptor(appName="app"), "the name comes with the id"
    all_of_them = await done(lambda: [job.id for job in client.ls({"labels.team": "a"})])
    assert all_of_them == [ids[0], *ids[2:]]
    assert "is unknown" in (await failed(client.find_jobs, {"colour": "blue"})).why


async def test_tasks_are_found_by_criteria_page_by_page(titus: World, client: TitusClient) -> None:
    id = JobId(await done(client.submit, descriptor(desired=3)))
    titus.store.advance(TaskId(f"{id}-1-1"), State.FINISHED)
    live = await done(client.find_tasks, id, None, ["state"])
    assert [task.id for task in live.items] == [f"{id}-0-1", f"{id}-2-1"]
    assert not live.items[0].taskContext
    ended = await done(client.find_tasks, id, {"taskStates": "FINISHED"})
    assert [task.id for task in ended.items] == [f"{id}-1-1"]
    second = await done(client.find_tasks, id, {"taskStates": "any"}, page=1, page_size=2)
    assert (len(second.items), second.pagination.totalItems) == (1, 3)
    assert (await failed(client.find_tasks, NOBODY)).status == "NOT_FOUND"


# ------------------------------------------------------------------------------------------- change


async def test_of_several_kills_each_failure_is_told(titus: World, client: TitusClient) -> None:
    live, over = [JobId(await done(client.submit, descriptor())) for _ in range(2)]
    titus.store.finish(over)
    error = await failed(client.kill_jobs, [live, NOBODY, over, live])
    assert [(each.id, each.status) for each in error.failures] == [
        (NOBODY, "NOT_FOUND"),
        (over, "FAILED_PRECONDITION"),
    ]
    assert error.done == (live,)
    assert error.status == "FAILED_PRECONDITION"
    assert "it is over (FINISHED)" in error.failures[1].why
    assert str(error).startswith(f"cannot end all of the jobs (2 of 3); {NOBODY}: no job has the id")
    titus.store.settle(live)
    assert titus.store.records.job(live)[0].kill is not None


async def test_however_many_kills_fail_none_of_them_is_kept_quiet(titus: World, client: TitusClient) -> None:
    ids = [f"{NOBODY}-{slot}-1" for slot in range(5 * IDS_PER_CALL)]
    id = await done(client.submit, descriptor(desired=2))
    mine = [f"{id}-0-1", f"{id}-1-1"]
    error = await failed(client.kill_tasks, [mine[0], *ids, mine[1]])
    assert [each.id for each in error.failures] == ids
    assert {each.status for each in error.failures} == {error.status} == {"NOT_FOUND"}
    assert error.done == tuple(mine)
    assert "and 35 more" in str(error)
    for task in mine:
        assert titus.store.task(TaskId(task)).state is State.FAILED


async def test_kills_that_all_succeed_say_nothing(titus: World, client: TitusClient) -> None:
    ids = [await done(client.submit, descriptor()) for _ in range(IDS_PER_CALL + 1)]
    await done(client.kill_jobs, ids)
    assert all(titus.store.records.job(JobId(id))[0].kill for id in ids)


async def test_a_server_that_is_away_is_not_asked_about_each_of_many(titus: World) -> None:
    ids = [str(number) for number in range(3 * IDS_PER_CALL)]
    with TitusClient("127.0.0.1:1", ME) as client:
        error = await failed(client.kill_jobs, ids)
    assert [each.id for each in error.failures] == ids
    assert error.failures[-1] == Failed(ids[-1], "UNAVAILABLE", "no Titus server answers at 127.0.0.1:1")
    assert error.done == ()


async def test_a_service_is_resized_and_what_is_not_named_stays(titus: World, client: TitusClient) -> None:
    id = await done(client.submit, service(desired=2, low=1))
    before = Instances(desired=2, min=1, max=INSTANCES_MAX)
    after = Instances(desired=4, min=1, max=INSTANCES_MAX)
    assert await done(client.resize, id, 4) == Resized(before, after)
    assert await done(client.resize, id, min=0, max=5) == Resized(after, Instances(desired=4, min=0, max=5))
    kept = (await done(client.find, id)).jobDescriptor.service.instances
    assert (kept.desired, kept.min, kept.max) == (4, 0, 5)
    error = await failed(client.resize, id, 6)
    assert error.status == "INVALID_ARGUMENT"
    assert "6 is not within min and max, 0 and 5" in error.why


async def test_a_batch_job_is_not_resized(client: TitusClient) -> None:
    id = await done(client.submit, descriptor())
    error = await failed(client.resize, id, 2)
    assert (error.status, "it is a batch job" in error.why) == ("FAILED_PRECONDITION", True)


async def test_scaling_is_switched_on_and_off(titus: World, client: TitusClient) -> None:
    id = await done(client.submit, service())

    def enabled() -> bool:
        return client.find(id).jobDescriptor.service.enabled

    await done(client.enable_scaling, id)
    assert await done(enabled)
    await done(client.disable_scaling, id)
    assert not await done(enabled)


def test_an_error_of_several_survives_pickling() -> None:
    error = CallFailed("a", "NOT_FOUND", "b", "c", [Failed("1", "NOT_FOUND", "d")], ["2"])
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
