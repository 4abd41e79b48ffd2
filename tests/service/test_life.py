"""The life of a job from CreateJob to its end, step by step, with what each step leaves on record."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.world import ANN, World, a_job
from titus_celery.core.decision import JobAdded, JobEnded, TaskUpdated
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import DeadlineKind, Exit, JobId
from titus_celery.core.states import State
from titus_celery.errors import NotFound
from titus_celery.ports import Chunk, Position, Source


def test_a_job_is_created_placed_run_ended_and_settled() -> None:
    world = World()
    host = world.host()
    id = world.create()
    one = task_id(id, 0, 1)
    world.sleep(1)
    world.sweep()
    world.sleep(1)
    (run,) = world.deliver()
    run.until(State.RUNNING)
    world.sleep(5)
    ended = world.release(run, one)
    world.sweep()

    assert ended == world.task(one)
    assert [(step.state.name, world.elapsed(step.at)) for step in ended.history] == [
        ("QUEUED", 0),
        ("DISPATCHED", 1),
        ("STARTING", 2),
        ("RUNNING", 2),
        ("FINISHED", 7),
    ]
    assert (str(ended.reason), ended.exit, ended.address.ip) == ("normal", Exit(code=0), "10.0.0.1")
    assert ended.dispatch is not None
    assert (ended.dispatch.host, ended.dispatch.zone, ended.dispatch.region) == ("host-1", "a", "r")
    job = world.job(id)
    assert [(step.state.name, world.elapsed(step.at)) for step in job.history] == [
        ("QUEUED", 0),
        ("DISPATCHED", 1),
        ("STARTING", 2),
        ("RUNNING", 2),
        ("FINISHED", 7),
    ]
    assert (str(job.reason), job.created_by) == ("normal", "ann")
    assert run.announced == [State.STARTING, State.RUNNING]
    assert host.phase(one) is None


def test_the_log_tells_each_step_once_and_the_jobs_end_last() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    world.release(run, task_id(id, 0, 1))
    world.sweep()
    told = [heard for _, heard in world.records.read(Position("0-0"), 100, timedelta(0))]
    assert [heard.task.state.name if isinstance(heard, TaskUpdated) else type(heard) for heard in told] == [
        JobAdded,
        "QUEUED",
        "DISPATCHED",
        "STARTING",
        "RUNNING",
        "FINISHED",
        JobEnded,
    ]


def test_nothing_is_left_behind_of_a_job_that_is_over() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    world.release(run, task_id(id, 0, 1))
    world.sweep()
    (last,) = world.records.due(world.now + timedelta(days=99), 10)
    assert last.kind is DeadlineKind.ARCHIVE
    assert world.records.live_jobs(0, 10) == ([], 0)
    assert world.records.queued(10) == []
    (agent,), _ = world.registry.agents()
    assert (agent.used.cpu_millis, agent.used.memory_bytes, agent.used.slots) == (0, 0, 0)


def test_what_a_container_is_given() -> None:
    world = World()
    host = world.host()
    id, _ = world.started(a_job(cpu="0.5"))
    (order,) = host.engine.orders
    assert (order.task_id, order.job_id, order.agent_id, order.dispatch_number) == (
        task_id(id, 0, 1),
        id,
        "host-1",
        1,
    )
    assert order.image_id == "sha256:1"
    assert order.installation == world.records.installation()
    assert (order.demand.cpu_millis, order.demand.memory_bytes) == (500, 128_000_000)
    assert order.env == {
        "TITUS_JOB_ID": id,
        "TITUS_TASK_ID": f"{id}-0-1",
        "TITUS_TASK_INDEX": "0",
        "TITUS_TASK_ORIGINAL_ID": f"{id}-0-1",
        "TITUS_TASK_ATTEMPT": "1",
    }


def test_output_is_in_the_store_when_the_end_is() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    host.engine.write(one, Source.STDOUT, b"so ")
    host.engine.write(one, Source.STDERR, b"what")
    world.release(run, one)
    assert world.outputs.read(one, 0, timedelta(0)) == [
        Chunk(0, Source.STDOUT, b"so "),
        Chunk(3, Source.STDERR, b"what"),
    ]


def test_each_slot_runs_and_the_job_ends_with_the_last() -> None:
    world = World()
    world.host()
    id, runs = world.started(a_job(3))
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "RUNNING", "2-1": "RUNNING"}
    for slot, run in enumerate(runs):
        world.sweep()
        assert world.job(id).state is State.RUNNING
        world.release(run, task_id(id, slot, 1))
    world.sweep()
    assert (world.job(id).state, world.job(id).slots_ok) == (State.FINISHED, 3)


def test_one_bad_slot_fails_the_job_and_is_named() -> None:
    world = World()
    world.host()
    id, (first, second) = world.started(a_job(2))
    world.release(first, task_id(id, 0, 1))
    world.release(second, task_id(id, 1, 1), Exit(code=3))
    world.sweep()
    assert world.why(id) == f"failed: 1 of 2 slots failed; first: {id}-1-1: failed: exit code 3"
    assert world.job(id).state is State.FAILED


@pytest.mark.parametrize(
    ("exit", "state", "why"),
    [
        (Exit(code=0), State.FINISHED, "normal"),
        (Exit(code=3), State.FAILED, "failed: exit code 3"),
        (Exit(code=137, signal=9), State.FAILED, "failed: ended by signal 9 (exit code 137)"),
        (Exit(code=137, signal=9, oom=True), State.FAILED, "oomKilled: it used more memory than its limit"),
    ],
)
def test_how_a_container_ends_is_how_its_task_ends(exit: Exit, state: State, why: str) -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    ended = world.release(run, task_id(id, 0, 1), exit)
    assert (ended.state, str(ended.reason), ended.exit) == (state, why, exit)


# ------------------------------------------------------------------------------------------ finding


def test_a_job_is_found_with_its_tasks_in_order_of_slot_and_attempt() -> None:
    world = World()
    world.host()
    id, (first, _) = world.started(a_job(2))
    world.release(first, task_id(id, 0, 1))
    summary = world.jobs.find(id)
    assert summary.job == world.job(id)
    assert [(one.slot, one.state.name) for one in summary.tasks] == [(0, "FINISHED"), (1, "RUNNING")]


def test_a_task_is_found_after_its_end_too() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    ended = world.release(run, task_id(id, 0, 1))
    assert world.jobs.find_task(ended.id) == ended


def test_what_never_was_is_not_found() -> None:
    world = World()
    nobody = JobId("00000000-0000-4000-8000-999999999999")
    for find in (
        lambda: world.jobs.find(nobody),
        lambda: world.jobs.find_task(task_id(nobody, 0, 1)),
        lambda: world.jobs.kill(nobody, ANN),
        lambda: world.jobs.kill_task(task_id(nobody, 0, 1), ANN),
    ):
        with pytest.raises(NotFound, match="999999999999"):
            find()


# ------------------------------------------------------------------------------------------ messages


def test_a_doubled_order_makes_one_container() -> None:
    world = World()
    host = world.host()
    id, order = world.placed()
    first = host.carry(order)
    first.until(State.RUNNING)
    assert host.carry(order).end() is None
    assert len(host.engine.orders) == 1
    assert world.release(first, task_id(id, 0, 1)).state is State.FINISHED
    assert host.carry(order).end() is None
    assert len(host.engine.orders) == 1


def test_a_doubled_order_is_dropped_by_another_process_of_its_agent_too() -> None:
    world = World()
    host = world.host()
    _, order = world.placed()
    host.carry(order).until(State.RUNNING)
    host.restart()
    assert host.carry(order).end() is None
    assert len(host.engine.orders) == 1


def test_an_order_for_another_agent_or_with_another_number_is_dropped() -> None:
    world = World()
    world.host("host-1")
    other = world.host("host-2")
    _, order = world.placed()
    assert other.carry(order).end() is None
    stale = replace(order, dispatch=replace(order.dispatch, number=2))
    assert world.hosts[order.dispatch.agent_id].carry(stale).end() is None
    assert world.task(order.task_id).state is State.DISPATCHED


def test_an_order_for_an_unknown_task_is_dropped() -> None:
    world = World()
    host = world.host()
    _, order = world.placed()
    unknown = replace(order, task_id=task_id(order.job_id, 7, 1))
    assert host.carry(unknown).end() is None
    assert host.engine.orders == []


def test_a_lost_order_is_sent_again_under_its_number_until_it_is_taken() -> None:
    world = World()
    world.host()
    id = world.create()
    world.sweep()
    (lost,) = world.orders()
    world.sleep(2.999)
    world.sweep()
    assert world.orders() == []
    world.sleep(3)
    world.sweep()
    assert world.orders() == [lost]
    world.sleep(3)
    world.sweep()
    (again,) = world.orders()
    assert again == lost
    run = world.hosts[again.dispatch.agent_id].carry(again)
    run.until(State.RUNNING)
    world.sleep(30)
    world.sweep()
    assert world.orders() == []
    assert world.task(task_id(id, 0, 1)).dispatches == 1


def test_a_broker_that_is_away_loses_nothing() -> None:
    world = World()
    host = world.host()
    world.queue.is_away = True
    id = world.create()
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}
    world.queue.is_away = False
    assert world.orders() == []
    world.now += timedelta(seconds=3)
    (run,) = world.carry_on()
    world.queue.is_away = True
    world.release(run, task_id(id, 0, 1))
    world.sweep()
    assert world.job(id).state is State.FINISHED
    assert len(host.engine.orders) == 1


def test_an_order_that_its_agent_never_takes_is_given_up_and_tried_again() -> None:
    world = World()
    world.host()
    id = world.create()
    world.sweep()
    for _ in range(20):
        world.sleep(3)
        world.sweep()
    # Dispatched at 0, given up at 60, tried again a second later: infrastructure's first delay.
    gone = world.task(task_id(id, 0, 1))
    assert str(gone.reason) == "stuckInState: agent host-1 did not take it within 60 s"
    assert world.elapsed(gone.retry_at) == 61
    world.orders()
    world.sleep(1)
    (run,) = world.carry_on()
    assert world.release(run, task_id(id, 0, 2)).state is State.FINISHED


def test_a_late_order_for_a_task_that_was_given_up_is_dropped() -> None:
    world = World()
    host = world.host()
    id = world.create()
    world.sweep()
    (late,) = world.orders()
    world.sleep(60)
    world.sweep()
    assert world.task(task_id(id, 0, 1)).state is State.FAILED
    assert host.carry(late).end() is None
    assert host.phase(late.task_id) is None


def test_who_created_a_job_is_on_record() -> None:
    world = World()
    world.host()
    assert world.job(world.create()).created_by == ANN.id
