"""One reader of the change log, many observers.

Each observer gets what the log says from before it read its snapshot on (docs/semantics.md B5).
When the log cannot be followed any more, every observer is told so: a gap is never silent (P6).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Protocol, Self

from titus_celery.core.decision import Notification
from titus_celery.errors import StoreUnavailable, TitusError, Unavailable
from titus_celery.ports import ChangeLog

__all__ = ["Feed", "Listener", "Subscription"]

#: Waited at once for news: how long a feed takes to close at most.
BLOCK: Final = timedelta(seconds=1)
#: Entries read at once: the creation of the largest job is about two reads.
BATCH_MAX: Final = 500
#: Between tries to follow the log again: soon enough to go unnoticed, slow enough not to press a
#: store that is coming up.
RETRY_AFTER: Final = timedelta(seconds=1)
#: How long a new observer waits for the log to be followed: several tries.
READY_WITHIN: Final = timedelta(seconds=5)

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears the feed. Both are called from the feed's thread and must return at once."""

    def hear(self, notifications: Sequence[Notification]) -> None:
        """What was committed, in order."""

    def fail(self, error: Exception) -> None:
        """Nothing follows, because of *error*."""


class Subscription:
    """One listener's place with the feed, until it is closed or failed."""

    def __init__(self, feed: Feed, listener: Listener) -> None:
        self._feed = feed
        self.listener = listener
        self.error: Exception | None = None

    def ready(self) -> None:
        """Return once every later commit will be heard: only then read a snapshot.

        Blocks for at most READY_WITHIN; StoreUnavailable if the log could not be followed till then.
        """
        self._feed.wait_for(self)

    def close(self) -> None:
        """Hear nothing more, but for what is being handed over at this moment."""
        self._feed.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Feed:
    """Follows the change log in a thread of its own, from `start` to `close`."""

    def __init__(
        self,
        log: ChangeLog,
        *,
        block: timedelta = BLOCK,
        retry_after: timedelta = RETRY_AFTER,
        ready_within: timedelta = READY_WITHIN,
    ) -> None:
        self._log = log
        self._block = block
        self._retry_after = retry_after
        self._ready_within = ready_within
        self._changed = threading.Condition()
        self._subscriptions: set[Subscription] = set()
        self._is_following = False
        self._is_closed = False
        #: What the reader said last of why it cannot follow; it says it once.
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="titus-feed", daemon=True)

    def start(self) -> None:
        """Begin to follow; once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following and fail whoever listens; returns within about BLOCK."""
        with self._changed:
            self._is_closed = True
        self._stop.set()
        self._fail(_closed())
        if self._thread.is_alive():
            self._thread.join()

    def subscribe(self, listener: Listener) -> Subscription:
        """Let *listener* hear what is committed from now on, once `Subscription.ready` returns.

        Does not block. Unavailable when the feed is closed.
        """
        with self._changed:
            if self._is_closed:
                raise _closed()
            subscription = Subscription(self, listener)
            self._subscriptions.add(subscription)
            return subscription

    @property
    def listeners(self) -> int:
        """How many listen now."""
        with self._changed:
            return len(self._subscriptions)

    def wait_for(self, subscription: Subscription) -> None:
        """See `Subscription.ready`."""
        with self._changed:
            within = self._ready_within.total_seconds()
            self._changed.wait_for(lambda: self._is_following or subscription.error is not None, within)
            if subscription.error is not None:
                raise subscription.error
            if not self._is_following:
                raise StoreUnavailable(f"its change log could not be followed within {within:g} s")

    def leave(self, subscription: Subscription) -> None:
        """See `Subscription.close`."""
        with self._changed:
            self._subscriptions.discard(subscription)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except TitusError as error:
                self._complain(str(error))
                self._fail(error)
            except Exception as error:
                # A fault of ours. Observers raise it, where it counts as one; without this thread
                # they would wait for ever.
                _log.exception("the change log's reader failed")
                self._fail(error)
            self._stop.wait(self._retry_after.total_seconds())

    def _follow(self) -> None:
        position = self._log.end()
        with self._changed:
            self._is_following = True
            self._changed.notify_all()
        if self._complaint:
            _log.info("the change log is followed again")
            self._complaint = ""
        while not self._stop.is_set():
            entries = self._log.read(position, BATCH_MAX, self._block)
            if entries:
                position = entries[-1][0]
                self._tell([notification for _, notification in entries])

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            _log.warning("the change log cannot be followed for now: %s", why)
        self._complaint = why

    def _tell(self, notifications: Sequence[Notification]) -> None:
        with self._changed:
            subscriptions = tuple(self._subscriptions)
        # Outside the lock. Who subscribes meanwhile misses these, and finds them in its snapshot.
        for subscription in subscriptions:
            subscription.listener.hear(notifications)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._is_following = False
            failed, self._subscriptions = self._subscriptions, set()
            for subscription in failed:
                subscription.error = error
            self._changed.notify_all()
        for subscription in failed:
            subscription.listener.fail(error)


def _closed() -> Unavailable:
    return Unavailable("this gateway", "it is being stopped; connect again")
