"""How long things really took, by a store's clock that is set, and a store that comes and goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import START, at
from titus_celery.service.steady import JUMPS_KEPT, Jump, News, Steady

HOURS_2: Final = 7_200.0


@dataclass
class Timeline:
    """A store, a process that looks at it, and what really passed."""

    steady: Steady = field(default_factory=Steady)
    #: Seconds that really passed, and what the store's clock shows beyond that.
    passed: float = 0
    ahead: float = 0
    epoch: str = "a"

    def __post_init__(self) -> None:
        self.look()

    @property
    def now(self) -> datetime:
        return at(self.passed + self.ahead)

    @property
    def own(self) -> timedelta:
        return timedelta(seconds=self.passed)

    def look(self) -> News:
        return self.steady.saw(self.now, self.own, self.epoch)

    def go_on(self, seconds: float) -> None:
        """Let time pass, and look every second."""
        end = self.passed + seconds
        while self.passed < end:
            self.passed = min(self.passed + 1, end)
            self.look()

    def jump(self, seconds: float) -> None:
        """Set the store's clock, and look at once."""
        self.ahead += seconds
        self.look()

    def elapsed(self, began: datetime) -> float:
        return self.steady.elapsed(began, self.now).total_seconds()

    def since(self) -> datetime:
        return self.steady.since(self.now)


# ------------------------------------------------------------------------------------------ since


def test_the_store_is_steady_from_the_first_look_on() -> None:
    time = Timeline()
    time.go_on(100)
    assert time.since() == START


@pytest.mark.parametrize(("gap", "since"), [(5, 0), (5.001, 15.001)])
def test_a_gap_between_two_looks_begins_it_anew(gap: float, since: float) -> None:
    time = Timeline()
    time.go_on(10)
    time.passed += gap
    time.look()
    time.go_on(10)
    assert time.since() == at(since)


@pytest.mark.parametrize(("jump", "since"), [(5, 0), (5.001, 15.001), (-5, 0), (-5.001, 4.999)])
def test_a_jump_of_the_clock_begins_it_anew(jump: float, since: float) -> None:
    time = Timeline()
    time.go_on(10)
    time.jump(jump)
    assert time.since() == at(since)


def test_another_life_of_the_store_begins_it_anew() -> None:
    time = Timeline()
    time.go_on(10)
    time.epoch = "b"
    assert time.look() == News(has_new_epoch=True)
    assert time.since() == at(10)
    assert time.look() == News()


def test_the_first_look_and_each_jump_are_news() -> None:
    steady = Steady()
    assert steady.saw(at(0), timedelta(0), "a") == News(has_new_epoch=True)
    assert steady.saw(at(1), timedelta(seconds=1), "a") == News()
    set_back = Jump(seen=at(1), left=at(2), by=timedelta(seconds=-HOURS_2))
    assert steady.saw(at(2 - HOURS_2), timedelta(seconds=2), "a") == News(jump=set_back)
    assert steady.saw(at(3 - HOURS_2), timedelta(seconds=3), "a") == News()


def test_what_is_told_late_by_another_thread_is_no_news() -> None:
    time = Timeline()
    time.go_on(10)
    assert time.steady.saw(at(3), timedelta(seconds=9), "a") == News()
    time.go_on(1)
    assert time.since() == START


# ------------------------------------------------------------------------------------------ sure


def test_a_time_is_sure_if_it_fits_what_was_last_seen() -> None:
    time = Timeline()
    sure = [
        time.steady.is_sure_of(at(store), timedelta(seconds=own))
        for store, own in ((0, 0), (5, 5), (10, 5), (-1, 4), (5.001, 0), (5.001, 5.001), (-3, 3))
    ]
    assert sure == [True, True, True, True, False, False, False]
    assert not Steady().is_sure_of(at(0), timedelta(0))


# ------------------------------------------------------------------------------------------ elapsed


def test_without_a_jump_the_store_is_believed() -> None:
    time = Timeline()
    time.go_on(10)
    # Also of what began before we looked.
    assert [time.elapsed(at(began)) for began in (-100, 0, 4, 10, 11)] == [110, 10, 6, 0, 0]


def test_a_forward_jump_is_taken_out_of_what_began_before_it() -> None:
    time = Timeline()
    time.go_on(10)
    time.jump(HOURS_2)
    time.go_on(10)
    assert time.elapsed(at(4)) == 16
    assert time.elapsed(at(10 + HOURS_2 + 3)) == 7


def test_a_backward_jump_is_added_to_what_began_before_it() -> None:
    time = Timeline()
    time.go_on(10)
    time.jump(-HOURS_2)
    time.go_on(10)
    assert time.elapsed(at(4)) == 16
    assert time.elapsed(at(10 - HOURS_2 + 3)) == 7


def test_an_hour_that_the_clock_showed_twice_is_taken_for_the_second() -> None:
    time = Timeline()
    time.go_on(100)
    time.jump(-60)
    time.go_on(30)
    # 50 is 80 s ago by the old clock, or 20 by the new one.
    assert time.elapsed(at(50)) == 20
    # 90 has not come yet by the new one.
    assert time.elapsed(at(90)) == 40


def test_jumps_add_up() -> None:
    time = Timeline()
    for jump in (HOURS_2, -HOURS_2 / 2, HOURS_2):
        time.go_on(10)
        time.jump(jump)
    assert time.elapsed(at(4)) == 26


def test_what_waited_counts_only_while_the_store_was_there() -> None:
    time = Timeline()
    time.go_on(10)
    time.passed += 30
    time.look()
    time.go_on(7)
    waited = [time.steady.waited(at(began), time.now).total_seconds() for began in (0, 10, 44, 50)]
    assert waited == [7, 7, 3, 0]


def test_a_clock_that_is_set_again_and_again_costs_bounded_memory() -> None:
    time = Timeline()
    for _ in range(JUMPS_KEPT + 20):
        time.go_on(1)
        time.jump(10)
    assert len(time.steady._jumps) == JUMPS_KEPT


_EVENTS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("go on"), st.integers(1, 30)),
        st.tuples(st.just("jump"), st.integers(-100, 100).filter(lambda by: abs(by) > 5)),
        st.tuples(st.just("out"), st.integers(1, 60)),
        st.tuples(st.just("note"), st.just(0)),
    ),
    max_size=25,
)


@given(_EVENTS)
def test_nothing_ever_took_longer_than_it_really_did(events: list[tuple[str, int]]) -> None:
    """Whatever the clock was set to, and for whatever was noted at any time."""
    time = Timeline()
    noted = [(time.now, time.passed)]
    for what, count in events:
        match what:
            case "go on":
                time.go_on(count)
            case "jump":
                # Noted by the new clock before anybody looked at it.
                time.ahead += count
                noted.append((time.now, time.passed))
                time.look()
            case "out":
                time.passed += count
                time.look()
            case _:
                noted.append((time.now, time.passed))
        for began, passed in noted:
            assert time.elapsed(began) <= time.passed - passed + 1e-6
            waited = time.steady.waited(began, time.now).total_seconds()
            assert waited <= time.elapsed(began)


@given(st.integers(-100, 100), st.integers(0, 20), st.integers(0, 20))
def test_what_a_single_jump_leaves_unambiguous_is_exact(by: int, before: int, after: int) -> None:
    time = Timeline()
    time.go_on(before)
    time.jump(by)
    time.go_on(after)
    if abs(by) > 5 and (by > 0 or before + by + after < 0):
        assert time.elapsed(START) == before + after
