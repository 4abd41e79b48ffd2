"""What a gateway says by itself of the jobs that are observed through it (docs/semantics.md A15)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from titus_celery.core.model import JobId
from titus_celery.errors import StoreUnavailable
from titus_celery.service.subscriptions import Subscriptions

A, B = JobId("a"), JobId("b")
#: So short that what is to be said again comes at once.
SHORT = timedelta(milliseconds=30)
#: So long that nothing is said twice.
LONG = timedelta(days=1)
NONE = timedelta(0)
#: What a test waits for what must come, in seconds, before it fails.
PATIENCE = 20


@dataclass
class Heard:
    """Subscribers that keep what they are told, in order, and fail while there is an error."""

    error: Exception | None = None
    said: queue.SimpleQueue[tuple[str, str, timedelta]] = field(default_factory=queue.SimpleQueue)

    def hold(self, job_id: JobId, holder: str, span: timedelta) -> None:
        self.said.put((job_id, holder, span))
        if self.error is not None:
            raise self.error

    def until(self, job_id: JobId) -> datetime | None:
        return None

    def next(self) -> tuple[str, timedelta]:
        """What is said next: of which job, and for how long."""
        job_id, holder, span = self.said.get(timeout=PATIENCE)
        assert holder == "me"
        return job_id, span


@contextmanager
def saying(heard: Heard, span: timedelta) -> Iterator[Subscriptions]:
    """A gateway's subscriptions."""
    made = Subscriptions(heard, "me", span)
    try:
        yield made
    finally:
        made.close()


def test_it_is_said_at_the_opening_again_and_again_and_at_the_end() -> None:
    heard = Heard()
    with saying(heard, SHORT) as subscriptions:
        subscriptions.opened(A).result(PATIENCE)
        assert [heard.next() for _ in range(4)] == [(A, SHORT)] * 4
        subscriptions.closed(A)
        while (told := heard.next()) == (A, SHORT):
            pass
        assert told == (A, NONE)


def test_only_the_last_stream_that_closes_is_the_end() -> None:
    heard = Heard()
    with saying(heard, LONG) as subscriptions:
        for id in (A, A, B):
            subscriptions.opened(id).result(PATIENCE)
        subscriptions.closed(A)
        subscriptions.renew()
        subscriptions.closed(A)
        subscriptions.renew()
    told = [heard.next() for _ in range(heard.said.qsize())]
    assert told[:3] == [(A, LONG), (A, LONG), (B, LONG)]
    assert told[3:] == [(A, LONG), (B, LONG), (A, NONE), (B, LONG)]


def test_a_store_that_is_away_is_told_once_and_said_to_again(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard(error=StoreUnavailable("it is away"))
    with saying(heard, LONG) as subscriptions, caplog.at_level(logging.WARNING):
        subscriptions.opened(A).result(PATIENCE)
        subscriptions.renew()
        assert len(caplog.records) == 1
        assert "job a" in caplog.text
        heard.error = None
        subscriptions.renew()
        assert [heard.next() for _ in range(3)] == [(A, LONG)] * 3


def test_a_fault_of_ours_ends_nothing_and_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard(error=ZeroDivisionError("oh"))
    with saying(heard, SHORT) as subscriptions, caplog.at_level(logging.WARNING):
        subscriptions.opened(A).result(PATIENCE)
        assert [heard.next() for _ in range(3)] == [(A, SHORT)] * 3
    assert caplog.records[0].exc_info


def test_once_it_is_closed_nothing_more_is_said_and_nobody_waits() -> None:
    heard = Heard()
    with saying(heard, LONG) as subscriptions:
        subscriptions.opened(A).result(PATIENCE)
        heard.error = StoreUnavailable("it is away")
        subscriptions.renew()
    subscriptions.closed(A)
    subscriptions.opened(B).result(PATIENCE)
    subscriptions.renew()
    assert [heard.next() for _ in range(heard.said.qsize())] == [(A, LONG), (A, LONG)]
