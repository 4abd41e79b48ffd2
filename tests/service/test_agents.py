"""Agents that come, go, come back and vanish: what they held is found again, or given up and redone."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import ANN, World, a_job
from titus_celery.core.decision import Change, Command, Prove, RunTask
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id, told_to_stop
from titus_celery.core.model import Deadline, DeadlineKind, Exit
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import EngineFault, StoreUnavailable

#: A host's lease is 10 s, and 60 s without one make its tasks lost.
LEASE: Final = 10


# ------------------------------------------------------------------------------------------ lost agents


def test_tasks_of_an_agent_that_is_silent_too_long_are_lost_and_run_elsewhere() -> None:
    world = World()
    world.host("host-1")
    id, _ = world.started(a_job(2))
    world.sweep()
    world.sleep(LEASE + 59.999, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "RUNNING"}
    world.sleep(0.001, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED", "1-1": "FAILED"}
    assert world.why(task_id(id, 0, 1)) == "lost: agent host-1 has been silent for 60 s"
    del world.hosts[next(iter(world.hosts))]
    world.host("host-2")
    world.sleep(1)
    runs = world.carry_on()
    assert world.states(id) == {"0-1": "FAILED", "0-2": "RUNNING", "1-1": "FAILED", "1-2": "RUNNING"}
    for slot, run in enumerate(runs):
        world.release(run, task_id(id, slot, 2))
    world.sweep()
    assert world.job(id).state is State.FINISHED


def test_control_that_was_away_itself_waits_before_it_gives_agents_up() -> None:
    """Agents could not renew while the store was down; a control that starts with it must not judge."""
    world = World()
    host = world.host()
    id, _ = world.started()
    world.sleep(1_800, beating=False)
    world.control = world.new_control()
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(59.999, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    host.beat()
    world.sleep(1, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}


def test_only_what_the_silent_agent_holds_is_lost() -> None:
    world = World()
    world.host("host-1", cores=1)
    lost, _ = world.started()
    world.host("host-2", cores=1)
    kept, _ = world.started()
    world.sweep()
    silent = world.hosts.pop(next(iter(world.hosts)))
    for _ in range(7):
        world.sleep(10)
        world.sweep()
    assert silent.id == "host-1"
    assert world.states(lost)["0-1"] == "FAILED"
    assert world.states(kept) == {"0-1": "RUNNING"}


def test_orders_that_never_reached_a_lost_agent_are_lost_with_it() -> None:
    world = World()
    world.host()
    id, _ = world.placed()
    world.hosts.clear()
    for _ in range(6):
        world.sleep(10)
        world.sweep()
    assert world.states(id)["0-1"] == "FAILED"
    (agent,), _ = world.registry.agents()
    assert agent.used.slots == 0


def test_an_agent_that_comes_back_after_it_was_given_up_cleans_up_and_reports_nothing() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started(a_job(retry=None))
    one = task_id(id, 0, 1)
    world.sweep()
    world.sleep(LEASE + 60, beating=False)
    world.sweep()
    lost = world.task(one)
    host.beat()
    host.life.poll()
    told = run.end()
    assert told is not None
    assert told.reason == lost.reason
    assert world.task(one).history == lost.history
    assert host.phase(one) is None


# ------------------------------------------------------------------------------------------ stopping


def test_an_agent_that_is_stopped_with_its_containers_ends_its_runs_at_our_expense() -> None:
    world = World()
    host = world.host()
    id, runs = world.started(a_job(2))
    assert host.runs.stop_all(timedelta(seconds=20))
    for run in runs:
        run.end()
    one = world.task(task_id(id, 0, 1))
    assert (str(one.reason), one.user_retries) == ("lost: installation stopped", 0)
    assert world.elapsed(one.retry_at) == 1
    assert host.engine.seen(world.records.installation()) == []


def test_an_agent_that_is_stopping_takes_nothing_new() -> None:
    world = World()
    host = world.host()
    assert host.runs.stop_all(timedelta(seconds=20))
    id, order = world.placed()
    assert host.carry(order).end() is None
    assert world.states(id) == {"0-1": "DISPATCHED"}


def test_a_run_that_was_just_claimed_when_its_agent_stops_does_not_start() -> None:
    world = World()
    host = world.host()
    _, order = world.placed()

    def stopping(change: Change) -> None:
        host.records.before_commit = None
        host.runs.stop_all(timedelta(0))

    host.records.before_commit = stopping
    host.carry(order).end()
    ended = world.task(order.task_id)
    assert (str(ended.reason), ended.at(State.RUNNING)) == ("lost: installation stopped", None)
    assert host.phase(order.task_id) is None


def test_a_run_that_was_being_killed_when_its_agent_stopped_was_killed() -> None:
    """The engine did not hear the kill, but hears the agent's own stop."""
    world = World()
    host = world.host()
    id, (run,) = world.started()
    world.jobs.kill(id, ANN)
    host.engine.fail_next("stop", "timed out")
    host.life.poll()
    # As often as it takes for the attempt that failed to be over.
    assert any(host.runs.stop_all(timedelta(milliseconds=1)) for _ in range(10_000))
    run.end()
    assert world.why(task_id(id, 0, 1)).startswith("killed: by ann")


def test_a_container_that_does_not_end_in_time_is_said_not_to_have_ended() -> None:
    world = World()
    host = world.host()
    world.started()
    host.engine.fail_next("stop", "timed out")
    assert not host.runs.stop_all(timedelta(0))


@pytest.mark.parametrize("why", ["killed", "told to stop", "over its limit"])
def test_a_stop_is_asked_for_at_every_poll_until_the_container_is_gone(why: str) -> None:
    world = World()
    host = world.host(engine=(engine := OpenEngine()))
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    limit = Reason(Code.LIMIT, "ran longer than 3600 s")
    again = Deadline(kind=DeadlineKind.LIMIT, entity=one, due=world.now)
    if why == "killed":
        world.jobs.kill(id, ANN)
    elif why == "over its limit":
        # Its own timer; the record knows nothing of it.
        engine.fail_next("stop", "no answer")
        host.runs.end_all(limit)
    else:
        world.writes.on_task(one, lambda job, task, now: told_to_stop(job, task, limit, again))
    for _ in range(3):
        asked = threading.Event()

        def refuse(asked: threading.Event = asked) -> None:
            asked.set()
            raise EngineFault("stopping", "no answer")

        engine.before["stop"] = refuse
        for _ in range(1_000):
            host.life.poll()
            if asked.wait(0.01):
                break
        assert asked.is_set()
        assert host.phase(one) is Phase.RUNNING
    for _ in range(1_000):
        host.life.poll()
        if host.phase(one) is not Phase.RUNNING:
            break
    run.end()
    assert world.why(one).startswith("killed: by ann" if why == "killed" else str(limit))
    assert host.phase(one) is None


# ------------------------------------------------------------------------------------------ engine, store


@pytest.mark.parametrize(
    ("exit", "why"),
    [(Exit(code=0), "normal"), (Exit(code=3), "failed: exit code 3")],
)
def test_an_end_while_the_engine_was_away_is_what_it_was(exit: Exit, why: str) -> None:
    """The engine was not there to end it, so it ended by itself."""
    world = World()
    host = world.host()
    host.engine.fail_next("wait", "no answer")
    id, (run,) = world.started()
    world.release(run, task_id(id, 0, 1), exit)
    assert world.why(task_id(id, 0, 1)) == why


@pytest.mark.parametrize("exit", [Exit(code=0), Exit(code=7), Exit(code=137, signal=9)])
def test_what_was_ended_from_outside_is_lost_whatever_its_exit_code(exit: Exit) -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    host.engine.end_from_outside(one, exit, "the engine restarted")
    run.end()
    ended = world.task(one)
    assert (str(ended.reason), ended.user_retries) == ("lost: the engine restarted", 0)
    assert ended.exit == replace(exit, outside="the engine restarted")
    assert world.elapsed(ended.retry_at) == 1


def test_a_task_that_was_being_killed_was_killed_whoever_was_faster() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    world.jobs.kill(id, ANN)
    host.engine.fail_next("stop", "the engine is stopping")
    host.life.poll()
    host.engine.end_from_outside(one, Exit(code=0), "the engine stopped")
    run.end()
    assert world.why(one).startswith("killed: by ann")


def test_an_engine_that_stays_away_loses_its_runs() -> None:
    """An agent that stops does not wait out the engine's minute."""
    world = World()
    host = world.host()
    id, (run,) = world.started()
    host.engine.leave("connection refused")
    host.runs.stop_all(timedelta(0))
    run.end()
    one = world.task(task_id(id, 0, 1))
    assert str(one.reason) in (
        "lost: Docker Engine failed at wait: connection refused",
        "lost: Docker Engine failed at waiting: connection refused",
    )
    assert world.elapsed(one.retry_at) == 1


def test_a_container_that_its_engine_kept_is_removed_once_the_engine_is_back() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    host.engine.fail_next("remove", "it is stopping")
    world.release(run, one, Exit(code=0))
    assert host.phase(one) is not None
    host.engine.leave("it is stopping")
    with pytest.raises(EngineFault):
        host.life.report_images()
    host.engine.come_back()
    host.life.report_images()
    host.life.poll()
    assert host.phase(one) is None


def test_an_end_is_reported_once_the_store_is_back() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    tries = []

    def away_once(change: Change) -> None:
        tries.append(change)
        if len(tries) == 1:
            raise StoreUnavailable("connection refused")

    host.records.before_commit = away_once
    assert world.release(run, task_id(id, 0, 1)).state is State.FINISHED
    assert len(tries) == 2


# ------------------------------------------------------------------------------------------ the agent's life


def test_an_agents_life_is_lease_images_and_proof() -> None:
    """It lives until it has asked for its proof, the last that it does in its first round."""
    stop = threading.Event()
    sent: list[Command] = []

    def hear(command: Command) -> None:
        sent.append(command)
        stop.set()

    world = World(receiver=hear)
    host = world.host()
    world.sleep(5, beating=False)
    sent.clear()
    stop.clear()
    host.life.renew()
    host.life.run(stop)
    (agent,), _ = world.registry.agents()
    assert world.elapsed(agent.lease_until) == 5 + LEASE
    assert sent == [Prove(host.id)]
    assert world.registry.images() == {host.engine.facts().id: {"app:1": "sha256:1", "sha256:1": "sha256:1"}}


def test_an_agents_life_goes_on_when_a_duty_fails() -> None:
    """The first duty meets an engine that fails; the look around that comes after is made."""
    stop = threading.Event()

    def hear(command: Command) -> None:
        if isinstance(command, RunTask) and command.adopt:
            stop.set()

    world = World(receiver=hear)
    host = world.host()
    world.create()
    world.sweep()
    host.engine.fail_next("images", "no answer")
    host.life.run(stop)
    assert stop.is_set()


def test_an_agent_whose_engine_is_away_keeps_its_lease_but_proves_nothing() -> None:
    world = World()
    host = world.host()
    world.queue.take()
    host.engine.leave()
    world.sleep(5, beating=False)
    host.life.renew()
    with pytest.raises(EngineFault):
        host.life.check_engine()
    (agent,), _ = world.registry.agents()
    assert world.elapsed(agent.lease_until) == 5 + LEASE
    assert world.queue.take() == []
