"""Calls in threads of their own: how many at once, whose turn it is, and who waits for whom."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from titus_celery.adapters.background_calls import BackgroundCalls

#: How long (s) a test waits for another thread before it fails.
PATIENCE = 20.0


class Hall:
    """Where calls come to, and stay until they are let go."""

    def __init__(self, *, at_once: int, of_each: int) -> None:
        self.calls = BackgroundCalls("hall", at_once=at_once, of_each=of_each)
        self.changed = threading.Condition()
        self.here: Counter[str] = Counter()
        self.came: list[str] = []
        self.most = 0
        self._let_go: Counter[str] = Counter()

    def call(self, whose: str, times: int = 1) -> None:
        """Begin so many calls that come here."""
        for _ in range(times):
            self.calls.begin(whose, lambda: self._visit(whose))

    def _visit(self, whose: str) -> None:
        with self.changed:
            self.here[whose] += 1
            self.came.append(whose)
            self.most = max(self.most, self.here.total())
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self._let_go[whose] > 0, PATIENCE)
            self._let_go[whose] -= 1
            self.here[whose] -= 1
            self.changed.notify_all()

    def let_go(self, whose: str, times: int = 1) -> None:
        """So many of the calls may end."""
        with self.changed:
            self._let_go[whose] += times
            self.changed.notify_all()

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for it."""
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE), (self.here, self.came)


@contextmanager
def hall(*, at_once: int, of_each: int) -> Iterator[Hall]:
    made = Hall(at_once=at_once, of_each=of_each)
    before = set(threading.enumerate())
    yield made
    for whose in list(made.here):
        made.let_go(whose, 1_000)
    for thread in set(threading.enumerate()) - before:
        # Without calls there are no threads.
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_one_whose_calls_never_end_keeps_nobody_waiting() -> None:
    with hall(at_once=6, of_each=2) as here:
        here.call("hangs", 50)
        here.until(lambda: here.here["hangs"] == 2)
        here.call("well", 3)
        here.until(lambda: here.here["well"] == 2)
        here.let_go("well", 3)
        here.until(lambda: here.came.count("well") == 3)
        assert here.came.count("hangs") == 2


def test_calls_that_end_make_room_for_the_next_ones_until_all_were_made() -> None:
    with hall(at_once=6, of_each=2) as here:
        here.call("one", 20)
        here.let_go("one", 20)
        here.until(lambda: here.came.count("one") == 20)


def test_no_more_than_so_many_calls_are_made_at_once_whosever_they_are() -> None:
    with hall(at_once=3, of_each=2) as here:
        for name in ("one", "two", "three"):
            here.call(name, 4)
            here.let_go(name, 4)
        here.until(lambda: len(here.came) == 12)
        assert here.most <= 3
        here.call("one", 4)
        here.until(lambda: here.here["one"] == 2)
        here.call("two")
        here.until(lambda: here.here.total() == 3)
        here.call("three")
        here.let_go("two")
        here.until(lambda: here.here["three"] == 1)
        assert here.most == 3


def test_all_take_turns() -> None:
    with hall(at_once=1, of_each=1) as here:
        here.call("first")
        here.until(lambda: here.here["first"] == 1)
        here.call("one", 3)
        here.call("two", 2)
        for whose in ("first", "one", "two"):
            here.let_go(whose, 3)
        here.until(lambda: len(here.came) == 6)
        assert here.came == ["first", "one", "two", "one", "two", "one"]


def test_a_call_for_which_there_is_no_thread_is_refused_and_changes_nothing() -> None:
    calls = BackgroundCalls("hall", at_once=2, of_each=2)
    made: list[str] = []
    before = threading.stack_size(1 << 46)
    try:
        for _ in range(5):
            with pytest.raises(RuntimeError):
                calls.begin("one", lambda: made.append("refused"))
    finally:
        threading.stack_size(before)
    is_over = threading.Event()
    calls.begin("one", lambda: made.append("taken"))
    calls.begin("one", is_over.set)
    assert is_over.wait(PATIENCE)
    assert "refused" not in made


def test_calls_are_made_again_after_there_were_none() -> None:
    with hall(at_once=2, of_each=2) as here:
        for number in range(1, 4):
            here.call("one")
            here.let_go("one")
            here.until(lambda count=number: here.came.count("one") == count and not here.here["one"])  # type: ignore[misc]
