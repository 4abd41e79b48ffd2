"""A store that restarted and forgot its last writes: nothing is doubled, nothing lost, every end is told."""

from __future__ import annotations

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import APP, SPANS, Host, Run, World
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import RunTask
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import dispatched, ended, task_id
from titus_celery.core.model import (
    AgentId,
    Exit,
    TaskId,
)
from titus_celery.core.placement import Need
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.recovery import taken_over
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable

#: More transactions than any of these stories makes.
UNDO_MAX = 100


def forget_until(world: World, id: TaskId, state: State) -> None:
    """Restart the store with a memory that ends where the task was in this state."""
    # Nobody but the agent wrote since it was dispatched, a transaction for each state.
    world.keyspace.restart(forget=world.task(id).state - state)
    assert world.task(id).state is state


def running() -> tuple[World, Host, Run, TaskId]:
    """A task that runs, in a store that may forget that, and a host without work."""
    world = World(undo_max=UNDO_MAX)
    world.host("z-idle")
    host = world.host()
    _, order = world.placed()
    run = host.carry(order)
    run.until(State.RUNNING)
    return world, host, run, order.task_id


def dispatch_to(world: World, host: Host, id: TaskId) -> RunTask:
    """Control places the task there; the order."""
    (agent,) = [one for one in world.registry.agents()[0] if one.id == host.id]
    need = Need(demand=Demand(cpu_millis=1_000, memory_bytes=2**20))
    decision = world.writes.on_task(id, lambda job, task, now: dispatched(job, task, agent, need, now, SPANS))
    (order,) = [one for one in decision.commands if isinstance(one, RunTask)]
    return order


def taken_over_by(world: World, heir: Host, id: TaskId) -> None:
    """The task is handed on."""
    (agent,) = [one for one in world.registry.agents()[0] if one.id == heir.id]
    world.writes.on_task(id, lambda job, task, now: taken_over(job, task, agent))


# ------------------------------------------------------------------------------------------ what runs


FORGOTTEN = pytest.mark.parametrize("state", [State.STARTING, State.DISPATCHED, State.QUEUED])


@FORGOTTEN
def test_a_store_that_forgot_that_a_task_runs_is_told_again(state: State) -> None:
    """It forgot RUNNING, the claim, or that the task was ever given to an agent."""
    world, host, run, one = running()
    before = world.task(one)
    forget_until(world, one, state)
    host.beat()
    after = world.task(one)
    assert (after.state, after.dispatch, after.address.ip) == (State.RUNNING, before.dispatch, "10.0.0.1")
    agent, _ = world.registry.agents()[0]
    assert (agent.used.slots, agent.used.cpu_millis) == (1, 1_000)
    world.sleep(2)
    world.sweep()
    for order in world.orders():
        assert host.carry(order).end() is None
    assert world.release(run, one, Exit(code=3)).exit == Exit(code=3)
    assert world.why(one) == "failed: exit code 3"
    assert len(host.engine.orders) == 1
    world.sweep()
    assert world.records.queued(10) == []


@FORGOTTEN
def test_an_end_that_comes_before_a_store_was_told_again_is_right_all_the_same(state: State) -> None:
    world, host, run, one = running()
    forget_until(world, one, state)
    assert world.release(run, one, Exit(code=3)).exit == Exit(code=3)
    assert [step.state for step in world.task(one).history] == [
        State.QUEUED,
        State.DISPATCHED,
        State.STARTING,
        State.RUNNING,
        State.FAILED,
    ]
    agent, _ = world.registry.agents()[0]
    assert (agent.used.slots, agent.used.cpu_millis) == (0, 0)
    assert host.phase(one) is None


@FORGOTTEN
def test_an_agent_that_died_with_the_store_finds_its_container_or_removes_it(state: State) -> None:
    world, host, _, one = running()
    forget_until(world, one, state)
    host.restart()
    host.life.reconcile()
    runs = world.deliver()
    if state is State.QUEUED:
        # Nobody is left who knows of the order: before it is given again the container is gone.
        assert (runs, host.phase(one)) == ([], None)
        assert world.task(one).state is State.QUEUED
        return
    (run,) = runs
    run.until(State.RUNNING)
    assert world.release(run, one, Exit(code=3)).exit == Exit(code=3)
    assert len(host.engine.orders) == 1


def test_a_task_that_was_placed_elsewhere_because_its_order_was_forgotten_runs_there_alone() -> None:
    world, host, run, one = running()
    other = world.hosts[AgentId("z-idle")]
    forget_until(world, one, State.QUEUED)
    order = dispatch_to(world, other, one)
    host.life.poll()
    assert run.end() is None
    assert host.phase(one) is None
    again = other.carry(order)
    again.until(State.RUNNING)
    assert world.release(again, one, Exit(code=4)).exit == Exit(code=4)
    assert world.task(one).attempt == 1


@pytest.mark.parametrize("what", ["has started", "cannot be started"])
def test_an_order_that_was_forgotten_and_given_elsewhere_under_its_number_is_not_reported_on(
    what: str,
) -> None:
    """The first order of a task has the number 1, whoever gets it."""
    engine = OpenEngine()
    world = World(undo_max=UNDO_MAX)
    other = world.host("z")
    host = world.host("a", engine=engine)
    _, order = world.placed()
    one = order.task_id
    assert order.dispatch.agent_id == host.id

    def give_elsewhere() -> None:
        forget_until(world, one, State.QUEUED)
        again = dispatch_to(world, other, one)
        world.writes.on_task(one, other.claiming(again.dispatch.number))

    if what == "has started":
        engine.after["start"] = give_elsewhere
    else:
        engine.before["start"] = give_elsewhere
        engine.fail_next("start", "broken")
    host.carry(order).end()
    task = world.task(one)
    assert (task.state, task.dispatch and task.dispatch.agent_id) == (State.STARTING, other.id)
    assert host.phase(one) is None


def test_a_task_that_went_to_a_sibling_because_its_order_was_forgotten_keeps_its_container() -> None:
    world = World(undo_max=UNDO_MAX)
    engine = MemoryExecutor(images=[APP])
    sibling = world.host("b", engine=engine)
    host = world.host("a", engine=engine)
    _, order = world.placed()
    one = order.task_id
    run = host.carry(order)
    run.until(State.RUNNING)
    forget_until(world, one, State.QUEUED)
    # Under the same number, which is the first that the store knows of.
    again = sibling.carry(dispatch_to(world, sibling, one))
    again.until(State.RUNNING)
    host.life.renew()
    host.life.poll()
    assert len(host.displaced) == 1
    assert (engine.stops, len(engine.orders)) == ([], 1)
    assert world.release(again, one, Exit(code=3)).exit == Exit(code=3)
    assert run.end() is None


# -------------------------------------------------------------------------------------- what does not run yet


def test_nothing_is_started_under_an_order_that_was_forgotten() -> None:
    """Control may give it to another agent at any moment."""
    engine = OpenEngine()
    world = World(undo_max=UNDO_MAX)
    host = world.host(engine=engine)
    _, order = world.placed()
    engine.after["create"] = lambda: forget_until(world, order.task_id, State.QUEUED)
    assert host.carry(order).end() is None
    assert host.phase(order.task_id) is Phase.CREATED
    assert world.task(order.task_id).state is State.QUEUED
    # It is given again, and what was made is used or removed.
    host.beat()
    host.life.poll()
    again = dispatch_to(world, host, order.task_id)
    run = host.carry(again)
    run.until(State.RUNNING)
    assert world.release(run, order.task_id, Exit(code=3)).exit == Exit(code=3)
    assert engine.seen(world.records.installation()) == []


def test_a_claim_that_was_forgotten_before_the_start_is_made_up_for_after_it() -> None:
    engine = OpenEngine()
    world = World(undo_max=UNDO_MAX)
    host = world.host(engine=engine)
    _, order = world.placed()
    engine.after["create"] = lambda: forget_until(world, order.task_id, State.DISPATCHED)
    run = host.carry(order)
    run.until(State.RUNNING)
    assert world.task(order.task_id).state is State.RUNNING
    assert host.carry(order).end() is None
    assert world.release(run, order.task_id).state is State.FINISHED
    assert len(engine.orders) == 1


def test_a_start_that_was_refused_under_a_forgotten_claim_is_told_all_the_same() -> None:
    engine = OpenEngine()
    world = World(undo_max=UNDO_MAX)
    host = world.host(engine=engine)
    _, order = world.placed()
    engine.before["start"] = lambda: forget_until(world, order.task_id, State.DISPATCHED)
    engine.fail_next("start", "broken")
    told = host.carry(order).end()
    assert told is not None
    assert told.state is State.FAILED
    assert world.why(order.task_id).startswith("error: Docker Engine failed at start")


# ------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("first", ["the lease is renewed", "containers are compared"])
def test_an_end_that_was_forgotten_is_told_again_as_it_was(first: str) -> None:
    """The container is gone by then, which must not be taken for a loss."""
    world, host, run, one = running()
    ended_well = world.release(run, one, Exit(code=0))
    world.sleep(1, beating=False)
    forget_until_running(world, one)
    if first == "containers are compared":
        host.life.reconcile()
        assert [each.end() for each in world.deliver()] == [None]
    host.beat()
    host.life.poll()
    for each in world.deliver():
        each.end()
    again = world.task(one)
    assert (again.state, again.reason, again.exit) == (State.FINISHED, ended_well.reason, Exit(code=0))
    world.sweep()
    assert world.job(again.job_id).state is State.FINISHED
    assert len(host.engine.orders) == 1


def forget_until_running(world: World, id: TaskId) -> None:
    world.keyspace.restart(forget=1)
    assert world.task(id).state is State.RUNNING


def test_an_end_that_everything_before_was_forgotten_of_is_told_again() -> None:
    world, host, run, one = running()
    world.release(run, one, Exit(code=3))
    world.keyspace.restart(forget=4)
    assert world.task(one).state is State.QUEUED
    host.beat()
    again = world.task(one)
    assert (str(again.reason), again.exit) == ("failed: exit code 3", Exit(code=3))
    agent, _ = world.registry.agents()[0]
    assert (agent.used.slots, agent.used.cpu_millis) == (0, 0)
    world.sweep()
    assert world.orders() == []


def test_an_end_that_control_had_given_it_and_forgot_stays_our_expense() -> None:
    """The agent stopped its container for that; it did not know why."""
    world, host, run, one = running()
    lost = Reason(Code.LOST, "agent host-1 has been silent for 60 s")
    world.writes.on_task(one, lambda job, task, now: ended(job, task, lost, now))
    host.life.poll()
    run.end()
    forget_until_running(world, one)
    host.beat()
    again = world.task(one)
    assert str(again.reason) == "lost: it was ended elsewhere"
    assert again.retry_at is not None
    assert again.user_retries == 0


def test_a_hand_over_that_was_forgotten_is_told_again_by_the_heir() -> None:
    engine = MemoryExecutor(images=[APP])
    world = World(undo_max=UNDO_MAX)
    dead = world.host("b", engine=engine)
    id, _ = world.started()
    heir = world.host("a", engine=engine)
    dead.die()
    one = task_id(id, 0, 1)
    taken_over_by(world, heir, one)
    (adoption,) = world.orders()
    run = heir.carry(adoption)
    run.until(State.RUNNING)
    world.keyspace.restart(forget=1)
    assert (order := world.task(one).dispatch) is not None
    assert order.agent_id == "b"
    heir.life.renew()
    assert (order := world.task(one).dispatch) is not None
    assert (order.agent_id, order.number) == ("a", 2)
    assert world.release(run, one, Exit(code=3)).exit == Exit(code=3)
    agents, _ = world.registry.agents()
    assert [agent.used.slots for agent in agents] == [0, 0]


# ------------------------------------------------------------------------------------------ telling


def test_a_store_that_is_away_again_is_told_at_the_next_renewal() -> None:
    """Renewing must not wait for it: the fence counts from the last renewal."""
    world, host, _, one = running()
    forget_until(world, one, State.STARTING)
    faults: list[StoreUnavailable] = [StoreUnavailable("loading")]

    def fail_once() -> None:
        if faults:
            raise faults.pop()

    host.records.before_read = fail_once
    with pytest.raises(StoreUnavailable):
        host.life.renew()
    assert world.task(one).state is State.STARTING
    host.life.renew()
    assert world.task(one).state is State.RUNNING


@pytest.mark.parametrize("what", ["runs", "has ended"])
def test_telling_again_never_waits_for_a_store_that_is_away(what: str) -> None:
    world, host, run, one = running()
    if what == "has ended":
        world.release(run, one)
    host.line.is_cut = True
    with pytest.raises(StoreUnavailable):
        host.runs.tell_again()


def test_a_store_that_forgot_nothing_is_told_nothing_new() -> None:
    world, host, _, one = running()
    before = world.task(one)
    world.keyspace.restart()
    host.life.renew()
    assert world.task(one) == before
