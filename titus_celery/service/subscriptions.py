"""Says of jobs that end without subscribers that they have some at this gateway (docs/semantics.md A15).

What is said holds for a span, and is said again as long as a stream is open: so who dies holds no job for
long. None of it keeps a stream waiting or makes it fail; all calls are made in one thread, in order, so that
the store hears last what was so last.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Final

from titus_celery.core.model import JobId
from titus_celery.errors import TitusError
from titus_celery.ports import Subscribers

__all__ = ["SPAN", "Subscriptions"]

#: How long a job is held by what is said once; it is said three times as often.
SPAN: Final = timedelta(seconds=15)

_log = logging.getLogger(__name__)


class Subscriptions:
    """The streams of one gateway that count as subscriptions. There is no thread before the first of them."""

    def __init__(self, subscribers: Subscribers, holder: str, span: timedelta = SPAN) -> None:
        """*holder*: who says it, a name that no other gateway has."""
        self._subscribers = subscribers
        self._holder = holder
        self._span = span
        self._open: Counter[JobId] = Counter()
        self._lock = threading.Lock()
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="titus-subscribe")
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None
        self._is_away = False

    def opened(self, job_id: JobId) -> Future[None]:
        """One stream more; done once that was said, or could not be."""
        with self._lock:
            self._open[job_id] += 1
            if self._renewer is None and not self._stop.is_set():
                self._renewer = threading.Thread(target=self._keep_on, name="titus-resubscribe", daemon=True)
                self._renewer.start()
        return self._soon([job_id])

    def closed(self, job_id: JobId) -> None:
        """One stream less; if it was the last, that is said soon."""
        with self._lock:
            self._open[job_id] -= 1
            is_last = not self._open[job_id]
            if is_last:
                del self._open[job_id]
        if is_last:
            self._soon([job_id])

    def renew(self) -> None:
        """Say it again of every job that is observed; returns when that is done."""
        with self._lock:
            open_ = list(self._open)
        self._soon(open_).result()

    def close(self) -> None:
        """Say what is still to be said, if the store answers, and nothing more."""
        self._stop.set()
        self._calls.shutdown()

    def _keep_on(self) -> None:
        while not self._stop.wait(self._span.total_seconds() / 3):
            self.renew()

    def _soon(self, ids: list[JobId]) -> Future[None]:
        with suppress(RuntimeError):
            return self._calls.submit(self._say, ids)
        closed: Future[None] = Future()
        closed.set_result(None)
        return closed

    def _say(self, ids: list[JobId]) -> None:
        for id in ids:
            if self._stop.is_set() and self._is_away:
                return
            with self._lock:
                span = self._span if id in self._open else timedelta(0)
            try:
                self._subscribers.hold(id, self._holder, span)
            except Exception as error:
                # A fault of ours ends neither a stream nor the thread.
                fault = None if isinstance(error, TitusError) else error
                if fault is not None or not self._is_away:
                    _log.warning("cannot say who observes job %s for now: %s", id, error, exc_info=fault)
                self._is_away = True
                return
            self._is_away = False
