"""The calls that a client makes, each as one method."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc

from titus_celery.client.failure import describe, failure
from titus_celery.client.streams import Disconnected, OpenStream, Reconnected, resumed
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

__all__ = ["DEFAULT_SERVER", "TitusClient"]

DEFAULT_SERVER: Final = "127.0.0.1:7104"

#: How long one call may take.
DEADLINE: Final = timedelta(seconds=20)
#: How long a stream may be without a server before it is given up.
PATIENCE: Final = timedelta(seconds=60)
#: Jobs asked for at a time.
PAGE_SIZE: Final = 200

#: Reconnect within a second of the server's return; notice a peer that vanished without a word.
#: Messages as large as a job of a thousand tasks needs.
_CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # The proxy settings of a desktop are about the web; servers are named explicitly.
    ("grpc.enable_http_proxy", 0),
)

#: A HealthCheckResponse that says SERVING: field 1, varint 1. Written out because the package with
#: the message comes with the server alone.
_SERVING: Final = b"\x08\x01"

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class _Real:
    """Time as it passes, until the client is closed."""

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed

    def now(self) -> timedelta:
        """Time since some fixed moment."""
        return timedelta(seconds=time.monotonic())

    def wait(self, span: timedelta) -> bool:
        """Let *span* pass; True if the client was closed."""
        return self._closed.wait(span.total_seconds())


class TitusClient:
    """A connection to one server. Safe to use from several threads; close it, or use it in `with`.

    *caller* is an e-mail address; it becomes the owner of jobs that name none (docs/semantics.md A3).
    Every method raises CallFailed.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        caller: str = "",
        *,
        deadline: timedelta = DEADLINE,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.server = server
        self._metadata = (("x-titus-callerid", caller), ("x-titus-caller-email", caller)) if caller else ()
        self._deadline = deadline
        self._patience = patience
        self._closed = threading.Event()
        self._channel = grpc.insecure_channel(server, options=_CHANNEL_OPTIONS)
        self._jobs = pb_grpc.JobManagementServiceStub(self._channel)
        self._outputs = v1_grpc.TaskOutputServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every open stream, whichever thread reads it, and let go of the connection."""
        self._closed.set()
        self._channel.close()

    def submit(self, descriptor: pb.JobDescriptor) -> str:
        """Create the job; its id. Sent once: after a failure in mid-call the job may exist."""
        return self._call(self._jobs.CreateJob, descriptor, "submit the job").id

    def find(self, job_id: str, *, patient: bool = False) -> pb.Job:
        """The job, live or finished, with its tasks; *patient*: wait for a server that is away."""
        return self._call(self._jobs.FindJob, pb.JobId(id=job_id), f"find job {job_id}", patient)

    def find_task(self, task_id: str) -> pb.Task:
        """The task, live or finished."""
        return self._call(self._jobs.FindTask, pb.TaskId(id=task_id), f"find task {task_id}")

    def ls(self, criteria: Mapping[str, str] | None = None) -> Iterator[pb.Job]:
        """The jobs that match, oldest first; those that live unless *criteria* say otherwise."""
        number = 0
        while True:
            query = pb.JobQuery(
                page=pb.Page(pageNumber=number, pageSize=PAGE_SIZE), fiterlingCriteria=criteria or {}
            )
            result = self._call(self._jobs.FindJobs, query, "list the jobs")
            yield from result.items
            if not result.pagination.hasMore:
                return
            number += 1

    def kill(self, job_id: str, *, patient: bool = False) -> None:
        """End the job; returns when the wish is on record. *patient*: wait for a server that is away."""
        self._call(self._jobs.KillJob, pb.JobId(id=job_id), f"end job {job_id}", patient)

    def kill_task(self, task_id: str) -> None:
        """End one task; returns when the wish is on record."""
        self._call(self._jobs.KillTask, pb.TaskId(id=task_id), f"end task {task_id}")

    def observe(self, job_id: str) -> Iterator[pb.JobChangeNotification | Disconnected | Reconnected]:
        """What happens to the job until it is over; after each Reconnected comes a fresh snapshot."""
        opener = partial(self._jobs.ObserveJob, pb.JobId(id=job_id), metadata=self._metadata)
        return self._stream(opener, _ends_job, f"observe job {job_id}")

    def tail(self, task_id: str, offset: int = 0) -> Iterator[v1.TailTaskItem | Disconnected | Reconnected]:
        """What the task writes from *offset* on, and how it ended; each byte once, reconnects or not."""
        request = v1.TailTaskRequest(task_id=task_id, offset=offset)

        def _ends_output(item: v1.TailTaskItem) -> bool:
            # Where a new connection has to go on.
            if item.HasField("output"):
                request.offset = item.output.offset + len(item.output.data)
            elif item.HasField("gap"):
                request.offset = item.gap.end
            return item.HasField("end")

        opener = partial(self._outputs.TailTask, request, metadata=self._metadata)
        return self._stream(opener, _ends_output, f"read the output of task {task_id}")

    def serving(self) -> bool:
        """Whether the server says that it is ready to serve; False also if none answers."""
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda request: request,
            response_deserializer=lambda reply: reply,
        )
        try:
            return bool(check(b"", timeout=1) == _SERVING)
        except grpc.RpcError:
            return False

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        doing: str,
        patient: bool = False,
    ) -> Reply:
        span = self._patience if patient else self._deadline
        try:
            return method(
                request, timeout=span.total_seconds(), metadata=self._metadata, wait_for_ready=patient
            )
        except grpc.RpcError as error:
            raise failure(*describe(error), doing, self.server) from error

    def _stream(
        self, opener: Callable[[], OpenStream[Reply]], last: Callable[[Reply], bool], doing: str
    ) -> Iterator[Reply | Disconnected | Reconnected]:
        refuse = partial(failure, doing=doing, server=self.server)
        return resumed(opener, last, self._patience, _Real(self._closed), refuse)


def _ends_job(message: pb.JobChangeNotification) -> bool:
    return message.HasField("jobFinished")
