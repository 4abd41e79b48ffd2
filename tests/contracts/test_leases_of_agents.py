"""AgentRegistry.hold and leave: of all the processes that want an agent's place, one has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import agent, change, dispatched, finished, job, moved, saved
from tests.contracts.stores import Bench, MemoryBench, at_once, nobody
from tests.repetition import again
from titus_celery.adapters.keyspace import Delete, HashSet, Kind, SetAdd, SetRemove, from_ms, to_ms
from titus_celery.adapters.registry import AGENT_KEPT
from titus_celery.core.decision import Change
from titus_celery.core.model import Agent, AgentId, Capacity, Holding, Task
from titus_celery.core.placement import LEASE_SPAN_MAX
from titus_celery.core.states import State
from titus_celery.errors import Conflict, Fenced, PlaceTaken

LEASE = timedelta(seconds=10)
SHORT = timedelta(milliseconds=5)
ROOM = Capacity(cpu_millis=4_000, memory_bytes=2**32, slots=8)
A = AgentId("a")


def hold(
    bench: Bench, holder: str, span: timedelta = LEASE, is_gone: Callable[[str], bool] = nobody
) -> Agent:
    """The lease of agent a, for this process."""
    return bench.registry.hold(agent("a", holder=holder), span, is_gone)


def lapsed(bench: Bench, holder: str) -> Agent:
    """The lease of this process, after its end."""
    held = hold(bench, holder, SHORT)
    bench.world.let_pass(SHORT)
    return held


def listed(bench: Bench) -> Agent:
    """Agent a as everybody sees it."""
    ((found,), _) = bench.registry.agents()
    return found


# ------------------------------------------------------------------------------------------------- who has it


def test_who_renews_in_time_keeps_the_epoch(bench: Bench) -> None:
    first = hold(bench, "me")
    bench.world.let_pass(SHORT)
    second = hold(bench, "me")
    assert second.epoch == first.epoch > 0
    assert second.lease_until > first.lease_until
    assert listed(bench) == second


def test_another_process_is_told_who_has_the_place_and_for_how_long(bench: Bench) -> None:
    first = hold(bench, "me")
    before = bench.world.dump()
    with pytest.raises(PlaceTaken) as caught:
        hold(bench, "you")
    assert (caught.value.agent_id, caught.value.holder) == ("a", "me")
    assert 0 < caught.value.seconds_left <= LEASE.total_seconds()
    assert bench.world.dump() == before
    assert listed(bench) == first


@pytest.mark.parametrize("next_holder", ["me", "you"])
def test_a_lease_that_ended_is_got_under_the_next_epoch(bench: Bench, next_holder: str) -> None:
    first = lapsed(bench, "me")
    second = hold(bench, next_holder)
    assert second.epoch > first.epoch
    assert second.holder == next_holder
    assert listed(bench) == second
    assert hold(bench, next_holder).epoch == second.epoch


def test_a_holder_that_is_surely_gone_is_succeeded_at_once(bench: Bench) -> None:
    first = hold(bench, "dead")
    second = hold(bench, "me", is_gone=lambda holder: holder == "dead")
    assert second.epoch > first.epoch
    with pytest.raises(PlaceTaken):
        hold(bench, "dead")
    with pytest.raises(PlaceTaken):
        hold(bench, "you", is_gone=lambda holder: holder == "dead")


def test_nobody_is_asked_whether_the_holder_of_an_ended_lease_is_gone(bench: Bench) -> None:
    """To ask may mean to look at processes, which is for nothing then."""
    asked: list[str] = []

    def is_gone(holder: str) -> bool:
        asked.append(holder)
        return False

    lapsed(bench, "me")
    hold(bench, "you", is_gone=is_gone)
    hold(bench, "you", is_gone=is_gone)
    assert asked == []


def test_no_lease_is_longer_than_control_believes_in(bench: Bench) -> None:
    longest = hold(bench, "me", LEASE_SPAN_MAX)
    assert hold(bench, "me", LEASE_SPAN_MAX).epoch == longest.epoch
    with pytest.raises(ValueError, match="longer"):
        hold(bench, "me", LEASE_SPAN_MAX + timedelta(milliseconds=1))


def test_a_lease_from_before_the_clock_was_set_back_has_ended(bench: Bench) -> None:
    first = hold(bench, "me")
    far = bench.records.now() + LEASE_SPAN_MAX + timedelta(seconds=30)
    bench.keyspace.transact([], [SetAdd(bench.keys.agents, "a", to_ms(far))])
    second = hold(bench, "you")
    assert second.epoch > first.epoch
    assert second.lease_until < far


def test_an_agent_of_a_release_without_epochs_is_there_for_who_comes(bench: Bench) -> None:
    hold(bench, "me")
    key = bench.keys.agent(A)
    kept = {name: text for name, text in bench.keyspace.hashes([key])[0][0].items() if name == "record"}
    bench.keyspace.transact([], [Delete(key, Kind.HASH), HashSet(key, {**kept, "proved_at": "7"})])
    old = listed(bench)
    assert (old.epoch, old.holder, old.proved_at) == (0, "", from_ms(7))
    held = hold(bench, "you")
    assert held.epoch > 0 and held.proved_at == from_ms(7)


# ---------------------------------------------------------------------------------------------------- leaving


def test_an_agent_that_leaves_has_no_lease_from_then_on_and_keeps_its_epoch(bench: Bench) -> None:
    first = hold(bench, "me")
    bench.registry.hold(agent("b"), LEASE, nobody)
    bench.registry.leave(A, "me")
    (gone, there), now = bench.registry.agents()
    assert gone.lease_until <= now < there.lease_until
    assert (gone.epoch, gone.holder) == (first.epoch, "me")
    bench.world.let_pass(SHORT)
    bench.registry.leave(A, "me")
    bench.registry.leave(AgentId("unknown"), "me")
    assert bench.registry.agents()[0][0] == gone
    assert len(bench.registry.agents()[0]) == 2
    assert hold(bench, "you").epoch > first.epoch


def test_only_the_holder_can_leave(bench: Bench) -> None:
    lapsed(bench, "me")
    now = hold(bench, "you")
    bench.registry.leave(A, "me")
    bench.registry.leave(A, "")
    assert listed(bench) == now


# ------------------------------------------------------------------------------------------------------ races


@again(25)
@pytest.mark.parametrize("way", ["new", "ended", "gone", "old release"])
def test_of_processes_that_get_a_free_place_at_once_exactly_one_has_it(bench: Bench, way: str) -> None:
    for _ in range(10):
        bench.keyspace.transact(
            [], [Delete(bench.keys.agent(A), Kind.HASH), SetRemove(bench.keys.agents, "a")]
        )
        if way == "ended":
            lapsed(bench, "before")
        if way in ("gone", "old release"):
            hold(bench, "before")
        if way == "old release":
            bench.keyspace.transact([], [Delete(bench.keys.agent(A), Kind.HASH)])

        def take(number: int) -> Agent | str:
            try:
                return hold(bench, f"p{number}", is_gone=lambda holder: holder == "before")
            except PlaceTaken as error:
                return error.holder

        got = at_once(6, take)
        (winner,) = [one for one in got if isinstance(one, Agent)]
        assert listed(bench) == winner
        assert {one for one in got if isinstance(one, str)} == {winner.holder}


def test_a_holder_that_renews_while_it_is_thought_gone_keeps_the_place(bench: Bench) -> None:
    first = hold(bench, "me")
    asked: list[str] = []

    def is_gone(holder: str) -> bool:
        asked.append(holder)
        if len(asked) == 1:
            bench.world.let_pass(SHORT)
            hold(bench, "me")
        return len(asked) == 1

    with pytest.raises(PlaceTaken):
        hold(bench, "you", is_gone=is_gone)
    assert asked == ["me", "me"]
    assert (listed(bench).holder, listed(bench).epoch) == ("me", first.epoch)


@again(25)
def test_a_renewal_and_a_successor_at_once_leave_one_who_believes_that_he_has_it(bench: Bench) -> None:
    """Both looked while the lease had ended, or not yet; whoever commits second must look again."""
    for _ in range(20):
        bench.keyspace.transact(
            [], [Delete(bench.keys.agent(A), Kind.HASH), SetRemove(bench.keys.agents, "a")]
        )
        first = hold(bench, "me", SHORT)
        bench.world.let_pass(SHORT - timedelta(milliseconds=1))

        def act(number: int) -> Agent | None:
            try:
                return hold(bench, ("me", "you")[number])
            except PlaceTaken:
                return None

        got = [one for one in at_once(2, act) if one]
        assert got == [listed(bench)]
        assert got[0].holder == "me" or got[0].epoch > first.epoch


# ---------------------------------------------------------------------------------------------------- fencing


def reports(bench: Bench, under: Agent) -> tuple[Change, Task]:
    """What the holder of this lease commits about a new task of its own."""
    new = job()
    (one,) = saved(bench.records, new)
    placed = change(new, [one], tasks=(dispatched(one, agent("a")),), room=ROOM)
    bench.records.commit(placed)
    (one,) = (part.after for part in placed.tasks)
    report = change(new, [one], tasks=(moved(one, State.STARTING, 2),))
    return replace(report, under=Holding(under.id, under.epoch)), one


def test_what_is_written_under_the_lease_is_written(bench: Bench) -> None:
    held = hold(bench, "me")
    report, one = reports(bench, held)
    hold(bench, "me")
    bench.records.commit(report)
    assert bench.records.task(one.id).task.state is State.STARTING


def test_who_lost_the_lease_to_nobody_may_still_tell(bench: Bench) -> None:
    report, one = reports(bench, lapsed(bench, "me"))
    bench.registry.leave(A, "me")
    bench.records.commit(report)
    assert bench.records.task(one.id).task.state is State.STARTING


def test_who_lost_the_lease_to_somebody_writes_nothing(bench: Bench) -> None:
    held = lapsed(bench, "me")
    report, _ = reports(bench, held)
    hold(bench, "you")
    before = bench.world.dump()
    with pytest.raises(Fenced) as caught:
        bench.records.commit(report)
    assert (caught.value.agent_id, caught.value.epoch) == ("a", held.epoch)
    assert bench.world.dump() == before


def test_that_the_lease_was_lost_comes_before_that_a_record_moved(bench: Bench) -> None:
    report, _ = reports(bench, lapsed(bench, "me"))
    bench.records.commit(replace(report, under=None))
    with pytest.raises(Conflict):
        bench.records.commit(report)
    hold(bench, "you")
    with pytest.raises(Fenced):
        bench.records.commit(report)


def test_who_was_forgotten_writes_nothing_and_comes_back_under_another_epoch() -> None:
    bench = Bench(world := MemoryBench())
    held = hold(bench, "me")
    report, one = reports(bench, held)
    bench.records.commit(change(report.job_before, [one], tasks=(finished(one),)))
    world.let_pass(AGENT_KEPT + LEASE)
    bench.registry.hold(agent("b"), LEASE, nobody)
    assert [one.id for one in bench.registry.agents()[0]] == ["b"]
    with pytest.raises(Fenced):
        bench.records.commit(report)
    assert hold(bench, "me").epoch > held.epoch


def test_an_epoch_is_not_given_again_by_a_store_that_forgot_it() -> None:
    """The last writes of a store may go with it; who got a place by them must not come back as its holder."""
    bench = Bench(world := MemoryBench(undo_max=1))
    first = lapsed(bench, "me")
    lost = hold(bench, "you")
    world.keyspace.restart(forget=1)
    assert listed(bench) == first
    world.let_pass(SHORT)
    assert hold(bench, "somebody else").epoch not in {first.epoch, lost.epoch}
