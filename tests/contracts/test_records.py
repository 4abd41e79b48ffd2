"""Records: jobs, tasks and deadlines as every store keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import (
    START,
    at,
    change,
    commit,
    dispatched,
    failed,
    finished,
    job,
    killed,
    moved,
    replacement,
    saved,
    task,
    to_be_retried,
)
from tests.contracts.stores import Bench, at_once
from titus_celery.adapters.keyspace import HashSet, to_ms
from titus_celery.adapters.store import RecordStore
from titus_celery.core.decision import Decision, change_of
from titus_celery.core.model import Address, Capacity, DeadlineKind, Job, JobId, StateChange, Task, TaskId
from titus_celery.core.states import State
from titus_celery.errors import Conflict, NotFound, StoreCorrupt
from titus_celery.ports import Chunk, Records, Source

ROOM = Capacity(cpu_millis=1_000, memory_bytes=2**30, slots=8)


def over(last: Job, state: State, when: float = 20) -> Job:
    """The job, ended."""
    return replace(last, history=(*last.history, StateChange(state=state, at=at(when))))


def run(records: Records, of: Job, one: Task, end: Task | None = None) -> Task:
    """The task's whole life in commits, up to its end."""
    (one,) = commit(records, of, [one], to=[dispatched(one)], room=ROOM)
    (one,) = commit(records, of, [one], to=[moved(one, State.STARTING, 2)])
    (one,) = commit(records, of, [one], to=[moved(one, State.RUNNING, 3)])
    last = (
        replace(end, history=(*one.history, end.history[-1]), dispatch=one.dispatch) if end else finished(one)
    )
    (one,) = commit(records, of, [one], to=[last])
    return one


def test_a_new_job_is_found_whole_with_its_tasks_by_slot(bench: Bench) -> None:
    new = job(desired=12)
    made = saved(bench.records, new, 12)
    assert bench.records.job(new.id)[0] == new
    assert bench.records.open_tasks(new.id) == list(made)
    view = bench.records.task(made[3].id)
    assert (view.job, view.task) == (new, made[3])
    assert bench.records.live_jobs(0, 10) == ([new], 1)


def test_reads_carry_the_stores_time_in_whole_milliseconds(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    before = bench.records.now()
    assert before <= bench.records.job(new.id)[1] <= bench.records.task(one.id).now <= bench.records.now()
    assert before.microsecond % 1000 == 0 and before.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "id", ["", "*", "a?c", "x:open", "{t}", "\0", "a\nb", "x" * 10_240, "ünicode", "job-1-1\n", "../x", " "]
)
def test_an_id_that_cannot_be_is_not_found(bench: Bench, id: str) -> None:
    saved(bench.records, job())
    with pytest.raises(NotFound):
        bench.records.job(JobId(id))
    for task_id in (id, f"{id}-0-1", f"{job(1).id}-0-{id}"):
        with pytest.raises(NotFound):
            bench.records.task(TaskId(task_id))


def test_an_id_that_nobody_has_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.records.job(job().id)
    with pytest.raises(NotFound):
        bench.records.task(task(job()).id)


def test_a_job_that_exists_is_not_made_again(bench: Bench) -> None:
    new = job()
    saved(bench.records, new)
    before = bench.world.dump()
    with pytest.raises(Conflict, match=f"^job {new.id} "):
        commit(bench.records, None, job=replace(new, created_by="eve"))
    assert bench.world.dump() == before


def test_a_task_that_exists_is_not_made_again(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    with pytest.raises(Conflict, match=one.id):
        commit(bench.records, new, to=[task(new, address=Address(ip="1.2.3.4"))])
    assert bench.records.task(one.id).task == one


def test_a_stale_task_is_refused_and_nothing_is_written(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    commit(bench.records, new, [first], to=[replace(first, address=Address(ip="1.1.1.1"))])
    before = bench.world.dump()
    with pytest.raises(Conflict, match=first.id):
        # The other task is fresh, and still must not change alone.
        commit(bench.records, new, [second, first], to=[finished(second), finished(first)])
    assert bench.world.dump() == before


def test_after_a_kill_nothing_decided_before_it_is_written(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    commit(bench.records, new, job=killed(new))
    before = bench.world.dump()
    with pytest.raises(Conflict, match=new.id):
        commit(bench.records, new, [one], to=[dispatched(one)], room=ROOM)
    with pytest.raises(Conflict, match=new.id):
        commit(bench.records, new, to=[task(new, 1)])
    with pytest.raises(Conflict, match=new.id):
        commit(bench.records, new, job=killed(new, when=6))
    assert bench.world.dump() == before
    found = bench.records.job(new.id)[0]
    assert (found.kill, found.intent, found.version) == (killed(new).kill, 2, 2)


def test_a_job_is_as_far_as_the_furthest_of_its_tasks_and_never_goes_back(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    run(bench.records, new, first)
    assert bench.records.job(new.id)[0].history == (
        StateChange(state=State.QUEUED, at=START),
        StateChange(state=State.DISPATCHED, at=at(1)),
        StateChange(state=State.STARTING, at=at(2)),
        StateChange(state=State.RUNNING, at=at(3)),
    )
    commit(bench.records, new, [second], to=[dispatched(second, when=8)], room=ROOM)
    after = bench.records.job(new.id)[0]
    assert after.state is State.RUNNING and after.history[1].at == at(1)


def test_a_decision_on_an_older_job_does_not_set_its_state_back(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    commit(bench.records, new, [one], to=[dispatched(one)], room=ROOM)
    commit(bench.records, new, job=killed(new))
    found = bench.records.job(new.id)[0]
    assert found.state is State.DISPATCHED and found.kill is not None


def test_a_task_that_skipped_states_tells_the_job_only_where_it_was(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    commit(bench.records, new, [one], to=[moved(one, State.RUNNING, 4)])
    assert [step.state for step in bench.records.job(new.id)[0].history] == [State.QUEUED, State.RUNNING]


def test_of_tasks_that_get_on_together_the_job_tells_the_earliest_time(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    on_their_way = [dispatched(first, when=6), dispatched(second, when=4)]
    commit(bench.records, new, [first, second], to=on_their_way, room=ROOM)
    assert bench.records.job(new.id)[0].history[1].at == at(4)


def test_slots_are_counted_when_they_are_over_and_the_first_failure_stays(bench: Bench) -> None:
    new = job(desired=3)
    first, second, third = saved(bench.records, new, 3)
    run(bench.records, new, first)
    commit(bench.records, new, [second], to=[failed(second)])
    commit(bench.records, new, [third], to=[failed(third)])
    found = bench.records.job(new.id)[0]
    assert (found.slots_ok, found.slots_failed) == (1, 2)
    assert found.first_failure == f"{second.id}: failed: as told"


def test_a_failed_task_keeps_its_slot_until_it_is_replaced(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[to_be_retried(one, due=30)])
    assert bench.records.open_tasks(new.id) == [one]
    assert bench.records.finished_tasks(new.id, 10) == []
    old, again = commit(bench.records, new, [one], to=replacement(one, when=30))
    assert bench.records.open_tasks(new.id) == [again]
    assert bench.records.finished_tasks(new.id, 10) == [old]
    found = bench.records.job(new.id)[0]
    assert (found.slots_ok, found.slots_failed, found.first_failure) == (0, 0, "")
    assert bench.records.next_due() is None


def test_a_task_that_is_over_may_still_get_facts_and_counts_no_second_time(bench: Bench) -> None:
    new = job(desired=2)
    one, _ = saved(bench.records, new, 2)
    bench.outputs.append(one.id, [Chunk(0, Source.STDOUT, b"x")])
    (one,) = commit(bench.records, new, [one], to=[failed(one)])
    bench.world.let_pass(timedelta(milliseconds=20))
    (one,) = commit(bench.records, new, [one], to=[replace(one, address=Address(ip="1.1.1.1"))])
    assert [left.slot for left in bench.records.open_tasks(new.id)] == [1]
    assert bench.records.finished_tasks(new.id, 10) == [one]
    assert bench.records.job(new.id)[0].slots_failed == 1
    left = bench.world.time_left(bench.keys.output(one.id))
    assert left is not None and left <= timedelta(minutes=10) - timedelta(milliseconds=20)


def test_the_last_slot_to_close_arms_settle(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    run(bench.records, new, first)
    assert bench.records.next_due() is None
    commit(bench.records, new, [second], to=[failed(second, when=15)])
    [settle] = bench.records.due(at(0), 10)
    assert (settle.kind, settle.entity) == (DeadlineKind.SETTLE, new.id)


def test_settle_is_due_at_once_whatever_the_dates_of_the_ends(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    commit(bench.records, new, [first, second], to=[failed(first, when=17), failed(second, when=15)])
    assert [due.kind for due in bench.records.due(at(0), 10)] == [DeadlineKind.SETTLE]


def test_a_retry_that_is_given_up_closes_its_slot(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[to_be_retried(one, due=30)])
    commit(bench.records, new, [one], to=[replace(one, retry_at=None)])
    assert bench.records.job(new.id)[0].slots_failed == 1
    assert [due.kind for due in bench.records.due(at(99), 10)] == [DeadlineKind.SETTLE]


def test_a_job_with_an_open_slot_is_not_ended(bench: Bench) -> None:
    new = job(desired=2)
    first, second = saved(bench.records, new, 2)
    commit(bench.records, new, [first], to=[finished(first)])
    before = bench.world.dump()
    with pytest.raises(Conflict, match=new.id):
        commit(bench.records, new, job=over(new, State.FINISHED))
    with pytest.raises(Conflict, match=new.id):
        # It is not closed by a change that leaves it open.
        commit(
            bench.records,
            new,
            [second],
            to=[replace(second, address=Address(ip="1.1.1.1"))],
            job=over(new, State.FINISHED),
        )
    assert bench.world.dump() == before


def test_a_job_that_is_over_is_kept_and_nothing_about_it_changes_any_more(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    one = run(bench.records, new, one)
    settle = (DeadlineKind.SETTLE, new.id)
    last = bench.records.job(new.id)[0]
    commit(bench.records, last, job=over(last, State.FINISHED), disarm=(settle,))
    found = bench.records.job(new.id)[0]
    assert found == replace(over(last, State.FINISHED), version=2)
    assert bench.records.live_jobs(0, 10) == ([], 0)
    assert bench.keyspace.members(bench.keys.over, 0, 10) == ([(new.id, to_ms(at(20)))], 1)
    assert bench.records.next_due() is None
    before = bench.world.dump()
    for late in (
        change(last, [one], tasks=(replace(one, address=Address(ip="9.9.9.9")),)),
        change(last, tasks=(task(new, 1),)),
        change(last, job=over(last, State.FAILED)),
        change(last, job=killed(last)),
    ):
        with pytest.raises(Conflict, match=new.id):
            bench.records.commit(late)
    assert bench.world.dump() == before


def test_one_commit_may_close_the_last_slots_and_end_the_job(bench: Bench) -> None:
    new = job(desired=2)
    made = saved(bench.records, new, 2)
    commit(bench.records, new, made, to=[failed(one) for one in made], job=over(new, State.FAILED))
    found = bench.records.job(new.id)[0]
    assert found.state is State.FAILED and found.slots_failed == 2
    assert bench.records.next_due() is None


def test_live_jobs_come_by_creation_then_id_in_pages(bench: Bench) -> None:
    late, early, twin = job(903, created=9), job(902, created=1), job(901, created=1)
    for new in (late, early, twin):
        saved(bench.records, new)
    assert bench.records.live_jobs(0, 10) == ([twin, early, late], 3)
    assert bench.records.live_jobs(1, 1) == ([early], 3)
    assert bench.records.live_jobs(3, 5) == ([], 3)
    assert bench.records.live_jobs(0, 0) == ([], 3)


def test_queued_tasks_come_by_age_then_slot(bench: Bench) -> None:
    young, old = job(desired=1, created=5), job(desired=1_000)
    saved(bench.records, young)
    made = saved(bench.records, old, 1_000)
    assert [view.task.slot for view in bench.records.queued(1_000)] == list(range(1_000))
    assert [view.job.id for view in bench.records.queued(1_002)][-1] == young.id
    commit(bench.records, old, [made[0]], to=[dispatched(made[0])], room=ROOM)
    commit(bench.records, old, [made[1]], to=[failed(made[1])])
    assert [view.task for view in bench.records.queued(2)] == list(made[2:4])


def test_finished_tasks_come_newest_first(bench: Bench) -> None:
    new = job(desired=3)
    made = saved(bench.records, new, 3)
    for one, when in zip(made, (7, 9, 8), strict=True):
        commit(bench.records, new, [one], to=[finished(one, when=when)])
    assert [one.slot for one in bench.records.finished_tasks(new.id, 2)] == [1, 2]
    assert bench.records.finished_tasks(new.id, 0) == []
    assert bench.records.open_tasks(new.id) == []


def test_a_finished_tasks_output_goes_ten_minutes_later(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    bench.outputs.append(one.id, [Chunk(0, Source.STDOUT, b"x")])
    left = bench.world.time_left(bench.keys.output(one.id))
    assert left is not None and left > timedelta(days=11)
    commit(bench.records, new, [one], to=[finished(one)])
    left = bench.world.time_left(bench.keys.output(one.id))
    assert left is not None and timedelta(minutes=9) < left <= timedelta(minutes=10)
    assert bench.world.time_left(bench.keys.task(one.id)) is None


def test_the_installation_has_one_id_for_everybody(bench: Bench) -> None:
    ids = at_once(4, lambda number: RecordStore(bench.keyspace).installation())
    assert len(set(ids)) == 1 and ids[0] == bench.records.installation()


def test_a_decision_to_do_nothing_commits_nothing(bench: Bench) -> None:
    new = job()
    saved(bench.records, new)
    before = bench.world.dump()
    bench.records.commit(change_of(new, [], Decision()))
    assert bench.world.dump() == before


def test_a_record_that_cannot_be_read_is_named(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    bench.keyspace.transact([], [HashSet(bench.keys.task(one.id), {"record": '{"schema":99}'})])
    with pytest.raises(StoreCorrupt, match="schema 99") as caught:
        bench.records.task(one.id)
    assert caught.value.key == bench.keys.task(one.id)


@pytest.mark.parametrize(
    ("field", "text"),
    [("state", "3"), ("state", "x"), ("at:0", "x"), ("slots_ok", "many"), ("descriptor", "{}"), ("head", "")],
)
def test_a_job_that_cannot_be_read_is_named(bench: Bench, field: str, text: str) -> None:
    new = job()
    saved(bench.records, new)
    bench.keyspace.transact([], [HashSet(bench.keys.job(new.id), {field: text})])
    with pytest.raises(StoreCorrupt) as caught:
        bench.records.job(new.id)
    assert caught.value.key == bench.keys.job(new.id)
