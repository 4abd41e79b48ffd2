"""A kill is on record before it is answered; from then on nothing new starts, and all else ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from tests.service.world import ANN, World, a_job
from titus_celery.core.decision import Change, RunTask, StopTask
from titus_celery.core.descriptor import RetryKind, RetryPolicy
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import (
    Caller,
    DeadlineKind,
    Exit,
)
from titus_celery.core.states import State
from titus_celery.errors import FailedPrecondition, StoreUnavailable

BY_ANN: Final = "killed: by ann at 2026-03-01T12:00:00+00:00"
RETRY: Final = RetryPolicy(kind=RetryKind.DELAYED, retries=3, delay_first=timedelta(seconds=5))


# ------------------------------------------------------------------------------------------ whole jobs


def test_a_killed_job_that_waits_ends_without_having_run() -> None:
    world = World()
    host = world.host(cores=1)
    id = world.create(a_job(3, cpu="2"))
    world.sweep()
    world.jobs.kill(id, ANN)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "1-1": "FAILED", "2-1": "FAILED"}
    assert world.why(task_id(id, 0, 1)) == BY_ANN
    world.sweep()
    assert (world.job(id).state, world.why(id)) == (State.FAILED, BY_ANN)
    assert host.engine.orders == []
    assert world.records.queued(10) == []


def test_a_killed_job_that_runs_is_stopped_with_grace() -> None:
    world = World()
    host = world.host()
    id, runs = world.started(a_job(2, retry=RETRY))
    world.jobs.kill(id, ANN)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "RUNNING"}
    assert world.deliver() == []
    for run in runs:
        run.end()
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "1-1": "FAILED"}
    one = world.task(task_id(id, 0, 1))
    assert (str(one.reason), one.exit) == (BY_ANN, Exit(code=143, signal=15))
    assert [grace for _, grace in host.engine.stops] == [timedelta(seconds=10)] * 2
    assert (world.job(id).state, world.why(id)) == (State.FAILED, BY_ANN)
    (last,) = world.records.due(world.now + timedelta(days=99), 10)
    assert last.kind is DeadlineKind.ARCHIVE


def test_an_order_under_way_when_its_job_is_killed_starts_nothing() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()
    world.jobs.kill(id, ANN)
    # The kill was not even carried to the task yet.
    assert host.carry(order).end() is None
    assert world.states(id) == {"0-1": "DISPATCHED"}
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    assert host.carry(order).end() is None
    assert host.engine.orders == []
    (agent,), _ = world.registry.agents()
    assert agent.used.slots == 0


def test_a_placement_that_races_a_kill_loses() -> None:
    world = World()
    world.host()
    id = world.create()

    def killed_first(change: Change) -> None:
        world.jobs.kill(id, ANN)

    world.records.before_commit = killed_first
    world.sweep()
    assert world.orders() == []
    assert world.states(id) == {"0-1": "QUEUED"}


def test_a_claim_that_races_a_kill_loses() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()

    def killed_first(change: Change) -> None:
        world.jobs.kill(id, ANN)

    host.records.before_commit = killed_first
    assert host.carry(order).end() is None
    assert world.states(id) == {"0-1": "DISPATCHED"}
    assert host.engine.orders == []


def test_a_claim_that_races_the_kill_of_its_task_loses() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()

    def killed_first(change: Change) -> None:
        host.records.before_commit = None
        world.jobs.kill_task(order.task_id, ANN)

    host.records.before_commit = killed_first
    assert host.carry(order).end() is None
    assert world.states(id) == {"0-1": "FAILED"}
    assert host.engine.orders == []


def test_a_retry_that_races_a_kill_loses() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=RETRY))
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    world.sleep(5)

    def killed_first(change: Change) -> None:
        world.jobs.kill(id, ANN)

    world.records.before_commit = killed_first
    world.sweep()
    world.records.before_commit = None
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    assert world.job(id).state is State.FAILED


def test_a_kill_takes_back_a_retry_that_waits() -> None:
    world = World()
    world.host()
    id, (run,) = world.started(a_job(retry=RETRY))
    world.release(run, task_id(id, 0, 1), Exit(code=1))
    world.jobs.kill(id, ANN)
    world.sweep()
    world.sweep()
    assert (world.job(id).state, world.why(id)) == (State.FAILED, BY_ANN)
    assert world.why(task_id(id, 0, 1)) == "failed: exit code 1"
    world.sleep(5)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    (last,) = world.records.due(world.now + timedelta(days=99), 10)
    assert last.kind is DeadlineKind.ARCHIVE


def test_a_second_kill_is_fine_and_keeps_the_first_ones_name() -> None:
    world = World()
    world.host(cores=1)
    id = world.create(a_job(cpu="2"))
    world.jobs.kill(id, ANN)
    world.sleep(1)
    world.jobs.kill(id, Caller(id="bob"))
    world.sweep()
    world.sweep()
    assert world.why(id) == BY_ANN


def test_what_is_over_cannot_be_killed() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    world.release(run, one)
    world.sweep()
    with pytest.raises(FailedPrecondition, match=r"it is over \(FINISHED\) and cannot be killed"):
        world.jobs.kill(id, ANN)
    with pytest.raises(FailedPrecondition, match=r"it is over \(FINISHED\) and cannot be killed"):
        world.jobs.kill_task(one, ANN)


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (Caller(id="ann", email="a@example.com"), "ann"),
        (Caller(email="a@example.com"), "a@example.com"),
        (Caller(), "anonymous"),
    ],
)
def test_who_killed_is_named(caller: Caller, name: str) -> None:
    world = World()
    world.host(cores=1)
    id = world.create(a_job(cpu="2"))
    world.jobs.kill(id, caller)
    world.sweep()
    world.sweep()
    assert world.why(id) == f"killed: by {name} at 2026-03-01T12:00:00+00:00"


def test_a_kill_that_was_carried_half_way_goes_on() -> None:
    world = World()
    world.host(cores=1)
    id = world.create(a_job(4, cpu="2"))
    world.jobs.kill(id, ANN)
    commits = []

    def gone_after_two(change: Change) -> None:
        commits.append(change)
        if len(commits) > 2:
            raise StoreUnavailable("connection refused")

    world.records.before_commit = gone_after_two
    with pytest.raises(StoreUnavailable):
        world.sweep()
    world.records.before_commit = None
    assert sorted(world.states(id).values()) == ["FAILED", "FAILED", "QUEUED", "QUEUED"]
    world.new_control().run()
    world.sweep()
    assert set(world.states(id).values()) == {"FAILED"}
    assert world.job(id).state is State.FAILED


# ------------------------------------------------------------------------------------------ single tasks


def test_a_killed_task_is_not_replaced_and_the_others_go_on() -> None:
    world = World()
    world.host()
    id, (first, second) = world.started(a_job(2, retry=RETRY))
    world.jobs.kill_task(task_id(id, 0, 1), ANN)
    assert world.deliver() == []
    first.end()
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "1-1": "RUNNING"}
    assert world.why(task_id(id, 0, 1)) == BY_ANN
    world.release(second, task_id(id, 1, 1))
    world.sweep()
    assert world.why(id) == f"failed: 1 of 2 slots failed; first: {id}-0-1: {BY_ANN}"


@pytest.mark.parametrize("cores", [0, 4])
def test_a_killed_task_that_never_started_ends_at_once(cores: int) -> None:
    world = World()
    host = world.host(cores=cores)
    id = world.create()
    world.sweep()
    orders = world.orders()
    assert len(orders) == (1 if cores else 0)
    world.jobs.kill_task(task_id(id, 0, 1), ANN)
    assert world.states(id) == {"0-1": "FAILED"}
    for order in orders:
        assert host.carry(order).end() is None
    assert host.engine.orders == []
    (agent,), _ = world.registry.agents()
    assert agent.used.slots == 0


def test_killing_a_task_again_asks_its_agent_again() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    world.jobs.kill_task(one, ANN)
    world.queue.take()
    world.sleep(1)
    world.jobs.kill_task(one, Caller(id="bob"))
    assert world.commands() == [StopTask(one, world.task(one).dispatch.agent_id)]  # type: ignore[union-attr]
    world.hosts[next(iter(world.hosts))].life.poll()
    run.end()
    assert world.why(one) == BY_ANN


# ------------------------------------------------------------------------------------------ at the agent


def test_a_stop_that_was_lost_is_found_at_the_next_poll() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    world.jobs.kill(id, ANN)
    world.sweep()
    world.queue.take()
    host.life.poll()
    run.end()
    assert world.why(task_id(id, 0, 1)) == BY_ANN


def test_a_stop_that_the_engine_did_not_hear_is_asked_again() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    host.engine.fail_next("stop", "timed out")
    world.jobs.kill(id, ANN)
    # As often as it takes for the attempt that failed to be over.
    for _ in range(10_000):
        host.life.poll()
        run.thread.join(0.001)
        if not run.thread.is_alive():
            break
    run.end()
    assert world.why(task_id(id, 0, 1)) == BY_ANN


def test_a_task_killed_after_its_claim_is_not_started() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()
    claim = host.claiming(1)
    world.writes.on_task(order.task_id, claim)
    world.jobs.kill(id, ANN)
    run = host.carry(adopting(order))
    ended = run.end()
    assert ended is not None
    assert (str(ended.reason), ended.at(State.RUNNING)) == (BY_ANN, None)
    assert len(host.engine.orders) == 1
    assert host.engine.stops == []
    assert host.phase(order.task_id) is None


def test_a_task_killed_while_it_starts_is_stopped_right_after() -> None:
    """The kill is on record just before RUNNING is, when the container is up already."""
    world = World()
    host = world.host()
    id, order = world.placed()
    phases: list[Phase | None] = []

    def killed_first(change: Change) -> None:
        if change.tasks[0].after.state is State.RUNNING and not phases:
            phases.append(host.phase(order.task_id))
            world.jobs.kill(id, ANN)

    host.records.before_commit = killed_first
    ended = host.carry(order).end()
    assert phases == [Phase.RUNNING]
    assert ended is not None
    assert str(ended.reason) == BY_ANN
    assert host.engine.stops == [(order.task_id, timedelta(seconds=10))]


def test_a_container_that_ended_before_its_kill_was_known_ended_by_itself() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    world.jobs.kill(id, ANN)
    ended = world.release(run, one, Exit(code=0))
    assert (ended.state, str(ended.reason)) == (State.FINISHED, "normal")


def test_what_is_not_carried_here_is_not_looked_after() -> None:
    world = World()
    host = world.host()
    id = world.create()
    host.runs.look_after(task_id(id, 0, 1))
    assert world.states(id) == {"0-1": "QUEUED"}


def adopting(order: RunTask) -> RunTask:
    return RunTask(order.task_id, order.job_id, order.dispatch, order.image, adopt=True)
