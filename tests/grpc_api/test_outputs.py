"""Following what a task writes."""

from __future__ import annotations

import asyncio

import grpc

from tests.grpc_api.world import PATIENCE, World
from titus_celery.adapters.outputs import OUTPUT_BYTES_MAX
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.grpc.outputs_servicer import OFFSET_MAX, TAILS_MAX
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.ports import Chunk, Source

Stream = grpc.aio.UnaryStreamCall[v1.TailTaskRequest, v1.TailTaskItem]


async def running_task(titus: World) -> TaskId:
    id = TaskId(f"{await titus.create()}-0-1")
    titus.store.advance(id, State.RUNNING)
    return id


def tail(titus: World, id: TaskId, offset: int = 0) -> Stream:
    return titus.outputs.TailTask(v1.TailTaskRequest(task_id=id, offset=offset))


def write(titus: World, id: TaskId, data: bytes, source: Source = Source.STDOUT) -> None:
    titus.store.outputs.append(id, [Chunk(titus.store.outputs.end(id), source, data)])


async def following(stream: Stream) -> v1.TailTaskItem:
    async with asyncio.timeout(PATIENCE):
        item = await stream.read()
    assert isinstance(item, v1.TailTaskItem), "the stream ended"
    return item


async def rest(stream: Stream) -> list[v1.TailTaskItem]:
    async with asyncio.timeout(PATIENCE):
        items = []
        while (item := await stream.read()) is not grpc.aio.EOF:
            assert isinstance(item, v1.TailTaskItem)
            items.append(item)
        return items


async def test_output_is_followed_as_it_is_written_until_the_task_ends(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"one\n")
    stream = tail(titus, id)
    assert (await following(stream)).output == v1.Output(offset=0, source=v1.STDOUT, data=b"one\n")
    write(titus, id, b"two\n", Source.STDERR)
    assert (await following(stream)).output == v1.Output(offset=4, source=v1.STDERR, data=b"two\n")
    write(titus, id, b"last\n")
    titus.store.advance(id, State.FAILED)
    output, end = await rest(stream)
    assert output.output.data == b"last\n"
    assert end.end == v1.End(
        offset=13, exited=True, exit_code=3, signal=0, reason_code="failed", reason="failed: exit code 3"
    )
    assert await stream.code() is grpc.StatusCode.OK


async def test_following_from_an_offset_begins_there(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"0123456789")
    item = await following(tail(titus, id, offset=4))
    assert (item.output.offset, item.output.data) == (4, b"456789")


async def test_bytes_that_are_no_longer_kept_show_as_a_gap(titus: World) -> None:
    id = await running_task(titus)
    for _ in range(3):
        write(titus, id, b"x" * (OUTPUT_BYTES_MAX // 2 + 1))
    stream = tail(titus, id)
    gap = (await following(stream)).gap
    assert gap.start == 0
    assert 0 < gap.end == (await following(stream)).output.offset


async def test_a_task_that_wrote_nothing_just_ends(titus: World) -> None:
    id = await running_task(titus)
    titus.store.advance(id, State.FINISHED)
    (item,) = await rest(tail(titus, id))
    assert item.end == v1.End(exited=True, reason_code="normal", reason="normal")


async def test_a_task_that_never_ran_ends_without_an_exit(titus: World) -> None:
    id = f"{await titus.create()}-0-1"
    await titus.jobs.KillTask(pb.TaskId(id=id))
    (item,) = await rest(tail(titus, TaskId(id)))
    assert not item.end.exited
    assert item.end.reason_code == "killed"


async def test_output_that_has_expired_leaves_the_end_alone(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"gone")
    titus.store.advance(id, State.FINISHED)
    titus.store.outputs.expire(id)
    titus.store.clock.now = titus.store.clock.now.replace(year=2027)
    (item,) = await rest(tail(titus, id, offset=2))
    assert item.end.offset == 2


async def test_an_offset_past_the_end_waits_and_then_hears_where_it_ended(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"12345")
    stream = tail(titus, id, offset=100)
    titus.store.advance(id, State.FINISHED)
    (item,) = await rest(stream)
    assert item.end.offset == 5


async def test_an_absurd_offset_is_refused(titus: World) -> None:
    stream = tail(titus, await running_task(titus), offset=OFFSET_MAX + 1)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "offset" in await stream.details()


async def test_only_so_many_are_followed_and_who_leaves_makes_room(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"x")
    open_ = [tail(titus, id) for _ in range(TAILS_MAX)]
    for stream in open_:
        await following(stream)
    assert not await is_served(tail(titus, id))
    open_[0].cancel()
    async with asyncio.timeout(PATIENCE):
        while not await is_served(tail(titus, id)):
            pass


async def is_served(stream: Stream) -> bool:
    try:
        return await stream.read() is not grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"{TAILS_MAX} output streams are open here" in (error.details() or "")
        return False


async def test_following_ends_when_the_gateway_stops(titus: World) -> None:
    id = await running_task(titus)
    write(titus, id, b"x")
    stream = tail(titus, id)
    await following(stream)
    stopping = asyncio.create_task(titus.gateway.stop())
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    assert "being stopped" in (await stream.details() or "")
    await stopping
