"""Failed slots are tried again at the time on record, at whose expense it was, and no oftener."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from tests.service.world import APP, Run, World, a_job
from titus_celery.adapters.memory_executor import MemoryExecutor, MemoryImage, Program
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import RetryKind, RetryPolicy
from titus_celery.core.lifecycle import ended, task_id
from titus_celery.core.model import (
    Exit,
    JobId,
)
from titus_celery.core.states import State

FAILING: Final = Exit(code=1)


def policy(kind: RetryKind = RetryKind.IMMEDIATE, retries: int = 1, **seconds: float) -> RetryPolicy:
    spans = {name: timedelta(seconds=count) for name, count in seconds.items()}
    return RetryPolicy(kind=kind, retries=retries, **spans)


def fail(world: World, run: Run, id: JobId, attempt: int) -> float | None:
    """End the attempt with a failure; when its replacement is due, in seconds since the beginning."""
    return world.elapsed(world.release(run, task_id(id, 0, attempt), FAILING).retry_at)


# ------------------------------------------------------------------------------------------ the owner's


def test_a_retry_comes_at_its_time_to_the_millisecond() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=policy(RetryKind.DELAYED, delay_first=5)))
    world.sleep(2)
    assert fail(world, run, id, 1) == 7
    world.sleep(4.999)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    world.sleep(0.001)
    world.carry_on()
    assert world.states(id) == {"0-1": "FAILED", "0-2": "RUNNING"}
    second = world.task(task_id(id, 0, 2))
    assert (world.elapsed(second.history[0].at), second.resubmit_of) == (7, f"{id}-0-1")
    assert world.task(task_id(id, 0, 1)).replaced_by == second.id


def test_backoff_doubles_from_one_attempt_to_the_next() -> None:
    world = World()
    world.host()
    retry = policy(RetryKind.EXPONENTIAL, retries=4, delay_first=2, delay=10)
    id, (run,) = world.started(a_job(retry=retry))
    # Ends at 0, 2, 6, 14, and the fourth delay is capped.
    for attempt, due in ((1, 2), (2, 2 + 4), (3, 6 + 8), (4, 14 + 10)):
        assert fail(world, run, id, attempt) == due
        world.sleep(due - (world.elapsed(world.now) or 0))
        (run,) = world.carry_on()
    assert fail(world, run, id, 5) is None


def test_a_slot_out_of_retries_ends_its_job_with_the_last_reason() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=policy(retries=1)))
    assert fail(world, run, id, 1) == 0
    (run,) = world.carry_on()
    world.sweep()
    assert world.job(id).state is State.RUNNING
    assert fail(world, run, id, 2) is None
    world.sweep()
    assert world.job(id).state is State.FAILED
    assert world.why(id) == f"failed: 1 of 1 slots failed; first: {id}-0-2: failed: exit code 1"


def test_a_retry_that_succeeds_makes_the_slot_good() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=policy()))
    fail(world, run, id, 1)
    (run,) = world.carry_on()
    world.release(run, task_id(id, 0, 2))
    world.sweep()
    job = world.job(id)
    assert (job.state, job.slots_ok, job.slots_failed) == (State.FINISHED, 1, 0)


def test_without_a_policy_nothing_is_tried_again() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    assert fail(world, run, id, 1) is None
    world.sweep()
    assert world.job(id).state is State.FAILED


def test_a_retry_waits_for_room_behind_those_who_waited_before() -> None:
    world = World()
    world.host(cores=1)
    id, (run,) = world.started(a_job(retry=policy(RetryKind.DELAYED, delay_first=5)))
    other = world.create()
    fail(world, run, id, 1)
    world.sleep(5)
    world.carry_on()
    assert world.states(other) == {"0-1": "RUNNING"}
    assert world.states(id) == {"0-1": "FAILED", "0-2": "QUEUED"}


def test_a_clock_that_is_set_back_does_not_lose_a_retry() -> None:
    """Both retries are due when control looks; before the second is decided, the clock is set back."""
    world = World()
    world.host()
    id, runs = world.started(a_job(2, retry=policy(RetryKind.DELAYED, delay_first=5)))
    for slot, run in enumerate(runs):
        world.release(run, task_id(id, slot, 1), FAILING)
    world.sleep(5)

    def set_back(change: Change) -> None:
        world.records.before_commit = None
        world.now -= timedelta(seconds=1)

    world.records.before_commit = set_back
    world.sweep()
    assert sorted(world.states(id)) == ["0-1", "0-2", "1-1"]
    world.sleep(1)
    world.sweep()
    assert sorted(world.states(id)) == ["0-1", "0-2", "1-1", "1-2"]


def test_two_controls_at_one_deadline_make_one_replacement() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=policy()))
    fail(world, run, id, 1)
    other = world.new_control()

    def other_is_first(change: Change) -> None:
        other.run()

    world.records.before_commit = other_is_first
    world.sweep()
    world.records.before_commit = None
    assert sorted(world.states(id)) == ["0-1", "0-2"]
    assert len(world.orders()) == 1


# ------------------------------------------------------------------------------------------ bad starts


def test_an_image_that_went_missing_is_the_owners_fault() -> None:
    world = World()
    engine = MemoryExecutor(images=[APP])
    world.host("host-1", engine=engine)
    world.registry.report_images(engine.facts().id, {"gone:1": "sha256:2", "sha256:2": "sha256:2"})
    id = world.create(a_job(image="gone:1", retry=policy(RetryKind.DELAYED, delay_first=5)))
    world.sweep()
    (run,) = world.deliver()
    run.end()
    one = world.task(task_id(id, 0, 1))
    assert (str(one.reason), one.at(State.RUNNING)) == (
        "invalidRequest: the image 'sha256:2' is not on the engine",
        None,
    )
    # The owner's delay, not ours.
    assert world.elapsed(one.retry_at) == 5


def test_a_command_that_cannot_start_has_crashed_with_its_exit_code() -> None:
    world = World()
    host = world.host(engine=MemoryExecutor(script=lambda argv, env: Program(refusal=127), images=[APP]))
    id = world.create()
    world.sweep()
    (run,) = world.deliver()
    run.end()
    one = world.task(task_id(id, 0, 1))
    assert str(one.reason) == "crashed: the container cannot start (exit code 127): its command cannot be run"
    assert (one.exit, one.retry_at) == (Exit(code=127), None)
    assert host.phase(one.id) is None


def test_an_image_that_says_nothing_to_run_has_crashed() -> None:
    world = World()
    world.host(engine=MemoryExecutor(images=[MemoryImage(id="sha256:3", names=("empty:1",))]))
    id = world.create(a_job(image="empty:1"))
    world.sweep()
    (run,) = world.deliver()
    run.end()
    assert world.why(task_id(id, 0, 1)).startswith("crashed: the container cannot start (exit code 127)")


# ------------------------------------------------------------------------------------------ ours


@pytest.mark.parametrize("doing", ["create", "start"])
def test_a_fault_of_the_engine_is_ours_and_the_slot_runs_again(doing: str) -> None:
    world = World()
    host = world.host()
    host.engine.fail_next(doing, "disk full")
    id = world.create()
    world.sweep()
    (run,) = world.deliver()
    run.end()
    one = world.task(task_id(id, 0, 1))
    assert str(one.reason) == f"error: Docker Engine failed at {doing}: disk full"
    assert world.elapsed(one.retry_at) == 1
    assert host.phase(one.id) is None
    world.sleep(1)
    (run,) = world.carry_on()
    assert world.release(run, task_id(id, 0, 2)).state is State.FINISHED


def test_both_budgets_are_counted_apart() -> None:
    """Two losses, then a failure, then the owner's only retry: four runs."""
    world = World()
    host = world.host()
    id = world.create(a_job(retry=policy(RetryKind.DELAYED, retries=1, delay_first=5)))
    for attempt, due in ((1, 1), (2, 1 + 2)):
        host.engine.fail_next("start", "disk full")
        world.sweep()
        (run,) = world.deliver()
        run.end()
        assert world.elapsed(world.task(task_id(id, 0, attempt)).retry_at) == due
        world.sleep(attempt)
    (run,) = world.carry_on()
    assert fail(world, run, id, 3) == 3 + 5
    world.sleep(5)
    (run,) = world.carry_on()
    assert fail(world, run, id, 4) is None
    last = world.task(task_id(id, 0, 4))
    assert (last.user_retries, last.infra_retries) == (1, 2)


def test_ten_losses_are_made_good_and_the_eleventh_is_the_end() -> None:
    world = World()
    host = world.host()
    id = world.create()
    for _ in range(11):
        host.engine.fail_next("create", "disk full")
        world.sweep()
        for run in world.deliver():
            run.end()
        world.sleep(30)
    world.sweep()
    assert sorted(world.states(id), key=len) == [f"0-{attempt}" for attempt in range(1, 12)]
    assert world.job(id).state is State.FAILED
    assert len(host.engine.orders) == 0


# ------------------------------------------------------------------------------------------ limits


def test_control_has_ended_what_outlived_its_limit_half_a_minute_before() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started(a_job(limit=100, retry=policy()))
    one = task_id(id, 0, 1)
    world.sleep(129.999)
    world.sweep()
    assert world.task(one).state is State.RUNNING
    world.sleep(0.001)
    world.sweep()
    # It is its agent's to end: it hears of it at its next poll at the latest.
    assert world.task(one).state is State.RUNNING
    host.life.poll()
    run.end()
    world.sweep()
    assert world.why(one) == "runtimeLimitExceeded: ran longer than 100 s"
    assert host.phase(one) is None
    assert host.engine.stops == [(one, timedelta(seconds=10))]
    assert world.states(id) == {"0-1": "FAILED", "0-2": "DISPATCHED"}


def test_an_agent_ends_what_outlived_its_limit_itself() -> None:
    """Found again after its limit is over, so that the timer has nothing left to wait."""
    world = World()
    host = world.host()
    id, _ = world.started(a_job(limit=100))
    world.sleep(101)
    host.restart()
    host.life.reconcile()
    (run,) = world.deliver()
    run.end()
    one = world.task(task_id(id, 0, 1))
    assert str(one.reason) == "runtimeLimitExceeded: ran longer than 100 s"
    assert one.exit == Exit(code=143, signal=15)


def test_a_start_that_takes_for_ever_is_given_up_at_our_expense() -> None:
    world = World()
    host = world.host()
    id = world.create()
    world.sweep()
    (order,) = world.orders()
    # Claimed, and then something in the agent hung.
    world.writes.on_task(order.task_id, host.claiming(1))
    world.sleep(719.999)
    world.sweep()
    assert world.task(order.task_id).stop_for is None
    world.sleep(0.001)
    world.sweep()
    assert world.states(id) == {"0-1": "STARTING"}
    reason = world.task(order.task_id).stop_for
    assert reason is not None
    world.writes.on_task(order.task_id, lambda job, task, now: ended(job, task, reason, now, number=1))
    one = world.task(order.task_id)
    assert str(one.reason) == "stuckInState: still STARTING after 720 s"
    assert world.elapsed(one.retry_at) == 721
