"""What is known of clusters, and what observers hear, whatever was read and the log have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stories import A, B, PlainLooks, job, task
from titus_celery.core.catalog import Catalog
from titus_celery.core.cluster import BUILT_IN, Cluster, ClusterDescriptor
from titus_celery.core.cluster_catalog import ClusterCatalog, ClusterNews
from titus_celery.core.cluster_query import cluster_criteria, terms_of
from titus_celery.core.decision import (
    ClusterChanged,
    ClusterRemoved,
    JobAdded,
    JobEnded,
    JobGone,
    JobMoved,
    LogEntry,
    TaskUpdated,
)
from titus_celery.core.descriptor import BatchSpec, JobDescriptor, JobType, MantisAgreement, MantisSpec, Stage
from titus_celery.core.model import ClusterId, JobId, JobSummary, StateChange
from titus_celery.core.query import criteria
from titus_celery.core.replay import ClusterReplay
from titus_celery.core.states import State
from titus_celery.errors import InvalidRequest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
C, D = ClusterId("c"), ClusterId("d")


class PlainClusterLooks:
    """What a client could see, as text: not whether it is enabled."""

    def cluster(self, cluster: Cluster) -> bytes:
        return cluster.descriptor.name.encode()


def cluster(
    id: ClusterId = C, *, version: int = 1, name: str = "a", enabled: bool = True, later: float = 0
) -> Cluster:
    """A cluster of batch jobs."""
    return Cluster(
        id=id,
        descriptor=ClusterDescriptor(name=name, kind=JobType.BATCH, enabled=enabled),
        created_by="me",
        created_at=NOON + timedelta(seconds=later),
        version=version,
    )


def catalog(*clusters: Cluster) -> ClusterCatalog:
    """One that has read these."""
    made = ClusterCatalog(PlainClusterLooks())
    made.load(clusters)
    return made


def told(clusters: ClusterCatalog, log: Iterable[LogEntry], jobs: Catalog | None = None) -> list[LogEntry]:
    """What observers of all clusters hear of these entries."""
    jobs = jobs or Catalog(PlainLooks())
    news = (clusters.hear(entry, is_news=jobs.hear(entry) is not None) for entry in log)
    return [each.notification for each in news if each is not None]


def replayed(log: Iterable[LogEntry], id: ClusterId | None = None) -> list[LogEntry]:
    """What one hears of these entries who goes on from before them."""
    replay = ClusterReplay(PlainClusterLooks(), id)
    return [news.notification for entry in log if (news := replay.hear(entry)) is not None]


def ids(clusters: ClusterCatalog, **criteria: str) -> Sequence[str]:
    found, total = clusters.find(cluster_criteria(criteria), 0, 100)
    assert total == len(found)
    return [entry.id for entry in found]


BUILT_IN_IDS = [each.id for each in BUILT_IN.values()]


# ---------------------------------------------------------------------------------------- what is known


def test_the_built_in_clusters_are_always_there_and_first() -> None:
    clusters = catalog(cluster())
    assert [entry.id for entry in clusters.all()] == [*BUILT_IN_IDS, C]
    clusters.clear()
    assert [entry.id for entry in clusters.all()] == BUILT_IN_IDS


def test_clusters_come_by_creation_and_then_id() -> None:
    clusters = catalog(cluster(D), cluster(C), cluster(ClusterId("a"), later=1))
    assert [entry.id for entry in clusters.all()][3:] == [C, D, "a"]
    found, total = clusters.find(cluster_criteria({}), 4, 1)
    assert ([entry.id for entry in found], total) == ([D], 6)


def test_what_was_read_is_not_told_again() -> None:
    clusters = catalog(cluster(version=2, name="b"))
    newer = ClusterChanged(cluster(version=5, name="c"))
    log = [ClusterChanged(cluster()), ClusterChanged(cluster(version=2, name="b")), newer]
    assert told(clusters, log) == [newer]
    assert ids(clusters, name="c") == [C]
    assert ids(clusters, name="b") == []


def test_a_write_that_the_log_does_not_tell_of_is_in_what_was_read() -> None:
    """The record's version moves with each time of a schedule, its definition does not."""
    clusters = catalog(cluster(version=7))
    newer = ClusterChanged(cluster(version=8, name="b"))
    assert told(clusters, [newer]) == [newer]


def test_a_cluster_that_was_gone_when_all_were_read_is_not_told() -> None:
    log: list[LogEntry] = [ClusterChanged(cluster(version=2, name="b")), ClusterRemoved(C)]
    assert told(catalog(), log) == []
    # Also not if it began after the log was followed, and so is told from its beginning to its end.
    whole: list[LogEntry] = [ClusterChanged(cluster()), *log]
    assert told(catalog(), whole) == whole


def test_nothing_follows_the_removal_of_a_cluster() -> None:
    clusters = catalog(cluster())
    gone = ClusterRemoved(C)
    assert told(clusters, [gone, gone, ClusterChanged(cluster(version=2, name="b"))]) == [gone]
    assert clusters.get(C) is None


def test_what_nobody_can_see_is_learnt_and_not_told() -> None:
    clusters = catalog(cluster())
    off = ClusterChanged(cluster(version=2, enabled=False))
    again = ClusterChanged(cluster(version=3, enabled=False, name="b"))
    assert told(clusters, [off]) == []
    assert ids(clusters, enabled="false") == [C]
    assert told(clusters, [off, again]) == [again]


# ---------------------------------------------------------------------------------------- jobs


def test_of_a_job_it_is_told_that_it_is_new_and_that_it_is_over() -> None:
    added, end = JobAdded(job()), JobEnded(job(version=3, end=State.FINISHED))
    log: list[LogEntry] = [
        added,
        TaskUpdated(task(A, 0, State.QUEUED)),
        JobAdded(job(version=2, app="b")),
        JobMoved(job(version=2)),
        end,
        end,
        JobGone(A),
    ]
    assert told(catalog(cluster()), log) == [added, end]
    assert replayed(log[:5]) == [added, end]


def test_a_job_that_was_read_is_not_told_as_new() -> None:
    jobs = Catalog(PlainLooks())
    jobs.load(JobSummary(job=job(), tasks=()))
    end = JobEnded(job(version=2, end=State.FAILED))
    assert told(catalog(cluster()), [JobAdded(job()), end], jobs) == [end]


def test_the_jobs_of_a_cluster_are_those_that_live() -> None:
    jobs = Catalog(PlainLooks())
    for each in (job(B), job(A), replace(job(JobId("x")), cluster_id=D)):
        jobs.hear(JobAdded(each))
    assert list(jobs.of_cluster(C)) == [A, B]
    assert list(jobs.of_cluster(D)) == ["x"]
    jobs.hear(JobEnded(job(A, version=2, end=State.FAILED)))
    assert list(jobs.of_cluster(C)) == [B]


@pytest.mark.parametrize(
    "entry",
    [JobAdded(job()), JobEnded(job(version=2, end=State.FAILED)), ClusterChanged(cluster(version=2))],
    ids=["a-job-more", "a-job-less", "another-definition"],
)
def test_what_is_made_of_a_cluster_is_made_anew_when_it_changed(entry: LogEntry) -> None:
    clusters = catalog(cluster(), cluster(D))
    for id in (C, D):
        known = clusters.get(id)
        assert known is not None
        known.made["x"] = b"old"
    clusters.hear(entry, is_news=True)
    assert [bool(each.made) for each in clusters.all()[3:]] == [False, True]


def test_a_mantis_job_that_moved_is_found_where_it_is_now_and_nothing_is_told() -> None:
    stages = MantisSpec(name="m", stages=(Stage(desired=1),), agreement=MantisAgreement(is_transient=True))
    plain = replace(job(), descriptor=JobDescriptor(spec=stages))
    moved = replace(plain, version=2, history=(*plain.history, StateChange(state=State.RUNNING, at=NOON)))
    jobs = Catalog(PlainLooks())
    jobs.hear(JobAdded(plain))
    # What is older comes last: it was read, and the log tells of it again.
    assert [jobs.hear(entry) for entry in (JobMoved(moved), JobMoved(plain))] == [None, None]
    known = jobs.get(A)
    assert known is not None
    assert (known.state, known.is_transient) == (State.RUNNING, True)
    assert [entry.id for entry in jobs.find(criteria({"jobState": "RUNNING"}), 0, 9)[0]] == [A]


def test_a_move_that_one_commit_tells_with_a_new_definition_counts() -> None:
    stages = MantisSpec(name="m", stages=(Stage(desired=1),))
    plain = replace(job(), descriptor=JobDescriptor(spec=stages))
    moved = replace(plain, version=2, history=(*plain.history, StateChange(state=State.RUNNING, at=NOON)))
    jobs = Catalog(PlainLooks())
    for entry in (JobAdded(plain), JobAdded(moved), JobMoved(moved)):
        jobs.hear(entry)
    known = jobs.get(A)
    assert known is not None
    assert known.state is State.RUNNING
    assert not known.is_transient


# ---------------------------------------------------------------------------------------- whenever it is read

STORY: list[LogEntry] = [
    ClusterChanged(cluster()),
    JobAdded(job()),
    ClusterChanged(cluster(version=3, name="b")),
    JobAdded(job(version=2, app="b")),
    ClusterChanged(cluster(D)),
    JobEnded(job(version=3, end=State.FAILED)),
    ClusterChanged(cluster(version=4, name="b", enabled=False)),
    ClusterChanged(cluster(version=5, name="c", enabled=False)),
    ClusterRemoved(C),
]


def after(count: int) -> tuple[ClusterCatalog, Catalog]:
    """What is read when so many entries were committed."""
    clusters, jobs = catalog(), Catalog(PlainLooks())
    records: dict[ClusterId, Cluster] = {}
    live: dict[str, JobSummary] = {}
    for entry in STORY[:count]:
        match entry:
            case ClusterChanged(one):
                records[one.id] = one
            case ClusterRemoved(id):
                del records[id]
            case JobAdded(one):
                live[one.id] = JobSummary(job=one, tasks=())
            case JobEnded(one):
                del live[one.id]
            case _:
                raise AssertionError(entry)
    clusters.load(records.values())
    for summary in live.values():
        jobs.load(summary)
    return clusters, jobs


#: The first and the last entry of each thing, by which no two are alike.
SPANS: dict[str, tuple[int, int]] = {C: (0, 8), A: (1, 5), D: (4, len(STORY))}


def of(entry: LogEntry) -> str:
    """The thing that it is about."""
    match entry:
        case ClusterChanged(one):
            return one.id
        case ClusterRemoved(id):
            return id
        case JobAdded(one) | JobEnded(one):
            return one.id
        case _:
            raise AssertionError(entry)


@given(st.integers(0, len(STORY)), st.data())
def test_whatever_was_read_everything_after_it_is_told_once_and_in_order(
    read: int, data: st.DataObject
) -> None:
    """The log is followed from before all is read: what comes twice is told apart by versions alone."""
    follow = data.draw(st.integers(0, read))
    clusters, jobs = after(read)

    def is_to_be_told(place: int) -> bool:
        first, last = SPANS[of(STORY[place])]
        # What came and went before it could be read is told whole.
        return place >= read or (first >= follow and last < read)

    expected = [STORY[place] for place in range(len(STORY)) if is_to_be_told(place)]
    assert told(clusters, STORY[follow:], jobs) == [each for each in expected if each in replayed(STORY)]
    finally_read, _ = after(len(STORY))
    assert [(each.id, each.look) for each in clusters.all()] == [
        (each.id, each.look) for each in finally_read.all()
    ]


def test_one_who_goes_on_hears_what_follows_of_his_cluster_alone() -> None:
    hidden = STORY[6]
    assert replayed(STORY, D) == [STORY[4]]
    whole = [each for each in STORY if each is not hidden and each is not STORY[3]]
    assert replayed(STORY) == whole
    assert replayed(STORY, C) == [each for each in whole if each is not STORY[4]]


def test_news_of_a_definition_come_with_its_look() -> None:
    news = catalog().hear(ClusterChanged(cluster(name="b")), is_news=False)
    assert news == ClusterNews(ClusterChanged(cluster(name="b")), C, b"b")


# ---------------------------------------------------------------------------------------- criteria


def test_a_cluster_has_these_terms() -> None:
    template = JobDescriptor(spec=BatchSpec(desired=1), labels={"a": "1"})
    plain = cluster(enabled=False)
    made = replace(plain, descriptor=replace(plain.descriptor, template=template))
    assert terms_of(made) == (
        "name=a",
        "owner=",
        "jobType=batch",
        "enabled=false",
        "label:a",
        "label:a=1",
    )


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as error:
        cluster_criteria({"enabled": "yes", "jobType": "x", "labels.op": "x"})
    assert [each.field for each in error.value.violations] == [
        "fiterlingCriteria[jobType]",
        "fiterlingCriteria[enabled]",
        "fiterlingCriteria[labels.op]",
    ]
    with pytest.raises(InvalidRequest, match="jobIds"):
        cluster_criteria({"jobIds": "a"})
