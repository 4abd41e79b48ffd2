"""One commit is whole or not at all: under races, and when somebody else wrote into our keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import (
    agent,
    at,
    change,
    commit,
    deadline,
    dispatched,
    failed,
    finished,
    job,
    moved,
    saved,
    task,
    tasks,
    to_be_retried,
)
from tests.contracts.stores import Bench, at_once, nobody
from tests.repetition import again
from titus_celery.adapters import keyspace as ks
from titus_celery.adapters.layout import plan
from titus_celery.core.decision import Change, Decision, change_of
from titus_celery.core.model import Capacity, DeadlineKind, Holding, Job, StateChange, Task
from titus_celery.core.states import State
from titus_celery.errors import Conflict, Full, StoreCorrupt
from titus_celery.ports import Chunk, Source

ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)
LEASE = timedelta(seconds=10)


# ------------------------------------------------------------------------------------------------- wrong keys


def created(bench: Bench) -> Change:
    """A job with tasks is made."""
    new = job(desired=2)
    return change(None, job=new, tasks=tasks(new, 2), arm=(deadline(DeadlineKind.FANOUT, new.id, 1),))


def placed(bench: Bench) -> Change:
    """A task is dispatched, with a reservation and a deadline."""
    new = job()
    (one,) = saved(bench.records, new)
    return change(
        new,
        [one],
        tasks=(dispatched(one),),
        room=ROOM,
        arm=(deadline(DeadlineKind.REPUBLISH, one.id, 4),),
        disarm=((DeadlineKind.STUCK, one.id),),
    )


def runs(bench: Bench, of: Job, count: int = 1) -> Task:
    """A stored task, of so many, that runs and wrote something."""
    (one, *_) = saved(bench.records, of, count)
    (one,) = commit(bench.records, of, [one], to=[dispatched(one)], room=ROOM)
    (one,) = commit(bench.records, of, [one], to=[moved(one, State.STARTING, 2)])
    (one,) = commit(bench.records, of, [one], to=[moved(one, State.RUNNING, 3)])
    bench.outputs.append(one.id, [Chunk(0, Source.STDOUT, b"x")])
    return one


def failing(bench: Bench) -> Change:
    """The last task of a job fails: room, slot, counters, output, settle."""
    new = job()
    one = runs(bench, new)
    return change(new, [one], tasks=(failed(one),), disarm=((DeadlineKind.LIMIT, one.id),))


def settled(bench: Bench) -> Change:
    """A job ends."""
    new = job()
    commit(bench.records, new, [one := runs(bench, new)], to=[finished(one)])
    last = bench.records.job(new.id)[0]
    end = replace(last, history=(*last.history, StateChange(state=State.FINISHED, at=at(20))))
    return change(last, job=end, disarm=((DeadlineKind.SETTLE, new.id),))


def finishing(bench: Bench) -> Change:
    """A task ends well while another goes on."""
    new = job(desired=2)
    one = runs(bench, new, 2)
    return change(new, [one], tasks=(finished(one),))


def claimed(bench: Bench) -> Change:
    """An agent takes a task under its lease."""
    new = job()
    held = bench.registry.hold(agent(), LEASE, nobody)
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[dispatched(one)], room=ROOM)
    taken = Decision(tasks=(moved(one, State.STARTING, 2),))
    return change_of(new, [one], taken, Holding(held.id, held.epoch))


RICH = [created, placed, claimed, failing, finishing, settled]


def keys_of(bench: Bench, made: Change) -> list[tuple[str, ks.Kind]]:
    """Every key that the commit of this change looks at or writes, from the layout itself."""
    return list(ks.kinds_of(*plan(bench.keys, made)).items())


def counters_of(bench: Bench, made: Change) -> list[tuple[str, str]]:
    """Every number (key and field) that it changes."""
    writes = plan(bench.keys, made)[1]
    return [(write.key, write.field) for write in writes if isinstance(write, ks.HashAdd | ks.HashRaise)]


def test_the_stories_write_every_kind_of_key_and_counter(bench: Bench) -> None:
    """So that the next two tests leave none out."""
    changes = [story(bench) for story in RICH]
    keys = {re.sub(r"[0-9]{8}-[0-9-]+", "*", key) for made in changes for key, _ in keys_of(bench, made)}
    prefix = f"{{{bench.keyspace.namespace}}}:"
    assert {key.removeprefix(prefix) for key in keys} == {
        *("job:*", "job:*:open", "job:*:done", "job:*:spread", "task:*", "out:*", "jobs:live", "jobs:over"),
        *("cluster:batch:jobs", "job:*:subscribers"),
        *("queued", "deadlines", "log", "ledger", "agent:host-1", "agent:host-1:tasks"),
    }
    fields = {field for made in changes for _, field in counters_of(bench, made)}
    assert fields == {
        *("cpu:ENGINE:1", "memory:ENGINE:1", "tasks:ENGINE:1", "ENGINE:1", "slots:host-1"),
        *("state", "slots_ok", "slots_failed"),
    }


@pytest.mark.parametrize("story", RICH, ids=lambda story: story.__name__)
def test_a_key_of_another_kind_stops_the_whole_commit(bench: Bench, story: Callable[[Bench], Change]) -> None:
    for number in range(len(keys_of(bench, story(bench)))):
        # A new story each time, since no job gets over what is done to it here.
        made = story(bench)
        key, kind = keys_of(bench, made)[number]
        bench.spoil(key, kind)
        before = bench.world.dump()
        with pytest.raises(StoreCorrupt) as caught:
            bench.records.commit(made)
        assert caught.value.key == key
        assert bench.world.dump() == before
        bench.unspoil(key, kind)
    bench.records.commit(story(bench))


@pytest.mark.parametrize(
    "text", ["many", "", "1.5", " 1", "0x10", "-0", "007", "9" * 16, "1e3", "nan", "1\n"]
)
def test_a_counter_that_is_no_number_stops_the_whole_commit(bench: Bench, text: str) -> None:
    for story in (placed, failing, finishing):
        for number in range(len(counters_of(bench, story(bench)))):
            made = story(bench)
            key, field = counters_of(bench, made)[number]
            bench.keyspace.transact([], [ks.HashSet(key, {field: text})])
            before = bench.world.dump()
            with pytest.raises(StoreCorrupt, match=field) as caught:
                bench.records.commit(made)
            assert caught.value.key == key
            assert bench.world.dump() == before
            bench.keyspace.transact([], [ks.HashSet(key, {field: "0"})])


def test_an_entry_from_the_far_future_in_the_log_stops_the_whole_commit(bench: Bench) -> None:
    """After it, no entry could be added any more."""
    made = placed(bench)
    far = ks.Put(bench.keys.log, f"{2**64 - 1}-{2**64 - 1}", {"x": "y"}, "0-1", 1_000)
    bench.keyspace.transact([], [far])
    before = bench.world.dump()
    with pytest.raises(StoreCorrupt, match="far future"):
        bench.records.commit(made)
    assert bench.world.dump() == before


def test_reading_a_key_of_another_kind_names_it(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    bench.outputs.append(one.id, [Chunk(0, Source.STDOUT, b"x")])
    bench.registry.hold(agent(), LEASE, nobody)
    assert bench.records.installation()
    reads: list[tuple[str, ks.Kind, Callable[[], object]]] = [
        (bench.keys.installation, ks.Kind.TEXT, bench.records.installation),
        (bench.keys.live, ks.Kind.SORTED, lambda: bench.records.live_jobs(0, 1)),
        (bench.keys.queued, ks.Kind.SORTED, lambda: bench.records.queued(1)),
        (bench.keys.deadlines, ks.Kind.SORTED, lambda: bench.records.due(at(0), 1)),
        (bench.keys.open(new.id), ks.Kind.SORTED, lambda: bench.records.open_tasks(new.id)),
        (bench.keys.log, ks.Kind.STREAM, bench.records.end),
        (bench.keys.output(one.id), ks.Kind.STREAM, lambda: bench.outputs.read(one.id, 0, timedelta(0))),
        (bench.keys.ledger, ks.Kind.HASH, bench.registry.agents),
        (bench.keys.task(one.id), ks.Kind.HASH, lambda: bench.records.task(one.id)),
        (bench.keys.job(new.id), ks.Kind.HASH, lambda: bench.records.job(new.id)),
    ]
    for key, kind, read in reads:
        bench.spoil(key, kind)
        with pytest.raises(StoreCorrupt) as caught:
            read()
        assert caught.value.key == key


def test_a_transaction_that_contradicts_itself_is_a_fault(bench: Bench) -> None:
    with pytest.raises(ValueError, match="and as"):
        bench.keyspace.transact([], [ks.HashSet("k", {"a": "b"}), ks.SetAdd("k", "a", 1)])


def test_texts_arrive_as_they_were_sent(bench: Bench) -> None:
    """Long, binary-looking and non-ASCII texts take another way to the script than short ones."""
    texts = ["", "plain", '"quoted"\\', "x" * 64, "x" * 65, "ünïcode", "\0", "1", "\n\t", "{[", "日本" * 100]
    fields = {f"field {number} é": text for number, text in enumerate(texts)}
    bench.keyspace.transact([], [ks.HashSet("{t}:texts", fields)])
    for name, text in fields.items():
        bench.keyspace.transact([ks.FieldIs("{t}:texts", name, text, "it")], [])
    assert bench.keyspace.hashes(["{t}:texts"])[0] == [fields]
    bench.keyspace.transact([], [ks.Delete("{t}:texts", ks.Kind.HASH)])


# ------------------------------------------------------------------------------------------------------ races


@again(25)
def test_of_writers_on_one_version_exactly_one_wins(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    winners: list[int] = []

    def write(number: int) -> None:
        for _ in range(10):
            while True:
                now = bench.records.task(one.id).task
                try:
                    commit(bench.records, new, [now], to=[replace(now, user_retries=now.user_retries + 1)])
                except Conflict:
                    continue
                winners.append(now.version)
                break

    at_once(8, write)
    assert sorted(winners) == list(range(1, 81))
    last = bench.records.task(one.id).task
    assert (last.version, last.user_retries) == (81, 80)


@again(25)
def test_slots_that_close_at_once_are_each_counted_and_arm_settle_once(bench: Bench) -> None:
    new = job(desired=16)
    made = saved(bench.records, new, 16)
    armed: list[int] = []

    def close(number: int) -> None:
        for one in (made[number], made[number + 8]):
            end = finished(one) if one.slot % 2 else failed(one)
            commit(bench.records, new, [one], to=[end])
            if bench.records.next_due() is not None:
                armed.append(one.slot)

    at_once(8, close)
    found = bench.records.job(new.id)[0]
    assert (found.slots_ok, found.slots_failed) == (8, 8)
    assert [due.kind for due in bench.records.due(at(99), 10)] == [DeadlineKind.SETTLE]
    assert bench.records.open_tasks(new.id) == []
    assert armed


def test_settle_is_armed_by_the_last_slot_and_by_no_other(bench: Bench) -> None:
    new = job(desired=4)
    made = saved(bench.records, new, 4)
    for one in made:
        assert bench.records.next_due() is None
        commit(bench.records, new, [one], to=[to_be_retried(one, due=50) if one.slot == 3 else failed(one)])
    assert bench.records.next_due() is None


@again(25)
def test_concurrent_reservations_never_exceed_the_room(bench: Bench) -> None:
    host = agent()
    bench.registry.hold(host, LEASE, nobody)
    new = job(desired=24)
    made = saved(bench.records, new, 24)
    room = Capacity(cpu_millis=1_000, memory_bytes=2**32, slots=100)

    def place(number: int) -> int:
        won = 0
        for one in made[number * 3 : number * 3 + 3]:
            try:
                commit(bench.records, new, [one], to=[dispatched(one, host, cpu=150)], room=room)
                won += 1
            except Full:
                pass
        return won

    assert sum(at_once(8, place)) == 6
    assert bench.registry.agents()[0][0].used.cpu_millis == 900
    assert len(bench.registry.tasks_on(host.id)) == 6


def test_a_task_dispatched_again_moves_its_reservation(bench: Bench) -> None:
    left, right = agent("left", engine="E1"), agent("right", engine="E2")
    for host in (left, right):
        bench.registry.hold(host, LEASE, nobody)
    new = job()
    (one,) = saved(bench.records, new)
    (one,) = commit(bench.records, new, [one], to=[dispatched(one, left, cpu=7)], room=ROOM)
    again = replace(dispatched(one, right, cpu=9), history=one.history)
    (one,) = commit(bench.records, new, [one], to=[again], room=ROOM)
    used = {host.host: host.used for host in bench.registry.agents()[0]}
    assert (used["left"].cpu_millis, used["left"].slots) == (0, 0)
    assert (used["right"].cpu_millis, used["right"].slots) == (9, 1)
    assert bench.registry.tasks_on(left.id) == []
    assert len(bench.registry.tasks_on(right.id)) == 1


def test_of_two_who_end_a_job_one_is_refused(bench: Bench) -> None:
    made = settled(bench)

    def end(_: int) -> bool:
        try:
            bench.records.commit(made)
        except Conflict:
            return False
        return True

    assert sum(at_once(4, end)) == 1


@again(25)
def test_a_kill_and_a_dispatch_at_once_leave_no_order_after_the_kill(bench: Bench) -> None:
    for _ in range(20):
        new = job()
        (one,) = saved(bench.records, new)

        def act(number: int, new: Job = new, one: Task = one) -> str:
            try:
                if number:
                    commit(bench.records, new, job=replace(new, intent=2))
                    return bench.records.task(one.id).task.state.name
                commit(bench.records, new, [one], to=[dispatched(one)], room=ROOM)
                return "placed"
            except Conflict:
                return "refused"

        placing, seen_after_kill = at_once(2, act)
        # If the order was placed, whoever killed sees it; if not, it never comes.
        assert bench.records.task(one.id).task.state.name == seen_after_kill
        assert (placing, seen_after_kill) in {("placed", "DISPATCHED"), ("refused", "QUEUED")}
        commit(bench.records, replace(new, intent=2), to=[task(new, 1)])
        if seen_after_kill == "DISPATCHED":
            now = bench.records.task(one.id).task
            commit(bench.records, replace(new, intent=2), [now], to=[failed(now)])
