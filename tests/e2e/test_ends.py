"""Every way in which a run ends, as it is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.e2e.installation import CALLER, Installation
from tests.e2e.jobs import WORKLOADS, at, job, shell, states
from tests.e2e.processes import until
from titus_celery.client import CallFailed
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: Says that it obeys, then does.
POLITE = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"


def gone(shared: Installation, task_id: str) -> None:
    until(lambda: shared.engine.container(task_id) is None, f"the container {task_id} is gone")


def test_a_run_over_its_limit_is_ended(shared: Installation) -> None:
    job_id = shared.client.submit(job(*shell(POLITE), limit=timedelta(seconds=1)))
    task_id = f"{job_id}-0-1"
    task = shared.reached(task_id, "FAILED")
    assert task.state.reason == "runtimeLimitExceeded: ran longer than 1 s"
    ran = at(task.stateChanges, "FAILED") - at(task.stateChanges, "RUNNING")
    assert ran >= timedelta(seconds=1)
    assert shared.output(task_id) == "up\nbye\n"
    gone(shared, task_id)


@pytest.mark.parametrize(
    ("script", "said", "exit_code", "signal"),
    [(POLITE, "up\nbye\n", 0, 0), ("exec ignore-sigterm.sh", "ignoring TERM\n", 137, 9)],
    ids=["obeys", "ignores TERM"],
)
def test_a_killed_task_ends_whether_its_container_obeys_or_not(
    shared: Installation, script: str, said: str, exit_code: int, signal: int
) -> None:
    job_id = shared.client.submit(job(*shell(script), image=WORKLOADS))
    task_id = f"{job_id}-0-1"
    shared.reached(task_id, "RUNNING")
    until(lambda: b"\n" in shared.engine.client.logs(task_id), "its signal handling is set up")
    shared.client.kill_task(task_id)
    task = shared.reached(task_id, "FAILED")
    assert task.state.reason.startswith(f"killed: by {CALLER} at ")
    assert shared.output(task_id) == said
    end = shared.end(task_id)
    assert (end.exited, end.exit_code, end.signal, end.reason_code) == (True, exit_code, signal, "killed")
    assert shared.over(job_id).jobState.state == pb.FAILED
    gone(shared, task_id)
    with pytest.raises(CallFailed) as refused:
        shared.client.kill_task(task_id)
    assert refused.value.status == "FAILED_PRECONDITION"


def test_killing_a_job_ends_its_running_tasks_without_replacement(shared: Installation) -> None:
    policy = pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=5))
    job_id = shared.client.submit(job("sleep", "600", instances=3, retry=policy))
    for slot in range(3):
        shared.reached(f"{job_id}-{slot}-1", "RUNNING")
    shared.client.kill(job_id)
    found = shared.over(job_id)
    assert found.jobState.state == pb.FAILED
    assert found.jobState.reason.startswith(f"killed: by {CALLER} at ")
    assert [task.id for task in found.tasks] == [f"{job_id}-{slot}-1" for slot in range(3)]
    for task in found.tasks:
        assert task.state.reason.startswith(f"killed: by {CALLER} at ")
        gone(shared, task.id)


def test_killing_a_job_that_waits_for_room_ends_it_without_a_container(shared: Installation) -> None:
    cpus = int(shared.engine.client.info()["NCPU"])
    job_id = shared.client.submit(job("true", resources={"cpu": str(cpus + 1), "memory": "32MB"}))
    task_id = f"{job_id}-0-1"
    told = until(lambda: shared.client.find_task(task_id).state.reason, "it is told why the task waits")
    assert told.startswith("waiting: ")
    assert "cpu" in told
    shared.client.kill(job_id)
    found = shared.over(job_id)
    assert states(found.tasks[0].stateChanges) == ["QUEUED", "FAILED"]
    assert found.tasks[0].state.reason.startswith(f"killed: by {CALLER} at ")
    assert not shared.end(task_id).exited


def test_running_out_of_memory_is_told_as_such(shared: Installation) -> None:
    job_id = shared.client.submit(job("oom.sh", image=WORKLOADS, resources={"cpu": "0.5", "memory": "16MiB"}))
    shared.over(job_id)
    task = shared.client.find_task(f"{job_id}-0-1")
    assert task.state.state == pb.FAILED
    assert task.state.reason.startswith("oomKilled: ")


@pytest.mark.parametrize(
    ("command", "exit_code", "code"),
    [
        (("sh", "-c", "exit 3"), 3, "failed"),
        (("/etc/passwd",), 126, "crashed"),
        (("/no/such/program",), 127, "crashed"),
    ],
    ids=["exits 3", "not executable", "not found"],
)
def test_the_exit_code_of_a_failure_is_told(
    shared: Installation, command: tuple[str, ...], exit_code: int, code: str
) -> None:
    job_id = shared.client.submit(job(*command))
    found = shared.over(job_id)
    assert found.jobState.state == pb.FAILED
    end = shared.end(f"{job_id}-0-1")
    assert (end.exited, end.exit_code, end.reason_code) == (True, exit_code, code)
    gone(shared, f"{job_id}-0-1")


def test_a_signal_that_the_container_sends_itself_is_told(shared: Installation) -> None:
    # The first process of a container is immune against its own signals, so a child dies of it.
    job_id = shared.client.submit(job(*shell("sh -c 'kill -SEGV $$'; exit $?")))
    task = shared.over(job_id).tasks[0]
    assert task.state.reason == "failed: ended by signal 11 (exit code 139)"


def test_an_image_that_nobody_has_is_refused_when_the_job_is_created(shared: Installation) -> None:
    with pytest.raises(CallFailed) as refused:
        shared.client.submit(job("true", image="titus/nobody-has-this"))
    assert refused.value.status == "INVALID_ARGUMENT"
    assert "titus/nobody-has-this" in refused.value.why
