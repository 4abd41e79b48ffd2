"""An agent that comes back finds what its process before had begun, and what should not be there."""

from __future__ import annotations

from typing import Final

import pytest

from tests.service.world import ANN, APP, DiedError, Host, World
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import TextSet
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import Change, RunTask
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import AgentId, Exit, TaskId
from titus_celery.core.states import State

#: A host's lease is 10 s, and 60 s without one make its tasks lost.
LEASE: Final = 10


# ------------------------------------------------------------------------------------------ adoption


def die_at(host: Host, order: RunTask, phase: Phase) -> None:
    """Let the agent's process take the order and die once the container is there in this phase."""

    def die() -> None:
        if host.phase(order.task_id) is phase:
            raise DiedError

    host.records.before_read = die
    with pytest.raises(DiedError):
        host.carry(order).end()


@pytest.mark.parametrize("phase", [None, Phase.CREATED, Phase.RUNNING, Phase.EXITED])
def test_a_start_that_was_interrupted_goes_on_where_the_container_stands(phase: Phase | None) -> None:
    world = World()
    host = world.host()
    _, order = world.placed()
    if phase is None:
        world.writes.on_task(order.task_id, host.claiming(1))
    else:
        die_at(host, order, Phase.CREATED if phase is Phase.CREATED else Phase.RUNNING)
    if phase is Phase.EXITED:
        host.engine.release(order.task_id, Exit(code=3))
    assert world.task(order.task_id).state is State.STARTING
    assert host.phase(order.task_id) is phase
    host.restart()
    host.life.reconcile()
    (run,) = world.deliver()
    if phase is not Phase.EXITED:
        run.until(State.RUNNING)
        assert host.phase(order.task_id) is Phase.RUNNING
        host.engine.release(order.task_id, Exit(code=3))
    run.end()
    ended = world.task(order.task_id)
    assert (str(ended.reason), ended.exit) == ("failed: exit code 3", Exit(code=3))
    assert [step.state.name for step in ended.history][2:] == ["STARTING", "RUNNING", "FAILED"]
    assert len(host.engine.orders) == 1


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_was_interrupted_is_watched_to_its_end(has_ended: bool) -> None:
    world = World()
    host = world.host()
    id, _ = world.started()
    one = task_id(id, 0, 1)
    host.restart()
    if has_ended:
        host.engine.release(one, Exit(code=3))
    host.life.reconcile()
    (run,) = world.deliver()
    if not has_ended:
        run.until(State.RUNNING)
        host.engine.release(one, Exit(code=3))
    run.end()
    assert world.why(one) == "failed: exit code 3"
    assert host.phase(one) is None


def test_a_container_that_is_gone_when_its_agent_comes_back_is_lost() -> None:
    world = World()
    host = world.host()
    id, _ = world.started()
    one = task_id(id, 0, 1)
    host.restart()
    host.engine.remove(one)
    host.life.reconcile()
    (run,) = world.deliver()
    run.end()
    assert world.why(one) == "lost: its container disappeared from the engine"
    assert world.elapsed(world.task(one).retry_at) == 1


def test_a_kill_that_came_while_its_agent_was_away_is_carried_out_at_its_return() -> None:
    world = World()
    host = world.host()
    id, _ = world.started()
    one = task_id(id, 0, 1)
    host.restart()
    world.jobs.kill(id, ANN)
    world.sweep()
    world.queue.take()
    host.life.reconcile()
    (run,) = world.deliver()
    run.until(State.RUNNING)
    host.life.poll()
    run.end()
    assert world.why(one).startswith("killed: by ann")


def test_what_its_process_before_stopped_for_a_kill_was_killed() -> None:
    """To the one that comes back it looks like a stop by somebody else."""
    world = World()
    host = world.host()
    id, _ = world.started()
    one = task_id(id, 0, 1)
    host.restart()
    world.jobs.kill(id, ANN)
    host.engine.end_from_outside(one)
    host.life.reconcile()
    (run,) = world.deliver()
    run.end()
    assert world.why(one).startswith("killed: by ann")


def test_what_is_carried_already_is_not_adopted() -> None:
    world = World()
    host = world.host()
    world.started()
    host.life.reconcile()
    assert world.orders() == []


def test_a_run_of_another_agent_is_not_adopted() -> None:
    world = World()
    host = world.host("host-1")
    id, _ = world.started()
    other = world.host("host-2")
    one = world.task(task_id(id, 0, 1))
    assert one.dispatch is not None
    order = RunTask(one.id, id, one.dispatch, "sha256:1", adopt=True)
    assert other.carry(order).end() is None
    assert host.phase(one.id) is Phase.RUNNING


def test_an_order_that_its_agent_finds_in_the_ledger_is_carried_without_waiting() -> None:
    world = World()
    host = world.host()
    _, order = world.placed()
    host.life.reconcile()
    (run,) = world.deliver()
    run.until(State.RUNNING)
    assert host.phase(order.task_id) is Phase.RUNNING


# ------------------------------------------------------------------------------------------ leftovers


def outlived(engine: MemoryExecutor, name: str) -> tuple[World, Host, TaskId]:
    """A container that runs on after its task was lost with its agent."""
    world = World()
    host = world.host(name, engine=engine)
    id, _ = world.started()
    world.sweep()
    world.sleep(LEASE + 60, beating=False)
    world.sweep()
    one = task_id(id, 0, 1)
    assert world.task(one).state is State.FAILED
    assert host.phase(one) is Phase.RUNNING
    return world, host, one


def test_a_container_that_outlived_its_task_is_removed() -> None:
    _, host, one = outlived(MemoryExecutor(images=[APP]), "host-1")
    host.restart()
    host.life.reconcile()
    assert host.phase(one) is None


def test_a_container_that_outlived_its_task_and_its_agent_is_removed_by_the_next_on_that_engine() -> None:
    engine = MemoryExecutor(images=[APP])
    world, host, one = outlived(engine, "host-1")
    successor = world.host("host-1b", engine=engine)
    successor.life.reconcile()
    assert host.phase(one) is None


def test_containers_of_another_agent_on_the_same_engine_are_left_alone_while_their_tasks_live() -> None:
    engine = MemoryExecutor(images=[APP])
    world = World()
    first = world.host("host-1", engine=engine)
    id, _ = world.started()
    world.host("host-1b", engine=engine).life.reconcile()
    assert first.phase(task_id(id, 0, 1)) is Phase.RUNNING


def test_a_container_of_a_sibling_that_lost_its_lease_is_left_alone_while_its_task_lives() -> None:
    """Its next process adopts it, or one of us takes it over: by a record, not by a look."""
    engine = MemoryExecutor(images=[APP])
    world = World()
    first = world.host("host-1", engine=engine)
    id, _ = world.started()
    world.sleep(LEASE, beating=False)
    second = world.host("host-1b", engine=engine)
    second.life.reconcile()
    assert first.phase(task_id(id, 0, 1)) is Phase.RUNNING


def test_a_container_that_a_namesake_elsewhere_left_on_this_engine_is_removed() -> None:
    """The agent whose name it bears lives, but on another engine, where it cannot see it."""
    engine = MemoryExecutor(images=[APP])
    world, _, one = outlived(engine, "host-1")
    del world.hosts[AgentId("host-1")]
    world.host("host-1", engine=MemoryExecutor(images=[APP], engine_id="ENGINE:elsewhere"))
    successor = world.host("host-1b", engine=engine)
    successor.life.reconcile()
    assert successor.phase(one) is None


def test_an_ended_container_of_a_sibling_that_lives_is_left_to_it() -> None:
    """It reports first, and removes then: in between nobody else may touch it."""
    engine = MemoryExecutor(images=[APP])
    world = World()
    first = world.host("host-1", engine=engine)
    second = world.host("host-1b", engine=engine)
    _, order = world.placed()
    assert order.dispatch.agent_id == first.id
    seen = []

    def look(change: Change) -> None:
        if change.tasks[0].after.state.is_final:
            second.life.reconcile()
            seen.append(first.phase(order.task_id))

    first.records.after_commit = look
    run = first.carry(order)
    run.until(State.RUNNING)
    world.release(run, order.task_id)
    assert seen == [Phase.EXITED]
    assert first.phase(order.task_id) is None


# ------------------------------------------------------------------------------------------ unknown ones


def known_to_nobody() -> tuple[World, Host, TaskId]:
    """A container with our labels, on the host of an installation that has no record of it."""
    world = World()
    host = world.host()
    id, _ = world.started()
    # Its agent's process, too, or that would still look after the container.
    host.die()
    restored = World()
    mine = TextSet(Keys("titus").installation, world.records.installation())
    restored.keyspace.transact([], [mine])
    return restored, restored.host(engine=host.engine), task_id(id, 0, 1)


def test_a_container_whose_task_nobody_knows_is_stopped_after_ten_minutes_and_not_before() -> None:
    """The store may have been restored from an older copy: removing is what cannot be undone."""
    world, host, one = known_to_nobody()
    for _ in range(20):
        host.life.reconcile()
        assert host.phase(one) is Phase.RUNNING
        world.sleep(30)
    host.life.reconcile()
    assert [(id, grace.total_seconds()) for id, grace in host.engine.stops] == [(one, 10)]
    assert host.phase(one) is None


def test_a_container_that_became_known_meanwhile_has_its_time_anew() -> None:
    world, host, one = known_to_nobody()
    host.life.reconcile()
    world.sleep(599)
    (order,) = host.engine.orders
    host.engine.remove(one)
    host.life.reconcile()
    host.engine.create(order)
    host.engine.start(one)
    world.sleep(599)
    host.life.reconcile()
    world.sleep(599)
    host.life.reconcile()
    assert host.phase(one) is Phase.RUNNING
    world.sleep(1)
    host.life.reconcile()
    assert host.phase(one) is None
