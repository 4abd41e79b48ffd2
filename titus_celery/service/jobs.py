"""What the API does with jobs and tasks: create, find, kill.

Calls return once what they promise is stored; the rest follows by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from titus_celery.core import jobs as deciding
from titus_celery.core.catalog import ENDED_TASKS_MAX
from titus_celery.core.claims import ClaimKind, key_name
from titus_celery.core.cluster import Cluster
from titus_celery.core.cluster_rules import inherited
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import Instances, JobDescriptor, MantisSpec, ServiceSpec
from titus_celery.core.fingerprint import fingerprint
from titus_celery.core.lifecycle import killed
from titus_celery.core.model import (
    Caller,
    Job,
    JobId,
    JobSummary,
    KillIntent,
    Sent,
    Task,
    TaskId,
)
from titus_celery.core.sizing import resize_requested, status_requested
from titus_celery.core.stages import check_stage
from titus_celery.core.validation import Limits, check_instances, with_bounds
from titus_celery.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidRequest,
    LimitReached,
    NotFound,
    PartialFailure,
    Taken,
    TitusError,
    Violation,
)
from titus_celery.ports import Clock, Clusters, Ids, ImageResolver, Records
from titus_celery.service.change import ATTEMPTS_MAX, WritePath
from titus_celery.service.creation import Creation, Intake
from titus_celery.service.membership import Membership, gate_of

__all__ = ["Jobs"]

#: Ended tasks of one job that can be asked for: far more than are kept.
TASKS_MAX: Final = 1_000_000
#: Who kills, when the caller did not say.
ANONYMOUS: Final = "anonymous"


_Id = TypeVar("_Id", JobId, TaskId)


class Jobs:
    """The use cases of the API."""

    def __init__(
        self,
        records: Records,
        writes: WritePath,
        clusters: Clusters,
        resolver: ImageResolver,
        ids: Ids,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._records = records
        self._writes = writes
        self._ids = ids
        self._limits = limits
        self._membership = Membership(records, clusters)
        self._creation = Creation(resolver, limits)
        self._intake = Intake(records, clock)

    def create(self, descriptor: JobDescriptor, caller: Caller, key: str = "") -> JobId:
        """Accept a job; its id once job and tasks are stored. With the same *key* again: the same id.

        InvalidRequest with every violation, an unknown image among them; Unsupported for what this
        release lacks; Unavailable if the image cannot be looked up now; StoreFull while the store's
        memory is nearly used up; LimitReached if as many jobs live as may; Taken if the sequence of its
        group is another live job's; AlreadyExists if the key was used for another job before.
        """
        sent = Sent(caller=caller.id, key=key, body=fingerprint(descriptor)) if key else None
        if sent and (before := self._sent_before(sent)):
            return before
        id, by = JobId(self._ids.new()), caller.id or caller.email or ANONYMOUS

        def decide(now: datetime) -> Decision:
            return replace(deciding.created(id, job, by, now, sent), gate=gate)

        for _ in range(ATTEMPTS_MAX):
            cluster = self._cluster_of(descriptor, caller)
            if same := self._membership.same(descriptor, cluster):
                return same
            job = self._creation.prepared(inherited(descriptor, cluster), caller)
            gate = gate_of(job, cluster)
            self._intake.check()
            try:
                self._writes.create(decide, self._limits.jobs_max)
                return id
            except (Taken, LimitReached):
                # It may be that this very request came twice at the same time.
                before = self._sent_before(sent) if sent else None
                if before := before or self._membership.same(descriptor, cluster):
                    return before
                raise
            except Conflict:
                # Its cluster was changed meanwhile, and counts as it is now.
                continue
        raise Conflict(f"cluster {descriptor.cluster_id}")

    def _cluster_of(self, descriptor: JobDescriptor, caller: Caller) -> Cluster:
        try:
            return self._membership.of(descriptor)
        except NotFound:
            # What is wrong with the job itself is said first (docs/semantics.md B1.9).
            self._creation.prepared(descriptor, caller)
            raise

    def _sent_before(self, sent: Sent) -> JobId | None:
        """The job that this request made before, if it did (docs/semantics.md A19)."""
        found = self._records.claimed(ClaimKind.KEY, key_name(sent))
        if found is not None and found.body != sent.body:
            raise AlreadyExists(sent.key, found.id)
        return None if found is None else JobId(found.id)

    def find(self, job_id: JobId) -> JobSummary:
        """A job, live or finished, with its open and newest finished tasks; NotFound."""
        # Whoever asks for a job that is over finds most of them archived, at one look.
        if archived := self._records.archived(job_id):
            job, ended = archived
            tasks = ended[-ENDED_TASKS_MAX:]
        else:
            job, _ = self._records.job(job_id)
            tasks = (
                *self._records.open_tasks(job_id),
                *self._records.finished_tasks(job_id, ENDED_TASKS_MAX),
            )
        by_place = {task.id: task for task in sorted(tasks, key=lambda task: (task.rank, task.attempt))}
        return JobSummary(job=job, tasks=tuple(by_place.values()))

    def find_over(self, ids: Sequence[JobId]) -> Sequence[Job]:
        """Those of these jobs that are finished, in this order, without their tasks."""
        return self._records.jobs_over(ids)

    def all_tasks(self, job_id: JobId) -> tuple[Job, Sequence[Task]]:
        """A job and all of its tasks that are kept; NotFound."""
        job, _ = self._records.job(job_id)
        open_tasks = self._records.open_tasks(job_id)
        ended = self._records.finished_tasks(job_id, TASKS_MAX)
        # One that ended in between is among both.
        return job, list({task.id: task for task in (*open_tasks, *ended)}.values())

    def has_task(self, task_id: TaskId) -> bool:
        """Whether there is such a task."""
        try:
            self._records.task(task_id)
        except NotFound:
            return False
        return True

    def kill(self, job_id: JobId, caller: Caller) -> None:
        """Record that the job is to end; nothing new starts from now on.

        Again is fine; NotFound, and FailedPrecondition once it is over (docs/semantics.md B1.16).
        """

        def decide(job: Job, now: datetime) -> Decision:
            if job.state.is_final:
                raise FailedPrecondition("job", job.id, f"it is over ({job.state.name}) and cannot be killed")
            return deciding.kill_requested(job, _intent(caller, now))

        self._writes.on_job(job_id, decide)

    def resize(self, job_id: JobId, wanted: Instances, stage: int = 0) -> None:
        """Record how many tasks a service, or a stage of a Mantis job, is to have; control makes it so
        (docs/semantics.md B1.10).

        NotFound; FailedPrecondition if it is a batch job, or ending; InvalidRequest for numbers that do
        not fit each other, or no such stage. The job is as before then.
        """

        def decide(job: Job, now: datetime) -> Decision:
            spec = _scalable(job)
            new = _staged(spec, wanted, stage) if isinstance(spec, MantisSpec) else self._sized(spec, wanted)
            if stage and not isinstance(spec, MantisSpec):
                raise InvalidRequest([Violation("stageIndex", "a service has no stages")])
            return resize_requested(job, new, now)

        self._writes.on_job(job_id, decide)

    def _sized(self, spec: ServiceSpec, wanted: Instances) -> ServiceSpec:
        new = with_bounds(replace(spec, min=wanted.min, desired=wanted.desired, max=wanted.max))
        if found := list(check_instances("instances", new, self._limits.service_max)):
            raise InvalidRequest(found)
        return new

    def enable(self, job_id: JobId, is_enabled: bool) -> None:
        """Record whether a service or Mantis job is scaled by its policies (docs/semantics.md B1.11).

        NotFound; FailedPrecondition if it is a batch job, or ending.
        """
        self._writes.on_job(job_id, lambda job, now: status_requested(job, _scalable(job), is_enabled))

    def kill_all(self, job_ids: Sequence[JobId], caller: Caller) -> None:
        """`kill` each; PartialFailure if that failed for some. The others are killed (B1.17)."""
        _each("KillJobs", job_ids, lambda id: self.kill(id, caller))

    def kill_tasks(self, task_ids: Sequence[TaskId], caller: Caller) -> None:
        """`kill_task` each; PartialFailure if that failed for some. The others are killed (B1.21)."""
        _each("KillTasks", task_ids, lambda id: self.kill_task(id, caller))

    def find_task(self, task_id: TaskId) -> Task:
        """A task, live or finished or replaced; NotFound."""
        return self._records.task(task_id).task

    def kill_task(self, task_id: TaskId, caller: Caller) -> None:
        """Record that the task is to end; it is not replaced (docs/semantics.md A8, B1.20)."""

        def decide(job: Job, task: Task, now: datetime) -> Decision:
            if task.state.is_final:
                why = f"it is over ({task.state.name}) and cannot be killed"
                raise FailedPrecondition("task", task.id, why)
            return killed(job, task, task.kill or _intent(caller, now), now)

        self._writes.on_task(task_id, decide)


def _scalable(job: Job) -> ServiceSpec | MantisSpec:
    """What a job that goes on, and whose tasks may become more or fewer, is to be."""
    spec = job.descriptor.spec
    if job.state.is_final or job.kill is not None:
        raise FailedPrecondition("job", job.id, "it is over" if job.state.is_final else "it is being killed")
    if not isinstance(spec, ServiceSpec | MantisSpec):
        raise FailedPrecondition("job", job.id, "it is a batch job, whose tasks keep their number")
    return spec


def _staged(spec: MantisSpec, wanted: Instances, number: int) -> MantisSpec:
    if number >= len(spec.stages):
        raise InvalidRequest([Violation("stageIndex", f"there are {len(spec.stages)} stages, from 0 on")])
    stages = list(spec.stages)
    new = replace(stages[number], min=wanted.min, desired=wanted.desired, max=wanted.max)
    if found := list(check_stage("instances", new)):
        raise InvalidRequest(found)
    stages[number] = new
    return replace(spec, stages=tuple(stages))


def _each(doing: str, ids: Sequence[_Id], do: Callable[[_Id], None]) -> None:
    """*do* it for each id once, whatever becomes of the others."""
    failures: list[tuple[str, TitusError]] = []
    done: list[str] = []
    for id in dict.fromkeys(ids):
        try:
            do(id)
            done.append(id)
        except TitusError as error:
            failures.append((id, error))
    if failures:
        raise PartialFailure(doing, failures, done)


def _intent(caller: Caller, now: datetime) -> KillIntent:
    return KillIntent(by=caller.id or caller.email or ANONYMOUS, at=now)
