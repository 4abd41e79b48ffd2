"""The feed: who learns from it misses nothing, and a log that cannot be followed is told."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.snapshots import SnapshotStore
from titus_celery.adapters.store import RecordStore
from titus_celery.core.cluster import Cluster, ClusterDescriptor
from titus_celery.core.decision import ClusterChanged, Decision, JobAdded, LogEntry, change_of
from titus_celery.core.descriptor import BatchSpec, Container, Image, JobDescriptor, JobType
from titus_celery.core.jobs import created
from titus_celery.core.model import ClusterId, Job, JobId, JobSummary, StateChange
from titus_celery.core.shelf import Order
from titus_celery.core.states import State
from titus_celery.errors import PositionLost, StoreUnavailable, Unavailable
from titus_celery.ports import ChangeLog, Position
from titus_celery.service.feed import BATCH_MAX, CLUSTER_CHUNK, LIVE_CHUNK, OVER_CHUNK, Feed

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: What a test waits for what must come, in seconds, before it fails.
PATIENCE = 20
BLOCK = timedelta(milliseconds=20)

Said = tuple[str, object]


@dataclass
class Pupil:
    """A sink that keeps what it is told, in order."""

    said: queue.SimpleQueue[Said] = field(default_factory=queue.SimpleQueue)

    def begin(self) -> None:
        self.said.put(("begin", None))

    def load_clusters(self, clusters: Sequence[Cluster]) -> None:
        self.said.put(("clusters", [each.id for each in clusters]))

    def load(self, summaries: Sequence[JobSummary]) -> None:
        self.said.put(("load", [each.job.id for each in summaries]))

    def hear(self, entries: Sequence[tuple[Position, LogEntry]]) -> None:
        for _, entry in entries:
            if isinstance(entry, JobAdded):
                self.said.put(("added", entry.job.id))
            if isinstance(entry, ClusterChanged):
                self.said.put(("made", entry.cluster.id))

    def ready(self, position: Position) -> None:
        self.said.put(("ready", position))

    def load_over(self, jobs: Sequence[Job]) -> None:
        self.said.put(("over", [each.id for each in jobs]))

    def loaded_over(self) -> None:
        self.said.put(("all over", None))

    def fail(self, error: Exception) -> None:
        self.said.put(("fail", error))

    def until(self, what: str) -> list[Said]:
        """What it is told next, up to and with this."""
        told: list[Said] = []
        while not told or told[-1][0] != what:
            told.append(self.said.get(timeout=PATIENCE))
        return told


@dataclass
class Log:
    """A change log that fails while it is told to."""

    inner: ChangeLog
    error: Exception | None = None

    def end(self) -> Position:
        return self.inner.end()

    def read(self, after: Position, limit: int, block: timedelta) -> Sequence[tuple[Position, LogEntry]]:
        entries = self.inner.read(after, limit, block)
        if self.error is not None:
            raise self.error
        return entries


@dataclass
class Place:
    """A store, and what a feed needs of it."""

    keyspace: MemoryKeyspace = field(default_factory=lambda: MemoryKeyspace(now=lambda: NOON))

    def __post_init__(self) -> None:
        self.records = RecordStore(self.keyspace)
        self.snapshots = SnapshotStore(self.keyspace)
        self.clusters = ClusterStore(self.keyspace)
        self.log = Log(self.records)

    def create(self, name: str, tasks: int = 1) -> JobId:
        """Commit a new job."""
        container = Container(image=Image(name="a:1", id="sha256:1"))
        batch = BatchSpec(desired=tasks, container_id="main")
        job = JobDescriptor(spec=batch, containers={"main": container})
        self.records.commit(change_of(None, (), created(JobId(name), job, "me", NOON)))
        return JobId(name)

    def make(self, name: str) -> ClusterId:
        """Commit a new cluster."""
        described = ClusterDescriptor(name=name, kind=JobType.BATCH)
        new = Cluster(id=ClusterId(name), descriptor=described, created_by="me", created_at=NOON)
        self.records.commit(change_of(None, (), Decision(cluster=new)))
        return new.id

    @contextmanager
    def fed(self, snapshots: SnapshotStore | None = None) -> Iterator[Pupil]:
        """A feed at work, and who learns from it."""
        pupil = Pupil()
        feed = Feed(self.log, snapshots or self.snapshots, self.clusters, block=BLOCK, retry_after=BLOCK)
        feed.start(pupil)
        try:
            yield pupil
        finally:
            feed.close()


def jobs(told: Sequence[Said], kind: str) -> list[object]:
    return [what for name, what in told if name == kind]


def test_it_reads_the_live_jobs_and_then_tells_what_is_committed() -> None:
    place = Place()
    old = [place.create(f"old-{number:03}") for number in range(LIVE_CHUNK + 1)]
    with place.fed() as pupil:
        told = pupil.until("ready")
        assert told[0] == ("begin", None)
        assert jobs(told, "load") == [old[:LIVE_CHUNK], old[LIVE_CHUNK:]]
        new = place.create("new")
        assert jobs(pupil.until("added"), "added") == [new]


def test_what_is_committed_is_told_in_order_however_much_it_is() -> None:
    place = Place()
    with place.fed() as pupil:
        pupil.until("ready")
        names = [place.create(f"job-{number}", BATCH_MAX // 4) for number in range(10)]
        told: list[object] = []
        while len(told) < len(names):
            told += jobs(pupil.until("added"), "added")
        assert told == names


def test_it_reads_all_clusters_before_it_is_ready_and_tells_what_becomes_of_them() -> None:
    place = Place()
    old = [place.make(f"old-{number:03}") for number in range(CLUSTER_CHUNK + 1)]
    with place.fed() as pupil:
        told = pupil.until("ready")
        assert jobs(told, "clusters") == [old[:CLUSTER_CHUNK], old[CLUSTER_CHUNK:]]
        new = place.make("new")
        assert jobs(pupil.until("made"), "made") == [new]


class Failing(ClusterStore):
    """Clusters that cannot be read at first, while one more is made."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.keyspace)
        self._place = place
        self.failures = 1

    def page(self, after: Order | None, limit: int) -> tuple[Sequence[Cluster], Order | None]:
        if after is not None and self.failures:
            self.failures -= 1
            raise StoreUnavailable("it is away")
        found = super().page(after, limit)
        if after is None and self.failures:
            self._place.make("meanwhile")
        return found


def test_nobody_is_ready_who_does_not_know_all_clusters() -> None:
    place = Place()
    old = place.make("old")
    place.clusters = Failing(place)
    with place.fed() as pupil:
        first = pupil.until("fail")
        assert "ready" not in [name for name, _ in first]
        again = pupil.until("ready")
        assert jobs(again, "clusters") == [["meanwhile", old]]


class Meanwhile(SnapshotStore):
    """Reads jobs while others are made."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.keyspace)
        self._place = place

    def live(
        self, after: Order | None, limit: int, ended_max: int
    ) -> tuple[Sequence[JobSummary], Order | None]:
        found = super().live(after, limit, ended_max)
        if after is None:
            self._place.create("meanwhile")
        return found


def test_what_is_committed_while_jobs_are_read_is_heard_before_it_is_ready() -> None:
    place = Place()
    place.create("old")
    with place.fed(Meanwhile(place)) as pupil:
        told = pupil.until("ready")
        assert "meanwhile" in jobs(told, "added")


def test_jobs_that_are_over_are_read_after_the_live_ones() -> None:
    place = Place()
    for number in range(OVER_CHUNK + 1):
        over(place, f"over-{number:03}")
    with place.fed() as pupil:
        told = pupil.until("all over")
        assert [name for name, _ in told] == ["begin", "ready", "over", "over", "all over"]
        chunks = [what for name, what in told if name == "over"]
        assert [len(each) for each in chunks if isinstance(each, list)] == [OVER_CHUNK, 1]


class Stumbling(SnapshotStore):
    """Fails the first times that it is asked for jobs that are over."""

    def __init__(self, keyspace: MemoryKeyspace) -> None:
        super().__init__(keyspace)
        self.stumbles: list[Exception] = [StoreUnavailable("away"), ZeroDivisionError("a fault of ours")]

    def over(self, after: Order | None, limit: int) -> tuple[Sequence[Job], Order | None]:
        if self.stumbles:
            raise self.stumbles.pop()
        return super().over(after, limit)


def test_jobs_that_are_over_are_asked_for_again_whatever_went_wrong() -> None:
    place = Place()
    over(place, "over-1")
    with place.fed(Stumbling(place.keyspace)) as pupil:
        assert jobs(pupil.until("all over"), "over") == [["over-1"]]


def over(place: Place, name: str) -> None:
    """A job that was over as soon as it was made."""
    container = Container(image=Image(name="a:1", id="sha256:1"))
    described = JobDescriptor(spec=BatchSpec(desired=0, container_id="main"), containers={"main": container})
    decision = created(JobId(name), described, "me", NOON)
    assert decision.job is not None
    place.records.commit(change_of(None, (), decision))
    job, _ = place.records.job(JobId(name))
    end = StateChange(state=State.FINISHED, at=NOON)
    ended = replace(job, history=(*job.history, end))
    place.records.commit(change_of(job, (), replace(decision, job=ended, tasks=())))


# ------------------------------------------------------------------------------------------ failures


def test_after_an_outage_it_goes_on_where_it_was_and_reads_nothing_anew() -> None:
    place = Place()
    with place.fed() as pupil:
        pupil.until("all over")
        error = StoreUnavailable("connection refused")
        place.log.error = error
        assert pupil.until("fail")[-1] == ("fail", error)
        missed = place.create("missed")
        place.log.error = None
        told = pupil.until("ready")
        assert jobs(told, "added") == [missed]
        assert jobs(told, "begin") == []


@pytest.mark.parametrize(
    "error", [PositionLost("1-1"), ZeroDivisionError("a bug")], ids=lambda error: type(error).__name__
)
def test_if_something_may_be_missing_all_is_read_anew(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place()
    name = place.create("job")
    with place.fed() as pupil, caplog.at_level(logging.WARNING):
        pupil.until("all over")
        place.log.error = error
        pupil.until("fail")
        place.log.error = None
        told = pupil.until("ready")
        assert told[[each for each, _ in told].index("begin") :][:2] == [("begin", None), ("load", [name])]
        pupil.until("all over")
    assert caplog.records


def test_a_store_that_forgot_entries_which_were_heard_is_read_anew() -> None:
    place = Place(MemoryKeyspace(now=lambda: NOON, undo_max=5))
    kept = place.create("kept")
    with place.fed() as pupil:
        pupil.until("ready")
        place.create("forgotten")
        pupil.until("added")
        place.keyspace.restart(forget=1)
        told = pupil.until("ready")
        assert jobs(told, "load") == [[kept]]


def test_an_outage_is_logged_once_however_often_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    with caplog.at_level(logging.INFO), place.fed() as pupil:
        pupil.until("ready")
        place.log.error = StoreUnavailable("connection refused")
        for _ in range(4):
            pupil.until("fail")
        place.log.error = None
        pupil.until("ready")
    ours = [record.levelname for record in caplog.records if record.name == "titus_celery.service.feed"]
    assert ours == ["WARNING", "INFO"]


def test_who_learns_is_told_when_it_is_closed() -> None:
    place = Place()
    with place.fed() as pupil:
        pupil.until("ready")
    error = pupil.until("fail")[-1][1]
    assert isinstance(error, Unavailable)
    assert "being stopped" in str(error)
