"""The commands against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.empty_pb2 import Empty

from titus_celery.cli.main import cli
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

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


class Server(pb_grpc.JobManagementServiceServicer, v1_grpc.TaskOutputServiceServicer):
    """One job of one task, whose output is *output*; it ends when `let_go` is set."""

    def __init__(self) -> None:
        self.output = b"out\xff\n"
        self.end = v1.End(exited=True, exit_code=3, reason_code="failed", reason="failed: exit code 3")
        self.let_go = threading.Event()
        self.let_go.set()
        self.observed = threading.Event()
        self.kill_asked = threading.Event()
        self.is_deaf = False
        self.created: list[pb.JobDescriptor] = []
        self.metadata: dict[str, str | bytes] = {}
        self.killed: list[str] = []
        self.offsets: list[int] = []
        self.live = [job(pb.RUNNING)]
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.pieces: list[int] = []
        self.breaks = 0
        self.port = 0

    def start(self) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(8))
        pb_grpc.add_JobManagementServiceServicer_to_server(self, server)
        v1_grpc.add_TaskOutputServiceServicer_to_server(self, server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        return server

    def CreateJob(self, request: pb.JobDescriptor, context: grpc.ServicerContext) -> pb.JobId:  # noqa: N802
        if self.refusal:
            context.abort(*self.refusal)
        self.created.append(request)
        self.metadata = {key: value for key, value in context.invocation_metadata()}
        return pb.JobId(id=JOB)

    def FindJob(self, request: pb.JobId, context: grpc.ServicerContext) -> pb.Job:  # noqa: N802
        if self.refusal:
            context.abort(*self.refusal)
        found = [each for each in self.live if each.id == request.id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no job has the id {request.id!r}")
        return found[0]

    def FindTask(self, request: pb.TaskId, context: grpc.ServicerContext) -> pb.Task:  # noqa: N802
        if request.id != TASK:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no task has the id {request.id!r}")
        return task(pb.RUNNING)

    def FindJobs(self, request: pb.JobQuery, context: grpc.ServicerContext) -> pb.JobQueryResult:  # noqa: N802
        at = request.page.pageNumber
        more = at + 1 < len(self.live)
        return pb.JobQueryResult(items=self.live[at : at + 1], pagination=pb.Pagination(hasMore=more))

    def KillJob(self, request: pb.JobId, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        self.killed.append(request.id)
        self.kill_asked.set()
        if not self.is_deaf:
            self.let_go.set()
        return Empty()

    def KillTask(self, request: pb.TaskId, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        self.killed.append(request.id)
        return Empty()

    def ObserveJob(  # noqa: N802
        self, request: pb.JobId, context: grpc.ServicerContext
    ) -> Iterator[pb.JobChangeNotification]:
        self.breaks -= 1
        if self.breaks in (0, 1):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        yield pb.JobChangeNotification(
            jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=job(pb.RUNNING, request.id))
        )
        if self.breaks == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restart")
        self.observed.set()
        self.let_go.wait(10)
        yield pb.JobChangeNotification(jobFinished=pb.JobChangeNotification.JobFinished(id=request.id))

    def TailTask(  # noqa: N802
        self, request: v1.TailTaskRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.TailTaskItem]:
        self.offsets.append(request.offset)
        data = self.output[request.offset :]
        if self.pieces:
            data = data[: self.pieces.pop(0)]
            yield v1.TailTaskItem(output=v1.Output(offset=request.offset, source=v1.STDOUT, data=data))
            context.abort(grpc.StatusCode.UNAVAILABLE, "restart")
        yield v1.TailTaskItem(output=v1.Output(offset=request.offset, source=v1.STDOUT, data=data))
        self.let_go.wait(10)
        yield v1.TailTaskItem(end=self.end)


@pytest.fixture
def server() -> Iterator[Server]:
    servicer = Server()  # type: ignore[abstract]  # the methods that no command calls are missing
    running = servicer.start()
    yield servicer
    running.stop(None).wait()


def titus(server: Server, *args: str, stdin: str = "") -> Result:
    env = {"TITUS_SERVER": f"127.0.0.1:{server.port}", "TITUS_OWNER": "ann@example.com"}
    return CliRunner().invoke(cli, args, input=stdin, env=env, prog_name="titus")


def test_run_passes_output_and_exit_code_through(server: Server) -> None:
    result = titus(server, "run", "i", "--", "sh", "-c", "x")
    assert result.stdout_bytes == b"out\xff\n"
    assert result.exit_code == 3
    assert f"titus: job {JOB}" in result.stderr
    assert "titus: task 0 running" in result.stderr
    assert result.stderr.endswith("titus: task 0 failed: exit code 3\n")


def test_a_code_that_does_not_speak_for_itself_is_explained(server: Server) -> None:
    server.end = v1.End(exited=True, exit_code=137, signal=9, reason_code="oomKilled", reason="oomKilled: x")
    result = titus(server, "run", "i")
    assert result.exit_code == 137
    assert result.stderr.endswith("titus: exit code 137: task 0: out of memory\n")


def test_run_sends_what_was_asked_for_and_nothing_else(server: Server) -> None:
    titus(server, "run", "i", "--", "ls", "-l")
    [plain] = server.created
    assert plain == pb.JobDescriptor(
        containers={"main": pb.Container(image=pb.Image(name="i"), command=["ls", "-l"])},
        batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=1), containerId="main"),
    )
    assert server.metadata["x-titus-caller-email"] == "ann@example.com"
    assert server.metadata["x-titus-callerid"] == "ann@example.com"


def test_run_with_every_option(server: Server) -> None:
    options = "--env A=1 -e B=x=y --cpu 0.5 --memory 64Mi --instances 2 --retries 3 --timeout 2m --name n"
    titus(server, "run", "sha256:77", *options.split(), "--", "ls")
    [given] = server.created
    container = given.containers["main"]
    assert container.image.imageId == "sha256:77"
    assert dict(container.env) == {"A": "1", "B": "x=y"}
    assert dict(container.resources) == {"cpu": "0.5", "memory": "64Mi"}
    assert given.batch.instances.desired == 2
    assert given.batch.retryPolicy.immediate.retries == 3
    assert given.batch.runtimeLimitSecs == 120
    assert given.appName == "n"


def test_quiet_leaves_the_output_alone(server: Server) -> None:
    assert titus(server, "run", "-q", "i").stderr == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run"], "Missing argument 'IMAGE'"),
        (["run", "i", "sh", "-c", "x"], "Write -- before the command"),
        (["run", "--env", "A", "i"], "'A' is not NAME=VALUE"),
        (["run", "--memory", "much", "i"], "'much'"),
        (["run", "--cpu", "2GB", "i"], "has a unit"),
        (["run", "--timeout", "soon", "i"], "is no duration"),
        (["run", "--instances", "0", "i"], "0 is not in the range"),
        (["run", "--owner", "d\u00fc", "i"], "plain ASCII"),
        (["nope"], "No such command"),
        (["submit", "/does/not/exist"], "No such file"),
    ],
)
def test_usage_errors_end_with_2(server: Server, args: list[str], words: str) -> None:
    result = titus(server, *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not server.created


def test_a_refusal_is_one_sentence_and_125(server: Server) -> None:
    server.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "image: nobody has \x1b[2J it")
    result = titus(server, "run", "i")
    assert result.exit_code == 125
    assert result.stderr == (
        "titus: cannot submit the job; image: nobody has \\x1b[2J it; correct the request and send it again\n"
    )


def test_without_a_server_it_says_how_to_get_one(server: Server) -> None:
    result = titus(server, "ls", "--server", "127.0.0.1:1")
    assert result.exit_code == 125
    assert "no Titus server answers at 127.0.0.1:1; start one with `titus dev`" in result.stderr
    assert result.stderr.count("\n") == 1


def test_broken_output_is_read_on_where_it_broke(server: Server) -> None:
    server.output, server.pieces = b"0123456789", [4, 3]
    assert titus(server, "run", "i").stdout_bytes == b"0123456789"
    assert server.offsets == [0, 4, 7]


def test_a_server_that_goes_away_is_waited_for_and_that_is_said_once(server: Server) -> None:
    server.breaks = 3
    result = titus(server, "run", "i")
    assert result.exit_code == 3
    assert result.stderr.count("went away; waiting") == 1
    assert result.stderr.count("the server is back") == 1
    assert result.stderr.count("task 0 running") == 1


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_ctrl_c_asks_the_server_to_end_the_job_and_follows_it_to_the_end(server: Server) -> None:
    server.let_go.clear()

    def press() -> None:
        server.observed.wait(10)
        press_ctrl_c()

    thread = threading.Thread(target=press)
    thread.start()
    result = titus(server, "run", "i")
    thread.join()
    assert server.killed == [JOB]
    assert result.exit_code == 130
    assert "task 0 failed" in result.stderr, "it was followed until it had ended"


def test_a_second_ctrl_c_leaves_the_job_and_says_its_id(server: Server) -> None:
    server.let_go.clear()
    server.is_deaf = True

    def press_twice() -> None:
        server.observed.wait(10)
        press_ctrl_c()
        server.kill_asked.wait(10)
        press_ctrl_c()

    thread = threading.Thread(target=press_twice)
    thread.start()
    result = titus(server, "run", "i")
    thread.join()
    server.let_go.set()
    assert result.exit_code == 130
    assert f"job {JOB} is the server's now" in result.stderr
    assert "task 0 failed" not in result.stderr


def test_submit_prints_an_id_for_each_document(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimage: b\n")
    result = titus(server, "submit", str(file))
    assert result.stdout == f"{JOB}\n{JOB}\n"
    assert result.stderr == ""
    assert [each.containers["main"].image.name for each in server.created] == ["a", "b"]


def test_submit_from_standard_input_and_wait(server: Server) -> None:
    result = titus(server, "submit", "-", "--wait", stdin="image: a")
    assert result.exit_code == 3
    assert result.stdout == f"{JOB}\n", "the output was not asked for"


def test_submit_and_follow_shows_the_output(server: Server) -> None:
    result = titus(server, "submit", "-", "--follow", "--quiet", stdin="image: a")
    assert result.stdout_bytes == JOB.encode() + b"\nout\xff\n"
    assert result.stderr == ""


def test_nothing_is_submitted_when_one_document_is_wrong(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("image: a\n---\nimagee: b\n")
    result = titus(server, "submit", str(file))
    assert result.exit_code == 2
    assert result.stderr == f"titus: {file}:3: 'imagee' is unknown in a job; did you mean 'image'?\n"
    assert not server.created


def test_a_file_that_is_no_text_is_refused_with_its_line(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"image: a\nname: \xff\n")
    result = titus(server, "submit", str(file))
    assert result.exit_code == 2
    assert f"{file}:2: this is not UTF-8 text" in result.stderr


def test_ls_lists_all_pages_newest_first_without_what_a_terminal_would_obey(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    server.live[1].jobDescriptor.appName = "evil\x1b[31m\n\u202e"
    lines = titus(server, "ls").stdout.splitlines()
    assert lines[0].split() == ["JOB", "NAME", "STATE", "TASKS", "OWNER", "SINCE"]
    assert lines[1].startswith("0b0e7a52-9  evil\\x1b[31m\\n\\u202e  QUEUED   0/1 running")
    assert lines[2].startswith("0b0e7a52-1  hello")
    assert len(lines) == 3


def test_ls_shortens_a_lone_id_to_eight_characters(server: Server) -> None:
    assert titus(server, "ls").stdout.splitlines()[1].startswith("0b0e7a52  hello")


def test_ls_as_json_has_every_field(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    found = json.loads(titus(server, "ls", "-o", "json").stdout)
    assert [each["id"] for each in found] == [NEAR, JOB]
    assert found[0]["jobState"] == {"state": "QUEUED", "reason": ""}


def test_show_a_job_by_the_beginning_of_its_id(server: Server) -> None:
    result = titus(server, "show", "0b0e")
    assert result.exit_code == 0
    assert f"job       {JOB}" in result.stdout
    assert "command   a 'b c'" in result.stdout
    assert "RUNNING  h1" in result.stdout


def test_show_a_task(server: Server) -> None:
    shown = titus(server, "show", TASK).stdout
    assert f"task                 {TASK}" in shown
    assert "agent.host           h1" in shown
    assert json.loads(titus(server, "show", TASK, "-o", "json").stdout)["id"] == TASK


def test_the_beginning_of_two_ids_names_neither(server: Server) -> None:
    server.live.append(job(pb.QUEUED, NEAR))
    result = titus(server, "show", "0b0e")
    assert result.exit_code == 125
    assert JOB in result.stderr
    assert NEAR in result.stderr


def test_a_look_up_that_fails_is_not_an_id_of_nothing(server: Server) -> None:
    server.refusal = (grpc.StatusCode.DATA_LOSS, "a key holds what we never wrote")
    assert "a key holds what we never wrote" in titus(server, "show", "zzz").stderr


def test_an_id_of_nothing(server: Server) -> None:
    result = titus(server, "kill", "zzz")
    assert result.exit_code == 125
    assert "no job or task is called 'zzz'; `titus ls` lists" in result.stderr


@pytest.mark.parametrize("id", [JOB, TASK])
def test_kill_ends_a_job_or_a_task(server: Server, id: str) -> None:
    result = titus(server, "kill", id)
    assert result.stdout == f"{id}\n"
    assert server.killed == [id]
    assert not server.observed.is_set()
    assert not server.offsets


def test_kill_waits_for_the_end_when_asked_to(server: Server) -> None:
    assert titus(server, "kill", JOB, "--wait").exit_code == 0
    assert server.observed.is_set()
    assert titus(server, "kill", TASK, "--wait").exit_code == 0
    assert server.offsets == [0]


def test_an_internal_error_is_one_sentence(server: Server) -> None:
    # A server that breaks the contract: a task without an index.
    server.live[0].tasks[0].taskContext.clear()
    result = titus(server, "show", JOB)
    assert result.exit_code == 125
    assert "internal error (ValueError" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.linesep not in result.stderr.strip()
