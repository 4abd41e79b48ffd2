"""Ending jobs and tasks, one and many (docs/semantics.md A7, A8, B1.16, B1.17, B1.20, B1.21)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.world import Refused
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

ME = (("x-titus-callerid", "her"),)
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def job_id(id: str) -> pb.JobId:
    return pb.JobId(id=id)


def kill(titus: Titus, id: str) -> None:
    titus.jobs.KillJob(job_id(id), metadata=ME)
    titus.inside.sweep()


def started(titus: Titus, id: str, slot: int = 0) -> TaskId:
    """The slot's first task, RUNNING."""
    one = task_id(JobId(id), slot, 1)
    titus.store.advance(one, State.RUNNING)
    return one


# ---------------------------------------------------------------------------------------- KillJob


def test_what_has_no_container_ends_at_once_and_the_job_with_it(titus: Titus) -> None:
    id = titus.create(batch(3))
    titus.store.advance(TaskId(f"{id}-1-1"), State.DISPATCHED)
    kill(titus, id)
    job = titus.job(id)
    assert {task.state.state for task in job.tasks} == {pb.FAILED}
    assert all(task.state.reason.startswith("killed: by her at 2026-") for task in job.tasks)
    assert job.jobState.state == pb.FAILED
    assert job.jobState.reason.startswith("killed: by her at 2026-")


def test_what_has_a_container_is_stopped_and_then_the_job_is_over(titus: Titus) -> None:
    host = titus.host()
    id, runs = titus.run(batch(2))
    titus.jobs.KillJob(job_id(id), metadata=ME)
    titus.inside.sweep()
    assert titus.job(id).jobState.state == pb.RUNNING
    titus.inside.deliver()
    for run in runs:
        run.end()
    titus.inside.sweep()
    assert len(host.engine.stops) == 2
    assert titus.job(id).jobState.reason.startswith("killed: by her at ")


def test_a_kill_is_answered_once_it_is_on_record_and_nothing_starts_from_then_on(titus: Titus) -> None:
    """Control did not hear of it yet: the record alone keeps everything from starting."""
    titus.host()
    id = titus.create(batch(2))
    titus.inside.sweep()
    first, _ = titus.inside.orders()
    titus.jobs.KillJob(job_id(id))
    host = titus.inside.hosts[first.dispatch.agent_id]
    assert host.carry(first).end() is None
    assert not host.engine.orders
    assert not titus.inside.deliver()


def test_a_service_that_is_killed_is_not_replaced_and_ends(titus: Titus) -> None:
    id = titus.create(service(2))
    one = started(titus, id)
    kill(titus, id)
    titus.store.advance(one, State.FAILED)
    titus.wait(60)
    assert len(titus.job(id).tasks) == 2
    assert titus.job(id).jobState.state == pb.FAILED


def test_killing_what_is_being_killed_is_fine_and_changes_nothing(titus: Titus) -> None:
    id = titus.create()
    started(titus, id)
    titus.jobs.KillJob(job_id(id), metadata=ME)
    before = titus.hand.dump()
    titus.jobs.KillJob(job_id(id), metadata=(("x-titus-callerid", "him"),))
    assert titus.hand.dump() == before


def test_what_is_over_cannot_be_killed(titus: Titus) -> None:
    id = titus.create()
    titus.over(id)
    for method, request in (
        (titus.jobs.KillJob, job_id(id)),
        (titus.jobs.KillTask, pb.TaskId(id=f"{id}-0-1")),
    ):
        error = titus.refused(method, request)
        assert error.code is FAILED_PRECONDITION
        assert id in error.details


def test_a_job_that_had_ended_well_all_the_same_is_finished(titus: Titus) -> None:
    id = titus.create()
    one = started(titus, id)
    titus.jobs.KillJob(job_id(id))
    titus.store.advance(one, State.FINISHED)
    titus.inside.sweep()
    assert titus.job(id).jobState == pb.JobState(state=pb.FINISHED, reason="normal")


@pytest.mark.parametrize("name", ["KillJob", "FindJob", "KillTask", "FindTask"])
def test_what_is_not_there_is_not_found_and_no_id_is_a_wrong_one(titus: Titus, name: str) -> None:
    make: Callable[..., Any] = pb.TaskId if name.endswith("Task") else pb.JobId
    method = getattr(titus.jobs, name)
    for id in ("nobody", "00000000-0000-4000-8000-000000000099", "00000000-0000-4000-8000-000000000099-0-1"):
        assert titus.refused(method, make(id=id)).code is NOT_FOUND
    titus.invalid(method, make(id=""), "id")


# ---------------------------------------------------------------------------------------- KillTask


def test_the_other_tasks_go_on(titus: Titus) -> None:
    id = titus.create(batch(2))
    titus.jobs.KillTask(pb.TaskId(id=f"{id}-0-1"), metadata=ME)
    titus.inside.sweep()
    assert [task.state.state for task in titus.job(id).tasks] == [pb.FAILED, pb.QUEUED]
    assert titus.task(f"{id}-0-1").state.reason.startswith("killed: by her at ")
    assert titus.job(id).jobState.state == pb.QUEUED


def test_the_last_task_of_a_batch_job_takes_it_along(titus: Titus) -> None:
    id = titus.create()
    titus.jobs.KillTask(pb.TaskId(id=f"{id}-0-1"))
    titus.inside.sweep()
    state = titus.job(id).jobState
    assert state.state == pb.FAILED
    assert state.reason.startswith(f"failed: 1 of 1 slots failed; first: {id}-0-1: killed: ")


def test_killing_a_task_that_is_being_stopped_is_fine(titus: Titus) -> None:
    one = pb.TaskId(id=started(titus, titus.create()))
    titus.jobs.KillTask(one, metadata=ME)
    before = titus.hand.dump()
    titus.jobs.KillTask(one)
    assert titus.hand.dump() == before


def test_a_task_that_waits_to_be_replaced_is_over(titus: Titus) -> None:
    job = batch()
    job.batch.retryPolicy.delayed.initialDelayMs = 60_000
    job.batch.retryPolicy.delayed.retries = 1
    id = titus.create(job)
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    error = titus.refused(titus.jobs.KillTask, pb.TaskId(id=f"{id}-0-1"))
    assert error.code is FAILED_PRECONDITION
    kill(titus, id)
    titus.wait(60)
    assert len(titus.job(id).tasks) == 1


# ---------------------------------------------------------------------------------------- many at once


class Many:
    """KillJobs or KillTasks, with three that live and one that is over."""

    def __init__(self, titus: Titus, kind: str) -> None:
        self._titus, self._kind = titus, kind
        self.live = [self._new() for _ in range(3)]
        self.over = self._new()
        titus.over(JobId(self.over if kind == "jobs" else self.over.rsplit("-", 2)[0]))

    def _new(self) -> str:
        id = self._titus.create()
        return id if self._kind == "jobs" else f"{id}-0-1"

    def request(self, *ids: str) -> Any:
        return pb.JobIds(id=ids) if self._kind == "jobs" else pb.TaskIds(id=ids)

    @property
    def method(self) -> Callable[..., Any]:
        return self._titus.jobs.KillJobs if self._kind == "jobs" else self._titus.jobs.KillTasks

    def failure(self, *ids: str) -> Refused:
        """How it fails."""
        with pytest.raises(grpc.RpcError) as error:
            self.method(self.request(*ids), metadata=ME)
        call: Any = error.value
        return Refused(call.code(), call.details(), dict(call.trailing_metadata()))

    def states(self) -> list[int]:
        """Of the three that lived."""
        self._titus.inside.sweep()
        if self._kind == "jobs":
            return [self._titus.job(id).jobState.state for id in self.live]
        return [self._titus.task(id).state.state for id in self.live]


@pytest.fixture(params=["jobs", "tasks"])
def many(titus: Titus, request: pytest.FixtureRequest) -> Many:
    return Many(titus, request.param)


def details(error: Refused) -> v1.PartialFailure:
    """What the failure says in its details."""
    status = status_pb2.Status.FromString(error.trailers["grpc-status-details-bin"])
    found = v1.PartialFailure()
    assert status.details[0].Unpack(found)
    return found


def test_all_that_are_named_are_killed(titus: Titus, many: Many) -> None:
    many.method(many.request(*many.live), metadata=ME)
    assert many.states() == [pb.FAILED] * 3


def test_one_failure_stops_none_of_the_others_and_each_is_told(titus: Titus, many: Many) -> None:
    error = many.failure(many.live[0], "nobody", many.over, many.live[1])
    assert many.states() == [pb.FAILED, pb.FAILED, pb.QUEUED]
    # They failed for different reasons.
    assert error.code is FAILED_PRECONDITION
    assert "2 of 4 failed" in error.details
    assert "nobody" in error.details
    assert many.over in error.details
    told = details(error)
    codes = {each.id: each.code for each in told.failures}
    assert codes == {"nobody": NOT_FOUND.value[0], many.over: FAILED_PRECONDITION.value[0]}
    assert list(told.done) == many.live[:2]


def test_if_all_failed_for_one_reason_that_is_the_status(titus: Titus, many: Many) -> None:
    assert many.failure("nobody", "no-one").code is NOT_FOUND
    assert many.failure(many.over).code is FAILED_PRECONDITION
    assert many.failure("nobody", many.live[0]).code is NOT_FOUND


def test_who_is_named_twice_is_killed_once(titus: Titus, many: Many) -> None:
    error = many.failure("nobody", many.over, "nobody", many.over)
    assert "2 of 2 failed" in error.details
    many.method(many.request(*many.live[:1] * 3))
    assert many.states() == [pb.FAILED, pb.QUEUED, pb.QUEUED]


def test_nobody_to_kill_too_many_and_an_empty_id_are_wrong(titus: Titus, many: Many) -> None:
    titus.invalid(many.method, many.request(), "id")
    titus.invalid(many.method, many.request(*map(str, range(1_001))), "id", "1000")
    # Before any of them is killed.
    titus.invalid(many.method, many.request(many.live[0], ""), "id[1]")
    assert many.states() == [pb.QUEUED] * 3


def test_tasks_of_several_jobs_may_be_killed_at_once(titus: Titus) -> None:
    ids = [f"{titus.create(batch(2))}-{slot}-1" for slot in range(2)]
    titus.jobs.KillTasks(pb.TaskIds(id=ids))
    assert {titus.task(id).state.state for id in ids} == {pb.FAILED}
