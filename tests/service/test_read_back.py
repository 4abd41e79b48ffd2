"""From the order to the running container: one start, under a sure lease, of what is still wanted."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Final

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import ANN, PATIENCE, Run, World
from titus_celery.core.decision import Change
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import ended
from titus_celery.core.model import Exit, TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.recovery import taken_over
from titus_celery.core.states import State
from titus_celery.errors import EngineFault
from titus_celery.service.container import order_for

LOST: Final = Reason(Code.LOST, "agent host-1 has been silent for 60 s")


class Start:
    """An order that is carried until its container is about to be started, or just was."""

    def __init__(self) -> None:
        self.world = World()
        self.engine = OpenEngine()
        self.host = self.world.host("host-1", engine=self.engine)
        self.sibling = self.world.host("sibling", engine=self.engine)
        _, self.order = self.world.placed()
        assert self.order.dispatch.agent_id == "host-1"
        self.id: TaskId = self.order.task_id

    def carry(self) -> Run:
        return self.host.carry(self.order)

    # What may become of the task meanwhile.

    def ended_elsewhere(self) -> None:
        self.world.writes.on_task(self.id, lambda job, task, now: ended(job, task, LOST, now))

    def killed(self) -> None:
        self.world.jobs.kill(self.order.job_id, ANN)

    def handed_on(self) -> None:
        (heir,) = [one for one in self.world.registry.agents()[0] if one.id == self.sibling.id]
        self.world.writes.on_task(self.id, lambda job, task, now: taken_over(job, task, heir))


# ------------------------------------------------------------------------------------------ one start


def test_many_copies_of_an_order_at_once_make_one_container() -> None:
    start = Start()
    copies = [start.carry() for _ in range(8)]
    start.engine.until(start.id, Phase.RUNNING)
    start.engine.release(start.id, Exit(code=0))
    ends = [run.end() for run in copies]
    assert len(start.engine.orders) == 1
    assert len([one for one in ends if one is not None]) == 1
    assert start.world.task(start.id).state is State.FINISHED


def test_a_copy_that_comes_after_the_end_in_a_new_process_makes_no_container() -> None:
    start = Start()
    run = start.carry()
    run.until(State.RUNNING)
    start.host.restart()
    assert [start.carry().end() for _ in range(2)] == [None, None]
    start.engine.release(start.id, Exit(code=0))
    start.host.life.reconcile()
    for each in start.world.deliver():
        each.end()
    assert start.carry().end() is None
    assert len(start.engine.orders) == 1
    assert start.world.task(start.id).state is State.FINISHED


@pytest.mark.parametrize("number", [0, 2])
def test_an_order_with_another_number_than_the_records_is_dropped(number: int) -> None:
    start = Start()
    stale = replace(start.order, dispatch=replace(start.order.dispatch, number=number))
    assert start.host.carry(stale).end() is None
    assert start.engine.orders == []
    assert start.world.task(start.id).state is State.DISPATCHED


def test_an_order_from_before_its_task_was_handed_on_is_dropped() -> None:
    start = Start()
    start.handed_on()
    assert start.carry().end() is None
    assert start.engine.orders == []


# ------------------------------------------------------------------------------------------ before the start


def stale_at_start(start: Start) -> Run:
    """Carry the order until its container is made, by then under a lease that is not sure any more."""
    made = threading.Event()

    def grow_stale() -> None:
        start.world.sleep(5, beating=False)
        made.set()

    start.engine.after["create"] = grow_stale
    run = start.carry()
    assert made.wait(PATIENCE)
    # Whoever looks at the record now waits for the lease.
    looked = threading.Event()
    start.host.records.before_read = looked.set
    assert looked.wait(PATIENCE)
    return run


def test_a_container_is_not_started_before_the_lease_was_renewed() -> None:
    start = Start()
    run = stale_at_start(start)
    assert start.host.phase(start.id) is Phase.CREATED
    start.host.life.renew()
    run.until(State.RUNNING)
    assert start.host.phase(start.id) is Phase.RUNNING
    assert start.world.task(start.id).state is State.RUNNING


@pytest.mark.parametrize("what", ["ended elsewhere", "killed", "handed on"])
def test_what_is_not_wanted_any_more_when_the_lease_is_renewed_is_not_started(what: str) -> None:
    start = Start()
    run = stale_at_start(start)
    {"ended elsewhere": start.ended_elsewhere, "killed": start.killed, "handed on": start.handed_on}[what]()
    before = start.world.task(start.id)
    start.host.life.renew()
    told = run.end()
    one = start.world.task(start.id)
    assert one.at(State.RUNNING) is None
    match what:
        case "ended elsewhere":
            assert (told, one) == (before, before)
            assert start.host.phase(start.id) is None
        case "killed":
            assert str(one.reason).startswith("killed: by ann")
            assert start.host.phase(start.id) is None
        case _:
            assert (told, one) == (None, before)
            assert start.host.phase(start.id) is Phase.CREATED, "it is the heir's"


# ------------------------------------------------------------------------------------------ after the start


def test_what_was_ended_elsewhere_while_it_was_started_is_stopped_and_removed() -> None:
    start = Start()
    start.engine.before["start"] = start.ended_elsewhere
    start.carry().end()
    assert [id for id, _ in start.engine.stops] == [start.id]
    assert start.host.phase(start.id) is None
    one = start.world.task(start.id)
    assert (one.reason, one.at(State.RUNNING)) == (LOST, None)


def test_what_was_handed_on_while_it_was_started_is_left_to_its_heir() -> None:
    start = Start()
    start.engine.before["start"] = start.handed_on
    assert start.carry().end() is None
    assert start.host.phase(start.id) is Phase.RUNNING
    assert start.engine.stops == []
    assert start.world.task(start.id).state is State.STARTING
    (run,) = start.world.deliver()
    run.until(State.RUNNING)
    assert start.world.release(run, start.id, Exit(code=3)).exit == Exit(code=3)
    assert len(start.engine.orders) == 1


def test_what_was_killed_while_it_was_started_is_stopped_by_name_of_who_killed_it() -> None:
    start = Start()
    start.engine.before["start"] = start.killed
    start.carry().end()
    one = start.world.task(start.id)
    assert str(one.reason).startswith("killed: by ann")
    assert one.exit == Exit(code=143, signal=15)
    assert start.host.phase(start.id) is None


def test_what_ended_while_it_was_handed_on_is_told_by_its_heir() -> None:
    start = Start()
    run = start.carry()
    run.until(State.RUNNING)

    def hand_on(change: Change) -> None:
        start.host.records.before_commit = None
        start.handed_on()

    start.host.records.before_commit = hand_on
    start.engine.release(start.id, Exit(code=3))
    assert run.end() is None
    assert start.host.phase(start.id) is Phase.EXITED, "the heir has not seen it yet"
    (again,) = start.world.deliver()
    again.end()
    assert start.world.why(start.id) == "failed: exit code 3"
    assert start.host.phase(start.id) is None


# ------------------------------------------------------------------------------------------ failed starts


@pytest.mark.parametrize("undoing", ["succeeds", "fails at first"])
def test_an_engine_that_fails_after_it_started_leaves_no_container(undoing: str) -> None:
    """Its answer may be lost although the container runs: by the time the slot is tried again it is gone."""
    start = Start()
    seen: list[Phase | None] = []

    def fail() -> None:
        raise EngineFault("starting", "timed out")

    def look(change: Change) -> None:
        if any(each.after.state is State.FAILED for each in change.tasks):
            seen.append(start.host.phase(start.id))

    start.engine.after["start"] = fail
    if undoing == "fails at first":
        start.engine.fail_next("remove", "no answer")
    start.host.records.before_commit = look
    start.carry().end()
    assert seen == [None]
    assert start.world.why(start.id) == "error: Docker Engine failed at starting: timed out"


def test_a_failed_start_of_what_was_handed_on_is_not_undone() -> None:
    start = Start()

    def fail() -> None:
        start.handed_on()
        raise EngineFault("starting", "timed out")

    start.engine.after["start"] = fail
    assert start.carry().end() is None
    assert start.host.phase(start.id) is Phase.RUNNING
    assert start.world.task(start.id).state is State.STARTING


def test_what_an_earlier_process_started_is_gone_before_its_task_is_said_to_be_over() -> None:
    """It died before it could tell; the kill that came meanwhile must not be answered by a name alone."""
    start = Start()
    seen: list[Phase | None] = []

    def look(change: Change) -> None:
        if any(each.after.state is State.FAILED for each in change.tasks):
            seen.append(start.host.phase(start.id))

    start.world.writes.on_task(start.id, start.host.claiming(1))
    run_before_telling(start)
    start.killed()
    start.host.restart()
    start.host.records.before_commit = look
    start.host.carry(replace(start.order, adopt=True)).end()
    assert seen == [Phase.EXITED]
    one = start.world.task(start.id)
    assert (str(one.reason)[:14], one.exit) == ("killed: by ann", Exit(code=143, signal=15))


def run_before_telling(start: Start) -> None:
    """The container runs, and nobody was told."""
    start.engine.create(order_for(start.world.records.task(start.id), start.world.records.installation()))
    start.engine.start(start.id)
