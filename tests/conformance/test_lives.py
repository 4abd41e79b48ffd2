"""The lives of tasks and of batch jobs: states, histories, ends (docs/semantics.md A5 to A7, B3)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.world import AGENT, SPANS
from titus_celery.core.lifecycle import claimed, running, task_id
from titus_celery.core.model import NO_ADDRESS, Exit, JobId, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def limited(seconds: int, retries: int = 0) -> pb.JobDescriptor:
    """A job of one task that may run so long."""
    job = batch()
    job.batch.runtimeLimitSecs = seconds
    job.batch.retryPolicy.immediate.retries = retries
    return job


def times(job: pb.Job) -> list[list[str]]:
    """When the job and each of its tasks entered their states."""
    histories = [job.stateChanges, *(task.stateChanges for task in job.tasks)]
    return [[each.timestamp for each in history] for history in histories]


def states(titus: Titus, id: str) -> list[str]:
    """What the task went through."""
    return [each.state for each in titus.task(id).stateChanges]


# ---------------------------------------------------------------------------------------- runtime limit


def test_a_limit_that_is_not_set_is_five_days(titus: Titus) -> None:
    assert titus.job(titus.create()).jobDescriptor.batch.runtimeLimitSecs == 5 * 24 * 3_600


def test_a_limit_may_be_a_second_and_ten_days_but_no_longer(titus: Titus) -> None:
    for seconds in (1, 864_000):
        job = titus.job(titus.create(limited(seconds)))
        assert job.jobDescriptor.batch.runtimeLimitSecs == seconds
    titus.wrong(limited(864_001), "batch.runtimeLimitSecs", "864000")
    titus.wrong(limited(2**64 - 1), "batch.runtimeLimitSecs")


def test_what_runs_longer_than_its_limit_is_ended_and_says_so(titus: Titus) -> None:
    """By its agent, and without it by control: here the agent was not there when its time came."""
    host = titus.host()
    id, (run,) = titus.run(limited(100))
    titus.wait(129)
    assert titus.inside.commands() == []
    titus.wait(1)
    titus.inside.deliver()
    run.end()
    task = titus.task(f"{id}-0-1")
    assert task.state.state == pb.FAILED
    assert task.state.reason == "runtimeLimitExceeded: ran longer than 100 s"
    assert host.phase(task_id(id, 0, 1)) is None


def test_an_agent_that_comes_back_holds_what_runs_to_its_limit_at_once(titus: Titus) -> None:
    host = titus.host()
    id, _ = titus.run(limited(100))
    host.restart()
    titus.wait(105)
    host.life.reconcile()
    (run,) = titus.inside.deliver()
    run.end()
    assert titus.task(f"{id}-0-1").state.reason.startswith("runtimeLimitExceeded: ")


def test_a_limit_counts_from_running_and_anew_for_each_attempt(titus: Titus) -> None:
    titus.host()
    id = titus.create(limited(100, retries=1))
    titus.wait(400)
    (run,) = titus.carry()
    titus.wait(90)
    assert titus.end(run, f"{id}-0-1", Exit(code=3)).state.reason == "failed: exit code 3"
    titus.carry()
    titus.wait(90)
    assert titus.inside.commands() == []
    assert titus.task(f"{id}-0-2").state.state == pb.RUNNING


# ---------------------------------------------------------------------------------------- jobs


def test_a_job_is_where_the_furthest_of_its_tasks_ever_was(titus: Titus) -> None:
    id = titus.create(batch(2, batch=retried(1, desired=2)))
    ahead = TaskId(f"{id}-1-1")
    for state in (State.DISPATCHED, State.STARTING, State.RUNNING):
        titus.store.advance(ahead, state)
        assert pb.State.Name(titus.job(id).jobState.state) == state.name
    titus.store.advance(ahead, State.FAILED)
    titus.wait(1)
    assert {task.state.state for task in titus.find().items[0].tasks} == {pb.QUEUED}
    assert titus.job(id).jobState.state == pb.RUNNING
    changes = [each.state for each in titus.job(id).stateChanges]
    assert changes == ["QUEUED", "DISPATCHED", "STARTING", "RUNNING"]


def retried(retries: int, desired: int = 1) -> pb.BatchJobSpec:
    """A batch job's spec with so many retries, ten seconds after a failure."""
    delayed = pb.RetryPolicy.Delayed(initialDelayMs=10_000, delayMs=10_000, retries=retries)
    return pb.BatchJobSpec(
        instances=pb.TaskInstances(desired=desired),
        containerId="main",
        retryPolicy=pb.RetryPolicy(delayed=delayed),
    )


def test_a_batch_job_is_over_once_every_slot_is_and_none_waits_for_a_retry(titus: Titus) -> None:
    id = titus.create(batch(2, batch=retried(1, desired=2)))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.store.advance(TaskId(f"{id}-1-1"), State.FINISHED)
    titus.inside.sweep()
    assert titus.job(id).jobState.state == pb.RUNNING
    titus.wait(10)
    assert titus.job(id).jobState.state == pb.RUNNING
    titus.store.advance(TaskId(f"{id}-0-2"), State.FINISHED)
    titus.inside.sweep()
    assert titus.job(id).jobState == pb.JobState(state=pb.FINISHED, reason="normal")


def test_a_batch_job_with_a_slot_that_failed_has_failed_and_names_it(titus: Titus) -> None:
    id = titus.create(batch(3))
    for slot, state in enumerate((State.FINISHED, State.FAILED, State.FINISHED)):
        titus.store.advance(TaskId(f"{id}-{slot}-1"), state)
    titus.inside.sweep()
    ended = titus.job(id).jobState
    assert ended.state == pb.FAILED
    assert ended.reason == f"failed: 1 of 3 slots failed; first: {id}-1-1: failed: exit code 3"


# ---------------------------------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("exit", "state", "why"),
    [
        (Exit(code=0), pb.FINISHED, "normal"),
        (Exit(code=3), pb.FAILED, "failed: exit code 3"),
        (Exit(code=137, signal=9), pb.FAILED, "failed: ended by signal 9 (exit code 137)"),
        (Exit(code=137, signal=9, oom=True), pb.FAILED, "oomKilled: it used more memory than its limit"),
    ],
)
def test_how_a_container_ends_is_told_by_code_and_detail(
    titus: Titus, exit: Exit, state: pb.State.ValueType, why: str
) -> None:
    titus.host()
    id, (run,) = titus.run()
    assert titus.end(run, f"{id}-0-1", exit).state == pb.TaskState(state=state, reason=why)


def test_reasons_have_these_codes_and_no_others() -> None:
    """`waiting` is no end: it says why a task is QUEUED."""
    assert {code.value for code in Code} == {
        "normal",
        "failed",
        "crashed",
        "lost",
        "killed",
        "scaledDown",
        "stuckInState",
        "runtimeLimitExceeded",
        "oomKilled",
        "invalidRequest",
        "error",
        "waiting",
    }


def test_a_task_that_waits_says_what_for(titus: Titus) -> None:
    id = titus.create()
    titus.inside.sweep()
    assert titus.task(f"{id}-0-1").state == pb.TaskState(
        state=pb.QUEUED, reason="waiting: no agent serves queue default"
    )


# ---------------------------------------------------------------------------------------- states


def test_a_task_goes_from_queued_to_its_end_and_each_state_is_told_with_its_time(titus: Titus) -> None:
    id = titus.create()
    one = TaskId(f"{id}-0-1")
    for state in (State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING, State.FINISHED):
        titus.store.advance(one, state)
        task = titus.task(one)
        assert pb.State.Name(task.state.state) == state.name
        assert task.stateChanges[-1].state == state.name
    assert states(titus, one) == ["QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FINISHED"]


def test_times_are_rfc_3339_in_utc_with_milliseconds_and_by_the_stores_clock(titus: Titus) -> None:
    titus.hand.now += timedelta(microseconds=123_456)
    created = titus.hand.now
    id = titus.create()
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    titus.inside.sweep()
    job = titus.job(id)
    for told in times(job):
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each) for each in told)
        assert told == sorted(told)
        begin = datetime.fromisoformat(told[0])
        assert begin == created.replace(microsecond=123_000)


def test_a_clock_that_is_set_back_makes_no_history_go_backwards(titus: Titus) -> None:
    id = titus.create()
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    titus.hand.now -= timedelta(hours=1)
    titus.store.advance(TaskId(f"{id}-0-1"), State.FINISHED)
    titus.inside.sweep()
    job = titus.job(id)
    for told in times(job):
        assert told == sorted(told)


def test_a_state_may_be_skipped_and_then_is_not_told(titus: Titus) -> None:
    """A container that is gone before anybody looked has run."""
    id = titus.create()
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.STARTING)
    titus.store.end(one, Reason(Code.NORMAL), Exit(code=0))
    assert states(titus, one) == ["QUEUED", "DISPATCHED", "STARTING", "FINISHED"]


def test_reports_that_come_late_or_twice_change_nothing(titus: Titus) -> None:
    id = titus.create()
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.RUNNING)
    before = titus.task(one)
    titus.store.writes.on_task(one, lambda job, task, now: running(job, task, 1, NO_ADDRESS, now))
    assert titus.task(one) == before
    titus.store.advance(one, State.FAILED)
    over = titus.task(one)
    titus.store.end(one, Reason(Code.NORMAL), Exit(code=0))
    titus.store.writes.on_task(one, lambda job, task, now: running(job, task, 1, NO_ADDRESS, now))
    titus.store.writes.on_task(one, lambda job, task, now: claimed(job, task, AGENT.id, 1, now, SPANS))
    assert titus.task(one) == over


def test_a_doubled_order_makes_one_container(titus: Titus) -> None:
    host = titus.host()
    titus.create()
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    host.carry(order).until(State.RUNNING)
    assert host.carry(order).end() is None
    # Another process of the agent has not carried it itself.
    host.restart()
    assert host.carry(order).end() is None
    assert len(host.engine.orders) == 1


def test_a_task_that_is_being_killed_stays_where_it_is_until_its_container_is_gone(titus: Titus) -> None:
    titus.host()
    id, (run,) = titus.run()
    one = pb.TaskId(id=f"{id}-0-1")
    titus.jobs.KillTask(one)
    assert titus.task(one.id).state.state == pb.RUNNING
    titus.inside.deliver()
    run.end()
    assert titus.task(one.id).state.state == pb.FAILED
    assert titus.task(one.id).state.reason.startswith("killed: by ")


def test_an_order_that_nobody_takes_is_sent_again_after_three_seconds_and_given_up_in_a_minute(
    titus: Titus,
) -> None:
    titus.host()
    id = titus.create()
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    titus.wait(2.9)
    assert titus.inside.orders() == []
    titus.wait(0.1)
    assert titus.inside.orders() == [order]
    for _ in range(19):
        titus.wait(3)
    task = titus.task(f"{id}-0-1")
    assert task.state.state == pb.FAILED
    assert task.state.reason == "stuckInState: agent host-1 did not take it within 60 s"


def test_what_is_starting_for_too_long_is_ended_by_its_agent(titus: Titus) -> None:
    id = titus.create()
    titus.store.advance(TaskId(f"{id}-0-1"), State.STARTING)
    titus.inside.commands()
    titus.wait(719)
    assert titus.inside.commands() == []
    titus.wait(1)
    assert len(titus.inside.commands()) == 1
    assert titus.task(f"{id}-0-1").state.state == pb.STARTING
    assert str(titus.store.task(TaskId(f"{id}-0-1")).stop_for) == ("stuckInState: still STARTING after 720 s")


def test_a_task_of_a_service_may_be_starting_for_five_minutes(titus: Titus) -> None:
    id = titus.create(service())
    titus.store.advance(TaskId(f"{id}-0-1"), State.STARTING)
    titus.inside.commands()
    titus.wait(299)
    assert titus.inside.commands() == []
    titus.wait(1)
    assert len(titus.inside.commands()) == 1


def test_what_an_agent_holds_that_is_silent_for_a_minute_after_its_lease_is_lost(titus: Titus) -> None:
    titus.host()
    id, _ = titus.run()
    titus.wait(69.9, silent=True)
    assert titus.task(f"{id}-0-1").state.state == pb.RUNNING
    titus.wait(0.1, silent=True)
    state = titus.task(f"{id}-0-1").state
    assert state == pb.TaskState(state=pb.FAILED, reason="lost: agent host-1 has been silent for 60 s")


def test_the_job_of_a_task_tells_nothing_that_its_tasks_do_not(titus: Titus) -> None:
    id = JobId(titus.create())
    titus.store.advance(task_id(id, 0, 1), State.RUNNING)
    job = titus.job(id)
    assert job.stateChanges == job.tasks[0].stateChanges
