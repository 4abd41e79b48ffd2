"""A server that says what it is told to, over real gRPC, for the tests of the commands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from click.testing import CliRunner, Result
from google.protobuf.empty_pb2 import Empty

from tests.unit.scripted_clusters import Clusters
from titus_celery.cli.main import cli
from titus_celery.cli.watch import STREAMS_MAX
from titus_celery.errors import FailedPrecondition, PartialFailure
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc
from titus_celery.grpc.status import refusal_of

JOB = "0b0e7a52-1111-4222-8333-444455556666"
NEAR = "0b0e7a52-9999-4222-8333-444455556666"
TASK = f"{JOB}-0-1"
DESCRIPTOR = pb.JobDescriptor(
    appName="hello",
    owner=pb.Owner(ownerEmail="ann@example.com"),
    containers={"main": pb.Container(image=pb.Image(name="i", imageId="sha256:1"), command=["a", "b c"])},
    batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=1), containerId="main"),
)


def task(state: pb.State.ValueType, reason: str = "") -> pb.Task:
    return pb.Task(
        id=TASK,
        taskContext={"task.index": "0", "task.resubmitNumber": "0", "agent.host": "h1"},
        state=pb.TaskState(state=state, reason=reason),
        stateChanges=[pb.StateChange(state=pb.State.Name(state), timestamp="2026-01-02T03:04:05.678Z")],
    )


def job(state: pb.State.ValueType, id: str = JOB) -> pb.Job:
    return pb.Job(
        id=id,
        jobDescriptor=DESCRIPTOR,
        tasks=[task(state)],
        jobState=pb.JobState(state=state),
        stateChanges=[pb.StateChange(state="QUEUED", timestamp="2026-01-02T03:04:05.678Z")],
    )


def told(position: str = "", **notification: Any) -> v1.JobEvent:
    """An event and its place."""
    return v1.JobEvent(position=position, notification=pb.JobChangeNotification(**notification))


class Observations(v1_grpc.ObservationServiceServicer):
    """The streams of a server's job: a class of its own, as the Titus API has methods of the same names."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def ObserveJob(  # noqa: N802
        self, request: v1.ObserveJobRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.JobEvent]:
        return self._server.observe(request, context)

    def ObserveJobs(  # noqa: N802
        self, request: v1.ObserveJobsRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.JobEvent]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no command observes all jobs")


class Server(Clusters, v1_grpc.TaskOutputServiceServicer):
    """One job of *tasks* tasks, whose output is *output*; it ends when `let_go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.output = b"out\xff\n"
        self.source: v1.Source.ValueType = v1.STDOUT
        self.end = v1.End(exited=True, exit_code=3, reason_code="failed", reason="failed: exit code 3")
        self.let_go = threading.Event()
        self.let_go.set()
        self.observed = threading.Event()
        self.kill_asked = threading.Event()
        self.is_deaf = False
        #: Observers hear nothing of the job until `let_go` is set.
        self.is_silent = False
        self.created: list[pb.JobDescriptor] = []
        self.metadata: dict[str, str | bytes] = {}
        #: Under which each job was sent.
        self.keys: list[str] = []
        self.killed: list[str] = []
        self.unkillable: set[str] = set()
        self.resized: list[pb.JobInstancesUpdate] = []
        self.resize_refusal: tuple[grpc.StatusCode, str] | None = None
        #: The job as its observers see it first, if it is another one.
        self.shown: pb.Job | None = None
        self.queries: list[pb.JobQuery] = []
        #: Tasks that can be found one by one.
        self.found_tasks = [task(pb.RUNNING)]
        #: Jobs that are over.
        self.over: list[pb.Job] = []
        self.page_size = 1
        self.offsets: list[int] = []
        self.live = [job(pb.RUNNING)]
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.pieces: list[int] = []
        self.pieces_with = grpc.StatusCode.UNAVAILABLE
        self.breaks = 0
        self.breaks_with = grpc.StatusCode.UNAVAILABLE
        #: From where streams of the job were to go on, and whether they do.
        self.resumes: list[str] = []
        self.can_resume = True
        self.create_refusals: list[grpc.StatusCode | None] = []
        self.tail_refusals: list[grpc.StatusCode] = []
        self.tasks = 1
        #: As many streams of output are open as a command opens at once.
        self.all_read = threading.Event()
        self.was_let_go = True
        self.port = 0

    def start(self) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(2 * STREAMS_MAX))
        pb_grpc.add_JobManagementServiceServicer_to_server(self, server)
        v1_grpc.add_ClusterServiceServicer_to_server(self, server)
        v1_grpc.add_ObservationServiceServicer_to_server(Observations(self), server)
        v1_grpc.add_TaskOutputServiceServicer_to_server(self, server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        return server

    def CreateJob(self, request: pb.JobDescriptor, context: grpc.ServicerContext) -> pb.JobId:  # noqa: N802
        self.metadata = {key: value for key, value in context.invocation_metadata()}
        self.keys.append(str(self.metadata.get("x-titus-idempotency-key")))
        if self.refusal:
            context.abort(*self.refusal)
        if self.create_refusals and (status := self.create_refusals.pop(0)):
            context.abort(status, "not this one")
        self.created.append(request)
        return pb.JobId(id=JOB)

    def FindJob(self, request: pb.JobId, context: grpc.ServicerContext) -> pb.Job:  # noqa: N802
        if self.refusal:
            context.abort(*self.refusal)
        found = [each for each in self.live if each.id == request.id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no job has the id {request.id!r}")
        return found[0]

    def FindTask(self, request: pb.TaskId, context: grpc.ServicerContext) -> pb.Task:  # noqa: N802
        found = [each for each in self.found_tasks if each.id == request.id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no task has the id {request.id!r}")
        return found[0]

    def FindTasks(self, request: pb.TaskQuery, context: grpc.ServicerContext) -> pb.TaskQueryResult:  # noqa: N802
        if request.jobId != JOB:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no job has the id {request.jobId!r}")
        return pb.TaskQueryResult(items=self.found_tasks)

    def FindJobs(self, request: pb.JobQuery, context: grpc.ServicerContext) -> pb.JobQueryResult:  # noqa: N802
        """A page of as many jobs as `page_size` says, whatever was asked for."""
        self.queries.append(request)
        wanted = request.fiterlingCriteria.get("jobState", "")
        found = [each for each in self.over if pb.State.Name(each.jobState.state) == wanted]
        found = found if wanted in ("FINISHED", "FAILED") else self.live
        start, size = request.page.pageNumber * self.page_size, self.page_size
        pages = -(-len(found) // size)
        about = pb.Pagination(hasMore=start + size < len(found), totalItems=len(found), totalPages=pages)
        return pb.JobQueryResult(items=found[start : start + size], pagination=about)

    def UpdateJobInstances(self, request: pb.JobInstancesUpdate, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        if self.resize_refusal:
            context.abort(*self.resize_refusal)
        self.resized.append(request)
        return Empty()

    def KillJobs(self, request: pb.JobIds, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        return self._kill(request.id, context)

    def KillTasks(self, request: pb.TaskIds, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        return self._kill(request.id, context)

    def KillJob(self, request: pb.JobId, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        return self._kill([request.id], context)

    def KillTask(self, request: pb.TaskId, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        return self._kill([request.id], context)

    def _kill(self, ids: Sequence[str], context: grpc.ServicerContext) -> Empty:
        failed = [id for id in ids if id in self.unkillable]
        done = [id for id in ids if id not in failed]
        self.killed.extend(done)
        self.kill_asked.set()
        if not self.is_deaf:
            self.let_go.set()
        if failed:
            partial = PartialFailure(
                "Kill", [(id, FailedPrecondition("job", id, "it is over")) for id in failed], done
            )
            refusal = refusal_of(partial)
            context.set_trailing_metadata(refusal.trailers)
            context.abort(refusal.code, refusal.message)
        return Empty()

    def observe(self, request: v1.ObserveJobRequest, context: grpc.ServicerContext) -> Iterator[v1.JobEvent]:
        self.breaks -= 1
        if self.breaks in (0, 1):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        self.resumes.append(request.resume)
        is_resumed = bool(request.resume) and self.can_resume
        yield v1.JobEvent(
            position=request.resume if is_resumed else "",
            beginning=v1.Beginning(resumed=is_resumed, why_not="" if is_resumed else "it was long ago"),
        )
        if self.is_silent:
            self.observed.set()
            self.let_go.wait(10)
        if not is_resumed:
            shown = self.shown or self._shown(request.job_id)
            yield told(jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=shown))
        yield told("1", snapshotEnd=pb.JobChangeNotification.SnapshotEnd())
        if self.breaks == 2:
            context.abort(self.breaks_with, "restart")
        self.observed.set()
        self.let_go.wait(10)
        yield told("2", jobFinished=pb.JobChangeNotification.JobFinished(id=request.job_id))

    def _shown(self, id: str) -> pb.Job:
        shown = job(pb.RUNNING, id)
        for slot in range(1, self.tasks):
            another = shown.tasks.add()
            another.CopyFrom(shown.tasks[0])
            another.id, another.taskContext["task.index"] = f"{JOB}-{slot}-1", str(slot)
        return shown

    def TailTask(  # noqa: N802
        self, request: v1.TailTaskRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.TailTaskItem]:
        if self.tail_refusals:
            context.abort(self.tail_refusals.pop(0), "not now")
        self.offsets.append(request.offset)
        if len(self.offsets) == STREAMS_MAX:
            self.all_read.set()
        data = self.output[request.offset :]
        if self.pieces:
            data = data[: self.pieces.pop(0)]
            yield v1.TailTaskItem(output=v1.Output(offset=request.offset, source=self.source, data=data))
            context.abort(self.pieces_with, "restart")
        yield v1.TailTaskItem(output=v1.Output(offset=request.offset, source=self.source, data=data))
        if not self.let_go.wait(10):
            self.was_let_go = False
        yield v1.TailTaskItem(end=self.end)


def press_ctrl_c() -> None:
    """Interrupt the command, which runs in the main thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def titus(server: Server, *args: str, stdin: str = "") -> Result:
    env = {"TITUS_SERVER": f"127.0.0.1:{server.port}", "TITUS_OWNER": "ann@example.com"}
    return CliRunner().invoke(cli, args, input=stdin, env=env, prog_name="titus")
