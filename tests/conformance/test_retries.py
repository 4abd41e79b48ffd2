"""What follows the end of a task: whose retries it uses, and when it is tried again (A8, A13, B3.3)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.conformance.installation import Titus, batch, container, service
from titus_celery.adapters.memory_executor import Program
from titus_celery.core.model import Exit, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

NONE = pb.RetryPolicy()
LOST = Reason(Code.LOST, "as told")


def immediate(retries: int) -> pb.RetryPolicy:
    return pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=retries))


def delayed(first: int, later: int, retries: int = 9) -> pb.RetryPolicy:
    spans = pb.RetryPolicy.Delayed(initialDelayMs=first, delayMs=later, retries=retries)
    return pb.RetryPolicy(delayed=spans)


def doubling(first: int, most: int = 0, retries: int = 9) -> pb.RetryPolicy:
    spans = pb.RetryPolicy.ExponentialBackOff(initialDelayMs=first, maxDelayIntervalMs=most, retries=retries)
    return pb.RetryPolicy(exponentialBackOff=spans)


def tried(policy: pb.RetryPolicy, desired: int = 1) -> pb.JobDescriptor:
    """A batch job whose tasks are retried like this."""
    job = batch(desired)
    if policy != NONE:
        job.batch.retryPolicy.CopyFrom(policy)
    return job


def attempts(titus: Titus, id: str) -> list[str]:
    """The tasks of the job, each as slot-attempt and state."""
    tasks = titus.tasks(id, taskStates="any").items
    return [f"{task.id.removeprefix(id + '-')} {pb.State.Name(task.state.state)}" for task in tasks]


def delays(titus: Titus, id: str, count: int, why: Reason | None = None, *, ran: float = 0) -> list[float]:
    """Seconds from the end of each of the slot's first attempts to the creation of the next."""
    found = []
    for attempt in range(1, count + 1):
        one = TaskId(f"{id}-0-{attempt}")
        titus.store.advance(one, State.RUNNING)
        titus.hand.now += timedelta(seconds=ran)
        titus.store.advance(one, State.FAILED, why)
        ended = titus.task(one)
        due = int(ended.taskContext["task.retryDelay"]) / 1_000
        titus.wait(due)
        next = titus.task(f"{id}-0-{attempt + 1}")
        found.append((at(next, 0) - at(ended, -1)).total_seconds())
        assert found[-1] == due
    return found


def at(task: pb.Task, step: int) -> datetime:
    return datetime.fromisoformat(task.stateChanges[step].timestamp)


def fail(titus: Titus, id: str, why: Reason | None = None) -> None:
    """Let the newest attempt of slot 0 fail, and control look."""
    newest = titus.tasks(id).items[-1].id
    titus.store.advance(TaskId(newest), State.FAILED, why)
    titus.inside.sweep()


# ---------------------------------------------------------------------------------------- the owner's


def test_a_slot_runs_at_most_once_more_than_there_are_retries(titus: Titus) -> None:
    id = titus.create(tried(immediate(2)))
    for _ in range(3):
        fail(titus, id)
    assert attempts(titus, id) == ["0-1 FAILED", "0-2 FAILED", "0-3 FAILED"]
    assert titus.job(id).jobState.state == pb.FAILED


def test_retries_are_counted_for_each_slot(titus: Titus) -> None:
    id = titus.create(tried(immediate(1), desired=2))
    for one in (f"{id}-0-1", f"{id}-1-1"):
        titus.store.advance(TaskId(one), State.FAILED)
    titus.inside.sweep()
    assert attempts(titus, id) == ["0-1 FAILED", "1-1 FAILED", "0-2 QUEUED", "1-2 QUEUED"]


def test_without_a_policy_a_batch_task_is_not_tried_again(titus: Titus) -> None:
    id = titus.create(tried(NONE))
    fail(titus, id)
    assert attempts(titus, id) == ["0-1 FAILED"]
    policy = titus.job(id).jobDescriptor.batch.retryPolicy
    assert policy == immediate(0)


def test_what_ended_well_is_not_tried_again(titus: Titus) -> None:
    id = titus.create(tried(immediate(3)))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    titus.inside.sweep()
    assert attempts(titus, id) == ["0-1 FINISHED"]


@pytest.mark.parametrize("code", [Code.FAILED, Code.CRASHED, Code.LIMIT, Code.OOM, Code.INVALID])
def test_what_the_application_did_uses_the_owners_retries(titus: Titus, code: Code) -> None:
    id = titus.create(tried(immediate(1)))
    for _ in range(2):
        fail(titus, id, Reason(code, "as told"))
    assert attempts(titus, id) == ["0-1 FAILED", "0-2 FAILED"]
    context = titus.task(f"{id}-0-2").taskContext
    assert (context["task.resubmitNumber"], context["task.systemResubmitNumber"]) == ("1", "0")


def test_immediately_is_at_once(titus: Titus) -> None:
    assert delays(titus, titus.create(tried(immediate(2))), 2) == [0, 0]


def test_delayed_waits_for_the_first_delay_and_then_for_the_other(titus: Titus) -> None:
    assert delays(titus, titus.create(tried(delayed(5_000, 2_500))), 3) == [5, 2.5, 2.5]
    assert delays(titus, titus.create(tried(delayed(0, 2_500))), 2) == [0, 2.5]


def test_back_off_doubles_up_to_its_cap_without_jitter(titus: Titus) -> None:
    id = titus.create(tried(doubling(1_000, 10_000)))
    assert delays(titus, id, 6) == [1, 2, 4, 8, 10, 10]


def test_back_off_without_a_cap_doubles_on_and_from_nothing_stays_nothing(titus: Titus) -> None:
    assert delays(titus, titus.create(tried(doubling(1_000))), 5) == [1, 2, 4, 8, 16]
    assert delays(titus, titus.create(tried(doubling(0, 10_000))), 2) == [0, 0]


def test_back_off_begins_anew_after_five_minutes_of_running(titus: Titus) -> None:
    id = titus.create(tried(doubling(1_000, 60_000)))
    assert delays(titus, id, 2) == [1, 2]
    titus.store.advance(TaskId(f"{id}-0-3"), State.RUNNING)
    titus.hand.now += timedelta(seconds=299)
    titus.store.advance(TaskId(f"{id}-0-3"), State.FAILED)
    assert titus.task(f"{id}-0-3").taskContext["task.retryDelay"] == "1000"


def test_nothing_is_tried_again_before_its_time(titus: Titus) -> None:
    id = titus.create(tried(delayed(5_000, 5_000)))
    fail(titus, id)
    titus.wait(4.999)
    assert attempts(titus, id) == ["0-1 FAILED"]
    titus.wait(0.001)
    assert attempts(titus, id) == ["0-1 FAILED", "0-2 QUEUED"]


def test_no_delay_is_longer_than_a_year(titus: Titus) -> None:
    id = titus.create(tried(delayed(2**64 - 1, 0)))
    fail(titus, id)
    year = timedelta(days=365) // timedelta(milliseconds=1)
    assert titus.task(f"{id}-0-1").taskContext["task.retryDelay"] == str(year)


# ---------------------------------------------------------------------------------------- our own


@pytest.mark.parametrize("code", [Code.LOST, Code.STUCK, Code.ERROR])
def test_what_the_infrastructure_spoiled_costs_the_owner_nothing(titus: Titus, code: Code) -> None:
    id = titus.create(tried(NONE))
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.FAILED, Reason(code, "as told"))
    assert titus.task(one).taskContext["task.retryDelay"] == "1000"
    titus.wait(1)
    context = titus.task(f"{id}-0-2").taskContext
    assert (context["task.resubmitNumber"], context["task.systemResubmitNumber"]) == ("1", "1")


def test_losses_back_off_to_thirty_seconds_and_end_after_ten(titus: Titus) -> None:
    id = titus.create(tried(immediate(0)))
    assert delays(titus, id, 10, LOST) == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    titus.store.advance(TaskId(f"{id}-0-11"), State.FAILED, LOST)
    titus.inside.sweep()
    assert titus.job(id).jobState.state == pb.FAILED


def test_losses_leave_the_owners_retries_as_they_are(titus: Titus) -> None:
    id = titus.create(tried(immediate(1)))
    assert delays(titus, id, 2, LOST) == [1, 2]
    fail(titus, id)
    assert attempts(titus, id)[-1] == "0-4 QUEUED"
    fail(titus, id)
    assert attempts(titus, id)[-1] == "0-4 FAILED"


@pytest.mark.parametrize(
    ("refusal", "why"),
    [(126, "crashed: the container cannot start (exit code 126)"), (127, "crashed: ")],
)
def test_a_container_that_cannot_start_of_its_own_has_crashed(titus: Titus, refusal: int, why: str) -> None:
    titus.host(program=Program(refusal=refusal))
    id = titus.create(tried(NONE))
    titus.inside.sweep()
    (run,) = titus.inside.deliver()
    run.end()
    titus.inside.sweep()
    task = titus.task(f"{id}-0-1").state
    assert task.state == pb.FAILED
    assert task.reason.startswith(why)
    assert titus.job(id).jobState.state == pb.FAILED


def test_an_image_that_is_gone_from_the_engine_is_an_invalid_request(titus: Titus) -> None:
    host = titus.host()
    titus.inside.registry.report_images(
        host.engine.facts().id, {"gone:1": "sha256:2", "sha256:2": "sha256:2"}
    )
    id = titus.create(container(image=pb.Image(name="gone:1")))
    titus.inside.sweep()
    (run,) = titus.inside.deliver()
    run.end()
    task = titus.task(f"{id}-0-1").state
    assert task.reason == "invalidRequest: the image 'sha256:2' is not on the engine"


def test_an_engine_that_fails_is_an_error_at_our_expense(titus: Titus) -> None:
    host = titus.host()
    id = titus.create(tried(NONE))
    titus.inside.sweep()
    host.engine.fail_next("create", "disk full")
    (run,) = titus.inside.deliver()
    run.end()
    task = titus.task(f"{id}-0-1")
    assert task.state.reason == "error: Docker Engine failed at create: disk full"
    assert task.taskContext["task.retryDelay"] == "1000"


def test_a_container_that_somebody_else_ended_is_lost_whatever_its_exit_code(titus: Titus) -> None:
    host = titus.host()
    id, (run,) = titus.run(tried(NONE))
    host.engine.end_from_outside(TaskId(f"{id}-0-1"), Exit(code=0), "somebody stopped it")
    run.end()
    task = titus.task(f"{id}-0-1").state
    assert (task.state, task.reason) == (pb.FAILED, "lost: somebody stopped it")


# ---------------------------------------------------------------------------------------- kills, services


def test_a_batch_task_that_was_killed_is_not_tried_again(titus: Titus) -> None:
    id = titus.create(tried(immediate(5)))
    titus.jobs.KillTask(pb.TaskId(id=f"{id}-0-1"))
    titus.inside.sweep()
    assert attempts(titus, id) == ["0-1 FAILED"]
    assert titus.job(id).jobState.state == pb.FAILED


def test_nothing_of_a_job_that_is_being_killed_is_tried_again(titus: Titus) -> None:
    id = titus.create(tried(immediate(5), desired=2))
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    titus.jobs.KillJob(pb.JobId(id=id))
    # Before its own kill reaches it.
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.inside.sweep()
    assert attempts(titus, id) == ["0-1 FAILED", "1-1 FAILED"]
    assert titus.job(id).jobState.reason.startswith("killed: by ")


def test_a_task_of_a_service_that_was_killed_is_replaced_at_once_in_its_slot(titus: Titus) -> None:
    id = titus.create(service(2, retries=1))
    for attempt in (1, 2, 3):
        titus.jobs.KillTask(pb.TaskId(id=f"{id}-1-{attempt}"))
        titus.inside.sweep()
    # It cost none of the owner's retries, of which there is one.
    assert attempts(titus, id)[-1] == "1-4 QUEUED"
    assert "0-1 QUEUED" in attempts(titus, id)


@pytest.mark.parametrize("end", [State.FINISHED, State.FAILED])
def test_a_task_of_a_service_is_run_again_whatever_its_end(titus: Titus, end: State) -> None:
    id = titus.create(service(1, retries=1))
    titus.store.advance(TaskId(f"{id}-0-1"), end)
    titus.inside.sweep()
    assert attempts(titus, id) == [f"0-1 {end.name}", "0-2 QUEUED"]


def test_a_service_without_a_policy_is_restarted_for_ever_after_one_to_thirty_seconds(titus: Titus) -> None:
    id = titus.create(service())
    assert delays(titus, id, 8) == [1, 2, 4, 8, 16, 30, 30, 30]
    assert not titus.job(id).jobDescriptor.service.HasField("retryPolicy")
    assert delays_from(titus, id, 9, ran=300) == 1


def delays_from(titus: Titus, id: str, attempt: int, *, ran: float) -> float:
    """How long after its end this attempt is tried again, having been RUNNING so long."""
    one = TaskId(f"{id}-0-{attempt}")
    titus.store.advance(one, State.RUNNING)
    titus.hand.now += timedelta(seconds=ran)
    titus.store.advance(one, State.FAILED)
    return int(titus.task(one).taskContext["task.retryDelay"]) / 1_000


def test_a_service_whose_policy_is_set_is_restarted_by_it(titus: Titus) -> None:
    id = titus.create(service(2, retries=1))
    for _ in range(2):
        titus.store.advance(TaskId(titus.tasks(id).items[0].id), State.FAILED)
        titus.inside.sweep()
    # The first slot's two runs are not over yet: the other one was the oldest in between.
    for task in titus.tasks(id).items:
        titus.store.advance(TaskId(task.id), State.FAILED)
    titus.inside.sweep()
    job = titus.job(id)
    assert job.jobState.state == pb.FAILED
    assert job.jobState.reason.startswith("failed: no slot may be restarted any more")
    assert job.jobDescriptor.service.instances.desired == 2


def test_a_service_goes_on_while_one_of_its_slots_may(titus: Titus) -> None:
    id = titus.create(service(2, retries=0))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.wait(60)
    assert attempts(titus, id) == ["0-1 FAILED", "1-1 QUEUED"]
    assert not State(titus.job(id).jobState.state).is_final
