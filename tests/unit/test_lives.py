"""Whatever happens to a slot, in whatever order: its tasks keep the promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import START, agent, at, job, task
from titus_celery.core import jobs, lifecycle, recovery
from titus_celery.core.decision import Decision, TaskUpdated, change_of
from titus_celery.core.descriptor import (
    BatchSpec,
    Demand,
    RetryKind,
    RetryPolicy,
)
from titus_celery.core.model import (
    NO_ADDRESS,
    Agent,
    Dispatch,
    Job,
    KillIntent,
    Task,
    TaskId,
)
from titus_celery.core.placement import Need
from titus_celery.core.reasons import ENDS, Budget, Code, Reason
from titus_celery.core.states import State
from titus_celery.settings import Settings

SPANS: Final = Settings().spans()
NEED: Final = Need(demand=Demand(cpu_millis=100, memory_bytes=1))
AGENTS: Final = (agent("host-1"), agent("host-2"))
RETRIES: Final = 2
INFRA_RETRIES: Final = 10


@dataclass
class Slot:
    """One slot of a job, and a store that does what decisions say."""

    job: Job
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    #: Every value that each task ever had, oldest first.
    past: dict[TaskId, list[Task]] = field(default_factory=dict)
    now: datetime = START

    def do(self, one: Task, decide: Callable[[Job, Task, datetime], Decision]) -> None:
        change = change_of(self.job, (one,), decide(self.job, one, self.now))
        assert [heard.task for heard in change.notifications if isinstance(heard, TaskUpdated)] == [
            each.after for each in change.tasks
        ]
        for each in change.tasks:
            assert each.before == self.tasks.get(each.after.id)
            self.tasks[each.after.id] = each.after
            self.past.setdefault(each.after.id, []).append(each.after)


def new_slot(retries: int = RETRIES) -> Slot:
    plain = job()
    policy = RetryPolicy(
        kind=RetryKind.EXPONENTIAL,
        retries=retries,
        delay_first=timedelta(seconds=1),
        delay=timedelta(minutes=1),
    )
    assert isinstance(plain.descriptor.spec, BatchSpec)
    batch = replace(plain.descriptor.spec, retry=policy)
    of = replace(plain, descriptor=replace(plain.descriptor, spec=batch))
    first = task(of)
    return Slot(of, {first.id: first}, {first.id: [first]})


# ------------------------------------------------------------------------------------------ what can happen

_Event = Callable[[Slot, Task], None]


def _place(to: Agent) -> _Event:
    return lambda slot, one: slot.do(
        one, lambda job, task, now: lifecycle.dispatched(job, task, to, NEED, now, SPANS)
    )


def _republish(slot: Slot, one: Task) -> None:
    slot.do(
        one,
        lambda job, task, now: lifecycle.republished(job, task, now, SPANS, now - task.history[-1].at),
    )


def _claim(by: Agent, number: int) -> _Event:
    return lambda slot, one: slot.do(
        one, lambda job, task, now: lifecycle.claimed(job, task, by.id, number, now, SPANS)
    )


def _run(number: int) -> _Event:
    return lambda slot, one: slot.do(
        one, lambda job, task, now: lifecycle.running(job, task, number, NO_ADDRESS, now)
    )


def _end(code: Code, number: int | None) -> _Event:
    return lambda slot, one: slot.do(
        one, lambda job, task, now: lifecycle.ended(job, task, Reason(code), now, number=number)
    )


def _take_over(by: Agent) -> _Event:
    return lambda slot, one: slot.do(one, lambda job, task, now: recovery.taken_over(job, task, by))


def _order(by: Agent, number: int) -> Dispatch:
    return Dispatch(
        number=number,
        agent_id=by.id,
        engine_id=by.engine_id,
        host=by.host,
        zone=by.zone,
        region=by.region,
        demand=NEED.demand,
    )


def _assert(by: Agent, number: int) -> _Event:
    order = _order(by, number)
    return lambda slot, one: slot.do(
        one, lambda job, task, now: recovery.asserted(job, task, order, NO_ADDRESS, now)
    )


def _end_again(by: Agent, number: int, code: Code) -> _Event:
    order = _order(by, number)
    return lambda slot, one: slot.do(
        one,
        lambda job, task, now: recovery.ended_again(job, task, order, NO_ADDRESS, Reason(code), None, now),
    )


def _replace(slot: Slot, one: Task) -> None:
    slot.do(one, lifecycle.replaced)


def _kill(slot: Slot, one: Task) -> None:
    slot.do(one, lambda job, task, now: lifecycle.killed(job, task, KillIntent(by="bob", at=now), now))


def _tell(slot: Slot, one: Task) -> None:
    slot.do(one, lambda job, task, now: lifecycle.waiting(task, "no room"))


def _kill_job(slot: Slot, one: Task) -> None:
    decision = jobs.kill_requested(slot.job, KillIntent(by="bob", at=slot.now))
    slot.job = decision.job or slot.job


_numbers: Final = st.sampled_from([1, 1, 1, 1, 2])
_agents: Final = st.sampled_from([*AGENTS, AGENTS[0], AGENTS[0]])
#: What carries a task on is drawn more often than what ends it, so that lives become long.
_events: Final = st.one_of(
    st.builds(_place, _agents),
    st.builds(_claim, _agents, _numbers),
    st.builds(_run, _numbers),
    st.builds(
        _end,
        st.sampled_from([Code.LOST, Code.FAILED, *ENDS]),
        st.sampled_from([None, None, 1, 1, 2]),
    ),
    st.just(_replace),
    st.builds(_take_over, _agents),
    st.builds(_assert, _agents, _numbers),
    st.builds(_end_again, _agents, _numbers, st.sampled_from([Code.LOST, Code.FAILED, *ENDS])),
    st.sampled_from([_republish, _tell, _replace]),
    st.sampled_from([_replace] * 12 + [_kill, _kill_job]),
)
_moments: Final = st.sampled_from([0.0, 1.0, 2.0, 40.0, 40.0, 400.0, -5.0])
#: Event, seconds before it, and how many tasks back it strikes: mostly the newest.
_lives: Final = st.lists(
    st.tuples(_events, _moments, st.sampled_from([0, 0, 0, 0, 0, 1, 3])), min_size=20, max_size=80
)


def live(life: Sequence[tuple[_Event, float, int]]) -> Slot:
    slot = new_slot()
    killed_with: int | None = None
    for happen, pause, back in life:
        slot.now += timedelta(seconds=pause)
        known = list(slot.tasks.values())
        happen(slot, known[max(0, len(known) - 1 - back)])
        # Nothing new once the kill is on record.
        killed_with = len(slot.tasks) if slot.job.kill and killed_with is None else killed_with
        assert killed_with is None or len(slot.tasks) == killed_with
        assert sum(not one.state.is_final for one in slot.tasks.values()) <= 1
        assert sum(one.is_open for one in slot.tasks.values()) <= 1
    return slot


# ------------------------------------------------------------------------------------------ what holds


def _check(slot: Slot) -> None:
    _check_histories(slot)
    _check_ends(slot)
    _check_runs(slot)


def _check_histories(slot: Slot) -> None:
    for one in slot.tasks.values():
        states = [change.state for change in one.history]
        times = [change.at for change in one.history]
        assert states == sorted(set(states))
        assert states[0] is State.QUEUED
        assert sum(state.is_final for state in states) <= 1
        assert times == sorted(times)
        versions = [before.version for before in slot.past[one.id]]
        assert versions == list(range(1, len(versions) + 1))


def _check_ends(slot: Slot) -> None:
    """Final states never change, nor what they say (P4)."""
    for values in slot.past.values():
        over = [one for one in values if one.state.is_final]
        assert len({(one.history, one.reason, one.exit, one.dispatch) for one in over}) <= 1
        for one in over:
            assert one.reason is not None
            assert ENDS[one.reason.code].state is one.state


def _check_runs(slot: Slot) -> None:
    """At most retries + 1 runs at the owner's expense, and ten more at ours (P7)."""
    tasks = list(slot.tasks.values())
    assert [one.attempt for one in tasks] == list(range(1, len(tasks) + 1))
    assert len(tasks) <= RETRIES + 1 + INFRA_RETRIES
    spent = [ENDS[one.reason.code].batch for one in tasks if one.state.is_final and one.reason]
    assert spent.count(Budget.USER) <= RETRIES + 1
    assert spent.count(Budget.INFRA) <= INFRA_RETRIES + 1
    for before, after in pairwise(tasks):
        assert before.replaced_by == after.id
        assert after.resubmit_of == before.id
        assert after.history[0].at >= before.history[-1].at


@given(_lives)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_events_breaks_a_promise(life: list[tuple[_Event, float, int]]) -> None:
    _check(live(life))


@pytest.mark.full
@given(_lives)
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_events_breaks_a_promise_at_length(life: list[tuple[_Event, float, int]]) -> None:
    _check(live(life))


@pytest.mark.parametrize(
    ("codes", "runs"),
    [
        # retries + 1
        ([Code.FAILED] * 20, 3),
        # ten losses are made good, the eleventh is not
        ([Code.LOST] * 20, 11),
        # both budgets to their ends: 2 + 10 retries and the first run
        ([Code.LOST, Code.FAILED] * 2 + [Code.ERROR] * 20, 13),
        ([Code.LOST] * 10 + [Code.OOM] * 20, 13),
        ([Code.FAILED, Code.NORMAL], 2),
        ([Code.LOST, Code.KILLED], 2),
    ],
)
def test_the_longest_lives_have_so_many_runs(codes: list[Code], runs: int) -> None:
    slot = new_slot()
    for code in codes:
        for happen in (_place(AGENTS[0]), _claim(AGENTS[0], 1), _run(1), _end(code, 1), _replace):
            slot.now += timedelta(seconds=60)
            happen(slot, list(slot.tasks.values())[-1])
    _check(slot)
    assert len(slot.tasks) == runs
    assert not any(one.is_open for one in slot.tasks.values())


def test_a_job_killed_before_its_retry_runs_keeps_the_queued_task_from_all_else() -> None:
    slot = live(
        [
            (_place(AGENTS[0]), 1, 0),
            (_claim(AGENTS[0], 1), 1, 0),
            (_run(1), 1, 0),
            (_end(Code.FAILED, 1), 1, 0),
            (_replace, 40, 0),
            (_kill_job, 1, 0),
            (_place(AGENTS[0]), 1, 0),
            (_claim(AGENTS[0], 1), 1, 0),
        ]
    )
    assert [one.state for one in slot.tasks.values()] == [State.FAILED, State.QUEUED]
    assert slot.job.kill == KillIntent(by="bob", at=at(45))
