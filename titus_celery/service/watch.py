"""One container being watched: its runtime limit, its output, and being ended from outside.

A run can be told to end for a reason before its container is up, while it runs, and twice; the
first reason stands, and the container is asked to stop as often as it takes.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Final

from titus_celery.core.model import TaskId
from titus_celery.core.reasons import Reason
from titus_celery.errors import EngineFault, TitusError, Unavailable
from titus_celery.ports import Executor, Outputs

__all__ = ["Watch"]

#: The longest wait that a thread accepts on every platform; longer limits are re-armed.
TIMER_MAX: Final = timedelta(days=20)
#: How long the end of a run waits for the last of its output.
FLUSH_PATIENCE: Final = timedelta(seconds=10)
#: Between two tries to copy output while the store or the engine is away.
OUTPUT_PAUSE: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


class Watch:
    """The threads around one run. Create, use, and `close` it in the thread that carries the run."""

    def __init__(self, id: TaskId, executor: Executor, outputs: Outputs, grace: timedelta) -> None:
        self._id = id
        self._executor = executor
        self._outputs = outputs
        self._grace = grace
        self._lock = threading.Lock()
        self._cause: Reason | None = None
        self._is_over = False
        self._stopper: threading.Thread | None = None
        self._timer: threading.Timer | None = None
        self._pump: threading.Thread | None = None
        self._has_ended = threading.Event()
        self._closed = threading.Event()

    @property
    def cause(self) -> Reason | None:
        """Why it was told to end, if it was."""
        return self._cause

    def end_for(self, reason: Reason) -> None:
        """Have the container stopped for *reason*; returns at once. Safe to repeat."""
        with self._lock:
            if self._is_over:
                return
            self._cause = self._cause or reason
            if self._closed.is_set() or (self._stopper and self._stopper.is_alive()):
                return
            self._stopper = threading.Thread(target=self._stop, name=f"stop {self._id}", daemon=True)
            self._stopper.start()

    def arm(self, left: timedelta, reason: Reason) -> None:
        """End it for *reason* once *left* has passed, by a clock that nobody can set."""
        span = max(timedelta(0), min(left, TIMER_MAX))
        rest = left - span
        timer = threading.Timer(span.total_seconds(), self._due, (rest, reason))
        timer.daemon = True
        with self._lock:
            if not self._closed.is_set():
                self._timer = timer
                timer.start()

    def follow_output(self) -> None:
        """Copy the container's output to the store from where that ends, in a thread."""
        self._pump = threading.Thread(target=self._copy, name=f"output {self._id}", daemon=True)
        self._pump.start()

    def flush_output(self) -> None:
        """Wait, within bounds, until the output of an ended container is stored."""
        self._has_ended.set()
        if self._pump is not None:
            self._pump.join(FLUSH_PATIENCE.total_seconds())
            if self._pump.is_alive():
                _log.warning("task %s: the last of its output was not stored in time", self._id)

    def over(self) -> Reason | None:
        """The container has ended: nothing that comes later is its cause. Why it was told to, if so."""
        with self._lock:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
            return self._cause

    def close(self) -> None:
        """Nothing is done for this run any more."""
        with self._lock:
            self._closed.set()
            self._has_ended.set()
            if self._timer is not None:
                self._timer.cancel()

    def _due(self, rest: timedelta, reason: Reason) -> None:
        if rest > timedelta(0):
            self.arm(rest, reason)
        else:
            self.end_for(reason)

    def _stop(self) -> None:
        try:
            self._executor.stop(self._id, self._grace)
        except EngineFault as error:
            # Whoever wanted it stopped asks again: the agent's poll, until it is gone.
            _log.warning("task %s: could not stop it yet: %s", self._id, error)

    def _copy(self) -> None:
        while not self._closed.is_set():
            is_last_try = self._has_ended.is_set()
            try:
                for chunk in self._executor.output(self._id, self._outputs.end(self._id)):
                    self._outputs.append(self._id, (chunk,))
                return
            except Unavailable as error:
                _log.warning("task %s: its output waits for the store: %s", self._id, error)
                self._closed.wait(OUTPUT_PAUSE.total_seconds())
            except EngineFault as error:
                _log.warning("task %s: its output cannot be read now: %s", self._id, error)
                if is_last_try:
                    return
                self._has_ended.wait(OUTPUT_PAUSE.total_seconds())
            except TitusError as error:
                _log.error("task %s: its output is not kept any more: %s", self._id, error)
                return
