"""Field selection on the messages of the API (docs/semantics.md B4.3)."""

from __future__ import annotations

from typing import Any

import pytest

from titus_celery.errors import InvalidRequest
from titus_celery.grpc.fields import selection
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def a_task(number: int) -> pb.Task:
    return pb.Task(
        id=f"t{number}",
        taskContext={"task.index": str(number)},
        state=pb.TaskState(state=pb.RUNNING, reason="r"),
        stateChanges=[pb.StateChange(state="QUEUED", timestamp="1"), pb.StateChange(state="RUNNING")],
    )


def a_job() -> pb.Job:
    return pb.Job(
        id="j",
        jobClusterId="c",
        jobDescriptor=pb.JobDescriptor(
            appName="web",
            owner=pb.Owner(ownerEmail="o", teamEmail="t"),
            labels={"a": "1", "b": "2"},
            containers={"main": pb.Container(image=pb.Image(name="app:1"))},
        ),
        jobState=pb.JobState(state=pb.RUNNING, reason="r"),
        tasks=[a_task(0), a_task(1)],
    )


def kept(*paths: str) -> pb.Job:
    job = a_job()
    wanted = selection(paths, pb.Job)
    assert wanted is not None
    wanted.keep_in(job)
    return job


def bare(**parts: Any) -> pb.Job:
    """What every job comes with, and these parts."""
    return pb.Job(id="j", jobDescriptor=pb.JobDescriptor(appName="web"), **parts)


def test_without_paths_everything_is_wanted() -> None:
    assert selection([], pb.Job) is None


def test_id_and_application_come_always() -> None:
    assert kept("nothing.of.this", "jobStates") == bare()


def test_only_what_is_named_is_kept() -> None:
    assert kept("jobState") == bare(jobState=a_job().jobState)
    assert kept("jobState.state") == bare(jobState=pb.JobState(state=pb.RUNNING))


@pytest.mark.parametrize("path", ["tasks.id", "tasks.taskId"])
def test_a_path_goes_through_lists(path: str) -> None:
    assert kept(path) == bare(tasks=[pb.Task(id="t0"), pb.Task(id="t1")])


def test_paths_under_one_parent_are_united() -> None:
    tasks = [pb.Task(id=each.id, state=pb.TaskState(state=pb.RUNNING)) for each in a_job().tasks]
    assert kept("tasks.state.state", "tasks.id") == bare(tasks=tasks)


@pytest.mark.parametrize("paths", [("tasks", "tasks.id"), ("tasks.id", "tasks")])
def test_a_parent_is_more_than_its_parts(paths: tuple[str, str]) -> None:
    assert kept(*paths) == bare(tasks=a_job().tasks)


def test_a_map_is_kept_whole() -> None:
    assert kept("jobDescriptor.labels.a").jobDescriptor.labels == {"a": "1", "b": "2"}
    assert kept("jobDescriptor.containers").jobDescriptor.containers["main"].image.name == "app:1"


def test_the_application_stays_beside_other_parts_of_the_description() -> None:
    assert kept("jobDescriptor.owner.teamEmail").jobDescriptor == pb.JobDescriptor(
        appName="web", owner=pb.Owner(teamEmail="t")
    )


def test_of_a_task_the_id_comes_always() -> None:
    task = a_task(3)
    wanted = selection(["stateChanges.state"], pb.Task)
    assert wanted is not None
    wanted.keep_in(task)
    assert task == pb.Task(
        id="t3", stateChanges=[pb.StateChange(state="QUEUED"), pb.StateChange(state="RUNNING")]
    )


@pytest.mark.parametrize("paths", [["a"] * 201, ["a" * 257]])
def test_absurd_selections_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="fields: "):
        selection(paths, pb.Job)
