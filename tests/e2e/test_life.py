"""A job from CreateJob to JobFinished, seen through the API and on the engine."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from tests.e2e.installation import CALLER, Installation, installed
from tests.e2e.jobs import at, job, shell, states, task_states
from tests.e2e.processes import until
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: An ended container goes at once, long before the agent's next look for containers to be cleared away.
SOON = timedelta(seconds=10)
LIFE = ["QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FINISHED"]


def test_an_observer_hears_each_state_in_order_and_the_stream_ends_with_the_job(shared: Installation) -> None:
    everything = shared.stub.ObserveJobs(Empty(), timeout=60)
    for message in everything:
        if message.HasField("snapshotEnd"):
            break
    job_id = shared.client.submit(job(*shell("echo hello")))
    task_id = f"{job_id}-0-1"
    of_one = shared.stub.ObserveJob(pb.JobId(id=job_id), timeout=60)
    heard: list[pb.JobChangeNotification] = []
    for message in everything:
        heard.append(message)
        if message.jobFinished.id == job_id:
            break
    everything.cancel()
    assert heard[0].jobDefinitionUpdate.id == job_id
    assert task_states(heard, task_id) == LIFE
    # This loop ends by itself, since the server closes the stream with OK.
    followed = list(of_one)
    assert followed[0].jobSnapshot.job.id == job_id
    assert followed[1].HasField("snapshotEnd")
    assert followed[-1].jobFinished.id == job_id
    assert [message.WhichOneof("notification") for message in followed].count("jobFinished") == 1


def test_a_finished_job_reads_the_same_through_every_method(shared: Installation) -> None:
    job_id = shared.client.submit(job(*shell("echo $((6 * 7))"), instances=2))
    found = shared.over(job_id)
    assert found.jobState == pb.JobState(state=pb.FINISHED, reason="normal")
    assert states(found.stateChanges) == LIFE
    assert found.jobDescriptor.owner.ownerEmail == CALLER
    assert [task.id for task in found.tasks] == [f"{job_id}-0-1", f"{job_id}-1-1"]
    for slot, task in enumerate(found.tasks):
        assert shared.client.find_task(task.id) == task
        assert states(task.stateChanges) == LIFE
        times = [at(task.stateChanges, state) for state in LIFE]
        assert times == sorted(times)
        assert task.state == pb.TaskState(state=pb.FINISHED, reason="normal")
        assert task.taskContext["task.index"] == str(slot)
        assert task.taskContext["task.originalId"] == task.id
        assert task.taskContext["task.resubmitNumber"] == "0"
        assert task.taskContext["task.systemResubmitNumber"] == "0"
        assert "task.resubmitOf" not in task.taskContext
        assert task.taskContext["agent.instanceId"] == shared.agent_id
        assert task.taskContext["agent.instance"] == shared.agent_id
        assert task.taskContext["agent.zone"] == task.taskContext["agent.region"] == "local"
        assert task.taskContext["agent.host"]
        assert shared.output(task.id) == "42\n"
    assert job_id not in [each.id for each in shared.client.ls()]
    until(lambda: not shared.engine.containers(shared.label), "the containers are gone", SOON)


def test_the_container_is_what_the_job_asked_for(shared: Installation) -> None:
    asked = job("sleep", "600", env={"COLOUR": "green"}, resources={"cpu": "0.25", "memory": "64MiB"})
    job_id = shared.client.submit(asked)
    task_id = f"{job_id}-0-1"
    task = shared.reached(task_id, "RUNNING")
    assert task_id in [each.id for job in shared.client.ls() for each in job.tasks]
    # Its name is the task's id.
    container = shared.engine.container(task_id)
    assert container is not None
    assert container["State"]["Running"]
    env = dict(entry.split("=", 1) for entry in container["Config"]["Env"])
    assert {name: value for name, value in env.items() if name.startswith("TITUS_")} == {
        "TITUS_JOB_ID": job_id,
        "TITUS_TASK_ID": task_id,
        "TITUS_TASK_INDEX": "0",
        "TITUS_TASK_ORIGINAL_ID": task_id,
        "TITUS_TASK_ATTEMPT": "1",
    }
    assert env["COLOUR"] == "green"
    labels = container["Config"]["Labels"]
    assert labels["titus.installation"] == shared.id
    assert labels["titus.job_id"] == job_id
    assert labels["titus.task_id"] == task_id
    assert labels["titus.agent_id"] == shared.agent_id
    host = container["HostConfig"]
    assert host["NanoCpus"] == 250_000_000
    assert host["Memory"] == host["MemorySwap"] == 64 * 2**20
    assert "no-new-privileges" in host["SecurityOpt"]
    assert not host["Privileged"]
    assert container["Image"] == shared.engine.image_id("titus/hello:latest")
    assert task.taskContext["task.ip"] == container["NetworkSettings"]["IPAddress"]
    shared.client.kill(job_id)
    shared.over(job_id)
    until(lambda: shared.engine.container(task_id) is None, "the container is gone", SOON)


def test_output_is_followed_while_the_container_writes(shared: Installation) -> None:
    """The first line is read before the container may write the last."""
    job_id = shared.client.submit(
        job(*shell("echo first; while ! [ -e /tmp/go ]; do sleep 0.05; done; echo oops >&2; echo last"))
    )
    task_id = f"{job_id}-0-1"
    shared.reached(task_id, "RUNNING")
    written: dict[v1.Source.ValueType, bytes] = {v1.STDOUT: b"", v1.STDERR: b""}
    ends: list[int] = []

    def follow() -> None:
        for item in shared.tail(task_id):
            if item.HasField("output"):
                written[item.output.source] += item.output.data
            ends.extend([item.end.exit_code] if item.HasField("end") else [])

    reader = threading.Thread(target=follow)
    reader.start()
    until(lambda: written[v1.STDOUT] == b"first\n", "the first line came while the container runs")
    shared.engine.touch(task_id, "/tmp/go")
    reader.join(30)
    assert written == {v1.STDOUT: b"first\nlast\n", v1.STDERR: b"oops\n"}
    assert ends == [0]


def test_a_job_runs_on_a_redis_of_the_distribution(tmp_path: Path) -> None:
    binary = shutil.which("redis-server")
    assert binary, "this test needs a redis-server on the PATH: `make setup`"
    with installed(tmp_path, redis_binary=Path(binary)) as installation:
        job_id = installation.client.submit(job(*shell("exit $((TITUS_TASK_ATTEMPT - 1))"), instances=3))
        assert installation.over(job_id).jobState.state == pb.FINISHED
