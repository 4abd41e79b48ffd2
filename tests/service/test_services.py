"""Service jobs: so many tasks at any time, and what happens when that number changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.service.world import ANN, World, a_job
from titus_celery.core.descriptor import Instances, JobDescriptor, RetryKind, RetryPolicy, ServiceSpec
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import Exit, JobId, TaskId
from titus_celery.core.reasons import Code
from titus_celery.core.states import State
from titus_celery.errors import FailedPrecondition, InvalidRequest, NotFound

GONE = Exit(code=0)
#: Looks at a record after which another thread must have come by: some ten seconds.
LOOKS_MAX = 200_000


def a_service(desired: int = 1, retry: RetryPolicy | None = None, **parts: Any) -> JobDescriptor:
    """A service of tasks that each need one core."""
    spec = ServiceSpec(desired=desired, retry=retry, container_id="main", **parts)
    return replace(a_job(cpu=parts.pop("cpu", "1")), spec=spec)


def ready(cores: int = 8) -> World:
    """An installation with one host."""
    world = World()
    world.host(cores=cores)
    return world


def running(world: World, id: JobId) -> list[int]:
    """The slots in which a task runs."""
    tasks = world.jobs.find(id).tasks
    return sorted(one.slot for one in tasks if one.state is State.RUNNING)


def end(world: World, id: TaskId, exit: Exit = GONE) -> None:
    """Let a container end, and wait until that is told."""
    host = next(host for host in world.hosts.values() if host.engine.look(id))
    host.engine.release(id, exit)
    until_over(world, id)


def until_over(world: World, id: TaskId) -> None:
    """Wait for the agent's thread to report."""
    for _ in range(LOOKS_MAX):
        if world.task(id).state.is_final:
            return
    raise AssertionError(f"{id} is not over")


def resize(world: World, id: JobId, desired: int, min: int = 0, max: int = 0) -> None:
    """Have the number of tasks changed, and let control see to it."""
    world.jobs.resize(id, Instances(min=min, desired=desired, max=max))
    world.sweep()


# ------------------------------------------------------------------------------------------ restarts


@pytest.mark.parametrize("exit", [Exit(code=0), Exit(code=3), Exit(code=137, signal=9)])
def test_a_task_of_a_service_is_replaced_in_its_slot_whatever_its_end(exit: Exit) -> None:
    world = ready()
    id, _ = world.started(a_service(2))
    end(world, task_id(id, 1, 1), exit)
    ended = world.task(task_id(id, 1, 1))
    assert ended.retry_at == ended.history[-1].at + timedelta(seconds=1)
    world.sleep(1)
    world.carry_on()
    assert running(world, id) == [0, 1]
    again = world.task(task_id(id, 1, 2))
    assert (again.resubmit_of, again.original_id, again.attempt) == (ended.id, ended.id, 2)


def test_a_service_without_a_policy_is_restarted_for_ever_and_ever_more_slowly() -> None:
    world = ready()
    id, _ = world.started(a_service())
    delays = []
    for attempt in range(1, 9):
        one = task_id(id, 0, attempt)
        end(world, one, Exit(code=1))
        ended = world.task(one)
        assert ended.retry_at is not None
        delays.append((ended.retry_at - ended.history[-1].at).total_seconds())
        world.sleep(30)
        world.carry_on()
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert world.job(id).state is State.RUNNING


def test_five_minutes_of_running_make_restarts_quick_again() -> None:
    world = ready()
    id, _ = world.started(a_service())
    for attempt in (1, 2, 3):
        end(world, task_id(id, 0, attempt), Exit(code=1))
        world.sleep(30)
        world.carry_on()
    world.sleep(300)
    end(world, task_id(id, 0, 4), Exit(code=1))
    ended = world.task(task_id(id, 0, 4))
    assert ended.retry_at is not None
    assert ended.retry_at - ended.history[-1].at == timedelta(seconds=1)


def test_a_policy_is_honoured_and_a_service_whose_slots_are_used_up_has_failed() -> None:
    world = ready()
    policy = RetryPolicy(kind=RetryKind.IMMEDIATE, retries=1)
    id, _ = world.started(a_service(2, policy))
    for slot in (0, 1):
        end(world, task_id(id, slot, 1), Exit(code=3))
        world.carry_on()
        end(world, task_id(id, slot, 2), Exit(code=4))
        world.sweep()
    job = world.job(id)
    assert job.state is State.FAILED
    assert str(job.reason) == (
        "failed: no slot may be restarted any more (2 used up their retries); "
        f"first: {id}-0-2: failed: exit code 4"
    )


def test_a_used_up_slot_is_not_made_again_and_the_others_go_on() -> None:
    world = ready()
    id, _ = world.started(a_service(2, RetryPolicy()))
    end(world, task_id(id, 0, 1), Exit(code=0))
    world.sleep(60)
    world.sweep()
    assert running(world, id) == [1]
    assert (world.job(id).state, world.orders()) == (State.RUNNING, [])


def test_a_killed_task_of_a_service_is_replaced_at_once_and_costs_no_retry() -> None:
    world = ready()
    id, _ = world.started(a_service(1, RetryPolicy(retries=1)))
    world.jobs.kill_task(task_id(id, 0, 1), ANN)
    world.deliver()
    until_over(world, task_id(id, 0, 1))
    ended = world.task(task_id(id, 0, 1))
    assert ended.reason is not None
    assert (ended.reason.code, ended.retry_at) == (Code.KILLED, ended.history[-1].at)
    world.carry_on()
    again = world.task(task_id(id, 0, 2))
    assert (again.state, again.user_retries, again.infra_retries) == (State.RUNNING, 0, 0)


def test_a_killed_task_that_was_not_placed_is_replaced_too() -> None:
    world = ready(cores=1)
    id, _ = world.started(a_service(2))
    world.jobs.kill_task(task_id(id, 1, 1), ANN)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "FAILED", "1-2": "QUEUED"}


def test_hosts_that_are_lost_end_no_service_without_a_policy() -> None:
    world = ready()
    id, _ = world.started(a_service())
    for attempt in range(1, 13):
        host = next(iter(world.hosts.values()))
        host.engine.end_from_outside(task_id(id, 0, attempt))
        until_over(world, task_id(id, 0, attempt))
        world.sleep(30)
        world.carry_on()
    assert running(world, id) == [0]


# ------------------------------------------------------------------------------------------ sizes


def test_a_service_grows_by_new_slots() -> None:
    world = ready()
    id, _ = world.started(a_service(1))
    resize(world, id, 3)
    world.carry_on()
    assert running(world, id) == [0, 1, 2]


def test_a_service_shrinks_and_its_surplus_is_never_started_again() -> None:
    world = ready()
    id, runs = world.started(a_service(3))
    resize(world, id, 1)
    world.deliver()
    for run in runs[:2]:
        told = run.end()
        assert told is not None
        assert str(told.reason) == "scaledDown: 1 task is wanted"
    world.sleep(60)
    world.sweep()
    # The oldest go first.
    assert running(world, id) == [2]
    assert (world.orders(), world.job(id).slots_failed) == ([], 0)


def test_what_grows_again_gets_slots_that_never_were() -> None:
    world = ready()
    id, runs = world.started(a_service(2))
    resize(world, id, 1)
    world.deliver()
    runs[0].end()
    resize(world, id, 2)
    world.carry_on()
    assert running(world, id) == [1, 2]


def test_of_what_waits_and_what_runs_the_waiting_goes_first() -> None:
    world = ready(cores=1)
    id, _ = world.started(a_service(3))
    resize(world, id, 1)
    assert world.states(id) == {"0-1": "RUNNING", "1-1": "FAILED", "2-1": "FAILED"}


def test_a_slot_that_waits_to_be_restarted_goes_before_one_that_runs() -> None:
    world = ready()
    id, _ = world.started(a_service(2))
    end(world, task_id(id, 1, 1), Exit(code=3))
    resize(world, id, 1)
    world.sleep(60)
    world.sweep()
    assert (running(world, id), world.orders()) == ([0], [])


def test_a_service_of_nothing_stays_alive_and_can_grow() -> None:
    world = ready()
    id, runs = world.started(a_service(1))
    resize(world, id, 0)
    world.deliver()
    runs[0].end()
    world.sleep(60)
    world.sweep()
    assert world.job(id).state is State.RUNNING
    resize(world, id, 1)
    world.carry_on()
    assert running(world, id) == [1]


def test_a_service_that_never_had_a_task_can_be_killed() -> None:
    world = ready()
    id = world.create(a_service(0))
    world.sweep()
    assert world.job(id).state is State.QUEUED
    world.jobs.kill(id, ANN)
    world.sweep()
    assert world.job(id).state is State.FAILED
    assert str(world.job(id).reason).startswith("killed: by ann at ")


def test_a_killed_service_ends_and_nothing_of_it_is_replaced() -> None:
    world = ready()
    id, runs = world.started(a_service(2))
    world.jobs.kill(id, ANN)
    world.sweep()
    world.deliver()
    for run in runs:
        run.end()
    world.sleep(60)
    world.sweep()
    assert world.job(id).state is State.FAILED
    assert world.orders() == []


def test_a_used_up_slot_is_the_first_that_a_smaller_service_does_without() -> None:
    world = ready()
    id, _ = world.started(a_service(3, RetryPolicy()))
    end(world, task_id(id, 0, 1))
    world.sweep()
    resize(world, id, 2)
    assert (running(world, id), world.commands()) == ([1, 2], [])
    # And a larger one has as many that run as it wants.
    resize(world, id, 3)
    world.carry_on()
    assert running(world, id) == [1, 2, 3]


def test_a_task_that_ends_while_it_is_taken_away_is_not_replaced() -> None:
    world = ready()
    id, runs = world.started(a_service(2))
    resize(world, id, 1)
    end(world, task_id(id, 0, 1), Exit(code=3))
    runs[0].end()
    world.sleep(60)
    world.sweep()
    assert (running(world, id), world.orders()) == ([1], [])


def test_a_resize_that_control_did_not_hear_of_is_carried_out_when_it_looks() -> None:
    world = ready()
    id, _ = world.started(a_service(1))
    world.jobs.resize(id, Instances(desired=2))
    # Nobody told control; another one starts later.
    world.control = world.new_control()
    # As long as agents may have to tell a store that restarted.
    world.sleep(5)
    world.carry_on()
    assert running(world, id) == [0, 1]


def test_large_jobs_get_their_slots_in_steps_that_a_crash_resumes() -> None:
    world = ready()
    id = world.create(a_service(1_500))
    assert len(world.records.open_tasks(id)) == 1_000
    world.sweep()
    assert len(world.records.open_tasks(id)) == 1_500
    assert world.job(id).slots_made == 1_500


# ------------------------------------------------------------------------------------------ refusals


def test_numbers_that_do_not_fit_each_other_are_refused_and_change_nothing() -> None:
    world = ready()
    id = world.create(a_service(1))
    before = world.keyspace.dump()
    for wanted, field in (
        (Instances(min=2, desired=1, max=3), "instances.desired"),
        (Instances(min=0, desired=4, max=3), "instances.desired"),
        (Instances(min=4, desired=4, max=3), "instances.min"),
        (Instances(desired=2_001), "instances.desired"),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            world.jobs.resize(id, wanted)
        assert [each.field for each in refusal.value.violations] == [field]
    assert world.keyspace.dump() == before


def test_the_same_numbers_again_change_nothing() -> None:
    world = ready()
    id = world.create(a_service(1))
    world.jobs.resize(id, Instances(desired=2))
    before = world.keyspace.dump()
    world.jobs.resize(id, Instances(desired=2))
    assert world.keyspace.dump() == before


def test_what_is_no_service_or_ends_keeps_its_number() -> None:
    world = ready()
    batch = world.create(a_job())
    with pytest.raises(FailedPrecondition, match="batch job"):
        world.jobs.resize(batch, Instances(desired=2))
    with pytest.raises(FailedPrecondition, match="batch job"):
        world.jobs.enable(batch, True)
    service = world.create(a_service())
    world.jobs.kill(service, ANN)
    with pytest.raises(FailedPrecondition, match="being killed"):
        world.jobs.resize(service, Instances(desired=2))
    world.sweep()
    with pytest.raises(FailedPrecondition, match="is over"):
        world.jobs.enable(service, True)
    with pytest.raises(NotFound):
        world.jobs.resize(JobId("nobody"), Instances(desired=2))


def test_scaling_is_switched_on_once() -> None:
    world = ready()
    id = world.create(a_service())
    world.jobs.enable(id, True)
    job = world.job(id)
    spec = job.descriptor.spec
    assert isinstance(spec, ServiceSpec)
    assert spec.enabled
    world.jobs.enable(id, True)
    assert world.job(id).version == job.version
