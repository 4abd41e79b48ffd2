"""The system's monotonic clock and random ids: the only place that draws either."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

__all__ = ["SystemClock", "SystemIds", "system_now"]


class SystemClock:
    """The Clock of this process."""

    def monotonic(self) -> timedelta:
        """Time since some fixed moment."""
        return timedelta(seconds=time.monotonic())


class SystemIds:
    """New identities, unique without asking anybody."""

    def new(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())


def system_now() -> datetime:
    """This machine's time, in whole milliseconds; for a store that lives in this process."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
