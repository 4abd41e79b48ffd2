"""Clusters, what their schedules did, and the commits that make and change them, on every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from tests.builders import at, change, commit, finished
from tests.contracts.over import settled
from tests.contracts.stores import Bench, at_once
from tests.unit.clusters import a_cluster, described, mantis, worker
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.keyspace import HashSet
from titus_celery.core.claims import KEY_KEPT, ClaimKind, key_name
from titus_celery.core.cluster import Cluster, Firing, Outcome
from titus_celery.core.decision import (
    ClusterChanged,
    ClusterRemoved,
    Decision,
    Gate,
    JobAdded,
    LogEntry,
    TaskUpdated,
    change_of,
)
from titus_celery.core.model import ClusterId, Deadline, DeadlineKind, Job, Sent
from titus_celery.errors import Conflict, LimitReached, NotFound, StoreCorrupt, Taken, Unavailable
from titus_celery.ports import Position

SENT = Sent(caller="ann", key="k-1", body="b")


def new(number: int = 1, created: float = 0, **parts: Any) -> Cluster:
    id = ClusterId(f"00000000-0000-4000-8000-{number:012}")
    return replace(a_cluster(), id=id, created_at=at(created), **parts)


def put(bench: Bench, before: Cluster | None, **decision: Any) -> None:
    """Commit this decision about a cluster."""
    bench.records.commit(change_of(None, (), Decision(**decision), cluster=before))


def made(bench: Bench, cluster: Cluster | None = None) -> Cluster:
    """A new cluster on record."""
    put(bench, None, cluster=cluster or new())
    return read(bench, (cluster or new()).id)


def read(bench: Bench, id: ClusterId) -> Cluster:
    return ClusterStore(bench.keyspace).cluster(id)[0]


def heard(bench: Bench, since: Position) -> list[LogEntry]:
    return [entry for _, entry in bench.records.read(since, 100, timedelta(0))]


def member(cluster: Cluster, created: float = 0) -> Job:
    """A new job of the cluster."""
    return replace(mantis(1, history=(replace(mantis(1).history[0], at=at(created)),)), cluster_id=cluster.id)


def join(bench: Bench, one: Job, gate: Gate | None) -> None:
    """Commit the creation of a job with its one worker."""
    bench.records.commit(replace(change(None, job=one, tasks=(worker(one, 0, 0),)), gate=gate))


def gate(cluster: Cluster, jobs_max: int = 0) -> Gate:
    return Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=jobs_max)


def firing(when: float, outcome: Outcome = Outcome.SKIPPED, **parts: Any) -> Firing:
    plain = Firing(at=at(when), until=at(when), outcome=outcome, why=f"at {when}", decided_at=at(when + 1))
    return replace(plain, **parts)


def end(bench: Bench, one: Job) -> None:
    (task,) = bench.records.open_tasks(one.id)
    commit(bench.records, bench.records.job(one.id)[0], [task], to=[finished(task)])
    settled(bench, one)


# ------------------------------------------------------------------------------------------ records


def test_a_cluster_reads_as_it_was_written(bench: Bench) -> None:
    template = described(1, 2, parameters={"a": "b"}, agreement={"is_transient": True})
    whole = replace(
        new(),
        descriptor=a_cluster(template=template, cron="0 0 3 * * ?", policy="KEEP_NEW", max=1).descriptor,
        sent=SENT,
        next_firing=at(5),
        decided=at(3),
        held_up="why",
        held_since=at(4),
        gate=7,
        version=3,
    )
    assert made(bench, whole) == whole


def test_what_is_not_there_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        read(bench, new().id)
    with pytest.raises(NotFound):
        read(bench, ClusterId("no id:\n"))
    assert ClusterStore(bench.keyspace).live_jobs(new().id) == []
    assert ClusterStore(bench.keyspace).firings(new().id, 0, 10) == ([], 0)


def test_a_cluster_is_made_once(bench: Bench) -> None:
    made(bench)
    before = bench.world.dump()
    with pytest.raises(Conflict):
        put(bench, None, cluster=new(created=9))
    assert bench.world.dump() == before


def test_a_stale_change_is_refused_and_each_change_counts(bench: Bench) -> None:
    first = made(bench)
    put(bench, first, cluster=first.described(replace(first.descriptor, name="other")))
    second = read(bench, first.id)
    assert (second.version, second.gate, second.descriptor.name) == (2, 2, "other")
    before = bench.world.dump()
    with pytest.raises(Conflict):
        put(bench, first, cluster=first, firings=(firing(1),))
    with pytest.raises(Conflict):
        put(bench, first, removes_cluster=True)
    assert bench.world.dump() == before


def test_of_many_changes_at_once_one_is_made(bench: Bench) -> None:
    first = made(bench)

    def decide(number: int) -> bool:
        try:
            put(bench, first, cluster=replace(first, decided=at(number)), firings=(firing(number),))
        except Conflict:
            return False
        return True

    assert sorted(at_once(8, decide)) == [False] * 7 + [True]
    assert ClusterStore(bench.keyspace).firings(first.id, 0, 10)[1] == 1


def test_a_removed_cluster_leaves_nothing_but_its_key(bench: Bench) -> None:
    first = made(bench, new(sent=SENT))
    name = bench.keys.claim(ClaimKind.CLUSTER_KEY, key_name(SENT))
    with pytest.raises(Taken, match="idempotency key"):
        put(bench, None, cluster=new(2, sent=SENT))
    assert bench.world.time_left(name) is None
    put(bench, first, cluster=first, firings=(firing(1), firing(2)))
    put(bench, read(bench, first.id), removes_cluster=True)
    with pytest.raises(NotFound):
        read(bench, first.id)
    left = bench.world.time_left(name)
    assert left is not None
    assert KEY_KEPT - timedelta(seconds=10) < left <= KEY_KEPT
    with pytest.raises(Taken):
        put(bench, None, cluster=new(2, sent=SENT))
    keys = (str(key) for key in cast(Mapping[object, object], bench.world.dump()))
    assert [key for key in keys if "}:cluster" in key] == []


def test_a_cluster_whose_jobs_live_is_not_removed(bench: Bench) -> None:
    first = made(bench)
    one = member(first)
    join(bench, one, gate(first))
    before = bench.world.dump()
    with pytest.raises(Conflict):
        put(bench, first, removes_cluster=True)
    assert bench.world.dump() == before
    end(bench, one)
    put(bench, first, removes_cluster=True)
    assert bench.records.job(one.id)[0].state.is_final


def test_clusters_are_paged_by_creation(bench: Bench) -> None:
    store = ClusterStore(bench.keyspace)
    for number, created in ((1, 5), (2, 1), (3, 1), (4, 9)):
        made(bench, new(number, created))
    found, place = store.page(None, 3)
    assert [each.id[-1] for each in found] == ["2", "3", "1"]
    rest, place = store.page(place, 3)
    assert [each.id[-1] for each in rest] == ["4"]
    assert store.page(place, 3) == ([], None)


def test_one_that_cannot_be_read_does_not_hide_the_others(bench: Bench) -> None:
    one = made(bench)
    made(bench, new(2, 1))
    hash_set = {"version": "1", "gate": "1", "record": "{"}
    bench.keyspace.transact([], [HashSet(bench.keys.cluster(one.id), hash_set)])
    found, _ = ClusterStore(bench.keyspace).page(None, 10)
    assert [each.id[-1] for each in found] == ["2"]
    with pytest.raises(StoreCorrupt):
        read(bench, one.id)


# ------------------------------------------------------------------------------------------ jobs


def test_a_job_is_made_only_in_the_cluster_that_was_seen(bench: Bench) -> None:
    first = made(bench)
    put(bench, first, cluster=first.described(replace(first.descriptor, enabled=False)))
    before = bench.world.dump()
    with pytest.raises(Conflict):
        join(bench, member(first), gate(first))
    assert bench.world.dump() == before
    # A change that is none of the definition lets jobs in.
    second = read(bench, first.id)
    put(bench, second, cluster=replace(second, decided=at(1)))
    join(bench, member(first), gate(second))


def test_no_job_is_made_in_a_cluster_that_is_gone(bench: Bench) -> None:
    first = made(bench)
    put(bench, first, removes_cluster=True)
    with pytest.raises(Conflict):
        join(bench, member(first), gate(first))


def test_there_are_never_more_jobs_in_it_than_may_be(bench: Bench) -> None:
    first = made(bench)

    def create(number: int) -> bool:
        try:
            join(bench, member(first), gate(first, 3))
        except LimitReached as error:
            assert (error.limit, first.id in error.what) == (3, True)
            return False
        return True

    assert sorted(at_once(8, create)) == [False] * 5 + [True] * 3
    end(bench, ClusterStore(bench.keyspace).live_jobs(first.id)[0])
    assert create(8)
    assert not create(9)


def test_live_jobs_come_by_age_and_go_when_they_are_over(bench: Bench) -> None:
    first, other = made(bench), made(bench, new(2))
    young, old = member(first, 9), member(first, 1)
    for one in (young, old):
        join(bench, one, gate(first))
    join(bench, member(other), gate(other))
    store = ClusterStore(bench.keyspace)
    assert [job.id for job in store.live_jobs(first.id)] == [old.id, young.id]
    assert store.live_jobs(first.id)[0] == bench.records.job(old.id)[0]
    end(bench, old)
    assert [job.id for job in store.live_jobs(first.id)] == [young.id]


def test_a_decided_time_and_its_job_are_one_commit(bench: Bench) -> None:
    first = made(bench)
    one = member(first)
    decision = Decision(
        job=one,
        tasks=(worker(one, 0, 0),),
        gate=gate(first, 1),
        cluster=replace(first, decided=at(5), next_firing=at(65)),
        firings=(firing(5, Outcome.FIRED, job_id=one.id),),
        arm=(Deadline(kind=DeadlineKind.CRON, entity=first.id, due=at(65)),),
    )
    since = bench.records.end()
    bench.records.commit(change_of(None, (), decision, cluster=first))
    assert read(bench, first.id).decided == at(5)
    assert [each.kind for each in bench.records.due(at(99), 9)] == [DeadlineKind.CRON]
    # Of the cluster only its definition is told.
    assert [type(each) for each in heard(bench, since)] == [JobAdded, TaskUpdated]
    # Without room nothing of it is.
    second = read(bench, first.id)
    before = bench.world.dump()
    with pytest.raises(LimitReached):
        another = member(first)
        bench.records.commit(
            change_of(
                None, (), replace(decision, job=another, tasks=(worker(another, 0, 0),)), cluster=second
            )
        )
    assert bench.world.dump() == before


# ------------------------------------------------------------------------------------------ firings, log


def decided(bench: Bench, *firings: Firing) -> Cluster:
    first = made(bench)
    put(bench, first, cluster=first, firings=firings)
    return first


def test_firings_read_as_they_were_written_the_newest_first(bench: Bench) -> None:
    several = firing(1, Outcome.MISSED, until=at(50), count=50)
    fired = firing(60, Outcome.FIRED, job_id=mantis(1).id)
    first = decided(bench, several, fired, firing(120))
    store = ClusterStore(bench.keyspace)
    assert store.firings(first.id, 0, 10) == ([firing(120), fired, several], 3)
    assert store.firings(first.id, 1, 1) == ([fired], 3)
    assert store.firings(first.id, 3, 1) == ([], 3)


def test_old_firings_go_and_so_do_those_that_are_too_many(bench: Bench) -> None:
    lasting = firing(120, until=at(180), count=61)
    singles = [firing(each) for each in (*range(1, 120), *range(181, 300))]
    first = decided(bench, lasting, *singles)
    store = ClusterStore(bench.keyspace)
    store.trim_firings(first.id, at(0), 1_000)
    assert store.firings(first.id, 0, 1)[1] == 239
    # Several at once count by the last of them.
    store.trim_firings(first.id, at(150), 1_000)
    left, total = store.firings(first.id, 0, 1_000)
    assert (total, left[-1], left[-2]) == (120, lasting, firing(181))
    store.trim_firings(first.id, at(0), 7)
    left, _ = store.firings(first.id, 0, 10)
    assert [each.at for each in left] == [at(each) for each in range(299, 292, -1)]
    store.trim_firings(first.id, at(9_999), 7)
    assert store.firings(first.id, 0, 10) == ([], 0)


def test_the_log_tells_of_definitions_and_removals(bench: Bench) -> None:
    since = bench.records.end()
    first = made(bench)
    put(bench, first, cluster=replace(first, decided=at(1)), firings=(firing(1),))
    second = read(bench, first.id)
    put(bench, second, cluster=second.described(replace(first.descriptor, enabled=False)))
    third = read(bench, first.id)
    put(bench, third, removes_cluster=True)
    assert heard(bench, since) == [ClusterChanged(first), ClusterChanged(third), ClusterRemoved(first.id)]


def test_a_crowded_store_takes_no_new_cluster_but_changes_of_those_that_are_there(bench: Bench) -> None:
    first = made(bench)
    with bench.world.crowded():
        with pytest.raises(Unavailable):
            put(bench, None, cluster=new(2))
        put(bench, first, cluster=first.described(replace(first.descriptor, enabled=False)))
        put(bench, read(bench, first.id), removes_cluster=True)
