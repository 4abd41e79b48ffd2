"""Services on a real engine: kept running, sized up and down, and what their containers are given."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import DEMAND, HELLO, job, shell
from tests.e2e.processes import until
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: A measure of every 15 s, a stop of a second, and a slow machine.
DISK_SOON = timedelta(seconds=40)
#: Ends when it is told to, at once.
OBEDIENT = shell("trap 'exit 0' TERM; while :; do sleep 0.05; done")


def service(
    *command: str,
    desired: int = 1,
    resources: Mapping[str, str] = DEMAND,
    hard: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> pb.JobDescriptor:
    container = pb.Container(
        image=pb.Image(name=HELLO),
        command=command,
        resources=dict(resources),
        parameters=parameters or {},
        hardConstraints=pb.Constraints(constraints=hard or {}),
    )
    return pb.JobDescriptor(
        appName="e2e-service",
        containers={"main": container},
        labels=labels or {},
        service=pb.ServiceJobSpec(instances=pb.TaskInstances(desired=desired), containerId="main"),
    )


def running(installation: Installation, job_id: str) -> Sequence[pb.Task]:
    query = pb.TaskQuery(jobId=job_id, fiterlingCriteria={"taskStates": "RUNNING"})
    return installation.stub.FindTasks(query, timeout=20).items


def test_a_service_is_restarted_whatever_ends_its_tasks(shared: Installation) -> None:
    once = shell(
        "trap 'exit 0' TERM; for i in 1 2 3 4 5 6; do sleep 0.05; done; exit $((TITUS_TASK_ATTEMPT - 1))"
    )
    job_id = shared.client.submit(service(*once))
    first = shared.reached(f"{job_id}-0-1", "FINISHED")
    second = shared.reached(f"{job_id}-0-2", "FAILED")
    third = shared.reached(f"{job_id}-0-3", "RUNNING", timedelta(seconds=30))
    assert first.state.reason == "normal"
    assert second.state.reason == "failed: exit code 1"
    assert third.taskContext["task.originalId"] == first.id
    assert third.taskContext["task.index"] == "0"
    assert shared.client.find(job_id).jobState.state == pb.RUNNING
    shared.client.kill(job_id)
    assert shared.over(job_id).jobState.reason.startswith("killed: by ")


def test_a_task_of_a_service_that_is_killed_is_replaced_at_once(shared: Installation) -> None:
    job_id = shared.client.submit(service(*OBEDIENT))
    shared.reached(f"{job_id}-0-1", "RUNNING")
    shared.stub.KillTask(pb.TaskId(id=f"{job_id}-0-1"), timeout=20)
    replacement = shared.reached(f"{job_id}-0-2", "RUNNING")
    assert replacement.taskContext["task.resubmitOf"] == f"{job_id}-0-1"
    assert shared.engine.container(f"{job_id}-0-1") is None
    shared.client.kill(job_id)
    shared.over(job_id)


def test_a_service_grows_shrinks_and_lives_on_with_nothing(shared: Installation) -> None:
    job_id = shared.client.submit(service(*OBEDIENT, desired=1))

    def has(count: int) -> bool:
        there = shared.engine.containers(f"titus.job_id={job_id}")
        return len(running(shared, job_id)) == len(there) == count

    for desired in (4, 2, 0, 1):
        update = pb.JobInstancesUpdate(jobId=job_id, instances=pb.TaskInstances(desired=desired))
        shared.stub.UpdateJobInstances(update, timeout=20)
        until(partial(has, desired), f"{desired} tasks run and no other container is there")
    ended = [task for task in shared.client.find(job_id).tasks if task.state.state == pb.FAILED]
    assert {task.state.reason.partition(":")[0] for task in ended} == {"scaledDown"}
    assert len(ended) == 4
    shared.client.kill(job_id)
    shared.over(job_id)


def test_a_port_is_published_where_the_task_says(shared: Installation) -> None:
    serve = shell("echo it works > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    job_id = shared.client.submit(service(*serve, resources={**DEMAND, "ports": "8080"}))
    task = shared.reached(f"{job_id}-0-1", "RUNNING")
    inside, _, outside = task.taskContext["task.ports"].partition("=")
    host, _, port = outside.partition(":")
    assert inside == "8080"
    assert host == task.taskContext["agent.host"] == socket.gethostname()

    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            return ""

    until(lambda: answer() == "it works\n", "the server answers on the published port")
    shared.client.kill(job_id)
    shared.over(job_id)


def test_what_writes_more_than_its_disk_is_ended(shared: Installation) -> None:
    fill = shell("dd if=/dev/zero of=/fill bs=1M count=30 2>/dev/null; sync; sleep 600")
    job_id = shared.client.submit(job(*fill, resources={**DEMAND, "disk": "10MB"}))
    found = shared.over(job_id, DISK_SOON)
    assert found.tasks[0].state.reason.startswith("failed: wrote 31 MB to its disk; its limit is 10 MB")


def test_a_rule_for_the_place_keeps_a_task_queued_and_says_why(shared: Installation) -> None:
    elsewhere = shared.client.submit(service("sleep", "600", hard={"host": "nowhere.example"}))
    here = shared.client.submit(service(*OBEDIENT, hard={"HOST": socket.gethostname()}))
    apart = shared.client.submit(service(*OBEDIENT, desired=2, hard={"uniqueHost": ""}))
    shared.reached(f"{here}-0-1", "RUNNING")
    until(lambda: len(running(shared, apart)) == 1, "one of two tasks runs on the one host")

    def why(job_id: str) -> str:
        waiting = [task for task in shared.client.find(job_id).tasks if task.state.state == pb.QUEUED]
        return waiting[0].state.reason if len(waiting) == 1 else ""

    until(lambda: "is not host nowhere.example" in why(elsewhere), "it says that no host is called so")
    until(lambda: "has a task of this job" in why(apart), "it says that the host has one already")
    shared.stub.KillJobs(pb.JobIds(id=[elsewhere, here, apart]), timeout=20)
    for job_id in (elsewhere, here, apart):
        shared.over(job_id)


def test_many_are_found_by_a_label_and_killed_in_one_call(shared: Installation) -> None:
    jobs = [shared.client.submit(service(*OBEDIENT, labels={"team": "e2e-many"})) for _ in range(3)]
    for job_id in jobs:
        shared.reached(f"{job_id}-0-1", "RUNNING")
    query = pb.JobQuery(
        page=pb.Page(pageSize=2), fiterlingCriteria={"labels": "team=e2e-many"}, fields=["jobState.state"]
    )
    found = shared.stub.FindJobs(query, timeout=20)
    assert [each.id for each in found.items] == jobs[:2]
    assert found.pagination.totalItems == 3
    assert not found.items[0].tasks
    with pytest.raises(grpc.RpcError) as refused:
        shared.stub.KillJobs(pb.JobIds(id=[jobs[0], "nobody", *jobs[1:]]), timeout=20)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    for job_id in jobs:
        assert shared.over(job_id).jobState.reason.startswith("killed: by ")


def test_an_observer_goes_on_where_it_was_after_the_gateway_restarted(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        job_id = installation.client.submit(service(*OBEDIENT, desired=2))
        stream = installation.stub.ObserveJob(pb.JobId(id=job_id), timeout=60)
        heard: list[pb.JobChangeNotification] = []
        with pytest.raises(grpc.RpcError):
            for message in stream:
                heard.append(message)
                up = {
                    each.taskUdate.task.id for each in heard if each.taskUdate.task.state.state == pb.RUNNING
                }
                if len(up) == 2 and "gateway" in installation.processes:
                    installation.stop("gateway")
        position = dict(stream.trailing_metadata())["x-titus-position"]
        installation.start("gateway")
        installation.ready()
        installation.stub.KillTask(pb.TaskId(id=f"{job_id}-0-1"), timeout=20)
        installation.reached(f"{job_id}-0-2", "RUNNING")
        installation.client.kill(job_id)
        installation.over(job_id)
        resumed = installation.stub.ObserveJob(
            pb.JobId(id=job_id), timeout=60, metadata=(("x-titus-resume", position),)
        )
        missed = list(resumed)
        assert dict(resumed.initial_metadata())["x-titus-resumed"] == "true"
        assert missed[0].HasField("snapshotEnd")
        assert missed[-1].jobFinished.id == job_id
        steps = [
            (each.taskUdate.task.id, pb.State.Name(each.taskUdate.task.state.state))
            for each in missed
            if each.HasField("taskUdate")
        ]
        again = [state for id, state in steps if id == f"{job_id}-0-2"]
        assert again == ["QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FAILED"]
        # Of the other task nothing comes that came before the place; that it is to be stopped may be told.
        other = [state for id, state in steps if id == f"{job_id}-1-1"]
        assert other in (["FAILED"], ["RUNNING", "FAILED"])


def test_parameters_and_allowed_volumes_reach_the_container(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with installed(tmp_path, TITUS_VOLUMES_ALLOWED=str(data)) as installation:
        write = shell('echo "$TITUS_PARAM_DB_URL" > /mnt/out; sync')
        mounts = {"db.url": "redis://db", "volumes": f"{data}:/mnt"}
        batch = job(*write)
        batch.containers["main"].parameters.update(mounts)
        assert installation.over(installation.client.submit(batch)).jobState.reason == "normal"
        assert (data / "out").read_text() == "redis://db\n"
        batch.containers["main"].parameters["volumes"] = "/etc:/mnt"
        with pytest.raises(grpc.RpcError) as refused:
            installation.stub.CreateJob(batch, timeout=20, metadata=(("x-titus-caller-email", "a@b"),))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
