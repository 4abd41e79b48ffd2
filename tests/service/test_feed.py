"""The feed: who subscribes misses nothing, and a log that cannot be followed is told."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.store import RecordStore
from titus_celery.core.decision import JobAdded, JobEnded, Notification, TaskUpdated, change_of
from titus_celery.core.descriptor import (
    BatchSpec,
    Container,
    Image,
    JobDescriptor,
)
from titus_celery.core.jobs import created
from titus_celery.core.model import (
    JobId,
)
from titus_celery.errors import PositionLost, StoreUnavailable, Unavailable
from titus_celery.ports import ChangeLog, Position
from titus_celery.service.feed import BATCH_MAX, Feed

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: What a test waits for what must come, in seconds, before it fails.
PATIENCE = 20
BLOCK = timedelta(milliseconds=20)


@dataclass
class Ear:
    """A listener that keeps what it hears."""

    heard: queue.SimpleQueue[Notification] = field(default_factory=queue.SimpleQueue)
    errors: queue.SimpleQueue[Exception] = field(default_factory=queue.SimpleQueue)

    def hear(self, notifications: Sequence[Notification]) -> None:
        for each in notifications:
            self.heard.put(each)

    def fail(self, error: Exception) -> None:
        self.errors.put(error)

    def jobs(self, count: int) -> list[JobId]:
        """The next *count* jobs that it hears are new, as they come."""
        found: list[JobId] = []
        while len(found) < count:
            match self.heard.get(timeout=PATIENCE):
                case JobAdded(job):
                    found.append(job.id)
                case TaskUpdated() | JobEnded():
                    pass
        return found


@dataclass
class Log:
    """A change log that fails while it is told to."""

    inner: ChangeLog
    error: Exception | None = None
    #: Set whenever the end was asked for.
    asked: threading.Event = field(default_factory=threading.Event)
    #: While not set, the end takes its time.
    answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def end(self) -> Position:
        self.asked.set()
        self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.inner.end()

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, Notification]]:
        entries = self.inner.read(after, limit, block)
        if self.error is not None:
            raise self.error
        return entries


def store() -> RecordStore:
    return RecordStore(MemoryKeyspace(now=lambda: NOON))


def create(records: RecordStore, name: str, tasks: int = 1) -> JobId:
    """Commit a new job."""
    container = Container(image=Image(name="a:1", id="sha256:1"))
    batch = BatchSpec(desired=tasks, container_id="main")
    job = JobDescriptor(spec=batch, containers={"main": container})
    records.commit(change_of(None, (), created(JobId(name), job, "me", NOON)))
    return JobId(name)


@contextmanager
def fed(log: ChangeLog) -> Iterator[Feed]:
    feed = Feed(log, block=BLOCK, retry_after=BLOCK, ready_within=timedelta(seconds=PATIENCE))
    feed.start()
    try:
        yield feed
    finally:
        feed.close()


def test_each_listener_hears_what_is_committed_after_it_subscribed() -> None:
    records = store()
    with fed(records) as feed:
        one, two = Ear(), Ear()
        with feed.subscribe(one) as subscription:
            subscription.ready()
            create(records, "first")
            assert one.jobs(1) == ["first"]
            with feed.subscribe(two) as second:
                second.ready()
                create(records, "second")
                assert (one.jobs(1), two.jobs(1)) == (["second"], ["second"])


def test_what_was_committed_long_before_is_not_told() -> None:
    records = store()
    create(records, "old")
    with fed(records) as feed:
        ear = Ear()
        with feed.subscribe(ear) as subscription:
            subscription.ready()
            create(records, "new")
            assert ear.jobs(1) == ["new"]


def test_what_is_committed_once_it_is_ready_is_heard_in_order_however_much_it_is() -> None:
    records = store()
    with fed(records) as feed:
        ear = Ear()
        with feed.subscribe(ear) as subscription:
            subscription.ready()
            names = [create(records, f"job-{number}", BATCH_MAX // 4) for number in range(10)]
            assert ear.jobs(10) == names


def test_a_listener_that_left_hears_nothing_more() -> None:
    records = store()
    with fed(records) as feed:
        stays, leaves = Ear(), Ear()
        with feed.subscribe(stays) as subscription:
            subscription.ready()
            feed.subscribe(leaves).close()
            assert feed.listeners == 1
            create(records, "job")
            assert stays.jobs(1) == ["job"]
        assert feed.listeners == 0
        assert leaves.heard.empty()


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("connection refused"), PositionLost("1-1"), ZeroDivisionError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_when_the_log_cannot_be_followed_all_are_told_why_and_it_is_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    records = store()
    log = Log(records)
    with fed(log) as feed, caplog.at_level(logging.WARNING):
        ears = [Ear(), Ear()]
        for ear in ears:
            feed.subscribe(ear).ready()
        log.error = error
        assert [ear.errors.get(timeout=PATIENCE) for ear in ears] == [error, error]
        assert feed.listeners == 0
        log.error = None
        until_ready(feed, Ear())
    assert caplog.records


def until_ready(feed: Feed, ear: Ear) -> None:
    """Subscribe again and again, as an observer does, until the log is followed."""
    while True:
        with feed.subscribe(ear) as subscription:
            try:
                return subscription.ready()
            except (StoreUnavailable, PositionLost, ZeroDivisionError):
                continue


def test_an_outage_is_logged_once_however_often_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(store(), error=StoreUnavailable("connection refused"))
    with caplog.at_level(logging.INFO), fed(log) as feed:
        for _ in range(4):
            assert log.asked.wait(PATIENCE)
            log.asked.clear()
        log.error = None
        until_ready(feed, Ear())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_after_an_outage_what_is_committed_is_heard_again() -> None:
    records = store()
    log = Log(records, error=StoreUnavailable("connection refused"))
    with fed(log) as feed:
        ear = Ear()
        with pytest.raises(StoreUnavailable):
            feed.subscribe(ear).ready()
        log.error = None
        until_ready(feed, Ear())
        with feed.subscribe(ear) as subscription:
            subscription.ready()
            create(records, "job")
            assert ear.jobs(1) == ["job"]


def test_it_is_not_ready_before_it_knows_where_the_log_ends() -> None:
    """Were it, a snapshot could be read before the log is followed, and what is between were lost."""
    records = store()
    log = Log(records)
    log.answers.clear()
    with fed(log) as feed:
        ear = Ear()
        subscription = feed.subscribe(ear)
        ready = threading.Event()

        def snapshot() -> None:
            subscription.ready()
            ready.set()

        waiting = threading.Thread(target=snapshot)
        waiting.start()
        assert log.asked.wait(PATIENCE)
        create(records, "before-it-was-ready")
        assert not ready.is_set()
        log.answers.set()
        assert ready.wait(PATIENCE)
        waiting.join()
        create(records, "after")
        assert ear.jobs(1) == ["after"]


def test_who_waits_too_long_is_told_that_the_store_is_away() -> None:
    log = Log(store())
    log.answers.clear()
    feed = Feed(log, block=BLOCK, ready_within=BLOCK)
    feed.start()
    try:
        with pytest.raises(StoreUnavailable, match=r"could not be followed within 0\.02 s"):
            feed.subscribe(Ear()).ready()
    finally:
        log.answers.set()
        feed.close()


def test_after_an_outage_it_is_not_ready_before_it_knows_where_the_log_ends() -> None:
    log = Log(store())
    feed = Feed(log, block=BLOCK, retry_after=BLOCK, ready_within=BLOCK)
    feed.start()
    try:
        ear = Ear()
        until_ready(feed, ear)
        with feed.subscribe(ear):
            log.answers.clear()
            log.error = StoreUnavailable("connection refused")
            ear.errors.get(timeout=PATIENCE)
        with pytest.raises(StoreUnavailable, match="could not be followed within"):
            feed.subscribe(Ear()).ready()
    finally:
        log.answers.set()
        feed.close()


def test_closing_tells_every_listener_and_refuses_more() -> None:
    ear = Ear()
    with fed(store()) as feed:
        feed.subscribe(ear).ready()
    assert isinstance(ear.errors.get(timeout=PATIENCE), Unavailable)
    with pytest.raises(Unavailable, match="being stopped"):
        feed.subscribe(ear)
