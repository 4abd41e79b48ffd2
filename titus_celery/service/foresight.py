"""Looks images up before control needs them, so that a registry's time is nobody's.

A registry answers after a tenth of a second, or after ten if it hangs, and all clusters share one control. So
questions are asked in the background, of one image one at a time; an answer serves for a while whatever jobs
are made of it, and who needs one that is not there yet waits for a moment only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from titus_celery.core.descriptor import Image
from titus_celery.errors import AnswerPending, TitusError, Unavailable
from titus_celery.ports import Clock, ImageResolver

__all__ = ["AHEAD", "ASKED_AGAIN", "FAILURE_FRESH", "FRESH", "PATIENCE", "RESTRAINT", "Begin", "Foresight"]

#: How long before it is needed an image is looked up: longer than a slow registry takes.
AHEAD: Final = timedelta(seconds=5)
#: How old an answer may be when a job is made of it: AHEAD and the 10 s that a registry may take, so that
#: the slowest answer still serves who tries again for it.
FRESH: Final = timedelta(seconds=15)
#: How long a failure is everybody's: also theirs who heard, after PATIENCE, that there is no answer yet and
#: come again 2 s later, as control does. Who heard of the failure then and comes again has it asked anew.
FAILURE_FRESH: Final = timedelta(seconds=3)
#: Until what failed is looked up ahead once more: a registry that has too much to do gets no more of it.
ASKED_AGAIN: Final = timedelta(seconds=2)
#: How long control waits for an answer that is not there yet. A registry that is well takes less.
PATIENCE: Final = timedelta(milliseconds=500)
#: For so many times as long as somebody waited nobody waits then: whatever there is to look up, and however
#: long that takes, control spends a fifth of its time on waiting at most.
RESTRAINT: Final = 4

_log = logging.getLogger(__name__)

#: What makes a call elsewhere, of those that concern this registry.
Begin = Callable[[str, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer, or a failure."""

    answer: Future[Image]
    #: From when it counts: an answer from when it was asked for, as it may be as old as that.
    since: timedelta
    #: When it, or the failure to renew it, came.
    tried: timedelta

    @property
    def is_failure(self) -> bool:
        return self.answer.exception() is not None

    def serves(self, now: timedelta) -> bool:
        return now - self.since < (FAILURE_FRESH if self.is_failure else FRESH)

    def will_serve(self, now: timedelta) -> bool:
        """Whether it serves who needs it AHEAD of now, or nothing better can be had before."""
        if now - self.tried < ASKED_AGAIN:
            return True
        return not self.is_failure and now - self.since < FRESH - AHEAD


def _await(answer: Future[Image], span: timedelta) -> None:
    wait([answer], span.total_seconds())


class Foresight:
    """The ImageResolver of control. Threads may share it."""

    def __init__(
        self,
        resolver: ImageResolver,
        clock: Clock,
        registry_of: Callable[[Image], str],
        begin: Begin,
        await_: Callable[[Future[Image], timedelta], None] = _await,
    ) -> None:
        """*resolver* is asked for an image when that is needed if *registry_of* it is empty, since then it
        answers at once; if not, in a call that *begin* makes elsewhere. *await_* waits for that."""
        self._resolver = resolver
        self._clock = clock
        self._registry_of = registry_of
        self._begin = begin
        self._await = await_
        self._lock = threading.Lock()
        self._asked: dict[Image, Future[Image]] = {}
        #: Those that came first, first.
        self._known: dict[Image, _Known] = {}
        self._nobody_waits_until = timedelta(0)

    def foresee(self, image: Image) -> None:
        """See that it is known what *image* means when that is needed AHEAD of now. Returns at once."""
        if registry := self._registry_of(image):
            self._answer(image, registry, _Known.will_serve)

    def resolve(self, image: Image) -> Image:
        """Both name and id of what *image* meant at most FRESH ago.

        ImageMissing and Unavailable as of who was asked. If that has not answered yet: Unavailable as it was
        last time, or AnswerPending.
        """
        if not (registry := self._registry_of(image)):
            return self._resolver.resolve(image)
        answer = self._answer(image, registry, _Known.serves)
        if not answer.done() and not self._waited(answer):
            last = self._last_failure(image)
            if isinstance(last, Unavailable):
                raise last.with_traceback(None)
            raise AnswerPending(f"the registry of {image.id or image.name}")
        if (error := answer.exception()) is not None:
            # As it was when it came: each who raises it would leave his trace on it.
            raise error.with_traceback(None)
        return answer.result()

    def _answer(
        self, image: Image, registry: str, is_good: Callable[[_Known, timedelta], bool]
    ) -> Future[Image]:
        """What is known of it, or will be."""
        with self._lock:
            known = self._known.get(image)
            if known is not None and is_good(known, self._clock.monotonic()):
                return known.answer
            if image in self._asked:
                return self._asked[image]
            answer = self._asked[image] = Future()
        try:
            self._begin(registry, lambda: self._look_up(image, registry, answer))
        except RuntimeError as error:
            # There is no thread to be had.
            answer.set_exception(Unavailable(f"the registry {registry}", str(error)))
            self._over(image, answer, self._clock.monotonic())
        return answer

    def _look_up(self, image: Image, registry: str, answer: Future[Image]) -> None:
        asked = self._clock.monotonic()
        try:
            answer.set_result(self._resolver.resolve(image))
        except TitusError as error:
            answer.set_exception(error)
        except Exception as error:
            # A fault of ours is none of the other clusters'.
            _log.exception("looking up %s failed", image)
            answer.set_exception(Unavailable(f"the registry {registry}", f"{type(error).__name__}: {error}"))
        self._over(image, answer, asked)

    def _over(self, image: Image, answer: Future[Image], asked: timedelta) -> None:
        with self._lock:
            now = self._clock.monotonic()
            del self._asked[image]
            since = asked if answer.exception() is None else now
            self._keep(image, _Known(answer, since, now), now)
            self._forget(now)

    def _keep(self, image: Image, found: _Known, now: timedelta) -> None:
        known = self._known.get(image)
        if found.is_failure and known is not None and not known.is_failure and known.serves(now):
            # It could not be renewed, and serves on.
            self._known[image] = replace(known, tried=now)
            return
        self._known.pop(image, None)
        self._known[image] = found

    def _last_failure(self, image: Image) -> BaseException | None:
        with self._lock:
            known = self._known.get(image)
            return None if known is None else known.answer.exception()

    def _forget(self, now: timedelta) -> None:
        for image, known in list(self._known.items()):
            if now - known.tried < FRESH:
                break
            del self._known[image]

    def _waited(self, answer: Future[Image]) -> bool:
        """Whether it came while it was waited for."""
        began = self._clock.monotonic()
        if began < self._nobody_waits_until:
            return False
        self._await(answer, PATIENCE)
        ended = self._clock.monotonic()
        self._nobody_waits_until = ended + RESTRAINT * (ended - began)
        return answer.done()
