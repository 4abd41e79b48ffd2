"""Finding jobs and tasks (docs/semantics.md B1.12, B1.13, B1.18, B1.19, A17)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tests.conformance.installation import Hand, Loop, Titus, batch, serving
from tests.grpc_api.world import BLOCK, PATIENCE
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.adapters.store import RecordStore
from titus_celery.core.decision import LogEntry
from titus_celery.core.lifecycle import ended
from titus_celery.core.model import TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.ports import Position
from titus_celery.service.feed import Feed


def retried(retries: int, desired: int = 1) -> pb.JobDescriptor:
    job = batch(desired)
    job.batch.retryPolicy.immediate.retries = retries
    return job


def ids(reply: pb.JobQueryResult | pb.TaskQueryResult) -> list[str]:
    """What was found."""
    return [item.id for item in reply.items]


def in_turn(titus: Titus, count: int) -> list[str]:
    """Jobs that were created one after the other."""
    made: list[str] = []
    for _ in range(count):
        made.append(titus.create())
        titus.hand.now = titus.hand.now.replace(second=titus.hand.now.second + 1)
    return made


def test_find_jobs_gives_the_live_ones_by_creation(titus: Titus) -> None:
    made = in_turn(titus, 4)
    titus.over(titus.create())
    assert ids(titus.find()) == made


def test_jobs_of_one_moment_are_told_by_their_ids(titus: Titus) -> None:
    made = [titus.create() for _ in range(5)]
    assert ids(titus.find()) == sorted(made)


def test_find_jobs_gives_jobs_with_their_active_tasks(titus: Titus) -> None:
    id = titus.create(retried(1, desired=3))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    titus.store.advance(TaskId(f"{id}-1-1"), State.FAILED)
    titus.inside.sweep()
    (job,) = titus.find().items
    assert [task.id for task in job.tasks] == [f"{id}-1-2", f"{id}-2-1"]
    assert job.jobDescriptor == titus.job(id).jobDescriptor


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED])
def test_jobs_that_are_over_are_found_by_their_state_alone(titus: Titus, state: State) -> None:
    live, over = titus.create(), titus.create()
    titus.over(over, state)
    assert ids(titus.find()) == [live]
    assert ids(titus.find(jobIds=over)) == []
    (job,) = titus.find(jobState=state.name).items
    assert (job.id, job.jobState.state, len(job.tasks)) == (over, state.value, 0)


def test_a_job_is_found_by_its_id_with_all_of_its_tasks_by_slot_and_attempt(titus: Titus) -> None:
    id = titus.create(retried(1, desired=2))
    titus.store.advance(TaskId(f"{id}-1-1"), State.FINISHED)
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.inside.sweep()
    assert [task.id for task in titus.job(id).tasks] == [f"{id}-0-1", f"{id}-0-2", f"{id}-1-1"]


def test_a_job_that_is_over_is_found_as_it_ended(titus: Titus) -> None:
    """Also once its records are packed into one."""
    id = titus.create(batch(2))
    titus.over(id, State.FAILED)
    as_ended = titus.job(id)
    assert [task.state.state for task in as_ended.tasks] == [pb.FAILED] * 2
    titus.wait(3_600)
    assert titus.job(id) == as_ended
    assert titus.task(f"{id}-0-1") == as_ended.tasks[0]


def test_a_task_is_found_while_it_lives_when_it_is_over_and_when_it_was_replaced(titus: Titus) -> None:
    id = titus.create(retried(1))
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.RUNNING)
    assert titus.task(one).state.state == pb.RUNNING
    titus.store.advance(one, State.FAILED)
    titus.inside.sweep()
    assert titus.task(one).state.state == pb.FAILED
    assert titus.task(f"{id}-0-2").state.state == pb.QUEUED


def test_tasks_are_those_of_the_job_that_is_named(titus: Titus) -> None:
    id, _ = titus.create(batch(2)), titus.create(batch(2))
    assert ids(titus.tasks(id)) == [f"{id}-0-1", f"{id}-1-1"]


def test_the_tasks_of_no_job_and_of_an_unknown_one_cannot_be_found(titus: Titus) -> None:
    titus.invalid(titus.jobs.FindTasks, pb.TaskQuery(), "jobId")
    error = titus.refused(titus.jobs.FindTasks, pb.TaskQuery(jobId="nobody"))
    assert error.code is grpc.StatusCode.NOT_FOUND


def test_tasks_that_are_over_are_found_by_their_state(titus: Titus) -> None:
    id = titus.create(batch(3))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    titus.store.advance(TaskId(f"{id}-1-1"), State.FAILED)
    assert ids(titus.tasks(id)) == [f"{id}-2-1"]
    assert ids(titus.tasks(id, taskStates="finished")) == [f"{id}-0-1"]
    assert ids(titus.tasks(id, taskStates="FAILED, QUEUED")) == [f"{id}-1-1", f"{id}-2-1"]
    assert len(titus.tasks(id, taskStates="any").items) == 3


def test_the_tasks_of_a_job_that_is_over_are_found(titus: Titus) -> None:
    id = titus.create(batch(2))
    titus.over(id)
    for _ in range(2):
        assert ids(titus.tasks(id)) == []
        assert ids(titus.tasks(id, taskStates="FINISHED")) == [f"{id}-0-1", f"{id}-1-1"]
        titus.wait(3_600)


def test_of_very_many_ended_tasks_a_job_shows_the_newest_and_find_tasks_all(titus: Titus) -> None:
    id = titus.create(batch(1_000, batch=spec(1_000, retries=1)))
    for attempt in (1, 2):
        for slot in range(501):
            fail(titus, TaskId(f"{id}-{slot}-{attempt}"))
        titus.inside.sweep()
    shown = titus.job(id).tasks
    over = [task.id for task in shown if task.state.state == pb.FAILED]
    assert (len(shown), len(over)) == (499 + 1_000, 1_000)
    # The two that ended first are not among them.
    assert not {f"{id}-0-1", f"{id}-1-1"} & set(over)
    page = pb.Page(pageNumber=1, pageSize=1_000)
    found = titus.tasks(id, page, taskStates="FAILED")
    assert (found.pagination.totalItems, len(found.items)) == (1_002, 2)


def fail(titus: Titus, id: TaskId) -> None:
    """End the task a moment later, wherever it is."""
    titus.hand.now += timedelta(milliseconds=1)
    titus.store.writes.on_task(id, lambda job, task, now: ended(job, task, Reason(Code.FAILED), now))


def spec(desired: int, retries: int) -> pb.BatchJobSpec:
    return pb.BatchJobSpec(
        instances=pb.TaskInstances(desired=desired),
        containerId="main",
        retryPolicy=pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=retries)),
    )


class Gate:
    """A change log that is read only while the gate is open."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self.is_open = threading.Event()
        self.is_open.set()

    def end(self) -> Position:
        return self._records.end()

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        entries = self._records.read(after, limit, block)
        self.is_open.wait(PATIENCE)
        return entries


def test_who_asks_right_after_a_write_waits_until_it_is_known(hand: Hand, loop: Loop) -> None:
    gate = Gate(RecordStore(hand.keyspace))
    at = hand.keyspace
    feed = Feed(gate, SnapshotStore(at), ClusterStore(at), block=BLOCK, retry_after=BLOCK)
    with serving(hand, loop, feed=feed) as titus:
        titus.find()
        gate.is_open.clear()
        id = titus.create()
        asked: Any = titus.jobs.FindJobs
        answer = asked.future(pb.JobQuery(), timeout=PATIENCE)
        # By the time that this is answered, the other call was begun.
        titus.refused(titus.jobs.KillJob, pb.JobId(id="nobody"))
        gate.is_open.set()
        assert ids(answer.result()) == [id]


def test_what_was_just_written_is_found(titus: Titus) -> None:
    for _ in range(20):
        id = titus.create()
        assert titus.job(id).id == id
        assert id in ids(titus.find())
        titus.jobs.KillTask(pb.TaskId(id=f"{id}-0-1"))
        assert titus.task(f"{id}-0-1").state.state == pb.FAILED
