"""What a process may do under its lease, by a clock that only this test moves."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

import pytest

from titus_celery.core.model import AgentId, Holding
from titus_celery.service.lease import Lease, gone_after

SPAN: Final = timedelta(seconds=10)
FENCE_AFTER: Final = timedelta(seconds=45)
MINE: Final = Holding(AgentId("host-1"), 7)
MINE_AGAIN: Final = Holding(AgentId("host-1"), 8)


class Process:
    """A process with a lease; nothing passes but what `sleep` lets pass."""

    def __init__(self, fence_after: timedelta = FENCE_AFTER) -> None:
        self.passed = timedelta(hours=3)
        self.lease = Lease(self, SPAN, fence_after)

    def monotonic(self) -> timedelta:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += timedelta(seconds=seconds)

    def renew(self, holding: Holding = MINE, *, takes: float = 0) -> None:
        asked_at = self.passed
        self.sleep(takes)
        self.lease.renewed(holding, asked_at)

    def fail(self, *, takes: float = 0) -> None:
        asked_at = self.passed
        self.sleep(takes)
        self.lease.failed(asked_at)

    def fail_until_fenced(self, *, takes: float, within: float = 200) -> float:
        """Tries that fail, two seconds apart; for how long the store was silent when the fence fell."""
        while not self.lease.must_fence():
            assert self.lease.silence() < timedelta(seconds=within), "it never fell"
            self.sleep(2)
            self.fail(takes=takes)
        return self.lease.silence().total_seconds()


# ------------------------------------------------------------------------------------------ starting


def test_nothing_may_be_started_before_the_lease_was_ever_had() -> None:
    process = Process()
    assert not process.lease.is_fresh()
    assert process.lease.holding() is None
    process.renew()
    assert process.lease.is_fresh()
    assert process.lease.holding() == MINE


def test_containers_may_be_started_in_the_first_half_of_a_lease() -> None:
    process = Process()
    process.renew()
    process.sleep(4.999)
    assert process.lease.is_fresh()
    process.sleep(0.001)
    assert not process.lease.is_fresh()
    process.renew()
    assert process.lease.is_fresh()


def test_a_lease_counts_from_when_it_was_asked_for_not_from_the_answer() -> None:
    process = Process()
    process.renew(takes=5)
    assert not process.lease.is_fresh()


def test_who_waits_for_a_fresh_lease_is_let_go_by_the_renewal() -> None:
    process = Process()
    told: list[bool] = []
    waiting = threading.Thread(target=lambda: told.append(process.lease.wait_fresh(timedelta(seconds=20))))
    waiting.start()
    process.renew()
    waiting.join(20)
    assert told == [True]
    process.sleep(5)
    assert not process.lease.wait_fresh(timedelta(0))


# ------------------------------------------------------------------------------------------ steady


def test_it_is_steady_since_the_renewals_began() -> None:
    process = Process()
    assert process.lease.steady_for() == timedelta(0)
    process.renew()
    for _ in range(3):
        process.sleep(2)
        process.renew()
    assert process.lease.steady_for() == timedelta(seconds=6)


def test_it_is_not_steady_while_it_is_not_fresh() -> None:
    process = Process()
    process.renew()
    process.sleep(4.999)
    assert process.lease.steady_for() > timedelta(seconds=4)
    process.sleep(0.001)
    assert process.lease.steady_for() == timedelta(0)


def test_a_failure_a_new_epoch_and_a_break_begin_it_anew() -> None:
    def after(what: str) -> timedelta:
        process = Process()
        process.renew()
        process.sleep(2)
        match what:
            case "nothing":
                process.renew()
            case "a failure":
                process.fail()
                process.renew()
            case "a new epoch":
                process.renew(MINE_AGAIN)
            case _:
                # Whoever shares the machine did not run either.
                process.sleep(13.001)
                process.renew()
        process.sleep(1)
        return process.lease.steady_for()

    assert after("nothing") == timedelta(seconds=3)
    assert [after(what) for what in ("a failure", "a new epoch", "a break")] == [timedelta(seconds=1)] * 3


# ------------------------------------------------------------------------------------------ the fence


def test_the_fence_falls_when_the_store_was_silent_for_its_time_and_not_before() -> None:
    process = Process()
    process.renew()
    for _ in range(22):
        process.sleep(2)
        process.fail()
    assert process.lease.silence() == timedelta(seconds=44)
    assert not process.lease.must_fence()
    process.sleep(1)
    assert process.lease.must_fence()


def test_a_renewal_takes_the_fence_back() -> None:
    process = Process()
    process.renew()
    process.fail_until_fenced(takes=0)
    process.renew()
    assert not process.lease.must_fence()
    assert process.lease.silence() == timedelta(0)


def test_with_no_fence_time_it_never_falls() -> None:
    process = Process(fence_after=timedelta(0))
    process.renew()
    for _ in range(1_000):
        process.sleep(2)
        process.fail()
        assert not process.lease.must_fence()


def test_before_the_store_was_ever_heard_there_is_nothing_to_fence() -> None:
    process = Process()
    for _ in range(60):
        process.sleep(2)
        process.fail()
    assert not process.lease.must_fence()


@pytest.mark.parametrize("frozen", [50, 3_600])
@pytest.mark.parametrize("was_failing", [False, True])
def test_a_process_that_was_frozen_asks_the_store_before_its_fence_falls(
    frozen: float, was_failing: bool
) -> None:
    process = Process()
    process.renew()
    process.sleep(2)
    if was_failing:
        process.fail()
    process.sleep(frozen)
    assert not process.lease.must_fence(), "nobody was asked yet"
    # The first try may fail for the sleep itself: its connection is gone.
    process.fail()
    assert not process.lease.must_fence()
    process.sleep(2)
    process.fail()
    assert not process.lease.must_fence()
    process.sleep(2)
    process.fail()
    assert process.lease.must_fence(), "the store is away as well"


@pytest.mark.parametrize("takes", [0, 1, 12, 20, 60])
def test_the_fence_falls_however_long_each_try_takes(takes: float) -> None:
    """A name that nobody answers for is looked up for half a minute and more."""
    process = Process()
    process.renew()
    silent = process.fail_until_fenced(takes=takes)
    assert 45 <= silent <= max(45 + 2 + takes, 2 * (2 + takes))


@pytest.mark.parametrize("takes", [0, 2, 10, 12])
def test_what_an_agent_promises_holds_with_the_slowest_tries(takes: float) -> None:
    """Its containers had their grace before others may start them again (P2)."""
    grace = timedelta(seconds=10)
    process = Process()
    process.renew()
    silent = process.fail_until_fenced(takes=takes)
    ended = timedelta(seconds=silent) + grace
    assert ended <= SPAN + gone_after(SPAN, FENCE_AFTER, grace)


def test_who_has_no_fence_promises_nothing() -> None:
    assert gone_after(SPAN, timedelta(0), timedelta(seconds=10)) == timedelta(0)


def test_no_promise_is_negative() -> None:
    assert gone_after(timedelta(seconds=60), timedelta(seconds=1), timedelta(0)) == timedelta(0)
    assert gone_after(SPAN, FENCE_AFTER, timedelta(seconds=10)) == timedelta(seconds=60)
