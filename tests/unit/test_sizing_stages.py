"""How many workers the stages of a Mantis job are given or lose in one step, and which (B1.10, B6.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.builders import at, job, killed, to_be_retried
from tests.unit.clusters import mantis, up, worker
from titus_celery.core.decision import Decision, StopTask
from titus_celery.core.descriptor import MantisSpec
from titus_celery.core.model import DeadlineKind, Job, StageSlots, Task
from titus_celery.core.sizing import (
    VICTIMS_PER_COMMIT,
    first_slots,
    is_complete,
    is_spent,
    resize_requested,
    resized,
    status_requested,
)
from titus_celery.core.states import State

NOW = at(100)


def places(decision: Decision) -> list[tuple[int | None, int]]:
    return [(one.stage, one.slot) for one in decision.tasks]


def counts(decision: Decision) -> list[tuple[int, int]]:
    assert decision.job is not None
    return [(stage.made, stage.dropped) for stage in decision.job.stages]


def kinds(decision: Decision) -> set[DeadlineKind]:
    return {each.kind for each in decision.arm}


def workers(of: Job, *numbers: int) -> list[Task]:
    """So many workers of each stage, RUNNING."""
    return [up(worker(of, stage, slot)) for stage, count in enumerate(numbers) for slot in range(count)]


# ------------------------------------------------------------------------------------------ growing


def test_each_stage_counts_its_own_workers() -> None:
    decision = first_slots(mantis(2, 1, made=(0, 0)), NOW)
    assert places(decision) == [(0, 0), (0, 1), (1, 0)]
    assert [one.id.removeprefix(one.job_id) for one in decision.tasks] == ["-0.0-1", "-0.1-1", "-1.0-1"]
    assert counts(decision) == [(2, 0), (1, 0)]
    assert decision.job is not None
    assert decision.job.slots_made == 3


def test_a_larger_job_is_made_over_several_commits() -> None:
    one = replace(mantis(1_200, 1_300, 1, made=(0, 0, 0)), stages=(), slots_made=0)
    open_tasks: list[Task] = []
    steps: list[list[tuple[int, int]]] = []
    decision = first_slots(one, NOW)
    while decision.tasks:
        assert decision.job is not None
        assert len(steps) < 4, "it never has enough"
        assert (DeadlineKind.RESIZE in kinds(decision)) == (len(decision.tasks) == 1_000)
        one, steps = decision.job, [*steps, counts(decision)]
        open_tasks += decision.tasks
        decision = resized(one, open_tasks, NOW)
    assert steps == [
        [(1_000, 0), (0, 0), (0, 0)],
        [(1_200, 0), (800, 0), (0, 0)],
        [(1_200, 0), (1_300, 0), (1, 0)],
    ]
    assert len({task.id for task in open_tasks}) == 2_501


def test_numbers_of_workers_never_come_twice() -> None:
    one = mantis(3, made=(7,))
    decision = resized(one, [up(worker(one, 0, 2))], NOW)
    assert places(decision) == [(0, 7), (0, 8)]
    assert counts(decision) == [(9, 0)]


def test_workers_that_ended_well_are_not_made_again() -> None:
    assert resized(mantis(2, over={"0": 1}), workers(mantis(1), 1), NOW).is_empty
    grown = resized(mantis(3, made=(2,), over={"0": 1}), workers(mantis(1), 1), NOW)
    assert places(grown) == [(0, 2)]


def test_what_ends_gets_no_further_workers() -> None:
    assert resized(killed(mantis(2, made=(0,))), [], NOW).is_empty


# ------------------------------------------------------------------------------------------ shrinking


def shrunk(desired: Sequence[int], had: Sequence[int], *, open_tasks: Sequence[Task] = ()) -> Decision:
    one = mantis(*desired, made=tuple(had))
    return resized(one, open_tasks or workers(one, *had), NOW)


def test_the_highest_workers_of_the_stage_go_first_and_no_others() -> None:
    decision = shrunk([3, 2], [3, 5])
    assert places(decision) == [(1, 4), (1, 3), (1, 2)]
    assert {str(one.stop_for) for one in decision.tasks} == {"scaledDown: 2 tasks are wanted"}
    assert sum(isinstance(each, StopTask) for each in decision.commands) == 3


def test_one_stage_after_the_other_shrinks() -> None:
    decision = shrunk([1, 1], [2, 2])
    assert places(decision) == [(0, 1)]
    assert kinds(decision) == {DeadlineKind.RESIZE, DeadlineKind.PROGRESS}


def test_one_grows_before_another_shrinks() -> None:
    one = mantis(1, 3, made=(2, 2))
    assert places(resized(one, workers(one, 2, 2), NOW)) == [(1, 2)]


def test_one_step_ends_a_bounded_number() -> None:
    decision = shrunk([0], [120])
    assert len(decision.tasks) == VICTIMS_PER_COMMIT
    assert decision.tasks[0].slot == 119


def test_a_due_replacement_and_a_queued_worker_are_called_off() -> None:
    one = mantis(1, made=(3,))
    retried = to_be_retried(up(worker(one, 0, 2)), due=500)
    decision = resized(one, [up(worker(one, 0, 0)), worker(one, 0, 1), retried], NOW)
    after = {task.slot: task for task in decision.tasks}
    assert (after[2].retry_at, after[2].is_surplus) == (None, True)
    assert (after[1].state, after[1].is_surplus) == (State.FAILED, True)
    assert (DeadlineKind.RETRY, retried.id) in decision.disarm
    # It did not fail for good.
    assert DeadlineKind.ABANDON not in kinds(decision)


def test_of_those_that_stay_all_may_run_now() -> None:
    assert DeadlineKind.PROGRESS in kinds(shrunk([1], [2]))
    running = mantis(1, made=(2,))
    running = replace(running, history=(*running.history, replace(running.history[0], state=State.RUNNING)))
    assert DeadlineKind.PROGRESS not in kinds(resized(running, workers(running, 2), NOW))


def test_workers_that_are_over_are_dropped_before_any_that_lives() -> None:
    one = mantis(1, 1, made=(3, 1), over={"0": 2})
    decision = resized(one, [up(worker(one, 0, 2)), up(worker(one, 1, 0))], NOW)
    assert (places(decision), counts(decision)) == ([], [(3, 2), (1, 0)])
    assert decision.job is not None
    assert resized(decision.job, [up(worker(one, 0, 2)), up(worker(one, 1, 0))], NOW).is_empty


# ------------------------------------------------------------------------------------------ asking


def test_asking_changes_the_definition_and_leaves_the_work_to_control() -> None:
    one = mantis(1, 1)
    spec = one.descriptor.spec
    assert isinstance(spec, MantisSpec)
    more = replace(spec, stages=(spec.stages[0], replace(spec.stages[1], desired=4)))
    decision = resize_requested(one, more, NOW)
    assert decision.job is not None
    assert (decision.job.descriptor.spec, decision.job.intent) == (more, one.intent + 1)
    assert kinds(decision) == {DeadlineKind.RESIZE}
    assert resize_requested(one, spec, NOW).is_empty
    assert status_requested(one, spec, is_enabled=True).is_empty
    assert status_requested(one, spec, is_enabled=False).job is not None


@pytest.mark.parametrize(
    ("one", "spent"),
    [
        (mantis(2, 1, over={"0": 2, "1": 1}), True),
        (mantis(2, 1, over={"0": 2}), False),
        (mantis(2, 1, over={"0": 3}), False),
        (mantis(0, 1, over={"1": 1}), True),
        # It may be made larger again.
        (mantis(0, 0), False),
        (mantis(1, over={"0": 2}, stages=(StageSlots(made=2, dropped=1),)), True),
        (mantis(1, over={"0": 1}, stages=(StageSlots(made=2, dropped=1),)), False),
        (job(slots_made=0), False),
    ],
)
def test_a_job_is_spent_once_all_workers_of_all_stages_are_over(one: Job, spent: bool) -> None:
    assert is_spent(one) is spent


def test_all_run_if_so_many_do_as_are_wanted_of_each_stage() -> None:
    one = mantis(2, 1)
    assert is_complete(one, workers(one, 2, 1))
    assert not is_complete(one, workers(one, 3, 0))
    assert not is_complete(one, workers(one, 1, 1))
    assert is_complete(mantis(2, 1, over={"0": 1}), workers(one, 1, 1))
