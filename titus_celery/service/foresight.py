"""Looks images up before control needs them, so that a registry's time is nobody's.

A registry answers after a tenth of a second, or after ten if it hangs, and all clusters share one control. So
questions are asked in the background, of one image one at a time; an answer serves for a while whatever jobs
are made of it, and who needs one that is not there yet waits for a moment only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titus_celery.core.descriptor import Image
from titus_celery.errors import AnswerPending
from titus_celery.ports import Clock, ImageResolver

__all__ = ["AHEAD", "FAILURE_FRESH", "FRESH", "PATIENCE", "Foresight"]

#: How long before it is needed an image is looked up: longer than a slow registry takes.
AHEAD: Final = timedelta(seconds=5)
#: How old an answer may be when a job is made of it: AHEAD and the 10 s that a registry may take, so that
#: the slowest answer still serves who tries again for it.
FRESH: Final = timedelta(seconds=15)
#: How long a failure is everybody's: who asks at the same time hears of it, who tries again asks again.
FAILURE_FRESH: Final = timedelta(seconds=1)
#: How long control waits for an answer that is not there yet. A registry that is well takes less.
PATIENCE: Final = timedelta(milliseconds=500)
#: Whoever waited in vain was not alone: for so long, nobody waits any more. So a registry that hangs takes a
#: fifth of control's time at most, whatever there is to look up.
IMPATIENCE: Final = 4 * PATIENCE


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer, or a failure."""

    answer: Future[Image]
    #: From when it counts: an answer from when it was asked for, as it may be as old as that.
    since: timedelta

    def serves(self, now: timedelta, fresh: timedelta) -> bool:
        is_failure = self.answer.exception() is not None
        return now - self.since < (FAILURE_FRESH if is_failure else fresh)


def _await(answer: Future[Image], span: timedelta) -> None:
    wait([answer], span.total_seconds())


class Foresight:
    """The ImageResolver of control. Threads may share it."""

    def __init__(
        self,
        resolver: ImageResolver,
        clock: Clock,
        is_far: Callable[[Image], bool],
        begin: Callable[[Callable[[], None]], None],
        await_: Callable[[Future[Image], timedelta], None] = _await,
    ) -> None:
        """*resolver* is asked each time for images that are not far, since it answers at once; for the others
        in calls that *begin* makes elsewhere, which *await_* waits for, for so long at most."""
        self._resolver = resolver
        self._clock = clock
        self._is_far = is_far
        self._begin = begin
        self._await = await_
        self._lock = threading.Lock()
        self._asked: dict[Image, Future[Image]] = {}
        #: The oldest first.
        self._known: dict[Image, _Known] = {}
        self._impatient_until = timedelta(0)

    def foresee(self, image: Image) -> None:
        """See that it is known what *image* means when that is needed AHEAD of now. Returns at once."""
        if self._is_far(image):
            self._answer(image, FRESH - AHEAD)

    def resolve(self, image: Image) -> Image:
        """Both name and id of what *image* meant at most FRESH ago.

        ImageMissing and Unavailable as of who was asked; AnswerPending if that has not answered yet.
        """
        if not self._is_far(image):
            return self._resolver.resolve(image)
        answer = self._answer(image, FRESH)
        if not answer.done() and not self._waited(answer):
            raise AnswerPending(f"the registry of {image.id or image.name}")
        return answer.result()

    def _answer(self, image: Image, fresh: timedelta) -> Future[Image]:
        """What is known of it, or will be."""
        with self._lock:
            known = self._known.get(image)
            if known is not None and known.serves(self._clock.monotonic(), fresh):
                return known.answer
            if image in self._asked:
                return self._asked[image]
            answer = self._asked[image] = Future()
        self._begin(lambda: self._look_up(image, answer))
        return answer

    def _look_up(self, image: Image, answer: Future[Image]) -> None:
        since = self._clock.monotonic()
        try:
            answer.set_result(self._resolver.resolve(image))
        except BaseException as error:
            # Whatever it is, somebody waits for it.
            answer.set_exception(error)
            since = self._clock.monotonic()
        with self._lock:
            del self._asked[image]
            self._keep(image, _Known(answer, since))

    def _keep(self, image: Image, found: _Known) -> None:
        now = self._clock.monotonic()
        known = self._known.get(image)
        if known is None or not known.serves(now, FRESH) or found.answer.exception() is None:
            # Else it could not be renewed, and what is known still serves.
            self._known.pop(image, None)
            self._known[image] = found
        while self._known and now - self._known[oldest := next(iter(self._known))].since >= FRESH:
            del self._known[oldest]

    def _waited(self, answer: Future[Image]) -> bool:
        """Whether it came while it was waited for."""
        with self._lock:
            if self._clock.monotonic() < self._impatient_until:
                return False
        self._await(answer, PATIENCE)
        if not answer.done():
            with self._lock:
                self._impatient_until = self._clock.monotonic() + IMPATIENCE
        return answer.done()
