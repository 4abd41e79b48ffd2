"""The system's clock and ids are what the ports promise."""

from __future__ import annotations

import uuid
from datetime import timedelta

from titus_celery.adapters.system import SystemClock, SystemIds, system_now


def test_the_clock_never_runs_backward() -> None:
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


def test_ids_are_uuids_and_never_the_same() -> None:
    ids = {SystemIds().new() for _ in range(100)}
    assert len(ids) == 100
    assert all(str(uuid.UUID(id)) == id for id in ids)


def test_instants_are_utc_in_whole_milliseconds() -> None:
    now = system_now()
    assert now.utcoffset() == timedelta(0)
    assert now.microsecond % 1000 == 0
