"""Services on the command line: shown, scaled and followed, over real gRPC with a scripted server."""

from __future__ import annotations

import threading

import grpc
import pytest

from tests.unit.scripted_server import JOB, NEAR, TASK, Server, job, press_ctrl_c, titus
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

UNBOUNDED = 2**31 - 1


def run(slot: int, attempt: int, state: pb.State.ValueType, reason: str = "", ports: str = "") -> pb.Task:
    """A run of a service's slot."""
    context = {"task.index": str(slot), "task.resubmitNumber": str(attempt - 1), "agent.host": f"h{slot}"}
    if ports:
        context["task.ports"] = ports
    change = pb.StateChange(state=pb.State.Name(state), timestamp="2026-01-02T03:04:05.678Z")
    return pb.Task(
        id=f"{JOB}-{slot}-{attempt}",
        taskContext=context,
        state=pb.TaskState(state=state, reason=reason),
        stateChanges=[change],
    )


def service(*tasks: pb.Task, desired: int = 2, low: int = 1, high: int = UNBOUNDED) -> pb.Job:
    """A service with these tasks."""
    made = job(pb.RUNNING)
    made.ClearField("tasks")
    made.tasks.extend(tasks)
    instances = pb.TaskInstances(desired=desired, min=low, max=high)
    made.jobDescriptor.service.CopyFrom(pb.ServiceJobSpec(instances=instances, containerId="main"))
    return made


RUNS = (
    run(1, 1, pb.FAILED, "failed: exit code 1"),
    run(0, 1, pb.RUNNING, ports="8080=h0:31007;9090=h0:31008"),
    run(1, 2, pb.FINISHED, "normal"),
    run(1, 3, pb.STARTING),
    run(2, 1, pb.FAILED, "scaledDown: 2 tasks are wanted"),
)


# --------------------------------------------------------------------------------------------- show


def test_a_service_is_shown_with_the_latest_run_of_each_slot(server: Server) -> None:
    server.live = [service(*RUNS)]
    result = titus(server, "show", JOB)
    facts, _, tasks = result.stdout.split("\n\n")
    assert "type      service" in facts
    assert "tasks     1 running of 2 wanted" in facts
    assert "bounds    min 1, max unbounded" in facts
    assert "restarts  2" in facts
    assert "retries   without end" in facts
    assert [line.split()[:4] for line in tasks.splitlines()] == [
        ["TASK", "ATTEMPT", "STATE", "HOST"],
        ["0", "1", "RUNNING", "h0"],
        ["1", "3", "STARTING", "h1"],
    ]
    assert "8080=h0:31007 9090=h0:31008" in tasks
    assert result.stderr == "titus: 3 earlier runs are not listed; --all lists them\n"


def test_all_runs_of_a_service_are_shown_to_who_asks(server: Server) -> None:
    server.live = [service(*RUNS)]
    result = titus(server, "show", "--all", JOB)
    rows = result.stdout.split("\n\n")[2].splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["0", "1"], ["1", "1"], ["1", "2"], ["1", "3"], ["2", "1"]]
    assert result.stderr == ""


def test_a_service_without_tasks_and_with_bounds(server: Server) -> None:
    server.live = [service(desired=0, low=0, high=7)]
    shown = titus(server, "show", JOB).stdout
    assert "0 running of 0 wanted" in shown
    assert "min 0, max 7" in shown


def test_what_a_container_may_have_is_shown(server: Server) -> None:
    made = service(*RUNS)
    container = made.jobDescriptor.containers["main"]
    container.parameters.update({"volumes": "a:/a", "MODE": "fast"})
    container.hardConstraints.constraints.update({"uniqueHost": "", "host": "h1"})
    container.softConstraints.constraints["zoneBalance"] = "true"
    container.securityProfile["iamRole"] = "r"
    container.env["SECRET"] = "s3cret"
    made.jobDescriptor.jobGroupInfo.stack = "prod"
    made.jobDescriptor.owner.teamEmail = "team@example.com"
    made.jobDescriptor.service.retryPolicy.exponentialBackOff.retries = 3
    made.jobDescriptor.service.retryPolicy.exponentialBackOff.initialDelayMs = 500
    server.live = [made]
    shown = titus(server, "show", JOB).stdout
    for line in (
        "team              team@example.com",
        "stack             prod",
        "volumes           a:/a",
        "parameters        MODE=fast",
        "constraints       host=h1, uniqueHost",
        "soft constraints  zoneBalance=true",
        "security profile  iamRole=r",
        "retries           3, after 0.5 s, then doubling",
    ):
        assert f"{line}\n" in shown
    assert "s3cret" not in shown, "a screen is no place for an environment"


def test_a_batch_job_is_shown_with_its_limit_and_every_run(server: Server) -> None:
    server.live[0].tasks.extend([run(1, 1, pb.FAILED), run(1, 2, pb.QUEUED)])
    server.live[0].jobDescriptor.batch.runtimeLimitSecs = 5_400
    server.live[0].jobDescriptor.batch.retryPolicy.delayed.retries = 2
    shown = titus(server, "show", JOB)
    assert "time limit  1:30:00" in shown.stdout
    assert "retries     2, the first after 0 s, others after 0 s" in shown.stdout
    assert len(shown.stdout.split("\n\n")[2].splitlines()) == 1 + 3
    assert "PORTS" not in shown.stdout
    assert shown.stderr == ""


def test_a_service_is_listed_with_how_many_of_it_run(server: Server) -> None:
    server.live = [service(*RUNS)]
    assert "service  RUNNING  1/2 running" in titus(server, "ls").stdout


# -------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize(
    ("args", "sent", "words"),
    [
        (["5"], (5, 1, UNBOUNDED), "tasks 2 -> 5, min 1, max unbounded"),
        (["0", "--min", "0"], (0, 0, UNBOUNDED), "tasks 2 -> 0, min 1 -> 0, max unbounded"),
        (["--max", "4"], (2, 1, 4), "tasks 2, min 1, max unbounded -> 4"),
        (["2"], (2, 1, UNBOUNDED), "tasks 2, min 1, max unbounded (as before)"),
        (["2", "--max", "0"], (2, 1, 0), "tasks 2, min 1, max unbounded (as before)"),
    ],
)
def test_scale_says_what_was_and_what_is(
    server: Server, args: list[str], sent: tuple[int, int, int], words: str
) -> None:
    server.live = [service(*RUNS)]
    result = titus(server, "scale", JOB[:8], *args)
    assert (result.exit_code, result.stdout) == (0, f"{JOB}  {words}\n")
    [update] = server.resized
    numbers = update.instances
    assert (update.jobId, (numbers.desired, numbers.min, numbers.max)) == (JOB, sent)


def test_a_refusal_to_scale_says_why(server: Server) -> None:
    server.resize_refusal = (grpc.StatusCode.FAILED_PRECONDITION, f"job {JOB}: it is a batch job")
    result = titus(server, "scale", JOB, "5")
    assert result.exit_code == 125
    assert result.stderr == f"titus: cannot resize job {JOB}; job {JOB}: it is a batch job\n"


def test_numbers_out_of_bounds_are_refused_with_what_to_do(server: Server) -> None:
    server.resize_refusal = (grpc.StatusCode.INVALID_ARGUMENT, "instances.desired: 5 is not within")
    result = titus(server, "scale", JOB, "5")
    assert result.exit_code == 125
    assert result.stderr.endswith("5 is not within; --min and --max move the bounds\n")


def test_a_task_is_not_scaled(server: Server) -> None:
    result = titus(server, "scale", TASK, "5")
    assert result.exit_code == 125
    assert f"its job is {JOB}" in result.stderr
    assert titus(server, "scale", NEAR, "5").exit_code == 125
    assert not server.resized


# ------------------------------------------------------------------------------------------- follow


@pytest.mark.parametrize("is_silent", [False, True], ids=["heard of", "not heard of yet"])
def test_ctrl_c_leaves_a_service_that_is_followed(server: Server, is_silent: bool) -> None:
    server.live = [service(*RUNS)]
    server.shown = service(run(0, 1, pb.RUNNING))
    server.is_silent = is_silent
    server.let_go.clear()

    def press() -> None:
        server.observed.wait(10)
        press_ctrl_c()

    thread = threading.Thread(target=press)
    thread.start()
    result = titus(server, "submit", "--follow", "-", stdin="image: i\ntype: service")
    thread.join()
    server.let_go.set()
    assert result.exit_code == 130
    assert not server.killed
    assert f"left; job {JOB} is the server's now" in result.stderr


def test_a_service_is_followed_to_its_end_with_its_tasks_told_apart(server: Server) -> None:
    server.live = [service(run(0, 1, pb.RUNNING), desired=1)]
    server.shown = server.live[0]
    server.output = b"served\n"
    server.end = v1.End(exited=True, exit_code=143, signal=15, reason_code="killed", reason="killed: by ann")
    result = titus(server, "submit", "--follow", "-", stdin="image: i\ntype: service")
    assert result.stdout == f"{JOB}\n0 | served\n"
    assert "titus: 1/1 running" in result.stderr
    assert result.stderr.endswith("titus: exit code 143: task 0: killed: by ann\n")
    assert result.exit_code == 143
