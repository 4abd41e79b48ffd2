"""The watchdog tells a worker that is deaf from one that has other reasons for hearing nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.service.watchdog import Watchdog
from titus_celery.settings import Settings

DEAF_AFTER: Final = Settings().deaf_after
#: Seconds between two messages of a worker to itself.
PERIOD: Final = 2
#: The longest that Celery waits between two attempts to reach a broker that was away (kombu's default).
RECONNECT_MAX: Final = timedelta(seconds=30)


class Worker:
    """A worker that has a watchdog, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = timedelta(0)
        self.watchdog = Watchdog(self, DEAF_AFTER)

    def monotonic(self) -> timedelta:
        """The time: the worker is its own Clock."""
        return self.now

    def talk(self, seconds: float, *, hears: bool = False, is_full: bool = False) -> timedelta | None:
        """Send itself messages for so long; for how long it was deaf when that was first found, if it was."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now += timedelta(seconds=PERIOD)
            if (deaf := self.watchdog.sent(is_full=is_full)) is not None:
                return deaf
            if hears:
                self.watchdog.heard()
        return None

    def pause(self, seconds: float) -> None:
        """Let time pass in which nothing is sent, or nothing that the broker takes."""
        self.now += timedelta(seconds=seconds)


def test_a_worker_that_hears_itself_is_never_deaf() -> None:
    assert Worker().talk(3_600, hears=True) is None


def test_a_worker_is_deaf_once_it_has_heard_nothing_for_so_long_and_not_before() -> None:
    worker = Worker()
    worker.talk(60, hears=True)
    since = worker.now + timedelta(seconds=PERIOD)
    assert worker.talk(3_600) == worker.now - since
    assert timedelta(0) <= worker.now - since - DEAF_AFTER < timedelta(seconds=PERIOD)


def test_a_worker_that_never_heard_anything_is_deaf_too() -> None:
    assert Worker().talk(3_600) is not None


def test_one_message_heard_starts_the_count_anew() -> None:
    worker = Worker()
    for _ in range(10):
        assert worker.talk(DEAF_AFTER.total_seconds()) is None
        worker.watchdog.heard()


def test_a_message_heard_before_its_sender_knows_that_it_was_sent_is_heard() -> None:
    """The consumer is another thread: it may be quicker than the one that sends."""
    worker = Worker()
    for _ in range(100):
        worker.now += timedelta(seconds=PERIOD)
        worker.watchdog.heard()
        assert worker.watchdog.sent() is None


@pytest.mark.parametrize("pause", [25, 60, 3_600], ids=lambda pause: f"{pause} s")
def test_an_outage_of_the_broker_or_a_frozen_process_starts_the_count_anew(pause: float) -> None:
    worker = Worker()
    assert worker.talk(40) is None
    worker.pause(pause)
    # All that Celery may need to come back to the broker.
    assert worker.talk(RECONNECT_MAX.total_seconds()) is None
    assert worker.talk(60) is not None


@given(outage=st.floats(0, 600))
def test_no_outage_makes_a_worker_deaf_that_reconnects_as_late_as_celery_may(outage: float) -> None:
    """Its waits are 2, 4, 6 ... s and 30 s at most; it listens after the first attempt that succeeds."""
    worker = Worker()
    worker.talk(20, hears=True)
    worker.talk(PERIOD)
    attempt, wait = 2.0, 4.0
    while attempt < outage:
        attempt, wait = attempt + wait, min(wait + 2, RECONNECT_MAX.total_seconds())
    worker.pause(outage)
    assert worker.talk(attempt - outage) is None


def test_two_messages_with_a_pause_between_them_are_not_enough() -> None:
    """However long the pause is: a single late message may be on its way."""
    worker = Worker()
    worker.talk(PERIOD)
    worker.pause(DEAF_AFTER.total_seconds())
    assert worker.watchdog.sent() is None


def test_a_worker_without_a_free_thread_is_not_deaf_and_is_watched_again_once_it_has_one() -> None:
    worker = Worker()
    assert worker.talk(3_600, is_full=True) is None
    assert worker.talk(DEAF_AFTER.total_seconds() - PERIOD) is None
    assert worker.talk(60) is not None


def test_a_worker_of_its_own_patience_is_deaf_after_that() -> None:
    worker = Worker()
    worker.watchdog = Watchdog(worker, timedelta(seconds=8))
    assert worker.talk(3_600) == timedelta(seconds=8)
