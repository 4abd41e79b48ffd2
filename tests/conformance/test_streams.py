"""What observers hear (docs/semantics.md A14, B5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from tests.conformance.installation import Hand, Loop, Titus, batch, service, serving
from tests.grpc_api.world import PATIENCE
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


class Stream:
    """An observer; whatever it waits for must come."""

    def __init__(self, titus: Titus, job_id: str = "") -> None:
        call: Any = (
            titus.jobs.ObserveJob(pb.JobId(id=job_id), timeout=PATIENCE)
            if job_id
            else titus.jobs.ObserveJobs(Empty(), timeout=PATIENCE)
        )
        self.call = call

    def next(self) -> pb.JobChangeNotification:
        """The next notification."""
        message: pb.JobChangeNotification = next(self.call)
        return message

    def snapshots(self) -> list[pb.Job]:
        """The jobs that are told first, up to the marker."""
        jobs = []
        while (message := self.next()).HasField("jobSnapshot"):
            jobs.append(message.jobSnapshot.job)
        assert message.HasField("snapshotEnd")
        return jobs

    def rest(self) -> Iterator[pb.JobChangeNotification]:
        """Everything up to the end, which must be a good one."""
        yield from self.call

    def told(self, count: int) -> list[tuple[str, int]]:
        """The next updates, all of tasks: id and state."""
        tasks = [self.next().taskUdate.task for _ in range(count)]
        return [(task.id, task.state.state) for task in tasks]


@pytest.fixture
def titus_with_small_inboxes(hand: Hand, loop: Loop) -> Iterator[Titus]:
    """A gateway that lets few events wait."""
    with serving(hand, loop, events_max=10) as running:
        yield running


def all_the_way(id: str) -> list[tuple[str, int]]:
    """What is told of a task after it was queued."""
    return [(id, state) for state in (pb.DISPATCHED, pb.STARTING, pb.RUNNING, pb.FINISHED)]


def test_a_job_is_observed_from_its_snapshot_to_its_end(titus: Titus) -> None:
    id = titus.create(batch(2))
    titus.store.advance(TaskId(f"{id}-1-1"), State.FINISHED)
    stream = Stream(titus, id)
    (job,) = stream.snapshots()
    assert job.jobDescriptor == titus.job(id).jobDescriptor
    # Those that are active.
    assert [task.id for task in job.tasks] == [f"{id}-0-1"]
    titus.over(id)
    assert stream.told(4) == all_the_way(f"{id}-0-1")
    (last,) = stream.rest()
    assert last.jobFinished.id == id


def test_a_job_that_is_over_is_told_whole_and_the_stream_ends(titus: Titus) -> None:
    id = titus.create()
    titus.over(id)
    for _ in range(2):
        stream = Stream(titus, id)
        (job,) = stream.snapshots()
        assert job == titus.job(id)
        (last,) = stream.rest()
        assert last.jobFinished.id == id
        titus.wait(3_600)


def test_a_job_that_is_not_there_cannot_be_observed(titus: Titus) -> None:
    error = titus.refused(titus.jobs.ObserveJob, pb.JobId(id="nobody"))
    assert error.code is grpc.StatusCode.NOT_FOUND
    titus.invalid(titus.jobs.ObserveJob, pb.JobId(id=""), "id")


def test_all_live_jobs_are_told_first_and_of_none_at_least_the_marker(titus: Titus) -> None:
    assert Stream(titus).snapshots() == []
    over, queued, running = titus.create(), titus.create(batch(2)), titus.create()
    titus.over(over)
    titus.store.advance(TaskId(f"{running}-0-1"), State.RUNNING)
    told = {job.id: len(job.tasks) for job in Stream(titus).snapshots()}
    assert told == {queued: 2, running: 1}


def test_of_a_new_job_its_definition_is_told_then_its_tasks_and_its_end(titus: Titus) -> None:
    stream = Stream(titus)
    stream.snapshots()
    id = titus.create()
    definition = stream.next().jobDefinitionUpdate
    assert definition.id == id
    assert definition.jobDescriptor == titus.job(id).jobDescriptor
    one = TaskId(f"{id}-0-1")
    assert stream.told(1) == [(one, pb.QUEUED)]
    titus.over(id)
    assert stream.told(4) == all_the_way(one)
    assert stream.next().jobFinished.id == id
    # And it goes on.
    other = titus.create()
    assert stream.next().jobDefinitionUpdate.id == other


def test_a_replacement_is_told_as_a_new_task(titus: Titus) -> None:
    id = titus.create(service(1, retries=1))
    stream = Stream(titus, id)
    stream.snapshots()
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.inside.sweep()
    heard = [stream.next().taskUdate.task for _ in range(5)]
    assert heard[3].state.state == pb.FAILED
    assert (heard[4].id, heard[4].state.state) == (f"{id}-0-2", pb.QUEUED)
    assert heard[4].taskContext["task.resubmitOf"] == f"{id}-0-1"


def test_a_change_of_the_definition_is_told(titus: Titus) -> None:
    id = titus.create(service(1))
    stream = Stream(titus, id)
    stream.snapshots()
    numbers = pb.TaskInstances(desired=2)
    titus.jobs.UpdateJobInstances(pb.JobInstancesUpdate(jobId=id, instances=numbers))
    assert stream.next().jobDefinitionUpdate.jobDescriptor.service.instances.desired == 2
    titus.jobs.UpdateJobStatus(pb.JobStatusUpdate(id=id, enableStatus=True))
    assert stream.next().jobDefinitionUpdate.jobDescriptor.service.enabled


def test_what_changes_nothing_that_can_be_seen_is_not_told(titus: Titus) -> None:
    """Neither a kill that is on record, nor one said twice, nor the same numbers again."""
    id = titus.create(service(1))
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.RUNNING)
    stream = Stream(titus, id)
    stream.snapshots()
    numbers = pb.TaskInstances(desired=1)
    titus.jobs.UpdateJobInstances(pb.JobInstancesUpdate(jobId=id, instances=numbers))
    titus.jobs.UpdateJobStatus(pb.JobStatusUpdate(id=id, enableStatus=False))
    for _ in range(2):
        titus.jobs.KillJob(pb.JobId(id=id))
        titus.inside.sweep()
    titus.store.advance(one, State.FAILED)
    assert stream.told(1) == [(one, pb.FAILED)]


def test_other_jobs_are_not_told_of(titus: Titus) -> None:
    mine, other = titus.create(), titus.create()
    stream = Stream(titus, mine)
    stream.snapshots()
    titus.over(other)
    titus.over(mine)
    assert stream.told(4) == all_the_way(f"{mine}-0-1")


def test_each_job_is_told_of_in_the_order_in_which_it_changed(titus: Titus) -> None:
    stream = Stream(titus)
    stream.snapshots()
    ids = [titus.create() for _ in range(3)]
    for state in (State.DISPATCHED, State.STARTING, State.RUNNING, State.FINISHED):
        for id in ids:
            titus.store.advance(TaskId(f"{id}-0-1"), state)
    for id in ids:
        titus.store.settle(JobId(id))
    heard: dict[str, list[str]] = {id: [] for id in ids}
    for _ in range(3 * 7):
        message = stream.next()
        kind = message.WhichOneof("notification")
        if kind == "taskUdate":
            task = message.taskUdate.task
            heard[task.id.removesuffix("-0-1")].append(pb.State.Name(task.state.state))
        else:
            heard[getattr(message, str(kind)).id].append(str(kind))
    whole = ["jobDefinitionUpdate", "QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FINISHED", "jobFinished"]
    assert heard == dict.fromkeys(ids, whole)


def test_after_the_end_of_a_job_nothing_about_it_is_told(titus: Titus) -> None:
    """Not even of agents that report late."""
    id, other = titus.create(), titus.create()
    stream = Stream(titus)
    stream.snapshots()
    titus.over(id)
    titus.store.end(TaskId(f"{id}-0-1"), Reason(Code.FAILED, "late"))
    titus.jobs.KillTask(pb.TaskId(id=f"{other}-0-1"))
    assert stream.told(4) == all_the_way(f"{id}-0-1")
    assert stream.next().jobFinished.id == id
    assert stream.told(1) == [(f"{other}-0-1", pb.FAILED)]


def test_what_happens_while_the_snapshot_is_told_is_told_once(titus: Titus) -> None:
    """Whatever is committed before the marker is read is in the snapshot or comes after it, never twice."""
    ids = [titus.create() for _ in range(30)]
    streams = [Stream(titus) for _ in range(4)]
    for id in ids[:10]:
        titus.over(id)
    new = titus.create()
    for stream in streams:
        live = {job.id: job for job in stream.snapshots()}
        ends: list[str] = []
        states: dict[str, int] = {}
        for job in live.values():
            for task in job.tasks:
                states[task.id] = task.state.state
        while new not in live:
            message = stream.next()
            if message.HasField("jobDefinitionUpdate"):
                live[message.jobDefinitionUpdate.id] = pb.Job()
            elif message.HasField("jobFinished"):
                ends.append(message.jobFinished.id)
            else:
                task = message.taskUdate.task
                assert task.state.state > states.get(task.id, -1)
                states[task.id] = task.state.state
        assert len(ends) == len(set(ends))
        assert {id for id in ids if id not in live} | set(ends) == set(ids[:10])


def test_who_is_too_slow_is_told_so(titus_with_small_inboxes: Titus) -> None:
    titus = titus_with_small_inboxes
    stream = Stream(titus)
    stream.snapshots()
    titus.create(batch(50))
    with pytest.raises(grpc.RpcError) as error:
        list(stream.rest())
    call: Any = error.value
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "behind" in call.details()


def test_who_leaves_frees_its_place(titus: Titus) -> None:
    id = titus.create()
    streams = [Stream(titus), Stream(titus, id)]
    for stream in streams:
        stream.snapshots()
    assert titus.gateway.observers == 2
    for stream in streams:
        stream.call.cancel()
    titus.until(lambda: titus.gateway.observers == 0)


def test_any_gateway_tells_of_every_job(titus: Titus, loop: Loop) -> None:
    with serving(titus.hand, loop) as other:
        id = titus.create()
        assert [job.id for job in Stream(other, id).snapshots()] == [id]
        stream = Stream(other)
        assert [job.id for job in stream.snapshots()] == [id]
        titus.over(id)
        assert stream.told(4) == all_the_way(f"{id}-0-1")
