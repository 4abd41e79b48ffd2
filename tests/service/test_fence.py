"""An agent that is cut off from the store ends what it runs before others may start it again (P2)."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from tests.service.doors import OpenEngine
from tests.service.world import PATIENCE, Host, World, a_job
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import HashSet
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import Exit
from titus_celery.core.states import State
from titus_celery.errors import StoreCorrupt, StoreUnavailable, TitusError


def try_to_renew(world: World, host: Host, seconds: float) -> None:
    """Let so much time pass in which the agent tries to renew as it does, and cannot."""
    for _ in range(int(seconds / 2)):
        world.sleep(2, beating=False)
        with pytest.raises(TitusError):
            host.life.renew()


def test_an_agent_that_is_cut_off_ends_its_containers_at_its_fence_time_and_not_before() -> None:
    world = World()
    host = world.host()
    id, runs = world.started(a_job(2))
    host.line.is_cut = True
    try_to_renew(world, host, 44)
    assert [host.phase(task_id(id, slot, 1)) for slot in (0, 1)] == [Phase.RUNNING] * 2
    try_to_renew(world, host, 2)
    for slot in (0, 1):
        host.engine.until(task_id(id, slot, 1), Phase.EXITED)
    assert {grace for _, grace in host.engine.stops} == {timedelta(seconds=10)}
    # Nobody can be told as yet.
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "RUNNING"}
    host.line.is_cut = False
    for run in runs:
        run.end()
    one = world.task(task_id(id, 0, 1))
    assert str(one.reason) == "lost: its agent could not reach the store for 46 s"
    assert (one.user_retries, one.retry_at is not None, one.exit) == (0, True, Exit(code=143, signal=15))
    assert host.phase(one.id) is None


def test_what_is_given_up_by_control_has_been_ended_by_its_agent() -> None:
    world = World()
    host = world.host()
    id, _ = world.started()
    one = task_id(id, 0, 1)
    host.line.is_cut = True
    passed = 0
    while world.task(one).state is State.RUNNING:
        try_to_renew(world, host, 2)
        passed += 2
        if passed == 46:
            host.engine.until(one, Phase.EXITED)
        world.sweep()
        assert passed < 200
    assert host.phase(one) is not Phase.RUNNING
    host.line.is_cut = False
    # The lease was renewed last at the start; grace and margin come after the fence.
    assert passed >= 45 + 10


def test_a_stop_that_the_engine_did_not_hear_is_asked_for_again_while_the_agent_is_cut_off() -> None:
    world = World()
    host = world.host(engine=(engine := OpenEngine()))
    id, (run,) = world.started()
    asked = threading.Event()
    engine.before["stop"] = asked.set
    engine.fail_next("stop", "timed out")
    host.line.is_cut = True
    try_to_renew(world, host, 46)
    assert asked.wait(PATIENCE)
    assert host.phase(task_id(id, 0, 1)) is Phase.RUNNING
    for _ in range(1_000):
        with pytest.raises(StoreUnavailable):
            host.life.renew()
        if engine.stops:
            break
    engine.until(task_id(id, 0, 1), Phase.EXITED)
    host.line.is_cut = False
    run.end()


def test_what_was_not_started_when_the_fence_fell_is_not_started_any_more() -> None:
    world = World()
    host = world.host(engine=(engine := OpenEngine()))
    _, order = world.placed()
    made, go_on = threading.Event(), threading.Event()

    def be_cut_off() -> None:
        host.line.is_cut = True
        made.set()
        assert go_on.wait(PATIENCE)

    engine.after["create"] = be_cut_off
    run = host.carry(order)
    assert made.wait(PATIENCE)
    try_to_renew(world, host, 46)
    host.line.is_cut = False
    host.life.renew()
    go_on.set()
    run.end()
    one = world.task(order.task_id)
    assert (str(one.reason), one.at(State.RUNNING)) == (
        "lost: its agent could not reach the store for 46 s",
        None,
    )
    assert host.phase(one.id) is None


@pytest.mark.parametrize("first_try", ["succeeds", "fails"])
def test_an_agent_that_was_frozen_beyond_its_fence_time_asks_the_store_first_and_ends_nothing(
    first_try: str,
) -> None:
    world = World()
    host = world.host()
    id, (run,) = world.started()
    world.sleep(58, beating=False)
    if first_try == "fails":
        host.line.is_cut = True
        with pytest.raises(StoreUnavailable):
            host.life.renew()
        host.line.is_cut = False
    host.beat()
    host.life.poll()
    assert host.runs.carried() == {task_id(id, 0, 1)}
    assert world.release(run, task_id(id, 0, 1), Exit(code=3)).exit == Exit(code=3)
    assert world.why(task_id(id, 0, 1)) == "failed: exit code 3"


def test_an_agent_without_a_fence_lets_its_containers_run_for_ever() -> None:
    world = World()
    host = world.host(fence_after=timedelta(0))
    id, (run,) = world.started()
    host.line.is_cut = True
    try_to_renew(world, host, 3_000)
    host.line.is_cut = False
    host.beat()
    assert world.release(run, task_id(id, 0, 1), Exit(code=3)).exit == Exit(code=3)
    assert world.why(task_id(id, 0, 1)) == "failed: exit code 3"


def test_a_lease_that_cannot_be_had_for_any_other_reason_lets_the_fence_fall_as_well() -> None:
    """Control gives up whoever has no lease, whatever kept him from it."""
    world = World()
    host = world.host()
    id, _ = world.started()
    key = Keys("titus").agent(host.id)
    world.keyspace.transact([], [HashSet(key, {"epoch": "what nobody wrote"})])
    with pytest.raises(StoreCorrupt):
        host.life.renew()
    try_to_renew(world, host, 46)
    host.engine.until(task_id(id, 0, 1), Phase.EXITED)
