"""How many slots a job is given or loses in one step, and which (docs/semantics.md B1.10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import agent, at, dispatched, failed, job, killed, moved, task, tasks, to_be_retried
from titus_celery.core.decision import Decision, StopTask
from titus_celery.core.descriptor import BatchSpec, ServiceSpec
from titus_celery.core.model import Agent, DeadlineKind, Job, KillIntent, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.sizing import (
    SLOTS_PER_COMMIT,
    VICTIMS_PER_COMMIT,
    first_slots,
    resize_requested,
    resized,
    status_requested,
)
from titus_celery.core.states import State

NOW = at(100)


def service(desired: int, made: int | None = None, **parts: Any) -> Job:
    """A service that is to have so many slots, and had *made* so far."""
    plain = job()
    descriptor = replace(plain.descriptor, spec=ServiceSpec(desired=desired, container_id="main"))
    given = desired if made is None else made
    return replace(plain, descriptor=descriptor, slots_made=given, **parts)


def up(one: Task, on: Agent | None = None, since: float = 5) -> Task:
    """The task, RUNNING."""
    return moved(moved(dispatched(one, on), State.STARTING, 2), State.RUNNING, since)


def arms_another_step(decision: Decision) -> bool:
    return [each.kind for each in decision.arm] == [DeadlineKind.RESIZE]


def victims(of: Job, open_tasks: Sequence[Task]) -> list[int]:
    """The slots that go, in the order in which they were chosen."""
    return [one.slot for one in resized(of, open_tasks, NOW).tasks]


# ------------------------------------------------------------------------------------------ growing


def test_a_new_job_is_made_with_all_of_its_slots_if_they_fit_one_commit() -> None:
    decision = first_slots(service(3, made=0), NOW)
    assert [one.slot for one in decision.tasks] == [0, 1, 2]
    assert (decision.job and decision.job.slots_made, decision.arm) == (3, ())


@pytest.mark.parametrize("spec", [BatchSpec(desired=2_500), ServiceSpec(desired=2_500)])
def test_a_larger_one_is_made_step_by_step(spec: BatchSpec | ServiceSpec) -> None:
    plain = job()
    one = replace(plain, descriptor=replace(plain.descriptor, spec=spec), slots_made=0)
    steps: list[int] = []
    open_tasks: list[Task] = []
    decision = first_slots(one, NOW)
    while decision.tasks:
        assert decision.job is not None
        assert len(steps) < 3, "it never has enough"
        assert arms_another_step(decision) == (len(decision.tasks) == SLOTS_PER_COMMIT)
        one, steps = decision.job, [*steps, len(decision.tasks)]
        open_tasks += decision.tasks
        decision = resized(one, open_tasks, NOW)
    assert steps == [1_000, 1_000, 500]
    assert [each.slot for each in open_tasks] == list(range(2_500))


def test_slots_go_on_from_the_last_that_ever_was() -> None:
    one = service(2, made=7)
    assert [each.slot for each in resized(one, [task(one, 3)], NOW).tasks] == [7]


def test_slots_that_used_up_their_retries_are_not_made_again() -> None:
    assert resized(service(2, slots_ok=1, slots_failed=1), [], NOW).is_empty


def test_what_ends_gets_no_further_slots() -> None:
    one = service(5, made=0)
    over = replace(one, history=(*one.history, replace(one.history[0], state=State.FAILED)))
    assert resized(killed(service(5, made=0)), [], NOW).is_empty
    assert resized(over, [], NOW).is_empty


# ------------------------------------------------------------------------------------------ shrinking


def test_what_stops_goes_before_what_waits_before_what_starts_before_what_runs() -> None:
    one = service(0, made=7)
    running, starting, sent, queued = (
        up(task(one, 0)),
        moved(dispatched(task(one, 1)), State.STARTING, 2),
        dispatched(task(one, 2)),
        task(one, 3),
    )
    stopping = replace(up(task(one, 4)), kill=KillIntent(by="ann", at=at(9)))
    over_limit = replace(up(task(one, 5)), stop_for=Reason(Code.LIMIT))
    retried = to_be_retried(up(task(one, 6)), due=30)
    chosen = victims(one, [running, starting, sent, queued, stopping, over_limit, retried])
    assert chosen == [4, 5, 6, 3, 1, 2, 0]


def test_of_running_tasks_the_fullest_host_then_the_fullest_zone_then_the_oldest_loses_first() -> None:
    a1, a2 = agent("a1", engine="E1", zone="a"), agent("a2", engine="E2", zone="a")
    b1 = agent("b1", engine="E3", zone="b")
    one = service(0, made=6)
    places = [b1, a1, a1, a2, b1, a1]
    running = [up(task(one, slot), place) for slot, place in enumerate(places)]
    # a1 has three, b1 two, a2 one: a1 loses one; of a1 and b1 zone a has more; then b1 is the fullest.
    assert victims(one, running) == [1, 2, 0, 3, 4, 5]


def test_the_oldest_of_equals_goes_first() -> None:
    one = service(1, made=2)
    old, young = (
        up(task(one, 0)),
        up(replace(task(one, 1), history=moved(task(one, 1), State.QUEUED, 0.5).history[1:])),
    )
    assert victims(one, [young, old]) == [0]


def test_a_task_that_has_a_container_is_marked_and_its_agent_told() -> None:
    one = service(1, made=2)
    (left, right) = (up(task(one, 0)), up(task(one, 1)))
    decision = resized(one, [left, right], NOW)
    [marked] = decision.tasks
    assert (marked.id, str(marked.stop_for)) == (left.id, "scaledDown: 1 task is wanted")
    assert not marked.state.is_final
    assert StopTask(left.id, agent().id) in decision.commands
    # What is on its way is not chosen again.
    assert resized(one, [marked, right], NOW).is_empty


def test_a_task_without_a_container_is_over_at_once_and_a_due_replacement_is_called_off() -> None:
    one = service(0, made=2)
    waiting, retried = task(one, 0), to_be_retried(up(task(one, 1)), due=500)
    decision = resized(one, [waiting, retried], NOW)
    after = {each.slot: each for each in decision.tasks}
    assert (after[0].state, str(after[0].reason)) == (State.FAILED, "scaledDown: 0 tasks are wanted")
    assert (after[1].retry_at, str(after[1].reason)) == (None, str(retried.reason))
    assert (DeadlineKind.RETRY, retried.id) in decision.disarm


def test_slots_that_are_over_for_good_go_before_any_task() -> None:
    one = service(1, made=3, slots_failed=2)
    standing = up(task(one, 2))
    decision = resized(one, [standing], NOW)
    assert decision.tasks == ()
    assert decision.job is not None
    assert decision.job.slots_dropped == 2
    assert resized(decision.job, [standing], NOW).is_empty


def test_one_step_ends_a_bounded_number_and_is_followed_by_another() -> None:
    one = service(0, made=120)
    decision = resized(one, [up(each) for each in tasks(one, 120)], NOW)
    assert len(decision.tasks) == VICTIMS_PER_COMMIT
    assert arms_another_step(decision)
    # The job's record is part of it, so that a step that was decided at the same time is refused.
    assert decision.job is not None


# ------------------------------------------------------------------------------------------ asking


def test_asking_for_another_number_moves_the_intent_and_leaves_the_work_to_control() -> None:
    one = service(1)
    spec = one.descriptor.spec
    assert isinstance(spec, ServiceSpec)
    decision = resize_requested(one, replace(spec, desired=5), NOW)
    assert decision.job is not None
    assert decision.job.intent > one.intent
    assert (decision.job.descriptor.spec, decision.tasks) == (replace(spec, desired=5), ())
    assert arms_another_step(decision)
    assert resize_requested(one, spec, NOW).is_empty


def test_switching_scaling_makes_no_tasks() -> None:
    one = service(1)
    spec = one.descriptor.spec
    assert isinstance(spec, ServiceSpec)
    decision = status_requested(one, spec, is_enabled=True)
    assert (decision.tasks, decision.arm) == ((), ())
    assert status_requested(one, spec, is_enabled=False).is_empty


def test_a_failed_slot_without_a_retry_is_no_candidate() -> None:
    one = service(1, made=2, slots_failed=1)
    assert failed(up(task(one, 0))).is_open is False
    assert resized(one, [up(task(one, 1))], NOW).tasks == ()
