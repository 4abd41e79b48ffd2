"""Following what tasks write: our own addition beside the Titus API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc.aio

from titus_celery.errors import Busy, InvalidRequest, Unavailable, Violation
from titus_celery.grpc.ids import task_id_from
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import TaskOutputServiceServicer
from titus_celery.grpc.threads import Threads
from titus_celery.ports import Chunk, Gap, Source
from titus_celery.service.tail import Ended, TailItem, Tails

__all__ = ["TAILS_MAX", "TaskOutputs"]

#: Tasks followed at once by one gateway. Each holds a thread and a connection to the store while
#: it waits for output.
TAILS_MAX: Final = 256
#: Far past what any task writes, and far from where the store's numbers end.
OFFSET_MAX: Final = 2**53

_SOURCES: Final = {Source.STDOUT: v1.STDOUT, Source.STDERR: v1.STDERR}

Context = grpc.aio.ServicerContext[Any, Any]


class TaskOutputs(TaskOutputServiceServicer):
    """The outputs of tasks, each follower in its own place among TAILS_MAX."""

    def __init__(self, tails: Tails) -> None:
        self._tails = tails
        self._threads = Threads("titus-tail", TAILS_MAX)
        self._open = 0
        self._is_ending = False

    async def TailTask(
        self, request: v1.TailTaskRequest, context: Context
    ) -> AsyncGenerator[v1.TailTaskItem]:
        """What a task wrote and writes, until it has ended."""
        steps = self._tails.follow(task_id_from(request.task_id, "task_id"), _offset_from(request))
        with self._place():
            # One step at a time, taken when the client has room: nothing piles up here.
            while (items := await self._step(steps)) is not None:
                for item in items:
                    yield _item_to_pb(item)

    def let_go(self) -> None:
        """End every stream at its next step, within about a second, and begin no other."""
        self._is_ending = True

    def close(self) -> None:
        """Free the threads, when no stream is left."""
        self._threads.close()

    async def _step(self, steps: Iterator[Sequence[TailItem]]) -> Sequence[TailItem] | None:
        if self._is_ending:
            raise Unavailable("this gateway", "it is being stopped; connect again")
        return await self._threads.run(next, steps, None)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= TAILS_MAX:
            raise Busy("output streams", TAILS_MAX)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def _offset_from(request: v1.TailTaskRequest) -> int:
    if request.offset > OFFSET_MAX:
        raise InvalidRequest([Violation("offset", f"{request.offset} is more than {OFFSET_MAX}")])
    return request.offset


def _item_to_pb(item: TailItem) -> v1.TailTaskItem:
    match item:
        case Chunk(offset, source, data):
            return v1.TailTaskItem(output=v1.Output(offset=offset, source=_SOURCES[source], data=data))
        case Gap(start, end):
            return v1.TailTaskItem(gap=v1.Gap(start=start, end=end))
        case Ended():
            return v1.TailTaskItem(end=_end_to_pb(item))


def _end_to_pb(ended: Ended) -> v1.End:
    end = v1.End(offset=ended.offset)
    if ended.exit is not None:
        end.exited, end.exit_code, end.signal = True, ended.exit.code, ended.exit.signal
    if ended.reason is not None:
        end.reason_code, end.reason = ended.reason.code.value, str(ended.reason)
    return end
