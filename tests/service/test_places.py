"""Which agent a starting process becomes, and when it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from tests.builders import START, agent
from tests.contracts.stores import at_once
from tests.service.world import LEASE, World
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.core.model import Agent, AgentId, Holding
from titus_celery.errors import PlaceTaken
from titus_celery.service.lease import Lease
from titus_celery.service.places import Places

FENCE_AFTER: Final = timedelta(seconds=45)


class Machines:
    """Engines on which processes start; *passes* at each look whether another one is gone."""

    def __init__(self, registry: AgentStore | None = None, *, passes: float = 5) -> None:
        self.passes = timedelta(seconds=passes)
        self.passed = timedelta(0)
        self.dead: set[str] = set()
        self.keyspace = MemoryKeyspace(lambda: START + self.passed)
        self.registry = registry or AgentStore(self.keyspace)
        self.leases: dict[str, Lease] = {}
        #: What else happens while somebody waits.
        self.meanwhile: Callable[[], None] = lambda: None

    def monotonic(self) -> timedelta:
        return self.passed

    def is_gone(self, holder: str) -> bool:
        if holder in self.dead:
            return True
        self.passed += self.passes
        self.meanwhile()
        return False

    def places(self, holder: str) -> Places:
        self.leases[holder] = lease = Lease(self, LEASE, FENCE_AFTER)
        return Places(self.registry, self, lease, LEASE, self.is_gone)

    def named(self, holder: str, name: str = "a", engine: str = "ENGINE:1") -> Agent:
        """The process takes the place of this name."""
        return self.places(holder).named(agent(name, engine=engine, holder=holder))

    def numbered(self, holder: str, name: str = "a", engine: str = "ENGINE:1") -> AgentId:
        """The process takes the first place that is free; which that is."""
        return self.places(holder).numbered(agent(name, engine=engine, holder=holder)).id


# ------------------------------------------------------------------------------------------ by name


def test_a_process_takes_the_place_of_its_name_and_has_its_lease() -> None:
    machines = Machines()
    taken = machines.named("one")
    lease = machines.leases["one"]
    assert (taken.id, taken.holder) == ("a", "one")
    assert lease.holding() == Holding(AgentId("a"), taken.epoch)
    assert lease.is_fresh()
    assert [each.holder for each in machines.registry.agents()[0]] == ["one"]


def test_the_place_of_a_process_that_is_seen_to_be_dead_is_taken_at_once() -> None:
    machines = Machines()
    before = machines.named("one")
    machines.dead.add("one")
    after = machines.named("two")
    assert after.epoch > before.epoch
    assert machines.passed == timedelta(0)


def test_the_lease_of_a_process_that_may_be_dead_is_waited_for() -> None:
    machines = Machines()
    before = machines.named("one")
    after = machines.named("two")
    assert after.epoch > before.epoch
    assert machines.passed == LEASE


def test_a_place_that_is_kept_by_another_process_is_refused_after_a_lease() -> None:
    machines = Machines()
    kept = machines.named("one")

    def renew() -> None:
        machines.registry.hold(kept, LEASE, lambda holder: False)

    machines.meanwhile = renew
    with pytest.raises(PlaceTaken, match=r"run by another process \(one\)"):
        machines.named("two")
    assert LEASE < machines.passed <= LEASE + timedelta(seconds=10)
    assert machines.leases["two"].holding() is None


# ------------------------------------------------------------------------------------------ by number


def test_processes_get_the_places_of_their_host_one_after_the_other() -> None:
    machines = Machines(passes=0)
    assert [machines.numbered(holder) for holder in ("one", "two", "three")] == ["a-1", "a-2", "a-3"]


def test_a_place_that_became_free_is_taken_before_a_new_one() -> None:
    machines = Machines(passes=0)
    for holder in ("one", "two", "three"):
        machines.numbered(holder)
    machines.dead.add("two")
    assert machines.numbered("four") == "a-2"
    machines.registry.leave(AgentId("a-1"), "one")
    assert machines.numbered("five") == "a-1"


def test_many_processes_that_start_at_once_get_a_place_each() -> None:
    machines = Machines(passes=0)
    places = [machines.places(str(number)) for number in range(8)]
    got = at_once(8, lambda number: places[number].numbered(agent("a", holder=str(number))))
    assert {each.id for each in got} == {f"a-{number}" for number in range(1, 9)}
    assert {each.id: each.holder for each in machines.registry.agents()[0]} == {
        each.id: each.holder for each in got
    }


def test_a_successor_has_the_place_and_its_predecessor_does_not() -> None:
    machines = Machines()
    before = machines.named("one")
    machines.dead.add("one")
    machines.named("two")
    machines.dead.clear()
    with pytest.raises(PlaceTaken):
        machines.registry.hold(replace(before, holder="one"), LEASE, lambda holder: False)


# ------------------------------------------------------------------------------------------ namesakes


def test_a_namesake_that_lives_on_another_engine_is_not_waited_for() -> None:
    machines = Machines()
    machines.named("one", engine="ENGINE:1")
    with pytest.raises(PlaceTaken, match="on another engine, host a"):
        machines.named("two", engine="ENGINE:2")
    assert machines.passed == timedelta(0)


def test_a_dead_namesake_on_another_engine_keeps_its_name_while_its_lease_lasts() -> None:
    """Its death may be seen from here, but not whether its containers run."""
    machines = Machines()
    machines.named("one", engine="ENGINE:1")
    machines.dead.add("one")
    with pytest.raises(PlaceTaken):
        machines.named("two", engine="ENGINE:2")
    machines.passed += LEASE
    assert machines.named("two", engine="ENGINE:2").engine_id == "ENGINE:2"


def test_a_name_whose_tasks_are_left_on_another_engine_is_not_taken_before_they_are_given_up() -> None:
    """Whoever took it would find them without containers, and tell that these vanished."""
    world = World()
    world.host("a")
    id, _ = world.started()
    machines = Machines(world.registry)
    for _ in range(65):
        world.sleep(1, beating=False)
    with pytest.raises(PlaceTaken, match="on another engine, host a"):
        machines.named("two", engine="ENGINE:2")
    with pytest.raises(PlaceTaken):
        machines.named("three", engine="ENGINE:3")
    world.sleep(10, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}
    assert machines.named("two", engine="ENGINE:2").engine_id == "ENGINE:2"


def test_a_number_of_which_tasks_are_left_on_another_engine_is_passed_over() -> None:
    world = World()
    world.host("a-1")
    world.started()
    machines = Machines(world.registry)
    world.sleep(30, beating=False)
    assert machines.numbered("two", engine="ENGINE:2") == "a-2"
    assert machines.numbered("three", engine="ENGINE:a-1") == "a-1"
