"""Agents of one engine: what one of them leaves behind another one takes over, container and all."""

from __future__ import annotations

from typing import Final

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import ANN, APP, Host, Run, World, a_job
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import Change
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import Exit, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.errors import StoreUnavailable

#: A lease is 10 s, and an agent is gone 5 s after its end.
GONE: Final = 15
#: With no slot free for its tasks, they are waited for 15 s more.
GIVEN_UP: Final = 30


class Engine:
    """One engine whose agents come one after the other, each with a job of its own that it runs."""

    def __init__(self, *names: str, tasks: int = 2, slots: int = 8) -> None:
        self.world = World()
        self.engine = OpenEngine()
        self.hosts: list[Host] = []
        self.jobs: list[JobId] = []
        self.runs: list[list[Run]] = []
        for name in names:
            self.hosts.append(self.world.host(name, engine=self.engine, cores=32, slots=slots))
            # Of agents with as much room the first by name is taken.
            id, runs = self.world.started(a_job(tasks))
            self.jobs.append(id)
            self.runs.append(runs)
            assert self.agents_of(id) == {name}

    def ids(self) -> list[TaskId]:
        """Every task."""
        return [one.id for job in self.jobs for one in self.world.jobs.find(job).tasks]

    def agents_of(self, id: JobId) -> set[str]:
        """Whom the records name as those who have the job's tasks."""
        orders = [one.dispatch for one in self.world.jobs.find(id).tasks]
        return {order.agent_id for order in orders if order is not None}

    def taken(self) -> dict[str, tuple[int, int]]:
        """What is reserved: slots of each agent, and cores of the engine."""
        agents, _ = self.world.registry.agents()
        return {agent.id: (agent.used.slots, agent.used.cpu_millis // 1_000) for agent in agents}


@pytest.mark.parametrize("fate", ["dead", "frozen"])
def test_three_agents_come_down_to_one_and_no_container_notices(fate: str) -> None:
    all = Engine("c", "b", "a")
    world, engine = all.world, all.engine
    c, b, a = all.hosts
    if fate == "dead":
        b.die()
        c.die()
    world.live(GONE + 1, a)
    runs = world.deliver()
    for run in runs:
        run.until(State.RUNNING)
    assert [all.agents_of(id) for id in all.jobs] == [{"a"}] * 3
    assert all.taken() == {"a": (6, 6), "b": (0, 6), "c": (0, 6)}
    assert a.runs.carried() == set(all.ids())
    assert [world.task(id).dispatches for id in all.ids()] == [2, 2, 2, 2, 1, 1]
    assert (engine.stops, len(engine.orders)) == ([], 6)
    for code, id in enumerate(all.ids()):
        engine.release(id, Exit(code=code))
    for run in [*runs, *all.runs[2]]:
        run.end()
    assert [world.task(id).exit for id in all.ids()] == [Exit(code=code) for code in range(6)]
    assert [world.task(id).attempt for id in all.ids()] == [1] * 6
    assert all.taken() == {"a": (0, 0), "b": (0, 0), "c": (0, 0)}
    assert engine.seen(world.records.installation()) == []
    assert len(engine.orders) == 6
    if fate == "frozen":
        # They saw the ends of the same containers, and have nothing to say that is not on record.
        for told in [run.end() for runs in all.runs[:2] for run in runs]:
            assert told is None or told == world.task(told.id)


def test_who_is_frozen_is_not_gone_until_five_seconds_after_its_lease() -> None:
    all = Engine("b", "a")
    _, a = all.hosts
    all.world.live(GONE - 1, a)
    assert all.agents_of(all.jobs[0]) == {"b"}
    all.world.live(1, a)
    assert all.agents_of(all.jobs[0]) == {"a"}


def test_who_is_seen_to_be_dead_is_gone_once_it_has_no_lease() -> None:
    all = Engine("b", "a")
    b, a = all.hosts
    b.die()
    all.world.live(9, a)
    assert all.agents_of(all.jobs[0]) == {"b"}
    all.world.live(1, a)
    assert all.agents_of(all.jobs[0]) == {"a"}


def test_who_has_its_lease_keeps_its_tasks() -> None:
    all = Engine("b", "a")
    all.world.live(60, *all.hosts)
    assert [all.agents_of(id) for id in all.jobs] == [{"b"}, {"a"}]


def test_after_an_outage_that_hit_all_nobody_is_taken_for_gone() -> None:
    """The first to be back would find all others without their leases."""
    all = Engine("b", "a")
    world, (b, a) = all.world, all.hosts
    for _ in range(20):
        world.sleep(1, beating=False)
        for host in (a, b):
            host.line.is_cut = True
            with pytest.raises(StoreUnavailable):
                host.life.renew()
    a.line.is_cut = b.line.is_cut = False
    world.live(4, a)
    world.live(20, a, b)
    assert [all.agents_of(id) for id in all.jobs] == [{"b"}, {"a"}]
    assert [host.displaced for host in all.hosts] == [[], []]


def test_after_the_stores_clock_was_set_forward_nobody_is_taken_for_gone() -> None:
    all = Engine("b", "a")
    world, (b, a) = all.world, all.hosts
    world.live(10, a, b)
    world.jump(3_600)
    a.beat()
    a.life.take_over()
    world.live(2, a)
    world.live(10, a, b)
    assert [all.agents_of(id) for id in all.jobs] == [{"b"}, {"a"}]


def test_agents_of_other_engines_take_nothing_over() -> None:
    world = World()
    world.host("b")
    id, _ = world.started()
    other = world.host("a")
    world.live(40, other)
    one = world.task(task_id(id, 0, 1))
    assert one.dispatch is not None
    assert one.dispatch.agent_id == "b"


def test_an_order_that_nobody_had_claimed_is_carried_by_the_heir() -> None:
    world = World()
    engine = MemoryExecutor(images=[APP])
    b = world.host("b", engine=engine)
    _, late = world.placed()
    a = world.host("a", engine=engine)
    world.live(GONE + 1, a)
    (run,) = world.deliver()
    run.until(State.RUNNING)
    assert b.carry(late).end() is None
    assert a.runs.carried() == {late.task_id}
    assert len(engine.orders) == 1
    assert world.release(run, late.task_id).dispatches == 2


def test_a_kill_reaches_a_task_that_was_taken_over() -> None:
    all = Engine("b", "a", tasks=1)
    b, a = all.hosts
    b.die()
    all.world.jobs.kill(all.jobs[0], ANN)
    all.world.sweep()
    all.world.live(GONE, a)
    for run in all.world.deliver():
        run.end()
    one = all.world.task(task_id(all.jobs[0], 0, 1))
    assert str(one.reason).startswith("killed: by ann")
    assert a.phase(one.id) is None


def test_who_got_its_lease_back_while_it_was_being_taken_over_gives_way() -> None:
    """It thaws between the look at its lease and the commit."""
    all = Engine("b", "a", tasks=1)
    world, (b, a) = all.world, all.hosts
    world.live(GONE - 1, a)

    def thaw(change: Change) -> None:
        a.records.before_commit = None
        b.life.renew()

    a.records.before_commit = thaw
    world.live(1, a)
    b.life.poll()
    assert len(b.displaced) == 1
    assert "went to another agent" in b.displaced[0]
    (again,) = [run for run in world.deliver()]
    again.until(State.RUNNING)
    assert (all.engine.stops, len(all.engine.orders)) == ([], 2)
    one = task_id(all.jobs[0], 0, 1)
    assert world.release(again, one, Exit(code=4)).exit == Exit(code=4)
    assert all.runs[0][0].end() is None


# ------------------------------------------------------------------------------------------ no room


def test_without_a_free_slot_a_container_is_gone_before_its_task_is_lost() -> None:
    all = Engine("b", "a", slots=2)
    world, (_, a) = all.world, all.hosts
    seen: list[tuple[str, Phase | None]] = []

    def look(change: Change) -> None:
        seen.extend((each.after.state.name, a.phase(each.after.id)) for each in change.tasks)

    a.records.before_commit = look
    world.live(GIVEN_UP, a)
    assert ("FAILED", None) in seen
    assert {phase for state, phase in seen if state == "FAILED"} == {None}
    one = world.task(task_id(all.jobs[0], 0, 1))
    assert str(one.reason) == "lost: agent b is gone, and a has no free slot"
    assert one.retry_at is not None
    assert world.states(all.jobs[0]) == {"0-1": "FAILED", "1-1": "FAILED"}
    assert world.states(all.jobs[1]) == {"0-1": "RUNNING", "1-1": "RUNNING"}
    assert all.taken() == {"a": (2, 2), "b": (0, 2)}


def test_without_a_free_slot_an_agent_that_is_being_restarted_is_waited_for() -> None:
    all = Engine("b", "a", slots=2)
    world, (b, a) = all.world, all.hosts
    b.die()
    world.live(GIVEN_UP - 1, a)
    assert world.states(all.jobs[0]) == {"0-1": "RUNNING", "1-1": "RUNNING"}
    b.restart()
    world.live(10, a, b)
    b.life.reconcile()
    for run in world.deliver():
        run.until(State.RUNNING)
    assert (all.engine.stops, len(all.engine.orders)) == ([], 4)
    assert b.runs.carried() == {task_id(all.jobs[0], slot, 1) for slot in (0, 1)}


def test_as_many_as_fit_are_taken_over_and_only_the_rest_is_given_up() -> None:
    all = Engine("b", "a", tasks=2, slots=3)
    world, (_, a) = all.world, all.hosts
    world.live(GIVEN_UP, a)
    assert sorted(world.states(all.jobs[0]).values()) == ["FAILED", "RUNNING"]
    assert all.taken()["a"] == (3, 3)


def test_what_another_one_found_a_slot_for_meanwhile_is_not_given_up() -> None:
    """Two survivors, one of them full; between its look and its report the other one takes over."""
    all = Engine("c", "b", tasks=1, slots=1)
    world, (c, b) = all.world, all.hosts
    c.die()
    a = world.host("a", engine=all.engine, cores=32, slots=8)
    world.live(GIVEN_UP - 1, b)

    all.engine.before["remove"] = lambda: world.live(6, a)
    world.live(1, b)
    one = world.task(task_id(all.jobs[0], 0, 1))
    assert one.dispatch is not None
    assert (one.state, one.dispatch.agent_id, one.dispatches) == (State.RUNNING, "a", 2)
    (run,) = world.deliver()
    run.end()
    assert world.why(one.id) == "lost: its container disappeared from the engine"
