"""`titus run` against a server that says what it is told to, over real gRPC."""

from __future__ import annotations

import threading

import grpc
import pytest

from tests.unit.scripted_server import JOB, Server, press_ctrl_c, titus
from titus_celery.cli.watch import STREAMS_MAX
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


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


def test_run_with_what_a_container_may_need(server: Server) -> None:
    options = (
        "--disk 2GB --network 100Mbps --gpu 1 -p 8080 --publish 9090 -v data:/data -v /srv:/srv:ro "
        "--label team=blue -l urgent --constraint uniqueHost --constraint host=h1 "
        "--soft-constraint zoneBalance=true --param A=1 --cpus 2 -m 1GB"
    )
    result = titus(server, "run", *options.split(), "--entrypoint", "sh -c", "i")
    assert result.exit_code == 3
    [given] = server.created
    container = given.containers["main"]
    assert dict(container.resources) == {
        "cpu": "2",
        "memory": "1GB",
        "disk": "2GB",
        "network": "100Mbps",
        "gpu": "1",
        "ports": "8080,9090",
    }
    assert dict(container.parameters) == {"A": "1", "volumes": "data:/data,/srv:/srv:ro"}
    assert dict(container.hardConstraints.constraints) == {"uniqueHost": "", "host": "h1"}
    assert dict(container.softConstraints.constraints) == {"zoneBalance": "true"}
    assert container.entryPoint == ["sh -c"]
    assert dict(given.labels) == {"team": "blue", "urgent": ""}


def test_a_job_that_is_left_to_itself_is_an_id(server: Server) -> None:
    result = titus(server, "run", "-d", "--key", "k", "i")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{JOB}\n", "")
    assert server.keys == ["k"]
    assert not server.observed.is_set()


def test_a_service_is_left_to_itself(server: Server) -> None:
    result = titus(server, "run", "--service", "--instances", "3", "--min", "1", "--max", "9", "i")
    assert (result.exit_code, result.stdout) == (0, f"{JOB}\n")
    assert result.stderr == f"titus: a service, kept running until `titus kill {JOB}`\n"
    assert not server.observed.is_set()
    [given] = server.created
    assert given.service == pb.ServiceJobSpec(
        instances=pb.TaskInstances(desired=3, min=1, max=9), containerId="main"
    )
    assert titus(server, "run", "-q", "--service", "i").stderr == ""
    assert not server.created[1].service.HasField("retryPolicy"), "without end"


def test_a_service_may_be_given_so_many_restarts(server: Server) -> None:
    titus(server, "run", "--service", "--retries", "0", "--instances", "0", "i")
    [given] = server.created
    assert given.service.retryPolicy.exponentialBackOff == pb.RetryPolicy.ExponentialBackOff(
        initialDelayMs=1_000, maxDelayIntervalMs=30_000, retries=0
    )
    assert given.service.instances.desired == 0


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
        (["run", "--owner", "d\u00fc@example.com", "i"], "plain ASCII"),
        (["run", "--owner", "ann", "i"], "must be an e-mail address"),
        (["run", "--owner", "@example.com", "i"], "must be an e-mail address"),
        (["run", "--instances", "some", "i"], "'some' is not a whole number from 0"),
        (["run", "--retries", "4294967296", "i"], "is not a whole number from 0"),
        (["run", "--min", "1", "i"], "--min is for services; add --service"),
        (["run", "--max", "1", "i"], "--max is for services; add --service"),
        (["run", "--service", "--timeout", "1m", "i"], "a service has no run-time limit"),
        (["run", "-p", "80:8080", "i"], "names a port of the host, which the agent chooses"),
        (["run", "-p", "0", "i"], "'0' is not a port"),
        (["run", "--disk", "much", "i"], "'much'"),
        (["run", "--network", "host", "i"], "'host' is not an amount"),
        (["run", "--gpu", "0.5", "i"], "'0.5' is not a whole number of GPUs"),
        (["run", "-v", "data", "i"], "'data' is not source:target"),
        (["run", "-v", "a:/a", "--param", "volumes=b:/b", "i"], "mean the same; give one"),
        (["run", "--param", "A", "i"], "'A' is not NAME=VALUE"),
        (["run", "--key", " ", "i"], "must be plain ASCII characters, and not blank"),
        (["submit", "--key", "\u00e4", "-"], "must be plain ASCII characters"),
        (["scale", JOB], "say how many: N, --min or --max"),
        (["scale", JOB, "few"], "'few' is not a whole number"),
        (["kill", ""], "an id is empty"),
        (["kill", JOB, " "], "an id is empty"),
        (["show", ""], "an id is empty"),
        (["dev", "--port", "65536"], "65536 is not in the range"),
        (["dev", "--flower-port", "-1"], "-1 is not in the range"),
        (["flower", "--port", "0"], "0 is not in the range"),
        (["nope"], "No such command"),
        (["submit", "/does/not/exist"], "No such file"),
    ],
)
def test_usage_errors_end_with_2(server: Server, args: list[str], words: str) -> None:
    result = titus(server, *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not server.created
    assert not server.killed


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


def test_output_that_the_server_has_no_room_for_yet_is_waited_for(server: Server) -> None:
    server.tail_refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    result = titus(server, "run", "-q", "i")
    assert (result.stdout_bytes, result.stderr, result.exit_code) == (b"out\xff\n", "", 3)


def test_output_that_could_not_be_read_does_not_decide_the_exit_code(server: Server) -> None:
    server.tail_refusals = [grpc.StatusCode.INTERNAL]
    result = titus(server, "run", "i")
    assert "cannot read the output" in result.stderr
    assert (result.stdout_bytes, result.exit_code) == (b"out\xff\n", 3)


def test_output_that_broke_off_for_good_is_read_on_there_after_the_end(server: Server) -> None:
    server.output, server.pieces, server.pieces_with = b"0123456789", [4], grpc.StatusCode.INTERNAL
    result = titus(server, "run", "i")
    assert (result.stdout_bytes, server.offsets, result.exit_code) == (b"0123456789", [0, 4], 3)


def test_a_snapshot_is_taken_anew_when_the_server_lost_our_position(server: Server) -> None:
    server.breaks, server.breaks_with = 3, grpc.StatusCode.OUT_OF_RANGE
    result = titus(server, "run", "i")
    assert result.exit_code == 3
    assert result.stderr.count("task 0 running") == 1


def test_a_server_that_goes_away_is_waited_for_and_that_is_said_once(server: Server) -> None:
    server.breaks = 3
    result = titus(server, "run", "i")
    assert result.exit_code == 3
    assert result.stderr.count("went away; waiting") == 1
    assert result.stderr.count("the server is back") == 1
    assert result.stderr.count("task 0 running") == 1


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


def test_ctrl_c_does_not_wait_behind_the_output_of_many_tasks(server: Server) -> None:
    server.let_go.clear()
    server.tasks = STREAMS_MAX + 8

    def press() -> None:
        server.all_read.wait(10)
        press_ctrl_c()

    thread = threading.Thread(target=press)
    thread.start()
    result = titus(server, "run", "i")
    thread.join()
    assert result.exit_code == 130
    assert server.all_read.is_set()
    assert server.was_let_go, "the wish reached the server before its streams ended by themselves"


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
