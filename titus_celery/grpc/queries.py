"""Answers about jobs, tasks and clusters: of what lives from what the hub knows, of the rest from the store.

Live jobs cost no round trip, and what is sent of them is made once. Whoever wrote something through this
gateway finds it here at once, because queries wait for the hub to have heard of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from titus_celery.core.catalog import Entry, Seat
from titus_celery.core.cluster_query import cluster_criteria
from titus_celery.core.lifecycle import job_of
from titus_celery.core.model import JobId, JobSummary, Task, TaskId
from titus_celery.core.paging import Page
from titus_celery.core.query import Criteria, criteria, terms_of
from titus_celery.core.states import State
from titus_celery.errors import Unavailable
from titus_celery.grpc.cluster_looks import cluster_query_reply, whole_cluster
from titus_celery.grpc.convert import job_to_pb, task_to_pb
from titus_celery.grpc.fields import Selection, selection
from titus_celery.grpc.hub import Hub
from titus_celery.grpc.ids import job_id_from
from titus_celery.grpc.looks import active_job, job_query_reply, task_query_reply, whole_job
from titus_celery.grpc.pages import page_from, pagination_to_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.threads import Threads
from titus_celery.service.jobs import Jobs

__all__ = ["Queries"]

#: Where a task stands among those of its job, and how it looks: what pages are made of.
_Found = tuple[tuple[float, int, int], bytes]


class Queries:
    """FindJob, FindJobs, FindTask, FindTasks and FindJobClusters; their replies are serialised."""

    def __init__(self, jobs: Jobs, hub: Hub, threads: Threads) -> None:
        self._jobs = jobs
        self._hub = hub
        self._threads = threads

    async def job(self, job_id: JobId) -> bytes:
        """A job, live or finished (docs/semantics.md B1.13)."""
        if (entry := await self._entry(job_id)) is not None:
            return whole_job(entry)
        return await self._threads.run(lambda: job_to_pb(self._jobs.find(job_id)).SerializeToString())

    async def jobs(self, query: pb.JobQuery) -> bytes:
        """A page of jobs (docs/semantics.md B1.12, B4)."""
        wanted, page = criteria(query.fiterlingCriteria), page_from(query)
        fields = selection(query.fields, pb.Job)
        await self._hub.caught_up()
        if wanted.wants_over:
            found, total = await self._over(wanted, page)
        else:
            entries, total = self._hub.catalog.find(wanted, page.number * page.size, page.size)
            found = [active_job(entry) for entry in entries]
        return job_query_reply(_selected(found, fields, pb.Job), pagination_to_pb(page, total))

    async def task(self, task_id: TaskId) -> bytes:
        """A task, live, finished or replaced (docs/semantics.md B1.18)."""
        entry = await self._entry(job_of(task_id))
        seat = entry.tasks.get(task_id) if entry is not None else None
        if seat is not None:
            return seat.look
        task = await self._threads.run(self._jobs.find_task, task_id)
        return task_to_pb(task).SerializeToString()

    async def tasks(self, query: pb.TaskQuery) -> bytes:
        """A page of the tasks of one job (docs/semantics.md B1.19, B4)."""
        job_id = job_id_from(query.jobId, "jobId")
        wanted, page = criteria(query.fiterlingCriteria), page_from(query)
        fields = selection(query.fields, pb.Task)
        await self._hub.caught_up()
        entry = self._hub.catalog.get(job_id)
        if entry is not None and not wanted.wants_ended_tasks:
            terms = self._hub.catalog.terms(job_id)
            found = _seats(entry, wanted) if _is_asked_for(job_id, entry.state, terms, wanted) else []
        else:
            found = await self._threads.run(self._stored_tasks, job_id, wanted)
        found.sort(key=lambda each: each[0])
        start = page.number * page.size
        looks = [look for _, look in found[start : start + page.size]]
        return task_query_reply(_selected(looks, fields, pb.Task), pagination_to_pb(page, len(found)))

    async def clusters(self, query: pb.JobClusterQuery) -> bytes:
        """A page of clusters (docs/semantics.md B1.4, B4)."""
        wanted, page = cluster_criteria(query.fiterlingCriteria), page_from(query)
        fields = selection(query.fields, pb.JobCluster)
        await self._hub.caught_up()
        entries, total = self._hub.clusters.find(wanted, page.number * page.size, page.size)
        found = [whole_cluster(entry) for entry in entries]
        return cluster_query_reply(_selected(found, fields, pb.JobCluster), pagination_to_pb(page, total))

    async def _entry(self, job_id: JobId) -> Entry | None:
        """The live job as it is known here; None: the store must be asked."""
        if not self._hub.is_ready:
            # Just started, or the store was away: one job is read sooner than all are.
            return None
        await self._hub.caught_up()
        return self._hub.catalog.get(job_id)

    # -------------------------------------------------------------------------------- from the store

    async def _over(self, wanted: Criteria, page: Page) -> tuple[Sequence[bytes], int]:
        if not self._hub.catalog.knows_over:
            raise Unavailable("the list of finished jobs", "this gateway is still reading it; try again")
        if wanted.task_ids is not None:
            wanted = await self._threads.run(self._with_known_tasks, wanted)
        ids, total = self._hub.catalog.find_over(wanted, page.number * page.size, page.size)
        return await self._threads.run(self._stored_jobs, ids), total

    def _stored_jobs(self, ids: Sequence[JobId]) -> Sequence[bytes]:
        """These jobs without tasks, of which none is active; without those let go of while we looked."""
        found = (JobSummary(job=job, tasks=()) for job in self._jobs.find_over(ids))
        return [job_to_pb(summary).SerializeToString() for summary in found]

    def _with_known_tasks(self, wanted: Criteria) -> Criteria:
        """Of the tasks that are asked for those that there are."""
        return wanted.with_tasks(id for id in wanted.task_ids or () if self._jobs.has_task(id))

    def _stored_tasks(self, job_id: JobId, wanted: Criteria) -> list[_Found]:
        job, tasks = self._jobs.all_tasks(job_id)
        if not _is_asked_for(job_id, job.state, terms_of(job), wanted):
            return []
        return [
            (_place(task.history[0].at.timestamp(), task.rank, task.attempt), _look(task))
            for task in tasks
            if _task_is_asked_for(task.id, task.state, wanted)
        ]


def _is_asked_for(id: JobId, state: State, terms: Sequence[str], wanted: Criteria) -> bool:
    """Whether tasks of this job are, as far as it is said of the job."""
    if wanted.job_ids is not None and id not in wanted.job_ids:
        return False
    if wanted.job_state is not None and state is not wanted.job_state:
        return False
    return wanted.fits(terms)


def _task_is_asked_for(id: TaskId, state: State, wanted: Criteria) -> bool:
    if wanted.task_ids is not None and id not in wanted.task_ids:
        return False
    if wanted.task_states is None:
        return not state.is_final
    return state in wanted.task_states


def _seats(entry: Entry, wanted: Criteria) -> list[_Found]:
    def place(seat: Seat) -> tuple[float, int, int]:
        return _place(seat.created.timestamp(), seat.rank, seat.attempt)

    return [
        (place(seat), seat.look)
        for id, seat in entry.tasks.items()
        if _task_is_asked_for(id, seat.state, wanted)
    ]


def _place(created: float, rank: int, attempt: int) -> tuple[float, int, int]:
    return created, rank, attempt


def _look(task: Task) -> bytes:
    return task_to_pb(task).SerializeToString()


def _selected(
    items: Sequence[bytes], fields: Selection | None, kind: type[pb.Job | pb.Task | pb.JobCluster]
) -> Iterable[bytes]:
    """The items with only the wanted fields."""
    if fields is None:
        return items
    messages = [kind.FromString(item) for item in items]
    for message in messages:
        fields.keep_in(message)
    return [message.SerializeToString() for message in messages]
