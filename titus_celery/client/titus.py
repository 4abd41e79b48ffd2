"""The calls that a client makes, each as one method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from titus_celery.client.clusters import ClusterCalls
from titus_celery.client.connection import DEADLINE, DEFAULT_SERVER, PAGE_SIZE, PATIENCE
from titus_celery.client.failure import CallFailed
from titus_celery.client.hearing import Heard, Hearing
from titus_celery.client.repeating import in_parts
from titus_celery.client.streams import Disconnected, OpenStream, Reconnected
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["DEFAULT_SERVER", "Instances", "Resized", "TitusClient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many tasks a service or a stage is to have, and within which bounds; a max of 0 is none."""

    desired: int
    min: int = 0
    max: int = 0


@dataclass(frozen=True, slots=True)
class Resized:
    """The numbers of a service, or of a stage, before a change, and after it."""

    before: Instances
    after: Instances


class TitusClient(ClusterCalls):
    """A connection to one server. Safe to use from several threads; close it, or use it in `with`.

    *caller* is an e-mail address; it becomes the owner of jobs and clusters that name none
    (docs/semantics.md A3). Every method raises CallFailed. Those about clusters are in `ClusterCalls`.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        caller: str = "",
        *,
        deadline: timedelta = DEADLINE,
        patience: timedelta = PATIENCE,
    ) -> None:
        super().__init__(server, caller, deadline=deadline, patience=patience)
        self._outputs = v1_grpc.TaskOutputServiceStub(self._channel)
        self._observations = v1_grpc.ObservationServiceStub(self._channel)

    # ------------------------------------------------------------------------------------------- submit

    def submit(
        self,
        descriptor: pb.JobDescriptor,
        key: str | None = None,
        *,
        on_wait: Callable[[CallFailed], None] = lambda failed: None,
    ) -> str:
        """Create the job, in the cluster that its `jobClusterId` names; its id.

        With the same *key* again: no second job, and the same id (A19). Sent again, for at most the deadline,
        while the server is away; *on_wait* hears why. Without a key it gets one of its own. If it is not
        known in the end whether the job was accepted, the error names the key to try again with.
        """
        return self._create(self._jobs.CreateJob, descriptor, "submit the job", key, on_wait).id

    # --------------------------------------------------------------------------------------------- find

    def find(self, job_id: str, *, patient: bool = False) -> pb.Job:
        """The job, live or finished, with its tasks; *patient*: wait for a server that is away."""
        return self._call(self._jobs.FindJob, pb.JobId(id=job_id), f"find job {job_id}", patient)

    def find_task(self, task_id: str) -> pb.Task:
        """The task, live or finished."""
        return self._call(self._jobs.FindTask, pb.TaskId(id=task_id), f"find task {task_id}")

    def find_jobs(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> pb.JobQueryResult:
        """A page of the jobs that match, oldest first, and how many there are (docs/semantics.md B4).

        Those that live, unless *criteria* ask for a final `jobState`. *fields*: what of each job is wanted,
        such as `jobState` or `tasks.state`; without any, everything.
        """
        query = pb.JobQuery(
            page=pb.Page(pageNumber=page, pageSize=page_size), fiterlingCriteria=criteria or {}, fields=fields
        )
        return self._call(self._jobs.FindJobs, query, "list the jobs")

    def find_tasks(
        self,
        job_id: str,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page: int = 0,
        page_size: int = PAGE_SIZE,
    ) -> pb.TaskQueryResult:
        """A page of the job's tasks that match, by creation, and how many there are (docs/semantics.md B4).

        Those that live, unless *criteria* have final `taskStates`, or `any`.
        """
        query = pb.TaskQuery(
            jobId=job_id,
            page=pb.Page(pageNumber=page, pageSize=page_size),
            fiterlingCriteria=criteria or {},
            fields=fields,
        )
        return self._call(self._jobs.FindTasks, query, f"list the tasks of job {job_id}")

    def ls(
        self,
        criteria: Mapping[str, str] | None = None,
        fields: Sequence[str] = (),
        *,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[pb.Job]:
        """All jobs that `find_jobs` has pages of; while jobs end meanwhile, others may be left out."""
        page, has_more = 0, True
        while has_more:
            found = self.find_jobs(criteria, fields, page=page, page_size=page_size)
            yield from found.items
            page, has_more = page + 1, found.pagination.hasMore

    # ------------------------------------------------------------------------------------------- change

    def kill(self, job_id: str, *, patient: bool = False) -> None:
        """End the job; returns when the wish is on record. *patient*: wait for a server that is away."""
        self._call(self._jobs.KillJob, pb.JobId(id=job_id), f"end job {job_id}", patient)

    def kill_task(self, task_id: str) -> None:
        """End one task; returns when the wish is on record."""
        self._call(self._jobs.KillTask, pb.TaskId(id=task_id), f"end task {task_id}")

    def kill_jobs(self, job_ids: Sequence[str]) -> None:
        """End each of the jobs; returns when every wish is on record.

        Every id is tried. The CallFailed that says that some failed has them in `failures`, and the ids
        of the others in `done`.
        """
        doing = "end all of the jobs"
        in_parts(doing, job_ids, lambda ids: self._call(self._jobs.KillJobs, pb.JobIds(id=ids), doing))

    def kill_tasks(self, task_ids: Sequence[str]) -> None:
        """End each of the tasks, of one job or of several; as `kill_jobs`."""
        doing = "end all of the tasks"
        in_parts(doing, task_ids, lambda ids: self._call(self._jobs.KillTasks, pb.TaskIds(id=ids), doing))

    def resize(
        self,
        job_id: str,
        desired: int | None = None,
        *,
        min: int | None = None,
        max: int | None = None,
        stage: int | None = None,
    ) -> Resized:
        """Let the service, or a *stage* of the Mantis job (from 0), have other numbers of tasks; returns when
        the wish is on record.

        What is None stays as it was when this was called: of two clients that change different numbers at
        the same time, one may undo the other's. The stage may be left out if there is just one.
        """
        doing = f"resize job {job_id}"
        found, number = _numbers_of(self.find(job_id).jobDescriptor, stage, doing)
        before = Instances(desired=found.desired, min=found.min, max=found.max)
        given = {"desired": desired, "min": min, "max": max}
        after = replace(before, **{name: number for name, number in given.items() if number is not None})
        numbers = pb.TaskInstances(desired=after.desired, min=after.min, max=after.max)
        update = pb.JobInstancesUpdate(jobId=job_id, instances=numbers, stageIndex=number)
        self._call(self._jobs.UpdateJobInstances, update, doing)
        return Resized(before, after)

    def enable_scaling(self, job_id: str) -> None:
        """Let the service's scaling policies change its number of tasks."""
        update = pb.JobStatusUpdate(id=job_id, enableStatus=True)
        self._call(self._jobs.UpdateJobStatus, update, f"enable the scaling of job {job_id}")

    def disable_scaling(self, job_id: str) -> None:
        """Keep the service's scaling policies from changing its number of tasks."""
        update = pb.JobStatusUpdate(id=job_id, enableStatus=False)
        self._call(self._jobs.UpdateJobStatus, update, f"disable the scaling of job {job_id}")

    # ---------------------------------------------------------------------------------------- observe

    def observe(self, job_id: str) -> Iterator[Heard]:
        """The job as it is, then what happens to it until it is over; each change once.

        After a Reconnected it goes on where it broke off or, if that says so, from another snapshot.
        """
        request, hearing = v1.ObserveJobRequest(job_id=job_id), Hearing()

        def opener() -> OpenStream[v1.JobEvent]:
            request.resume = hearing.position
            return self._observations.ObserveJob(request, metadata=self._metadata)

        return self._heard(hearing, opener, _ends_job, f"observe job {job_id}")

    def observe_jobs(self) -> Iterator[Heard]:
        """All jobs that live, then what happens to any, without end; as `observe`."""
        request, hearing = v1.ObserveJobsRequest(), Hearing()

        def opener() -> OpenStream[v1.JobEvent]:
            request.resume = hearing.position
            return self._observations.ObserveJobs(request, metadata=self._metadata)

        return self._heard(hearing, opener, lambda event: False, "observe the jobs")

    def tail(self, task_id: str, offset: int = 0) -> Iterator[v1.TailTaskItem | Disconnected | Reconnected]:
        """What the task writes from *offset* on, and how it ended; each byte once, reconnects or not."""
        request = v1.TailTaskRequest(task_id=task_id, offset=offset)

        def _ends_output(item: v1.TailTaskItem) -> bool:
            # Where a new connection has to go on.
            if item.HasField("output"):
                request.offset = item.output.offset + len(item.output.data)
            elif item.HasField("gap"):
                request.offset = item.gap.end
            return item.HasField("end")

        opener = partial(self._outputs.TailTask, request, metadata=self._metadata)
        return self._stream(opener, _ends_output, f"read the output of task {task_id}")

    # ----------------------------------------------------------------------------------------- inside

    def _heard(
        self,
        hearing: Hearing,
        opener: Callable[[], OpenStream[v1.JobEvent]],
        last: Callable[[v1.JobEvent], bool],
        doing: str,
    ) -> Iterator[Heard]:
        for item in self._stream(opener, last, doing):
            yield from hearing.take(item)


def _ends_job(event: v1.JobEvent) -> bool:
    return event.notification.HasField("jobFinished")


def _numbers_of(of: pb.JobDescriptor, stage: int | None, doing: str) -> tuple[pb.TaskInstances, int]:
    """The numbers that are to change, and the number of their stage."""
    if not of.HasField("mantis"):
        if stage is not None:
            raise CallFailed(doing, "FAILED_PRECONDITION", "it is no Mantis job, and has no stages")
        return of.service.instances, 0
    stages = of.mantis.stages
    if (stage is None and len(stages) > 1) or (stage or 0) not in range(len(stages)):
        which = "say which" if stage is None else f"there is no stage {stage}"
        raise CallFailed(doing, "OUT_OF_RANGE", f"{which}: it has the stages 0 to {len(stages) - 1}")
    return stages[stage or 0].instances, stage or 0
