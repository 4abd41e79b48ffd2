"""Whether and when a Mantis worker is restarted, and what its end means for its job (B6.5, A8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from tests.builders import at, moved
from tests.unit.clusters import described, mantis, seconds, up, worker
from titus_celery.core import lifecycle
from titus_celery.core.decision import Decision
from titus_celery.core.descriptor import JobDescriptor, MantisSpec, RetryKind, RetryPolicy
from titus_celery.core.model import DeadlineKind, Job, KillIntent, Task
from titus_celery.core.reasons import ENDS, Budget, Code, Reason
from titus_celery.core.retry import INFRA_RETRIES_MAX, plan
from titus_celery.core.states import State

OWN: Final = RetryPolicy(kind=RetryKind.DELAYED, retries=2, delay_first=seconds(3), delay=seconds(7))
FAILED: Final = Reason(Code.FAILED, "exit code 3")


def with_policy(policy: RetryPolicy | None, stage: int = 0) -> JobDescriptor:
    """Two stages, one of which has this policy."""
    plain = described(1, 1)
    assert isinstance(plain.spec, MantisSpec)
    stages = list(plain.spec.stages)
    stages[stage] = replace(stages[stage], retry=policy)
    return replace(plain, spec=replace(plain.spec, stages=tuple(stages)))


def delays(descriptor: JobDescriptor, stage: int, code: Code = Code.FAILED, most: int = 200) -> list[float]:
    """The delays before each restart of a worker whose runs all last ten seconds and end so."""
    of = mantis(1, 1, descriptor=descriptor)
    one = moved(up(worker(of, stage, 0), 10), State.FAILED, 20)
    found: list[float] = []
    while len(found) < most and (again := plan(descriptor.spec, one, code, at(20))):
        found.append(again.delay.total_seconds())
        one = replace(
            one,
            user_retries=again.user_retries,
            infra_retries=again.infra_retries,
            backoff_step=again.backoff_step,
        )
    return found


def test_a_worker_climbs_the_ladder_a_hundred_times() -> None:
    found = delays(described(1, 1), 0)
    assert found[:6] == [0, 5, 10, 20, 20, 20]
    assert (len(found), set(found[3:])) == (100, {20})


def test_the_ladder_begins_anew_after_a_healthy_run() -> None:
    spec = described(1).spec
    for ran, delay in ((299.9, 20), (300, 0)):
        one = moved(up(worker(mantis(1), 0, 0), 10), State.FAILED, 10 + ran)
        again = plan(spec, replace(one, user_retries=50, backoff_step=9), Code.FAILED, at(10 + ran))
        assert again is not None
        assert (again.delay, again.user_retries) == (seconds(delay), 51)


def test_the_policy_of_its_own_stage_wins() -> None:
    assert delays(with_policy(OWN, 1), 1) == [3, 7]
    assert delays(with_policy(OWN, 1), 0)[:3] == [0, 5, 10]
    assert delays(with_policy(RetryPolicy(retries=0), 0), 0) == []


@pytest.mark.parametrize("code", [Code.LOST, Code.STUCK, Code.ERROR])
def test_what_the_infrastructure_spoils_has_its_own_budget(code: Code) -> None:
    found = delays(with_policy(RetryPolicy(retries=0), 0), 0, code)
    assert found == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert len(found) == INFRA_RETRIES_MAX


#: Whose allowance a worker's restart draws on, by its end.
BUDGETS: Final = {
    Code.NORMAL: Budget.NONE,
    Code.FAILED: Budget.USER,
    Code.CRASHED: Budget.USER,
    Code.LOST: Budget.INFRA,
    Code.KILLED: Budget.FREE,
    Code.SCALED_DOWN: Budget.NONE,
    Code.STUCK: Budget.INFRA,
    Code.LIMIT: Budget.USER,
    Code.OOM: Budget.USER,
    Code.INVALID: Budget.USER,
    Code.ERROR: Budget.INFRA,
}


@pytest.mark.parametrize("code", list(BUDGETS))
def test_each_end_of_a_worker_draws_on_one_budget(code: Code) -> None:
    assert ENDS[code].mantis is BUDGETS[code]


# ------------------------------------------------------------------------------------------ its job


def after(one: Task, reason: Reason, of: Job) -> tuple[Task, set[DeadlineKind], Decision]:
    decision = lifecycle.ended(of, one, reason, at(30))
    (task,) = decision.tasks
    return task, {each.kind for each in decision.arm}, decision


def test_a_killed_worker_is_replaced_at_once_in_its_place() -> None:
    of = mantis(1, 2)
    one = replace(up(worker(of, 1, 1)), kill=KillIntent(by="bob", at=at(9)), user_retries=100)
    task, kinds, _ = after(one, Reason(Code.KILLED, "by bob"), of)
    assert (task.retry_at, kinds) == (at(30), {DeadlineKind.RETRY, DeadlineKind.PROGRESS})
    _, new = lifecycle.replaced(of, task, at(30)).tasks
    assert (new.id, new.stage, new.slot, new.user_retries) == (f"{of.id}-1.1-2", 1, 1, 100)


def test_a_worker_that_ended_well_is_not_replaced_and_its_job_goes_on() -> None:
    of = mantis(2)
    task, kinds, _ = after(up(worker(of, 0, 0)), Reason(Code.NORMAL), of)
    # Only that the others may be all that are left to run, is looked at.
    assert (task.retry_at, kinds) == (None, {DeadlineKind.PROGRESS})


def test_with_a_worker_that_may_not_be_restarted_its_job_is_abandoned() -> None:
    of = mantis(2)
    task, kinds, _ = after(replace(up(worker(of, 0, 0)), user_retries=100), FAILED, of)
    assert task.retry_at is None
    assert DeadlineKind.ABANDON in kinds
    last = replace(up(worker(of, 0, 0)), infra_retries=INFRA_RETRIES_MAX)
    assert DeadlineKind.ABANDON in after(last, Reason(Code.LOST), of)[1]


def test_a_worker_that_is_not_wanted_any_more_is_missed_by_nobody() -> None:
    of = mantis(1)
    one = replace(up(worker(of, 0, 1)), stop_for=Reason(Code.SCALED_DOWN, "so"), user_retries=100)
    task, kinds, _ = after(one, FAILED, of)
    assert (task.retry_at, kinds) == (None, {DeadlineKind.PROGRESS})


def test_of_a_job_that_runs_only_the_end_of_a_worker_is_said() -> None:
    of = mantis(2)
    running = replace(of, history=(*of.history, replace(of.history[0], state=State.RUNNING)))
    assert after(up(worker(of, 0, 0)), Reason(Code.NORMAL), running)[1] == set()


def test_a_worker_that_comes_up_may_be_the_last_that_was_missed() -> None:
    of = mantis(1)
    starting = up(worker(of, 0, 0))
    starting = replace(starting, history=starting.history[:-1])
    decision = lifecycle.running(of, starting, 1, starting.address, at(9))
    assert {each.kind for each in decision.arm} == {DeadlineKind.PROGRESS}
