"""The methods about jobs and tasks, each on its happy path and on what it refuses."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from tests.grpc_api.world import ME, PATIENCE, World, descriptor, refused, world
from titus_celery.core.descriptor import Image
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.server import CALL_THREADS, CREATE_THREADS


async def test_a_created_job_is_found_with_its_queued_tasks(titus: World) -> None:
    id = (await titus.jobs.CreateJob(descriptor(desired=2))).id
    job = await titus.jobs.FindJob(pb.JobId(id=id))
    assert job.id == id
    assert job.jobDescriptor.owner.ownerEmail == ME
    assert job.jobState.state == pb.QUEUED
    assert [task.id for task in job.tasks] == [f"{id}-0-1", f"{id}-1-1"]
    assert {task.state.state for task in job.tasks} == {pb.QUEUED}


async def test_the_callers_address_owns_a_job_that_names_no_owner(titus: World) -> None:
    nobody = descriptor(owner=pb.Owner())
    for metadata in (
        (("x-titus-caller-email", "it@example.com"),),
        (("x-titus-callerid", "it@example.com"),),
    ):
        id = await titus.jobs.CreateJob(nobody, metadata=metadata)
        owner = (await titus.jobs.FindJob(id)).jobDescriptor.owner
        assert (owner.ownerEmail, owner.teamEmail) == ("it@example.com", "it@example.com")


async def test_a_job_that_nobody_owns_is_refused_naming_owner(titus: World) -> None:
    call = titus.jobs.CreateJob(descriptor(owner=pb.Owner()), metadata=(("x-titus-callerid", "somebody"),))
    error = await refused(call)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "owner.ownerEmail" in error.details


async def test_a_caller_that_is_absurdly_long_is_refused(titus: World) -> None:
    error = await refused(titus.jobs.CreateJob(descriptor(), metadata=(("x-titus-callerid", "x" * 400),)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-titus-callerid" in error.details


async def test_an_image_that_no_engine_has_is_an_invalid_argument(titus: World) -> None:
    container = pb.Container(image=pb.Image(name="no-such:1"), entryPoint=["true"])
    error = await refused(titus.jobs.CreateJob(descriptor(containers={"main": container})))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "containers[main].image" in error.details


class Slow:
    """A registry that lets everybody wait until it is let go."""

    def __init__(self) -> None:
        self._asked = 0
        self._lock = threading.Lock()
        self.is_full = threading.Event()
        self.let_go = threading.Event()

    def resolve(self, image: Image) -> Image:
        with self._lock:
            self._asked += 1
            if self._asked == CREATE_THREADS:
                self.is_full.set()
        assert self.let_go.wait(PATIENCE)
        return Image(name=image.name, id="sha256:1")


async def test_creations_that_wait_for_a_registry_keep_nobody_else_waiting() -> None:
    slow = Slow()
    async with world(resolver=slow) as titus:
        creations = [asyncio.ensure_future(titus.create()) for _ in range(CREATE_THREADS + CALL_THREADS)]
        try:
            assert await asyncio.to_thread(slow.is_full.wait, PATIENCE)
            await titus.jobs.FindJobs(pb.JobQuery(), timeout=PATIENCE)
            error = await refused(titus.jobs.KillJob(pb.JobId(id="nobody"), timeout=PATIENCE))
            assert error.code is grpc.StatusCode.NOT_FOUND
            assert not any(each.done() for each in creations)
        finally:
            slow.let_go.set()
        assert len({await each for each in creations}) == len(creations)


async def test_pages_of_live_jobs_are_exact(titus: World) -> None:
    ids = [await titus.create() for _ in range(5)]
    over = await titus.create()
    titus.store.finish(over)

    async def page(number: int) -> pb.JobQueryResult:
        return await titus.jobs.FindJobs(pb.JobQuery(page=pb.Page(pageNumber=number, pageSize=2)))

    pages = [await page(number) for number in range(4)]
    assert sorted(job.id for each in pages for job in each.items) == sorted(ids)
    assert [len(each.items) for each in pages] == [2, 2, 1, 0]
    assert [each.pagination.hasMore for each in pages] == [True, True, False, False]
    for number, each in enumerate(pages):
        totals = each.pagination
        assert (totals.totalItems, totals.totalPages) == (5, 3)
        assert (totals.currentPage.pageNumber, totals.currentPage.pageSize) == (number, 2)


async def test_who_asks_for_no_page_gets_the_first_hundred(titus: World) -> None:
    reply = await titus.jobs.FindJobs(pb.JobQuery())
    assert not reply.items
    assert reply.pagination == pb.Pagination(currentPage=pb.Page(pageNumber=0, pageSize=100))


async def test_a_page_shows_active_tasks_alone(titus: World) -> None:
    id = await titus.create(desired=2)
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    (job,) = (await titus.jobs.FindJobs(pb.JobQuery())).items
    assert [task.id for task in job.tasks] == [f"{id}-1-1"]


@pytest.mark.parametrize(
    ("page", "field"),
    [
        (pb.Page(pageNumber=0, pageSize=0), "page.pageSize"),
        (pb.Page(pageNumber=0, pageSize=-1), "page.pageSize"),
        (pb.Page(pageNumber=-1, pageSize=10), "page.pageNumber"),
        (pb.Page(pageNumber=0, pageSize=1_001), "page.pageSize"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(titus: World, page: pb.Page, field: str) -> None:
    error = await refused(titus.jobs.FindJobs(pb.JobQuery(page=page)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details


async def test_a_task_is_found_while_it_runs_and_when_it_is_over(titus: World) -> None:
    id = TaskId(f"{await titus.create()}-0-1")
    titus.store.advance(id, State.RUNNING)
    task = await titus.jobs.FindTask(pb.TaskId(id=id))
    assert task.state.state == pb.RUNNING
    assert task.taskContext["agent.instance"] == "agent-1"
    titus.store.advance(id, State.FAILED)
    task = await titus.jobs.FindTask(pb.TaskId(id=id))
    assert (task.state.state, task.state.reason) == (pb.FAILED, "failed: exit code 3")


async def test_a_kill_says_who_and_may_be_repeated_until_the_job_is_over(titus: World) -> None:
    id = await titus.create()
    for _ in range(2):
        await titus.jobs.KillJob(pb.JobId(id=id), metadata=(("x-titus-callerid", "her"),))
    job, _ = titus.store.records.job(id)
    assert job.kill is not None
    assert job.kill.by == "her"


async def test_a_job_that_is_over_cannot_be_killed(titus: World) -> None:
    id = await titus.create()
    titus.store.finish(id)
    error = await refused(titus.jobs.KillJob(pb.JobId(id=id)))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert id in error.details


async def test_a_killed_task_that_waits_is_over_at_once_and_then_cannot_be_killed(titus: World) -> None:
    id = pb.TaskId(id=f"{await titus.create()}-0-1")
    await titus.jobs.KillTask(id, metadata=(("x-titus-callerid", "her"),))
    task = await titus.jobs.FindTask(id)
    assert task.state.state == pb.FAILED
    assert task.state.reason.startswith("killed: by her")
    error = await refused(titus.jobs.KillTask(id))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
