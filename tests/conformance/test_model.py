"""Random stories, told to the model and through a real channel to the real thing: both must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.builders import START
from tests.conformance.installation import Hand, Loop, Titus, batch, service, serving
from tests.conformance.model import OVER, Job, Model, Task, Wish
from tests.contracts.stores import HandMovedRedisBench, MemoryBench
from tests.grpc_api.world import AGENT, PATIENCE, SPANS
from tests.service.world import SameIds
from titus_celery.core import lifecycle
from titus_celery.core.descriptor import Demand
from titus_celery.core.model import NO_ADDRESS, JobId
from titus_celery.core.placement import Need
from titus_celery.core.reasons import Code, Reason
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

NEED: Final = Need(demand=Demand(cpu_millis=1, memory_bytes=1))
#: Jobs of one story: enough for pages of them.
JOBS_MAX: Final = 6
#: Milliseconds that a story takes: less than what counts as a healthy run.
STORY_MAX: Final = 250_000

WISHES: Final = st.builds(
    Wish,
    kind=st.sampled_from(["batch", "service"]),
    desired=st.sampled_from([0, 1, 1, 2, 3]),
    retries=st.sampled_from([None, 0, 1, 2]),
    delay=st.sampled_from([0, 0, 3]),
    app=st.sampled_from(["a", "b"]),
    label=st.sampled_from(["", "x", "y"]),
    sequence=st.sampled_from(["", "", "", "1"]),
)


def described(wish: Wish) -> pb.JobDescriptor:
    """The wish on the wire."""
    make = batch if wish.kind == "batch" else service
    job = make(wish.desired, appName=wish.app, labels={"l": wish.label} if wish.label else {})
    if wish.sequence:
        job.jobGroupInfo.sequence = wish.sequence
    if wish.retries is not None:
        policy = job.batch.retryPolicy if wish.kind == "batch" else job.service.retryPolicy
        policy.delayed.CopyFrom(
            pb.RetryPolicy.Delayed(
                retries=wish.retries, initialDelayMs=wish.delay * 1_000, delayMs=wish.delay * 1_000
            )
        )
    return job


def timestamp(at: int) -> str:
    return (START + timedelta(milliseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1_000:03}Z"


def code_of(state: pb.JobState | pb.TaskState) -> str:
    """The code of a reason; why a task waits is not the model's affair."""
    return state.reason.partition(":")[0] if pb.State.Name(state.state) in OVER else ""


def told(task: pb.Task) -> dict[str, Any]:
    """A task as it is shown."""
    context = task.taskContext
    return {
        "id": task.id,
        "history": [(each.state, each.timestamp) for each in task.stateChanges],
        "code": code_of(task.state),
        "original": context["task.originalId"],
        "of": context.get("task.resubmitOf", ""),
        "number": context["task.resubmitNumber"],
        "system": context["task.systemResubmitNumber"],
        "waits": "task.retryDelay" in context,
    }


def expected(job: Job, task: Task) -> dict[str, Any]:
    """The same, of the model's task."""
    name = f"{job.id}-{task.slot}"
    return {
        "id": f"{name}-{task.attempt}",
        "history": [(state, timestamp(at)) for state, at in task.history],
        "code": task.code,
        "original": f"{name}-1",
        "of": f"{name}-{task.attempt - 1}" if task.attempt > 1 else "",
        "number": str(task.attempt - 1),
        "system": str(task.our_retries),
        "waits": task.retry_at is not None,
    }


class Stories(RuleBasedStateMachine):
    """One story. Which installation it is told to says `opened`."""

    opened: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.titus: Titus = self._stack.enter_context(type(self).opened())
        self.model = Model(self.milliseconds())

    def teardown(self) -> None:
        self._stack.close()

    def milliseconds(self) -> int:
        return (self.titus.hand.now - START) // timedelta(milliseconds=1)

    def outcome(self, method: Any, request: Any, key: str = "") -> tuple[str, Any]:
        """How the call ends: the name of the status, and the reply."""
        metadata = (("x-titus-idempotency-key", key),) if key else ()
        try:
            return "OK", method(request, metadata=metadata, timeout=PATIENCE)
        except grpc.RpcError as error:
            failed: Any = error
            return failed.code().name, None

    def any_job(self, data: st.DataObject) -> str:
        """One of the jobs, or seldom one that is not there."""
        return data.draw(st.sampled_from([*self.model.jobs] * 4 + ["nobody"]), "job")

    def any_task(self, data: st.DataObject) -> tuple[str, int, int]:
        """One of the tasks, or seldom one that is not there."""
        there = [(job.id, task.slot, task.attempt) for job in self.model.jobs.values() for task in job.tasks]
        return data.draw(st.sampled_from([*there] * 4 + [("nobody", 0, 1)]), "task")

    @initialize(wishes=st.lists(WISHES, min_size=2, max_size=3))
    def begin(self, wishes: list[Wish]) -> None:
        """Stories are about jobs."""
        for wish in wishes:
            self.create(wish, "")

    # --------------------------------------------------------------------------------- clients

    @precondition(lambda self: len(self.model.jobs) < JOBS_MAX)
    @rule(wish=WISHES, key=st.sampled_from(["", "", "k", "l"]))
    def create_job(self, wish: Wish, key: str) -> None:
        self.create(wish, key)

    def create(self, wish: Wish, key: str) -> None:
        status, before = self.model.create(wish, key)
        code, reply = self.outcome(self.titus.jobs.CreateJob, described(wish), key)
        assert code == status
        if code == "OK" and before:
            assert reply.id == before
        elif code == "OK":
            self.model.created(reply.id, wish, key)

    @rule(data=st.data(), what=st.sampled_from(["tasks", "tasks", "jobs"]))
    def kill(self, data: st.DataObject, what: str) -> None:
        (self.kill_jobs if what == "jobs" else self.kill_tasks)(data)

    def kill_jobs(self, data: st.DataObject) -> None:
        ids = [self.any_job(data) for _ in range(data.draw(st.integers(1, 2), "count"))]
        statuses = [self.model.kill_job(id) for id in dict.fromkeys(ids)]
        if len(ids) == 1:
            code, _ = self.outcome(self.titus.jobs.KillJob, pb.JobId(id=ids[0]))
        else:
            code, _ = self.outcome(self.titus.jobs.KillJobs, pb.JobIds(id=ids))
        assert code == joined(statuses)

    def kill_tasks(self, data: st.DataObject) -> None:
        chosen = [self.any_task(data) for _ in range(data.draw(st.integers(1, 2), "count"))]
        statuses = [self.model.kill_task(*each) for each in dict.fromkeys(chosen)]
        ids = [f"{id}-{slot}-{attempt}" for id, slot, attempt in chosen]
        if len(ids) == 1:
            code, _ = self.outcome(self.titus.jobs.KillTask, pb.TaskId(id=ids[0]))
        else:
            code, _ = self.outcome(self.titus.jobs.KillTasks, pb.TaskIds(id=ids))
        assert code == joined(statuses)

    @rule(data=st.data(), numbers=st.tuples(st.integers(0, 1), st.integers(0, 4), st.sampled_from([0, 3, 4])))
    def update(self, data: st.DataObject, numbers: tuple[int, int, int]) -> None:
        services = [job.id for job in self.model.live() if job.wish.kind == "service"]
        id = data.draw(st.sampled_from([*services * 4, self.any_job(data)]), "job")
        if data.draw(st.integers(0, 3), "what") == 0:
            self.enable(id, data.draw(st.booleans(), "status"))
            return
        least, desired, most = numbers
        instances = pb.TaskInstances(min=least, desired=desired, max=most)
        request = pb.JobInstancesUpdate(jobId=id, instances=instances)
        code, _ = self.outcome(self.titus.jobs.UpdateJobInstances, request)
        assert code == self.model.resize(id, least, desired, most)

    def enable(self, id: str, status: bool) -> None:
        update = pb.JobStatusUpdate(id=id, enableStatus=status)
        code, _ = self.outcome(self.titus.jobs.UpdateJobStatus, update)
        assert code == self.model.enable(id, status)

    # --------------------------------------------------------------------------------- queries

    @rule(
        app=st.sampled_from(["", "a", "b"]),
        kind=st.sampled_from(["", "batch", "service"]),
        label=st.sampled_from(["", "l", "l=x", "l:y"]),
        state=st.sampled_from(["", "QUEUED", "RUNNING", "FINISHED", "FAILED"]),
        size=st.integers(1, 4),
        number=st.integers(0, 2),
        fields=st.sampled_from([[], ["id"], ["jobState.state", "tasks.id"]]),
    )
    def find_jobs(
        self, app: str, kind: str, label: str, state: str, size: int, number: int, fields: list[str]
    ) -> None:
        known = (
            self.model.live()
            if state not in OVER
            else [job for job in self.model.jobs.values() if job.state == state]
        )
        matches = [
            job
            for job in sorted(known, key=lambda job: (job.history[0][1], job.id))
            if app in ("", job.wish.app)
            and kind in ("", job.wish.kind)
            and (state in ("", job.state))
            and (not label or (job.wish.label != "" if label == "l" else label[2:] == job.wish.label))
        ]
        reply = self.titus.found(
            {"appName": app, "jobType": kind, "labels": label, "jobState": state},
            pb.Page(pageNumber=number, pageSize=size),
            fields,
        )
        wanted = matches[number * size : (number + 1) * size]
        assert [job.id for job in reply.items] == [job.id for job in wanted]
        assert (reply.pagination.totalItems, reply.pagination.hasMore) == (
            len(matches),
            (number + 1) * size < len(matches),
        )
        for job, shown in zip(wanted, reply.items, strict=True):
            active = [expected(job, task)["id"] for task in by_place(job) if task.state not in OVER]
            assert [task.id for task in shown.tasks] == ([] if fields == ["id"] else active)

    @rule(data=st.data(), states=st.sampled_from(["", "any", "queued,FAILED", "RUNNING", "FINISHED"]))
    def find_tasks(self, data: st.DataObject, states: str) -> None:
        id = self.any_job(data)
        query = pb.TaskQuery(jobId=id, fiterlingCriteria={"taskStates": states})
        code, reply = self.outcome(self.titus.jobs.FindTasks, query)
        job = self.model.jobs.get(id)
        if job is None:
            assert code == "NOT_FOUND"
            return
        listed = states.upper().split(",")
        wanted = [
            task
            for task in sorted(job.tasks, key=lambda task: (task.history[0][1], task.slot, task.attempt))
            if (task.state not in OVER if not states else states == "any" or task.state in listed)
        ]
        assert [told(task) for task in reply.items] == [expected(job, task) for task in wanted]

    # --------------------------------------------------------------------------------- inside

    @rule(data=st.data(), is_heard=st.booleans())
    def agents_work(self, data: st.DataObject, is_heard: bool) -> None:
        """Tasks are dispatched, taken, started and ended; control may hear of it at once."""
        alive = [
            (job, task) for job in self.model.jobs.values() for task in job.tasks if task.state not in OVER
        ]
        for job, task in alive:
            for _ in range(data.draw(st.integers(0, 4), "steps")):
                self.go_on(job, task, data)
        if is_heard:
            self.control()

    @rule(data=st.data())
    def agents_work_hard(self, data: st.DataObject) -> None:
        """And once more: most of what happens to tasks is this."""
        self.agents_work(data, is_heard=True)

    def go_on(self, job: Job, task: Task, data: st.DataObject) -> None:
        """The next step of the task, which may be its end."""
        if task.state in OVER:
            return
        may_end = task.state in ("STARTING", "RUNNING")
        if task.state == "RUNNING" or (may_end and data.draw(st.booleans(), "ends at once")):
            self.end(job, task, data.draw(st.sampled_from(REPORTED), "code"))
        else:
            self.commit(job, task, STEPS[task.state])
            self.model.step(job, task)

    def end(self, job: Job, task: Task, code: str) -> None:
        """An agent reports the end of what it started."""
        why = Reason(Code(code), "as told")
        self.commit(job, task, lambda job, task, now: lifecycle.ended(job, task, why, now, number=1))
        self.model.end(job, task, code)

    def commit(self, job: Job, task: Task, decide: Any) -> None:
        self.titus.store.writes.on_task(lifecycle.task_id(JobId(job.id), task.slot, task.attempt), decide)

    def control(self) -> None:
        self.titus.inside.sweep()
        self.model.control()

    @precondition(lambda self: self.model.now < STORY_MAX and not self.is_any("DISPATCHED"))
    @rule(seconds=st.sampled_from([0.5, 1, 3, 10]))
    def wait(self, seconds: float) -> None:
        self.titus.wait(seconds)
        self.model.now = self.milliseconds()
        self.model.control()

    def is_any(self, state: str) -> bool:
        return any(task.state == state for job in self.model.jobs.values() for task in job.tasks)

    # --------------------------------------------------------------------------------- agreement

    @invariant()
    def agree(self) -> None:
        for job in self.model.jobs.values():
            shown = self.titus.job(job.id)
            assert [told(task) for task in shown.tasks] == [expected(job, task) for task in by_place(job)]
            history = [(each.state, each.timestamp) for each in shown.stateChanges]
            assert history == [(state, timestamp(at)) for state, at in job.history]
            assert code_of(shown.jobState) == job.code
            if job.wish.kind == "service":
                given = shown.jobDescriptor.service
                numbers = (given.instances.min, given.instances.desired, given.instances.max)
                assert (numbers, given.enabled) == (job.numbers, job.enabled)


#: What agents report; most runs end well or fail by themselves.
REPORTED: Final = ["normal", "normal", "failed", "failed", "oomKilled", "lost", "killed"]
STEPS: Final[dict[str, Any]] = {
    "QUEUED": lambda job, task, now: lifecycle.dispatched(job, task, AGENT, NEED, now, SPANS),
    "DISPATCHED": lambda job, task, now: lifecycle.claimed(job, task, AGENT.id, 1, now, SPANS),
    "STARTING": lambda job, task, now: lifecycle.running(job, task, 1, NO_ADDRESS, now),
}


def by_place(job: Job) -> list[Task]:
    return sorted(job.tasks, key=lambda task: (task.slot, task.attempt))


def joined(statuses: list[str]) -> str:
    """The status of a call for several: that of all failures, if they share one."""
    failures = {status for status in statuses if status != "OK"}
    if not failures:
        return "OK"
    return failures.pop() if len(failures) == 1 else "FAILED_PRECONDITION"


def tell(stories: int, steps: int, opened: Callable[[], Any]) -> None:
    """So many stories of at most so many steps, always the same ones."""
    machine = type("Told", (Stories,), {"opened": staticmethod(opened)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_stories_over_a_store_in_memory_end_as_the_model_says(loop: Loop) -> None:
    @contextmanager
    def opened() -> Iterator[Titus]:
        hand: Hand = MemoryBench()
        with serving(hand, loop, ids=SameIds()) as titus:
            yield titus

    tell(60, 40, opened)


def test_stories_over_redis_end_as_the_model_says(loop: Loop, redis_url: str) -> None:
    @contextmanager
    def opened() -> Iterator[Titus]:
        bench = HandMovedRedisBench(redis_url)
        try:
            with serving(bench, loop, ids=SameIds()) as titus:
                yield titus
        finally:
            bench.raw.flushdb()
            bench.close()

    tell(12, 40, opened)
