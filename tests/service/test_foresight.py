"""Images that are looked up in the background, once for all, and how long what is known of them serves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from titus_celery.core.descriptor import Image
from titus_celery.errors import AnswerPending, ImageMissing, Unavailable
from titus_celery.service.foresight import AHEAD, FAILURE_FRESH, FRESH, IMPATIENCE, PATIENCE, Foresight

APP = Image(name="registry.test/app:1")
OTHER = Image(name="registry.test/other:1")
NEAR = Image(name="app:1")
MOMENT = timedelta(milliseconds=1)


@dataclass
class Desk:
    """A registry with a hand on it: time, what it answers, and when."""

    now: timedelta = timedelta(0)
    #: What each question is answered with, counted up.
    asked: list[Image] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    begun: list[Callable[[], None]] = field(default_factory=list)
    awaited: list[timedelta] = field(default_factory=list)
    is_answering: bool = False

    def __post_init__(self) -> None:
        self.seen = Foresight(self, self, lambda image: image != NEAR, self.begun.append, self.wait)

    def monotonic(self) -> timedelta:
        """Its own time."""
        return self.now

    def resolve(self, image: Image) -> Image:
        """Another id each time."""
        self.asked.append(image)
        self.before()
        return Image(name=image.name, id=f"id-{len(self.asked)}")

    def wait(self, answer: Future[Image], span: timedelta) -> None:
        """Answer while somebody waits, or don't."""
        self.awaited.append(span)
        if self.is_answering:
            self.answer()
        assert answer.done() == self.is_answering

    def answer(self) -> None:
        """What was begun comes to its end."""
        begun, self.begun[:] = list(self.begun), []
        for call in begun:
            call()

    def id(self, image: Image = APP) -> str:
        """What is known of the image now."""
        return self.seen.resolve(image).id


def foreseen() -> Desk:
    desk = Desk()
    desk.seen.foresee(APP)
    desk.answer()
    return desk


def test_what_was_foreseen_is_there_at_once() -> None:
    desk = foreseen()
    assert desk.id() == "id-1"
    assert desk.awaited == []


def test_nobody_is_kept_waiting_by_looking_ahead() -> None:
    desk = Desk()
    desk.seen.foresee(APP)
    assert desk.asked == desk.awaited == []
    assert len(desk.begun) == 1


def test_an_image_is_asked_for_once_however_many_need_it() -> None:
    desk = Desk()
    for _ in range(3):
        desk.seen.foresee(APP)
        with pytest.raises(AnswerPending):
            desk.id()
    desk.seen.foresee(OTHER)
    desk.answer()
    assert desk.asked == [APP, OTHER]
    assert [desk.id(), desk.id(), desk.id(OTHER)] == ["id-1", "id-1", "id-2"]


@pytest.mark.parametrize(("age", "id"), [(FRESH - MOMENT, "id-1"), (FRESH, "id-2")])
def test_an_answer_serves_for_fifteen_seconds_from_when_it_was_asked_for(age: timedelta, id: str) -> None:
    desk = Desk(is_answering=True)

    def takes_long() -> None:
        desk.now += timedelta(seconds=3)

    desk.before = takes_long
    desk.id()
    desk.now = age
    assert desk.id() == id


@pytest.mark.parametrize(("age", "asked"), [(FRESH - AHEAD - MOMENT, 1), (FRESH - AHEAD, 2)])
def test_looking_ahead_renews_what_would_be_too_old_by_then(age: timedelta, asked: int) -> None:
    desk = foreseen()
    desk.now = age
    desk.seen.foresee(APP)
    # Until it is renewed, the old one serves.
    assert desk.id() == "id-1"
    desk.answer()
    assert len(desk.asked) == asked
    assert desk.id() == f"id-{asked}"


def test_what_cannot_be_renewed_serves_on_as_long_as_it_may() -> None:
    desk = foreseen()
    desk.before = failing(Unavailable("the registry", "no answer"))
    desk.now = FRESH - AHEAD
    desk.seen.foresee(APP)
    desk.answer()
    assert len(desk.asked) == 2
    assert desk.id() == "id-1"
    desk.now = FRESH
    desk.is_answering = True
    with pytest.raises(Unavailable, match="no answer"):
        desk.id()


@pytest.mark.parametrize(
    "error", [Unavailable("the registry", "no answer"), ImageMissing("app", "no"), ZeroDivisionError("bug")]
)
def test_a_failure_is_told_to_all_who_ask_at_that_time_and_to_nobody_later(error: Exception) -> None:
    desk = Desk(is_answering=True)
    desk.before = failing(error)
    for _ in range(3):
        with pytest.raises(type(error), match=str(error)):
            desk.id()
    desk.now = FAILURE_FRESH - MOMENT
    with pytest.raises(type(error)):
        desk.id()
    assert len(desk.asked) == 1
    desk.before = lambda: None
    desk.now = FAILURE_FRESH
    assert desk.id() == "id-2"


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_failure_counts_from_when_it_came() -> None:
    desk = Desk(is_answering=True)

    def hang() -> None:
        desk.now += timedelta(seconds=10)
        raise Unavailable("the registry", "it did not answer within 10 s")

    desk.before = hang
    for _ in range(2):
        with pytest.raises(Unavailable, match="within 10 s"):
            desk.id()
    assert len(desk.asked) == 1


def test_who_needs_an_answer_waits_for_it_for_a_moment() -> None:
    desk = Desk(is_answering=True)
    assert desk.id() == "id-1"
    assert desk.awaited == [PATIENCE]


def test_after_somebody_waited_in_vain_nobody_waits_for_a_while() -> None:
    desk = Desk()
    with pytest.raises(AnswerPending, match=r"the registry of registry\.test/app:1 is unavailable"):
        desk.id()
    for image in (APP, OTHER):
        with pytest.raises(AnswerPending):
            desk.id(image)
    assert desk.awaited == [PATIENCE]
    # What comes meanwhile is there for all.
    desk.answer()
    assert [desk.id(APP), desk.id(OTHER)] == ["id-1", "id-2"]
    desk.now = FRESH + IMPATIENCE
    desk.is_answering = True
    desk.id()
    assert desk.awaited == [PATIENCE] * 2


def test_what_is_near_is_asked_for_each_time_and_never_ahead() -> None:
    desk = Desk()
    desk.seen.foresee(NEAR)
    assert desk.begun == []
    assert [desk.id(NEAR), desk.id(NEAR)] == ["id-1", "id-2"]
    assert desk.awaited == []


def test_an_answer_that_comes_in_another_thread_wakes_who_waits_for_it() -> None:
    is_asked = threading.Event()
    desk = Desk()

    def when_asked() -> None:
        assert is_asked.wait(20)

    desk.before = when_asked

    def begin(call: Callable[[], None]) -> None:
        threading.Thread(target=call, daemon=True).start()
        is_asked.set()

    seen = Foresight(desk, desk, lambda image: True, begin)
    assert seen.resolve(APP).id == "id-1"
