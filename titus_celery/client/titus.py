"""The calls that a client makes, each as one method."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import uuid4

import grpc

from titus_celery.client.failure import CallFailed, describe, failure, partly, parts_of
from titus_celery.client.hearing import Heard, Hearing
from titus_celery.client.repeating import in_parts, repeated
from titus_celery.client.streams import Disconnected, OpenStream, Reconnected, resumed
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

__all__ = ["DEFAULT_SERVER", "Instances", "Resized", "TitusClient"]

DEFAULT_SERVER: Final = "127.0.0.1:7104"

#: How long one call may take, and for how long a submission is repeated.
DEADLINE: Final = timedelta(seconds=20)
#: How long a stream may be without a server before it is given up.
PATIENCE: Final = timedelta(seconds=60)
#: Jobs asked for at a time: what the server answers by itself.
PAGE_SIZE: Final = 100
#: Under which a submission can be repeated (docs/semantics.md A19).
KEY: Final = "x-titus-idempotency-key"

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
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many tasks a service is to have, and within which bounds; a max of 0 is none."""

    desired: int
    min: int = 0
    max: int = 0


@dataclass(frozen=True, slots=True)
class Resized:
    """The numbers of a service before a change, and after it."""

    before: Instances
    after: Instances


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
        self._metadata: Metadata = (
            (("x-titus-callerid", caller), ("x-titus-caller-email", caller)) if caller else ()
        )
        self._deadline = deadline
        self._patience = patience
        self._closed = threading.Event()
        self._channel = grpc.insecure_channel(server, options=_CHANNEL_OPTIONS)
        self._jobs = pb_grpc.JobManagementServiceStub(self._channel)
        self._outputs = v1_grpc.TaskOutputServiceStub(self._channel)
        self._observations = v1_grpc.ObservationServiceStub(self._channel)

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

    # ------------------------------------------------------------------------------------------- submit

    def submit(
        self,
        descriptor: pb.JobDescriptor,
        key: str | None = None,
        *,
        on_wait: Callable[[CallFailed], None] = lambda failed: None,
    ) -> str:
        """Create the job; its id. With the same *key* again: no second job, and the same id (A19).

        Sent again, for at most the deadline, while the server is away; *on_wait* hears why. Without a key
        it gets one of its own. If it is not known in the end whether the job was accepted, the error
        names the key to try again with.
        """
        doing = "submit the job"
        key = str(uuid4()) if key is None else key
        if not (key.strip() and key.isascii() and key.isprintable()):
            raise CallFailed(doing, "INVALID_ARGUMENT", f"{key!r} is no key: it takes plain characters")
        metadata = (*self._metadata, (KEY, key))

        def send(left: timedelta) -> pb.JobId:
            return self._jobs.CreateJob(descriptor, timeout=left.total_seconds(), metadata=metadata)

        refuse = partial(failure, doing=doing, server=self.server)
        unsure = f"it may have been accepted; sent again with the key {key} it is made once"
        return repeated(send, self._deadline, _Real(self._closed), refuse, on_wait, unsure).id

    # --------------------------------------------------------------------------------------------- find

    def find(self, job_id: str, *, patient: bool = False) -> pb.Job:
        """The job, live or finished, with its tasks; *patient*: wait for a server that is away."""
        return self._call(self._jobs.FindJob, pb.JobId(id=job_id), f"find job {job_id}", patient)

    def find_task(self, task_id: str) -> pb.Task:
        """The task, live or finished."""
        return self._call(self._jobs.FindTask, pb.TaskId(id=task_id), f"find task {task_id}")

    def find_jobs(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> pb.JobQueryResult:
        """A page of the jobs that match, oldest first, and how many there are (docs/semantics.md B4).

        Those that live, unless *criteria* ask for a final `jobState`. *fields*: what of each job is wanted,
        such as `jobState` or `tasks.state`; without any, everything.
        """
        query = pb.JobQuery(
            page=pb.Page(pageNumber=page, pageSize=page_size), fiterlingCriteria=criteria or {}, fields=fields
        )
        return self._call(self._jobs.FindJobs, query, "list the jobs")

    def find_tasks(
        self,
        job_id: str,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> pb.TaskQueryResult:
        """A page of the job's tasks that match, by creation, and how many there are (docs/semantics.md B4).

        Those that live, unless *criteria* have final `taskStates`, or `any`.
        """
        query = pb.TaskQuery(
            jobId=job_id,
            page=pb.Page(pageNumber=page, pageSize=page_size),
            fiterlingCriteria=criteria or {},
            fields=fields,
        )
        return self._call(self._jobs.FindTasks, query, f"list the tasks of job {job_id}")

    def ls(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[pb.Job]:
        """All jobs that `find_jobs` has pages of; while jobs end meanwhile, others may be left out."""
        page, has_more = 0, True
        while has_more:
            found = self.find_jobs(criteria, fields, page=page, page_size=page_size)
            yield from found.items
            page, has_more = page + 1, found.pagination.hasMore

    # ------------------------------------------------------------------------------------------- change

    def kill(self, job_id: str, *, patient: bool = False) -> None:
        """End the job; returns when the wish is on record. *patient*: wait for a server that is away."""
        self._call(self._jobs.KillJob, pb.JobId(id=job_id), f"end job {job_id}", patient)

    def kill_task(self, task_id: str) -> None:
        """End one task; returns when the wish is on record."""
        self._call(self._jobs.KillTask, pb.TaskId(id=task_id), f"end task {task_id}")

    def kill_jobs(self, job_ids: Sequence[str]) -> None:
        """End each of the jobs; returns when every wish is on record.

        Every id is tried. The CallFailed that says that some failed has them in `failures`, and the ids
        of the others in `done`.
        """
        doing = "end all of the jobs"
        in_parts(doing, job_ids, lambda ids: self._call(self._jobs.KillJobs, pb.JobIds(id=ids), doing))

    def kill_tasks(self, task_ids: Sequence[str]) -> None:
        """End each of the tasks, of one job or of several; as `kill_jobs`."""
        doing = "end all of the tasks"
        in_parts(doing, task_ids, lambda ids: self._call(self._jobs.KillTasks, pb.TaskIds(id=ids), doing))

    def resize(
        self, job_id: str, desired: int | None = None, *, min: int | None = None, max: int | None = None
    ) -> Resized:
        """Let the service have other numbers of tasks; returns when the wish is on record.

        What is None stays as it was when this was called: of two clients that change different numbers at
        the same time, one may undo the other's.
        """
        found = self.find(job_id).jobDescriptor.service.instances
        before = Instances(desired=found.desired, min=found.min, max=found.max)
        given = {"desired": desired, "min": min, "max": max}
        after = replace(before, **{name: number for name, number in given.items() if number is not None})
        numbers = pb.TaskInstances(desired=after.desired, min=after.min, max=after.max)
        update = pb.JobInstancesUpdate(jobId=job_id, instances=numbers)
        self._call(self._jobs.UpdateJobInstances, update, f"resize job {job_id}")
        return Resized(before, after)

    def enable_scaling(self, job_id: str) -> None:
        """Let the service's scaling policies change its number of tasks."""
        update = pb.JobStatusUpdate(id=job_id, enableStatus=True)
        self._call(self._jobs.UpdateJobStatus, update, f"enable the scaling of job {job_id}")

    def disable_scaling(self, job_id: str) -> None:
        """Keep the service's scaling policies from changing its number of tasks."""
        update = pb.JobStatusUpdate(id=job_id, enableStatus=False)
        self._call(self._jobs.UpdateJobStatus, update, f"disable the scaling of job {job_id}")

    # ---------------------------------------------------------------------------------------- observe

    def observe(self, job_id: str) -> Iterator[Heard]:
        """The job as it is, then what happens to it until it is over; each change once.

        After a Reconnected it goes on where it broke off or, if that says so, from another snapshot.
        """
        request, hearing = v1.ObserveJobRequest(job_id=job_id), Hearing()

        def opener() -> OpenStream[v1.JobEvent]:
            request.resume = hearing.position
            return self._observations.ObserveJob(request, metadata=self._metadata)

        return self._heard(hearing, opener, _ends_job, f"observe job {job_id}")

    def observe_jobs(self) -> Iterator[Heard]:
        """All jobs that live, then what happens to any, without end; as `observe`."""
        request, hearing = v1.ObserveJobsRequest(), Hearing()

        def opener() -> OpenStream[v1.JobEvent]:
            request.resume = hearing.position
            return self._observations.ObserveJobs(request, metadata=self._metadata)

        return self._heard(hearing, opener, lambda event: False, "observe the jobs")

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

    # ----------------------------------------------------------------------------------------- inside

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
            failures, done = parts_of(error)
            if failures:
                raise partly(doing, failures, done) from error
            raise failure(*describe(error), doing, self.server) from error

    def _heard(
        self,
        hearing: Hearing,
        opener: Callable[[], OpenStream[v1.JobEvent]],
        last: Callable[[v1.JobEvent], bool],
        doing: str,
    ) -> Iterator[Heard]:
        for item in self._stream(opener, last, doing):
            yield from hearing.take(item)

    def _stream(
        self, opener: Callable[[], OpenStream[Reply]], last: Callable[[Reply], bool], doing: str
    ) -> Iterator[Reply | Disconnected | Reconnected]:
        refuse = partial(failure, doing=doing, server=self.server)
        return resumed(opener, last, self._patience, _Real(self._closed), refuse)


def _ends_job(event: v1.JobEvent) -> bool:
    return event.notification.HasField("jobFinished")
