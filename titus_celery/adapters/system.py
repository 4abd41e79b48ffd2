"""The system's monotonic clock and random ids, the only place that draws either, and its signals."""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["SystemClock", "SystemIds", "die", "freeze", "system_now"]


#: Goes on while the machine sleeps, as leases do, where the system has such a clock.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The Clock of this process."""

    def monotonic(self) -> timedelta:
        """Time since some fixed moment."""
        return timedelta(seconds=time.clock_gettime(_CLOCK))


class SystemIds:
    """New identities, unique without asking anybody."""

    def new(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())


def die() -> None:
    """End this process as when the machine takes it away: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """Stop this process until somebody sends it SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def system_now() -> datetime:
    """This machine's time, in whole milliseconds; for a store that lives in this process."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
