"""An agent or control that dies anywhere: what it had begun goes on, and ends once, with one container."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import DiedError, Host, World
from titus_celery.core.decision import Change
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import Exit, TaskId
from titus_celery.core.states import State
from titus_celery.service import crash

#: How the container ends, if it has not ended before its agent dies.
EXIT = Exit(code=3)


class Dying:
    """One order, carried by a process that dies at a point of `crash.POINTS`."""

    def __init__(self) -> None:
        self.world = World()
        self.engine = OpenEngine()
        self.host: Host = self.world.host(engine=self.engine)
        self.job_id, self.order = self.world.placed()
        self.id: TaskId = self.order.task_id

    def die(self) -> None:
        """The process is gone: it does nothing any more, whichever thread it is."""
        self.host.records.is_dead = True
        raise DiedError

    def carry(self, *, ends: bool) -> None:
        """Carry the order until the process dies."""
        run = self.host.carry(self.order)
        if ends:
            self.engine.until(self.id, Phase.RUNNING)
            self.engine.release(self.id, EXIT)
        with pytest.raises(DiedError):
            run.end()


def at_commit_of(dying: Dying, state: State) -> None:
    def reached(change: Change) -> None:
        if any(each.after.state is state for each in change.tasks):
            dying.die()

    dying.host.records.after_commit = reached


#: How to die there; what the record says then; what the engine has then.
DEATHS: dict[str, tuple[Callable[[Dying], None], State, Phase | None]] = {
    "claimed": (lambda dying: dying.engine.before.update(create=dying.die), State.STARTING, None),
    "created": (lambda dying: dying.engine.after.update(create=dying.die), State.STARTING, Phase.CREATED),
    "started": (lambda dying: dying.engine.after.update(start=dying.die), State.STARTING, Phase.RUNNING),
    "ended": (lambda dying: dying.engine.after.update(wait=dying.die), State.RUNNING, Phase.EXITED),
    "reported": (lambda dying: dying.engine.before.update(remove=dying.die), State.FAILED, Phase.EXITED),
    # The end is stored, and control is not told that there is something to do.
    "committed": (lambda dying: at_commit_of(dying, State.FAILED), State.FAILED, Phase.EXITED),
}


def test_every_point_is_died_at() -> None:
    assert DEATHS.keys() == set(crash.POINTS)


@pytest.mark.parametrize("point", crash.POINTS)
@pytest.mark.parametrize("who", ["the next process of the agent", "another agent of the engine"])
def test_what_an_agent_that_died_had_begun_ends_right_and_once(point: str, who: str) -> None:
    dying = Dying()
    world, engine = dying.world, dying.engine
    arm, state, phase = DEATHS[point]
    arm(dying)
    dying.carry(ends=phase is Phase.EXITED)
    assert (world.task(dying.id).state, dying.host.phase(dying.id)) == (state, phase)
    if who == "the next process of the agent":
        dying.host.restart()
        dying.host.life.reconcile()
        runs = world.deliver()
    else:
        dying.host.die()
        heir = world.host("a", engine=engine)
        world.live(15, heir)
        runs = world.deliver()
        # Sooner or later it compares what is there with what should be.
        heir.life.reconcile()
        assert world.orders() == []
    if not state.is_final and phase is not Phase.EXITED:
        for run in runs:
            run.until(State.RUNNING)
        engine.release(dying.id, EXIT)
    for run in runs:
        run.end()
    one = world.task(dying.id)
    assert (str(one.reason), one.exit, one.attempt) == ("failed: exit code 3", EXIT, 1)
    assert [step.state.name for step in one.history] == [
        "QUEUED",
        "DISPATCHED",
        "STARTING",
        "RUNNING",
        "FAILED",
    ]
    assert len(engine.orders) == 1
    assert engine.seen(world.records.installation()) == []
    assert {agent.used.slots for agent in world.registry.agents()[0]} == {0}
    world.sleep(1)
    world.sweep()
    assert world.job(dying.job_id).state is State.FAILED
    assert world.orders() == []


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_what_died_right_after_a_commit_goes_on_from_there(state: State) -> None:
    dying = Dying()
    at_commit_of(dying, state)
    dying.carry(ends=False)
    assert dying.world.task(dying.id).state is state
    dying.host.restart()
    dying.host.life.reconcile()
    (run,) = dying.world.deliver()
    run.until(State.RUNNING)
    assert dying.world.release(run, dying.id, EXIT).exit == EXIT
    assert len(dying.engine.orders) == 1


def test_an_order_that_control_stored_and_died_before_it_was_sent_is_sent_by_the_next() -> None:
    world = World()
    host = world.host()
    id = world.create()
    world.queue.take()

    def die(change: Change) -> None:
        world.records.after_commit = None
        raise DiedError

    world.records.after_commit = die
    with pytest.raises(DiedError):
        world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}
    assert world.orders() == []
    world.control = world.new_control()
    for _ in range(4):
        world.sleep(1)
        world.sweep()
    (order,) = world.orders()
    run = host.carry(order)
    run.until(State.RUNNING)
    assert world.release(run, task_id(id, 0, 1)).state is State.FINISHED
    assert len(host.engine.orders) == 1


def test_a_hand_over_that_was_stored_by_an_agent_that_died_before_it_was_sent_is_found_by_its_next() -> None:
    dying = Dying()
    world = dying.world
    run = dying.host.carry(dying.order)
    run.until(State.RUNNING)
    dying.host.die()
    heir = world.host("a", engine=dying.engine)

    def die(change: Change) -> None:
        heir.records.is_dead = True
        raise DiedError

    heir.records.after_commit = die
    with pytest.raises(DiedError):
        world.live(20, heir)
    assert (order := world.task(dying.id).dispatch) is not None
    assert (order.agent_id, order.number) == ("a", 2)
    assert world.orders() == []
    heir.restart()
    heir.life.reconcile()
    (again,) = world.deliver()
    again.until(State.RUNNING)
    assert world.release(again, dying.id, EXIT).exit == EXIT
    assert len(dying.engine.orders) == 1
