"""Images that are looked up in the background, once for all, and how long what is known of them serves."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from titus_celery.adapters.registry_resolver import ANSWER_WITHIN
from titus_celery.core.descriptor import Image
from titus_celery.errors import AnswerPending, ImageMissing, Unavailable
from titus_celery.service.foresight import (
    AHEAD,
    ASKED_AGAIN,
    FAILURE_FRESH,
    FRESH,
    PATIENCE,
    RESTRAINT,
    Foresight,
)

APP = Image(name="registry.test/app:1")
OTHER = Image(name="registry.test/other:1")
NEAR = Image(name="app:1")
MOMENT = timedelta(milliseconds=1)


def where(image: Image) -> str:
    return "" if image == NEAR else "registry.test"


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
    #: How long somebody waits for an answer.
    takes: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.seen = Foresight(self, self, where, self.begin, self.wait)

    def begin(self, registry: str, call: Callable[[], None]) -> None:
        """Take a question."""
        assert registry == "registry.test"
        self.begun.append(call)

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
            self.now += self.takes
            self.answer()
        else:
            self.now += span
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


@pytest.mark.parametrize("error", [Unavailable("the registry", "no answer"), ImageMissing("app", "no")])
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


def test_a_fault_of_ours_is_told_as_the_registry_s_and_kept_from_who_needs_the_image(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk(is_answering=True)
    desk.before = failing(ZeroDivisionError("division by zero"))
    why = r"the registry registry\.test is unavailable: ZeroDivisionError: division by zero"
    with pytest.raises(Unavailable, match=why):
        desk.id()
    assert "Traceback" in caplog.text


def test_without_a_thread_for_it_a_question_fails_and_is_asked_again_later() -> None:
    desk = Desk(is_answering=True)

    def begin(registry: str, call: Callable[[], None]) -> None:
        if not desk.now:
            raise RuntimeError("can't start new thread")
        desk.begin(registry, call)

    seen = Foresight(desk, desk, where, begin, desk.wait)
    seen.foresee(APP)
    with pytest.raises(Unavailable, match="can't start new thread"):
        seen.resolve(APP)
    desk.now = FAILURE_FRESH
    assert seen.resolve(APP).id == "id-1"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("the registry", "it answers 503"), "it answers 503"),
        # That it was missing a while ago says nothing.
        (ImageMissing("app", "its registry does not have it"), "it has not answered yet"),
    ],
)
def test_while_it_is_asked_again_it_is_told_why_it_was_unavailable(error: Exception, told: str) -> None:
    desk = Desk(is_answering=True)
    desk.before = failing(error)
    with pytest.raises(type(error)):
        desk.id()
    desk.now, desk.is_answering = FAILURE_FRESH, False
    with pytest.raises(Unavailable, match=told):
        desk.id()
    assert len(desk.begun) == 1


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


@pytest.mark.parametrize("takes", [None, timedelta(milliseconds=100)])
def test_after_somebody_waited_nobody_waits_for_four_times_as_long(takes: timedelta | None) -> None:
    desk = Desk(is_answering=takes is not None, takes=takes or timedelta(0))
    if takes is None:
        with pytest.raises(AnswerPending, match=r"the registry of registry\.test/app:1 is unavailable"):
            desk.id()
    else:
        desk.id()
    waited, desk.is_answering = takes or PATIENCE, False
    desk.now += RESTRAINT * waited - MOMENT
    with pytest.raises(AnswerPending):
        desk.id(OTHER)
    assert desk.awaited == [PATIENCE]
    # What comes meanwhile is there for all.
    desk.answer()
    desk.id(OTHER)
    assert desk.awaited == [PATIENCE]
    desk.now += MOMENT
    desk.is_answering = True
    desk.id(Image(name="registry.test/third:1"))
    assert desk.awaited == [PATIENCE] * 2


def test_what_is_near_is_asked_for_each_time_and_never_ahead() -> None:
    desk = Desk()
    desk.seen.foresee(NEAR)
    assert desk.begun == []
    assert [desk.id(NEAR), desk.id(NEAR)] == ["id-1", "id-2"]
    assert desk.awaited == []


class Waited(Desk):
    """Its clock is read by who needs an answer when he begins to wait for it; answers come then."""

    begins: threading.Event

    def monotonic(self) -> timedelta:
        """Its own time."""
        if threading.current_thread() is threading.main_thread():
            self.begins.set()
        return self.now


def test_who_waits_hears_of_an_answer_that_comes_in_another_thread() -> None:
    desk = Waited()

    def answer_when_awaited() -> None:
        assert desk.begins.wait(20)

    def begin(registry: str, call: Callable[[], None]) -> None:
        desk.begins = threading.Event()
        threading.Thread(target=call, daemon=True).start()

    desk.before = answer_when_awaited
    seen = Foresight(desk, desk, where, begin)
    names = [f"registry.test/app-{number}:1" for number in range(50)]
    assert [seen.resolve(Image(name=name)).name for name in names] == names


def test_what_failed_is_asked_ahead_for_every_two_seconds_at_most() -> None:
    """Whether an older answer still serves or not."""
    desk = foreseen()
    desk.before = failing(Unavailable("the registry", "it answers 429"))
    desk.now = FRESH - AHEAD
    times = []
    while desk.now < FRESH + timedelta(seconds=5):
        desk.seen.foresee(APP)
        if desk.begun:
            times.append(desk.now)
            desk.answer()
        desk.now += timedelta(milliseconds=250)
    assert times == [FRESH - AHEAD + number * ASKED_AGAIN for number in range(5)]


def test_a_failure_that_is_told_often_does_not_grow() -> None:
    desk = Desk(is_answering=True)
    desk.before = failing(Unavailable("the registry", "no answer"))
    lengths = []
    for _ in range(3):
        with pytest.raises(Unavailable) as told:
            desk.id()
        lengths.append(len(told.traceback))
    assert lengths[0] == lengths[1] == lengths[2]


@pytest.mark.parametrize("is_well", [True, False])
def test_what_serves_nobody_any_more_is_forgotten(is_well: bool) -> None:
    desk = Desk()

    def answer() -> None:
        if not is_well:
            raise Unavailable("the registry", "no answer")

    desk.before = answer
    for number in range(100):
        desk.seen.foresee(Image(name=f"registry.test/app-{number}:1"))
        desk.asked.clear()
        desk.answer()
        desk.now += timedelta(seconds=1)
    gc.collect()
    assert sum(one.name.startswith("registry.test/app-") for one in images()) <= 2 * FRESH.total_seconds() + 2


def images() -> list[Image]:
    """All that there are in this process."""
    return [one for one in gc.get_objects() if isinstance(one, Image)]


def test_the_slowest_answer_of_a_registry_serves_who_asked_ahead() -> None:
    assert FRESH >= AHEAD + ANSWER_WITHIN
