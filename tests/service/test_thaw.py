"""A process that was frozen beyond its lease knows nothing of it: what it still may do, and what not (P2)."""

from __future__ import annotations

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import ANN, APP, World, a_job
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import Change
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import ended, task_id
from titus_celery.core.model import Exit
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import Fenced, PlaceTaken

# ----------------------------------------------------------------------------------------- its place is taken


def test_who_lost_its_place_to_another_process_writes_nothing_touches_nothing_and_gives_way() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    frozen, its_runs, its_writes = host.life, host.runs, host.writes
    world.sleep(10, beating=False)
    host.start()
    host.life.renew()
    host.life.reconcile()
    (adopted,) = world.deliver()
    adopted.until(State.RUNNING)
    world.jobs.kill(id, ANN)
    before = world.keyspace.dump()
    # It thaws. Nobody told it anything yet.
    for duty in (frozen.take_over, frozen.report_images, frozen.reconcile):
        duty()
    assert its_runs.carried() == {one}
    with pytest.raises(Fenced):
        its_writes.on_task(one, lambda job, task, now: ended(job, task, Reason(Code.LOST), now))
    assert world.keyspace.dump() == before
    assert host.displaced == []
    with pytest.raises(PlaceTaken):
        frozen.renew()
    (why,) = host.displaced
    assert "is run by another process (host-1/2)" in why
    assert world.keyspace.dump() == before
    assert host.engine.stops == []
    # Whoever has the place sees it through.
    host.life.poll()
    told = adopted.end()
    assert told is not None
    assert told.exit == Exit(code=143, signal=15)
    # Refused, unless the end was on record already.
    assert run.end() in (None, world.task(one))
    assert host.phase(one) is None


def test_who_lost_its_place_while_it_started_a_container_leaves_that_to_the_next() -> None:
    world = World()
    host = world.host(engine=(engine := OpenEngine()))
    _, order = world.placed()

    def freeze() -> None:
        world.sleep(10, beating=False)
        host.start()
        host.life.renew()
        host.life.reconcile()

    engine.before["start"] = freeze
    assert host.carry(order).end() is None
    assert len(host.displaced) == 1
    assert "what it wants is void" in host.displaced[0]
    assert world.task(order.task_id).state is State.STARTING
    assert (host.phase(order.task_id), engine.stops) == (Phase.RUNNING, [])
    (run,) = world.deliver()
    run.until(State.RUNNING)
    assert world.release(run, order.task_id, Exit(code=3)).exit == Exit(code=3)
    assert len(engine.orders) == 1


def test_who_got_its_lease_back_goes_on_with_what_is_still_its_own() -> None:
    """Nobody wanted its place meanwhile; what it decided under its old lease is decided anew."""
    world = World()
    host = world.host()
    id, (run,) = world.started()
    world.sleep(12, beating=False)
    host.life.renew()
    assert world.release(run, task_id(id, 0, 1), Exit(code=3)).exit == Exit(code=3)
    assert host.displaced == []


def test_what_was_decided_under_a_lease_that_was_lost_and_got_again_meanwhile_is_decided_anew() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()

    def freeze(change: Change) -> None:
        host.records.before_commit = None
        world.sleep(12, beating=False)
        host.life.renew()

    host.records.before_commit = freeze
    assert world.release(run, task_id(id, 0, 1), Exit(code=3)).exit == Exit(code=3)
    assert host.displaced == []


def test_a_report_that_comes_before_the_first_renewal_is_taken_while_nobody_has_the_place() -> None:
    world = World()
    world.host()
    id, (run,) = world.started()
    world.sleep(12, beating=False)
    assert world.release(run, task_id(id, 0, 1), Exit(code=3)).exit == Exit(code=3)


# ---------------------------------------------------------------------------------------- its tasks are taken


def test_who_lost_its_tasks_to_a_sibling_gives_way_and_touches_none_of_them() -> None:
    world = World()
    engine = MemoryExecutor(images=[APP])
    host = world.host("b", engine=engine)
    id, (run,) = world.started()
    sibling = world.host("a", engine=engine)
    world.live(16, sibling)
    (taken,) = world.deliver()
    taken.until(State.RUNNING)
    # It thaws.
    host.life.renew()
    host.life.poll()
    (why,) = host.displaced
    assert "went to another agent of this engine" in why
    host.life.reconcile()
    assert world.orders() == []
    assert (engine.stops, host.phase(task_id(id, 0, 1))) == ([], Phase.RUNNING)
    told = world.release(taken, task_id(id, 0, 1), Exit(code=3))
    assert (told.exit, told.dispatches) == (Exit(code=3), 2)
    assert run.end() is None


# ----------------------------------------------------------------------------------------- its tasks are lost


def replaced_elsewhere(world: World) -> None:
    """Time passes until control gave up what the frozen agent had, and another one runs it."""
    other = world.host("host-2")
    for _ in range(90):
        world.live(1, other)
        world.sweep()
        for order in world.orders():
            if order.dispatch.agent_id == other.id:
                other.carry(order).until(State.RUNNING)


def test_who_lost_its_tasks_for_good_ends_its_stale_container_and_not_the_replacement() -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    replaced_elsewhere(world)
    assert world.states(id) == {"0-1": "FAILED", "0-2": "RUNNING"}
    lost = world.task(task_id(id, 0, 1))
    assert host.phase(lost.id) is Phase.RUNNING, "nobody else can reach it"
    # It thaws.
    host.beat()
    host.life.poll()
    told = run.end()
    assert told == lost == world.task(lost.id)
    assert host.phase(lost.id) is None
    other = world.hosts[next(name for name in world.hosts if name != host.id)]
    assert (other.phase(task_id(id, 0, 2)), other.engine.stops) == (Phase.RUNNING, [])
    assert host.displaced == []


def test_who_lost_its_task_while_it_made_the_container_does_not_start_it() -> None:
    world = World()
    host = world.host(engine=(engine := OpenEngine()))
    _, order = world.placed()
    engine.after["create"] = lambda: replaced_elsewhere(world)
    host.carry(order).end()
    assert world.states(order.job_id) == {"0-1": "FAILED", "0-2": "RUNNING"}
    assert world.task(order.task_id).at(State.RUNNING) is None
    assert host.phase(order.task_id) is None
    assert engine.stops == [], "it never ran"


def test_who_thaws_to_an_order_of_a_task_that_was_replaced_drops_it() -> None:
    world = World()
    host = world.host()
    _, late = world.placed()
    replaced_elsewhere(world)
    assert host.carry(late).end() is None
    assert host.phase(late.task_id) is None
    assert world.states(late.job_id) == {"0-1": "FAILED", "0-2": "RUNNING"}


@pytest.mark.parametrize("tasks", [1, 3])
def test_what_a_new_process_finds_of_lost_tasks_is_removed_with_all_that_runs_of_it(tasks: int) -> None:
    """The frozen one is ended by whoever looks after it, and started again."""
    world = World()
    host = world.host()
    id, _ = world.started(a_job(tasks))
    replaced_elsewhere(world)
    host.restart()
    host.life.reconcile()
    assert [host.phase(task_id(id, slot, 1)) for slot in range(tasks)] == [None] * tasks
    assert sorted(world.states(id).values()) == ["FAILED"] * tasks + ["RUNNING"] * tasks
