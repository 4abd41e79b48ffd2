"""Streams that outlive the server: when it goes away they are opened again, and say so.

How long to wait and when to give up is decided in `Outage`, which knows the time only as an
argument; `resumed` is the loop around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import grpc

from titus_celery.client.failure import CallFailed, describe

__all__ = [
    "BROKEN",
    "Disconnected",
    "OpenStream",
    "Outage",
    "Pause",
    "Reconnected",
    "delay_after",
    "resumed",
]

#: Statuses with which a stream ends that may simply be opened again. The server closes one whose
#: reader is too slow with RESOURCE_EXHAUSTED, one that it can no longer continue with OUT_OF_RANGE,
#: and those it had when it shuts down with CANCELLED.
BROKEN: Final = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "CANCELLED"})

#: The server is there, and has no room for this stream.
BUSY: Final = "RESOURCE_EXHAUSTED"
#: Wait before a server that had no room is asked again.
BUSY_DELAY: Final = timedelta(milliseconds=750)

#: Wait before the first new attempt; each further one doubles it.
DELAY_FIRST: Final = timedelta(milliseconds=100)
#: The longest wait between two attempts: a server that is back is noticed within it.
DELAY_MAX: Final = timedelta(seconds=1)
#: 2**8 times the first delay is far past the longest.
_DOUBLINGS_MAX: Final = 8
#: A stream that stays open this long is connected even if it had nothing to say; it is longer than
#: the connecting of one attempt may take.
SETTLED_AFTER: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The server is away, or has no room for the stream; said once per outage, and tried again."""

    why: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The server answers again.

    *resumed*: what follows goes on where it broke off, and nothing was missed. If not, a snapshot
    follows that stands for all that was missed, and *why_not* says why, unless nothing had been heard yet.
    """

    resumed: bool = True
    why_not: str = ""


M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class OpenStream(Protocol[M_co]):
    """What gRPC gives for a call that answers with a stream."""

    def __iter__(self) -> Iterator[M_co]: ...

    def cancel(self) -> bool:
        """End the stream; whoever reads it is told."""


class Pause(Protocol):
    """How time passes for a stream: the real way, or in a test."""

    def now(self) -> timedelta:
        """Time since some fixed moment."""

    def wait(self, span: timedelta) -> bool:
        """Let *span* pass; True if nobody wants the stream any more."""


def delay_after(tries: int) -> timedelta:
    """How long to wait for a server after so many attempts to reach it again."""
    return min(DELAY_FIRST * (1 << min(tries, _DOUBLINGS_MAX)), DELAY_MAX)


class Outage:
    """How long a server has been away, and when to try it again."""

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience
        self._since: timedelta | None = None
        self._tries = 0

    @property
    def lasts(self) -> bool:
        """Whether the server is away."""
        return self._since is not None

    def over(self) -> None:
        """The server answered."""
        self._since, self._tries = None, 0

    def failed(self, opened: timedelta, now: timedelta) -> timedelta | None:
        """How long to wait after a stream *opened* then broke *now*; None when patience is at its end."""
        if now - opened >= SETTLED_AFTER:
            self.over()
        if self._since is None:
            self._since = now
        if now - self._since >= self._patience:
            return None
        self._tries += 1
        return delay_after(self._tries - 1)

    def busy(self, now: timedelta) -> timedelta:
        """How long to wait for a server that had no room; it answered, so patience begins anew."""
        self._since, self._tries = now, 0
        return BUSY_DELAY


def resumed(
    opener: Callable[[], OpenStream[M]],
    is_last: Callable[[M], bool],
    patience: timedelta,
    pause: Pause,
    refuse: Callable[[str, str], CallFailed],
) -> Iterator[M | Disconnected | Reconnected]:
    """The messages of a stream up to its last one, over as many connections as that takes.

    *opener* is called again for each connection, so it decides where to go on. What *refuse* makes
    of status and message is raised for a refusal, and when the server stayed away for *patience*.
    A server that has no room is waited for without a limit.
    """
    outage = Outage(patience)
    while True:
        opened = pause.now()
        # What a server says that closes a stream without a word.
        status, why = "UNAVAILABLE", "the server ended the stream early"
        stream: OpenStream[M] | None = None
        try:
            stream = opener()
            for message in stream:
                if outage.lasts:
                    outage.over()
                    yield Reconnected()
                yield message
                if is_last(message):
                    return
        except grpc.RpcError as error:
            status, why = describe(error)
        finally:
            if stream is not None:
                stream.cancel()
        if status not in BROKEN:
            raise refuse(status, why)
        known = outage.lasts
        now = pause.now()
        delay = outage.busy(now) if status == BUSY else outage.failed(opened, now)
        if delay is None:
            raise refuse(status, why)
        if not known:
            yield Disconnected(why)
        if pause.wait(delay):
            return
