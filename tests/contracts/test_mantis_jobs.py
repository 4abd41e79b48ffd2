"""Mantis jobs, their workers and their subscribers, on every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import agent, at, change, commit, dispatched, failed, finished, moved
from tests.contracts.over import ROOM, settled
from tests.contracts.stores import Bench
from tests.unit.clusters import ID, mantis
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.core.claims import ClaimKind, user_type_name
from titus_celery.core.decision import JobMoved
from titus_celery.core.mantis import moved_on
from titus_celery.core.model import Job, KillIntent, StageSlots, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.sizing import first_slots
from titus_celery.core.states import State
from titus_celery.errors import Taken


def made(bench: Bench, *workers: int, **spec: Any) -> tuple[Job, tuple[Task, ...]]:
    """A new job on record, and its workers."""
    decision = first_slots(
        replace(mantis(*workers, made=(0,) * len(workers), spec=spec), slots_made=0), at(0)
    )
    assert decision.job is not None
    commit(bench.records, None, to=decision.tasks, job=decision.job)
    return decision.job, decision.tasks


def read(bench: Bench, one: Job) -> Job:
    return bench.records.job(one.id)[0]


def put(bench: Bench, one: Job, *to: Task) -> None:
    """Commit that workers are so now."""
    known = bench.records.open_tasks(one.id)
    commit(bench.records, read(bench, one), known, to=to, room=ROOM)


def running(one: Task) -> Task:
    return moved(moved(dispatched(one, agent()), State.STARTING, 2), State.RUNNING, 3)


def test_a_job_reads_as_it_was_written_stages_and_all(bench: Bench) -> None:
    one, workers = made(
        bench, 2, 1, agreement={"is_transient": True, "user_type": "t"}, parameters={"a": "b"}
    )
    assert read(bench, one) == one
    assert one.stages == (StageSlots(made=2), StageSlots(made=1))
    assert bench.records.task(workers[2].id).task == workers[2]


def test_workers_stand_by_stage_and_slot(bench: Bench) -> None:
    one, workers = made(bench, 11, 2)
    assert list(bench.records.open_tasks(one.id)) == list(workers)
    assert [view.task.id for view in bench.records.queued(100)] == [each.id for each in workers]


def test_an_intent_with_its_reason_reads_as_it_was_written(bench: Bench) -> None:
    one, _ = made(bench, 1)
    intent = KillIntent(by="titus", at=at(5), reason=Reason(Code.NORMAL, "so"), is_success=True)
    commit(bench.records, one, job=one.with_intent(intent))
    assert read(bench, one).kill == intent


def test_the_slots_of_each_stage_that_are_over_are_counted(bench: Bench) -> None:
    one, (a, b, c) = made(bench, 2, 1)
    put(bench, one, finished(running(a)), failed(running(c)))
    after = read(bench, one)
    assert (after.slots_ok, after.slots_failed, after.stages_over) == (1, 1, {"0": 1, "1": 1})
    # One that is not wanted any more is not over, and one that is to be replaced neither.
    surplus = replace(failed(running(b)), stop_for=Reason(Code.SCALED_DOWN))
    put(bench, one, surplus)
    assert read(bench, one).stages_over == {"0": 1, "1": 1}


def test_workers_alone_do_not_bring_their_job_to_running(bench: Bench) -> None:
    one, (a, b) = made(bench, 2)
    put(bench, one, running(a), running(b))
    assert [step.state.name for step in read(bench, one).history] == ["QUEUED", "DISPATCHED", "STARTING"]


def test_all_of_them_together_do_and_observers_of_clusters_hear_of_it(bench: Bench) -> None:
    one, (a,) = made(bench, 1)
    put(bench, one, running(a))
    since = bench.records.end()
    step = moved_on(read(bench, one), bench.records.open_tasks(one.id), at(9))
    bench.records.commit(change(read(bench, one), job=step.job))
    after = read(bench, one)
    assert after.history[-1].state is State.RUNNING
    assert after.history[-1].at == at(9)
    assert [entry for _, entry in bench.records.read(since, 9, timedelta(0))] == [JobMoved(after)]


def test_an_archived_job_reads_the_same(bench: Bench) -> None:
    one, (a, b) = made(bench, 1, 1)
    put(bench, one, finished(running(a)), failed(running(b)))
    settled(bench, read(bench, one))
    before, tasks = read(bench, one), bench.records.finished_tasks(one.id, 9)
    bench.records.archive(one.id)
    assert bench.records.archived(one.id) is not None
    assert read(bench, one) == before
    assert (before.stages, before.stages_over) == (one.stages, {"0": 1, "1": 1})
    assert bench.records.finished_tasks(one.id, 9) == tasks
    assert bench.records.task(b.id).task.stage == 1


def test_a_users_type_is_one_jobs_of_a_cluster_at_a_time(bench: Bench) -> None:
    one, (a,) = made(bench, 1, agreement={"user_type": "t"})
    claim = bench.records.claimed(ClaimKind.USER_TYPE, user_type_name(ID, "t"))
    assert claim is not None
    assert claim.id == one.id
    with pytest.raises(Taken, match="userProvidedType"):
        made(bench, 1, agreement={"user_type": "t"})
    made(bench, 1, agreement={"user_type": "u"})
    made(bench, 1)
    put(bench, one, finished(running(a)))
    settled(bench, read(bench, one))
    assert bench.records.claimed(ClaimKind.USER_TYPE, user_type_name(ID, "t")) is None
    made(bench, 1, agreement={"user_type": "t"})


# ------------------------------------------------------------------------------------------ subscribers


def test_a_job_has_subscribers_until_the_last_holder_says(bench: Bench) -> None:
    one, _ = made(bench, 1)
    store = SubscriberStore(bench.keyspace)
    assert store.until(one.id) is None
    now = bench.records.now()
    store.hold(one.id, "gateway-1", timedelta(seconds=30))
    store.hold(one.id, "gateway-2", timedelta(seconds=10))
    until = store.until(one.id)
    assert until is not None
    assert timedelta(seconds=30) <= until - now < timedelta(seconds=40)
    # Said again, it moves.
    store.hold(one.id, "gateway-1", timedelta(seconds=5))
    until = store.until(one.id)
    assert until is not None
    assert timedelta(seconds=10) <= until - now < timedelta(seconds=20)


def test_a_job_that_is_over_keeps_nothing_of_its_subscribers(bench: Bench) -> None:
    one, (a,) = made(bench, 1)
    store = SubscriberStore(bench.keyspace)
    store.hold(one.id, "gateway-1", timedelta(seconds=30))
    put(bench, one, finished(running(a)))
    settled(bench, read(bench, one))
    assert store.until(one.id) is None
    before = bench.world.dump()
    # Its stream is open for a moment longer.
    store.hold(one.id, "gateway-1", timedelta(seconds=30))
    assert bench.world.dump() == before
    left = bench.world.time_left(bench.keys.subscribers(one.id))
    assert left is None
