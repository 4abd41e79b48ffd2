"""Whether a failed slot is tried again, and after how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import at, dispatched, job, moved, task
from titus_celery.core import retry
from titus_celery.core.descriptor import BatchSpec, RetryKind, RetryPolicy, ServiceSpec
from titus_celery.core.model import (
    Task,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.retry import Plan
from titus_celery.core.states import State

MANY: Final = 2**32 - 1


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def plan(policy: RetryPolicy, one: Task, code: Code, ended: datetime) -> Plan | None:
    """What follows for a batch job with this policy."""
    return retry.plan(BatchSpec(desired=1, retry=policy), one, code, ended)


def run(*, up: float | None = 10, end: float = 20, **counts: Any) -> Task:
    """A task that failed at *end*, after it was RUNNING from *up* on (None: it never was)."""
    starting = moved(dispatched(task(job()), when=1), State.STARTING, 2)
    before = starting if up is None else moved(starting, State.RUNNING, up)
    return replace(moved(before, State.FAILED, end), **counts)


def delays(policy: RetryPolicy, code: Code, count: int, *, up: float | None = 10) -> list[float]:
    """The delays before the first *count* retries of a slot whose runs all fail with *code*."""
    found: list[float] = []
    one = run(up=up)
    while len(found) < count and (next_one := plan(policy, one, code, at(20))):
        found.append(next_one.delay.total_seconds())
        one = replace(
            one,
            user_retries=next_one.user_retries,
            infra_retries=next_one.infra_retries,
            backoff_step=next_one.backoff_step,
        )
    return found


# ------------------------------------------------------------------------------------- the owner's retries

IMMEDIATE: Final = RetryPolicy(retries=MANY)
DELAYED: Final = RetryPolicy(kind=RetryKind.DELAYED, retries=MANY, delay_first=seconds(3), delay=seconds(7))
BACKOFF: Final = RetryPolicy(
    kind=RetryKind.EXPONENTIAL, retries=MANY, delay_first=seconds(1), delay=seconds(10)
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (IMMEDIATE, [0, 0, 0, 0]),
        # `immediate` knows no delays, whatever the fields hold.
        (replace(IMMEDIATE, delay_first=seconds(5), delay=seconds(5)), [0, 0, 0, 0]),
        # The first delay, then always the other.
        (DELAYED, [3, 7, 7, 7]),
        (replace(DELAYED, delay_first=seconds(0)), [0, 7, 7, 7]),
        (replace(DELAYED, delay=seconds(0)), [3, 0, 0, 0]),
        # 1 s * 2^0, 2^1, 2^2, 2^3 = 8, then 16 is above the cap of 10.
        (BACKOFF, [1, 2, 4, 8, 10, 10]),
        # 3 * 2^2 = 12 is above the cap of 10 already.
        (replace(BACKOFF, delay_first=seconds(3)), [3, 6, 10, 10]),
        # A cap of zero is none: 0.25 * 2^7 = 32.
        (replace(BACKOFF, delay_first=seconds(0.25), delay=seconds(0)), [0.25, 0.5, 1, 2, 4, 8, 16, 32]),
        # Nothing doubled is nothing.
        (replace(BACKOFF, delay_first=seconds(0)), [0, 0, 0, 0]),
        (replace(BACKOFF, delay_first=seconds(0), delay=seconds(0)), [0, 0, 0, 0]),
        # A cap below the first delay holds from the start.
        (replace(BACKOFF, delay_first=seconds(5), delay=seconds(2)), [2, 2, 2]),
        # A cap that is met exactly: 5 * 2 = 10.
        (replace(BACKOFF, delay_first=seconds(5)), [5, 10, 10]),
    ],
)
def test_delays_before_the_owners_retries(policy: RetryPolicy, expected: list[float]) -> None:
    assert delays(policy, Code.FAILED, len(expected)) == expected


@pytest.mark.parametrize("kind", RetryKind)
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_n_retries_mean_n_plus_one_runs(kind: RetryKind, retries: int) -> None:
    assert len(delays(RetryPolicy(kind=kind, retries=retries), Code.FAILED, 10)) == retries


def test_a_retry_counts_one_of_the_owner_and_none_of_ours() -> None:
    one = run(user_retries=2, infra_retries=5, backoff_step=2)
    assert plan(replace(BACKOFF, retries=3), one, Code.FAILED, at(20)) == Plan(
        # The third doubling step: 1 * 2^2.
        seconds(4), user_retries=3, infra_retries=5, backoff_step=3
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ healthy runs


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        # Step 4 would be 1 * 2^3 = 8; from 300 s of RUNNING on, it is the first again.
        (299.999, 8),
        (300, 1),
        (86_400, 1),
    ],
)
def test_backoff_begins_anew_after_a_healthy_run(ran: float, expected: float) -> None:
    again = plan(
        BACKOFF,
        run(up=10, end=10 + ran, user_retries=3, backoff_step=3),
        Code.FAILED,
        at(10 + ran),
    )
    assert again is not None
    assert again.delay == seconds(expected)


def test_time_that_was_not_running_makes_no_run_healthy() -> None:
    again = plan(BACKOFF, run(up=None, end=9_000, backoff_step=2), Code.FAILED, at(9_000))
    assert again is not None
    assert again.delay == seconds(4)


def test_after_a_healthy_run_doubling_goes_on_from_one() -> None:
    again = plan(
        BACKOFF,
        run(up=0, end=300, user_retries=7, backoff_step=7),
        Code.FAILED,
        at(300),
    )
    assert again == Plan(seconds(1), user_retries=8, infra_retries=0, backoff_step=1)


def test_a_healthy_run_gives_no_retry_back() -> None:
    assert (
        plan(
            replace(BACKOFF, retries=1),
            run(up=0, end=400, user_retries=1),
            Code.FAILED,
            at(400),
        )
        is None
    )


def test_delayed_takes_the_later_delay_after_a_healthy_run_too() -> None:
    again = plan(
        DELAYED,
        run(up=0, end=400, user_retries=1, backoff_step=1),
        Code.FAILED,
        at(400),
    )
    assert again is not None
    assert again.delay == seconds(7)


# ------------------------------------------------------------------------------------------ our own retries


def test_infrastructure_losses_have_ten_retries_of_their_own() -> None:
    # 1 * 2^0 .. 2^4 = 16; 32 is above the cap of 30.
    assert delays(RetryPolicy(), Code.LOST, 20) == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


@pytest.mark.parametrize("up", [10, None])
@pytest.mark.parametrize("code", [Code.LOST, Code.ERROR, Code.STUCK])
def test_a_loss_does_not_touch_the_owners_count_or_backoff(code: Code, up: float | None) -> None:
    one = run(up=up, user_retries=2, infra_retries=1, backoff_step=2)
    assert plan(BACKOFF, one, code, at(20)) == Plan(
        seconds(2), user_retries=2, infra_retries=2, backoff_step=2
    )


def test_used_up_losses_leave_the_owners_retries() -> None:
    assert plan(IMMEDIATE, run(infra_retries=10), Code.LOST, at(20)) is None
    assert plan(IMMEDIATE, run(infra_retries=10), Code.FAILED, at(20)) is not None


@pytest.mark.parametrize("code", [Code.NORMAL, Code.KILLED, Code.SCALED_DOWN])
def test_some_ends_are_never_tried_again(code: Code) -> None:
    assert plan(IMMEDIATE, run(), code, at(20)) is None


# ------------------------------------------------------------------------------------------ any numbers

_spans: Final = st.one_of(
    st.timedeltas(timedelta(0), timedelta(seconds=5)), st.timedeltas(timedelta(0), timedelta.max)
)


@given(
    policy=st.builds(
        RetryPolicy,
        kind=st.sampled_from(RetryKind),
        retries=st.integers(1, MANY),
        delay_first=_spans,
        delay=_spans,
    ),
    step=st.integers(0, MANY),
    used=st.integers(0, MANY),
    code=st.sampled_from([Code.FAILED, Code.LOST]),
)
def test_no_policy_overflows_or_waits_for_more_than_a_year(
    policy: RetryPolicy, step: int, used: int, code: Code
) -> None:
    again = plan(
        policy,
        run(user_retries=used, infra_retries=min(used, 9), backoff_step=step),
        code,
        at(20),
    )
    if again is None:
        assert code is Code.FAILED
        assert used >= policy.retries
    else:
        assert timedelta(0) <= again.delay <= timedelta(days=365)
        assert at(20) + again.delay > at(19)


@given(first=_spans, cap=_spans, step=st.integers(0, 100))
def test_backoff_never_exceeds_its_cap_and_never_shrinks(first: timedelta, cap: timedelta, step: int) -> None:
    policy = RetryPolicy(kind=RetryKind.EXPONENTIAL, retries=MANY, delay_first=first, delay=cap)
    one = plan(policy, run(backoff_step=step), Code.FAILED, at(20))
    next_one = plan(policy, run(backoff_step=step + 1), Code.FAILED, at(20))
    assert one is not None
    assert next_one is not None
    assert one.delay <= next_one.delay
    if cap:
        assert next_one.delay <= cap


# ------------------------------------------------------------------------------------------ services

RESTARTED: Final = [1, 2, 4, 8, 16, 30, 30]


def of_service(policy: RetryPolicy | None, one: Task, code: Code, ended: float = 20) -> Plan | None:
    """What follows for a service with this policy."""
    return retry.plan(ServiceSpec(desired=1, retry=policy), one, code, at(ended))


@pytest.mark.parametrize("code", [Code.NORMAL, Code.FAILED, Code.CRASHED, Code.OOM, Code.INVALID])
def test_a_service_without_a_policy_is_restarted_for_ever_whatever_its_end(code: Code) -> None:
    found, one = [], run()
    for _ in RESTARTED:
        again = of_service(None, one, code)
        assert again is not None
        found.append(again.delay.total_seconds())
        one = replace(one, user_retries=again.user_retries, backoff_step=again.backoff_step)
    assert found == RESTARTED
    assert of_service(None, replace(one, user_retries=MANY), code) is not None


def test_a_service_with_a_policy_has_its_retries_and_no_more() -> None:
    granted = RetryPolicy(retries=2)
    assert of_service(granted, run(user_retries=1), Code.NORMAL) == Plan(seconds(0), 2, 0, 1)
    assert of_service(granted, run(user_retries=2), Code.NORMAL) is None


def test_a_killed_task_of_a_service_is_replaced_at_once_for_nothing() -> None:
    one = run(user_retries=1, infra_retries=2, backoff_step=3)
    assert of_service(RetryPolicy(retries=1), one, Code.KILLED) == Plan(seconds(0), 1, 2, 3)


@pytest.mark.parametrize("code", [Code.NORMAL, Code.LOST, Code.FAILED])
def test_what_was_to_be_taken_away_is_not_replaced_however_it_ended(code: Code) -> None:
    surplus = run(stop_for=Reason(Code.SCALED_DOWN))
    assert of_service(None, surplus, code) is None
    assert of_service(None, run(), Code.SCALED_DOWN) is None


def test_losses_of_a_service_with_a_policy_are_capped_and_forgiven_after_a_healthy_run() -> None:
    granted = RetryPolicy(retries=1)
    lost = run(infra_retries=retry.INFRA_RETRIES_MAX)
    assert of_service(granted, lost, Code.LOST) is None
    healthy = run(up=10, end=310, infra_retries=retry.INFRA_RETRIES_MAX)
    assert of_service(granted, healthy, Code.LOST, 310) == Plan(seconds(1), 0, 1, 0)
    almost = run(up=10, end=309, infra_retries=retry.INFRA_RETRIES_MAX)
    assert of_service(granted, almost, Code.LOST, 309) is None


def test_losses_of_a_service_without_a_policy_have_no_cap() -> None:
    assert of_service(None, run(infra_retries=MANY), Code.LOST) == Plan(seconds(30), 0, MANY + 1, 0)
