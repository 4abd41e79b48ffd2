"""Jobs, tasks and what observers hear, as they look on the wire."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest

from titus_celery.core.decision import JobAdded, JobEnded, Notification, TaskUpdated
from titus_celery.core.descriptor import (
    BatchSpec,
    Demand,
    JobDescriptor,
)
from titus_celery.core.model import (
    Address,
    AgentId,
    ClusterId,
    Dispatch,
    EngineId,
    Job,
    JobId,
    JobSummary,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc import convert
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

NOON: Final = datetime(2026, 3, 1, 12, 0, 0, 123_999, tzinfo=UTC)

JOB: Final = Job(
    id=JobId("job"),
    cluster_id=ClusterId("cluster"),
    descriptor=JobDescriptor(spec=BatchSpec(desired=1), app_name="app"),
    created_by="me",
    history=(StateChange(state=State.QUEUED, at=NOON),),
)
TASK: Final = Task(
    id=TaskId("job-3-1"),
    job_id=JobId("job"),
    slot=3,
    attempt=1,
    original_id=TaskId("job-3-1"),
    history=(StateChange(state=State.QUEUED, at=NOON),),
)
DISPATCH: Final = Dispatch(
    number=2,
    agent_id=AgentId("agent-7"),
    engine_id=EngineId("engine"),
    host="host-1",
    zone="east",
    region="here",
    demand=Demand(cpu_millis=100, memory_bytes=1),
)


# ----------------------------------------------------------------------------- jobs and tasks


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 3, 1, 12, 0, 0, 0, tzinfo=UTC), "2026-03-01T12:00:00.000Z"),
        (NOON, "2026-03-01T12:00:00.123Z"),
        (
            datetime(2026, 3, 1, 1, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=2))),
            "2026-02-28T23:00:00.500Z",
        ),
    ],
)
def test_instants_are_utc_with_exactly_milliseconds(at: datetime, text: str) -> None:
    assert convert.timestamp(at) == text


def test_a_job_shows_its_state_reason_history_and_tasks() -> None:
    ended = StateChange(state=State.FAILED, at=NOON + timedelta(seconds=1))
    job = replace(JOB, history=(*JOB.history, ended), reason=Reason(Code.KILLED, "by me"))
    assert convert.job_to_pb(JobSummary(job=job, tasks=(TASK,))) == pb.Job(
        id="job",
        jobClusterId="cluster",
        jobDescriptor=convert.descriptor_to_pb(JOB.descriptor),
        tasks=[convert.task_to_pb(TASK)],
        jobState=pb.JobState(state=pb.FAILED, reason="killed: by me"),
        stateChanges=[
            pb.StateChange(state="QUEUED", timestamp="2026-03-01T12:00:00.123Z"),
            pb.StateChange(state="FAILED", timestamp="2026-03-01T12:00:01.123Z"),
        ],
    )


@pytest.mark.parametrize("state", State)
def test_each_state_has_its_name_and_number_on_the_wire(state: State) -> None:
    task = convert.task_to_pb(replace(TASK, history=(StateChange(state=state, at=NOON),)))
    assert task.state.state == state.value
    assert [change.state for change in task.stateChanges] == [state.name]


def test_a_task_that_waits_says_why() -> None:
    task = replace(TASK, reason=Reason(Code.WAITING, "no agent serves queue gpu"))
    assert convert.task_to_pb(task).state == pb.TaskState(
        state=pb.QUEUED, reason="waiting: no agent serves queue gpu"
    )


FIRST_RUN: Final = {
    "task.index": "3",
    "task.originalId": "job-3-1",
    "task.resubmitNumber": "0",
    "task.systemResubmitNumber": "0",
}
HOST: Final = {
    "agent.region": "here",
    "agent.zone": "east",
    "agent.host": "host-1",
    "agent.instance": "agent-7",
    "agent.instanceId": "agent-7",
}
SECOND_RUN: Final = replace(
    TASK, id=TaskId("job-3-2"), attempt=2, resubmit_of=TaskId("job-3-1"), infra_retries=1
)


@pytest.mark.parametrize(
    ("task", "context"),
    [
        (TASK, FIRST_RUN),
        (replace(TASK, dispatch=DISPATCH), FIRST_RUN | HOST),
        (
            replace(TASK, dispatch=DISPATCH, address=Address(ip="172.17.0.2")),
            FIRST_RUN | HOST | {"task.ip": "172.17.0.2"},
        ),
        (
            SECOND_RUN,
            FIRST_RUN
            | {
                "task.resubmitOf": "job-3-1",
                "task.resubmitNumber": "1",
                "task.systemResubmitNumber": "1",
            },
        ),
        (
            replace(TASK, retry_at=NOON + timedelta(milliseconds=1_500)),
            FIRST_RUN | {"task.retryDelay": "1500"},
        ),
        (replace(TASK, retry_at=NOON), FIRST_RUN | {"task.retryDelay": "0"}),
    ],
    ids=["queued", "dispatched", "running", "replacement", "retry-due", "retry-at-once"],
)
def test_task_context_says_where_it_runs_and_what_it_replaces(task: Task, context: dict[str, str]) -> None:
    assert dict(convert.task_to_pb(task).taskContext) == context


# ------------------------------------------------------------------------------ notifications

DEFINITION: Final = pb.JobChangeNotification.JobDefinitionUpdate(
    id="job", jobDescriptor=convert.descriptor_to_pb(JOB.descriptor)
)


@pytest.mark.parametrize(
    ("heard", "sent"),
    [
        (JobAdded(JOB), pb.JobChangeNotification(jobDefinitionUpdate=DEFINITION)),
        (
            TaskUpdated(TASK),
            pb.JobChangeNotification(
                taskUdate=pb.JobChangeNotification.TaskUpdate(task=convert.task_to_pb(TASK))
            ),
        ),
        (
            JobEnded(JOB),
            pb.JobChangeNotification(jobFinished=pb.JobChangeNotification.JobFinished(id="job")),
        ),
    ],
    ids=["added", "task", "ended"],
)
def test_each_change_is_the_notification_of_its_kind(
    heard: Notification, sent: pb.JobChangeNotification
) -> None:
    assert convert.notification_to_pb(heard) == sent


def test_a_snapshot_is_the_job_with_its_tasks_and_its_end_is_a_mark() -> None:
    snapshot = convert.snapshot_to_pb(JobSummary(job=JOB, tasks=(TASK,)))
    assert snapshot.WhichOneof("notification") == "jobSnapshot"
    assert snapshot.jobSnapshot.job == convert.job_to_pb(JobSummary(job=JOB, tasks=(TASK,)))
    assert convert.snapshot_end_to_pb().WhichOneof("notification") == "snapshotEnd"


# ------------------------------------------------------------------------------------ imports


def test_a_client_that_converts_needs_neither_grpc_nor_the_parts_of_a_server() -> None:
    code = (
        "import sys, titus_celery.grpc.convert\n"
        "print(*({'grpc', 'celery', 'kombu', 'redis', 'docker'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
