"""Which agent gets a task, or the sentence that says why none does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import START, agent, at
from titus_celery.core.descriptor import Demand
from titus_celery.core.model import (
    Agent,
    Capacity,
)
from titus_celery.core.placement import Board, Need

GIB: Final = 2**30
#: A minute after START leases of builders' agents are over; these tests look at START.
NOW: Final = START


def an_agent(
    name: str = "host-1", *, engine: str = "", cpu: int = 0, memory: int = 0, slots: int = 0, **parts: Any
) -> Agent:
    """A live agent of 4 cores, 4 GiB and 8 slots, of which so much is taken."""
    used = Capacity(cpu_millis=cpu, memory_bytes=memory, slots=slots)
    plain = agent(name, engine=engine or f"ENGINE:{name}", used=used, lease_until=at(10))
    return replace(plain, **parts)


def need(cpu: int = 1_000, memory: int = GIB, **parts: Any) -> Need:
    return Need(demand=Demand(cpu_millis=cpu, memory_bytes=memory), **parts)


def picked(*agents: Agent, demand: Need | None = None) -> str:
    """The id of the agent that is chosen, or why there is none."""
    choice = Board.of(agents, NOW).pick(demand or need())
    return choice if isinstance(choice, str) else choice.id


# ------------------------------------------------------------------------------------------ fitting


@pytest.mark.parametrize(
    "taken",
    [
        # Exactly what is needed is left: 4 - 3 cores, 4 - 3 GiB, 8 - 7 slots.
        {"cpu": 3_000},
        {"memory": 3 * GIB},
        {"slots": 7},
        {"cpu": 3_000, "memory": 3 * GIB, "slots": 7},
    ],
)
def test_a_task_that_just_fits_is_placed(taken: dict[str, Any]) -> None:
    assert picked(an_agent(**taken)) == "host-1"


@pytest.mark.parametrize(
    ("taken", "why"),
    [
        ({"cpu": 3_001}, "1 agent serves queue default: 1 lacks cpu (needs 1 cores)"),
        ({"memory": 3 * GIB + 1}, "1 agent serves queue default: 1 lacks memory (needs 1 GiB)"),
        ({"slots": 8}, "1 agent serves queue default: 1 lacks a free slot"),
        # Of several the first: a person mends one thing at a time.
        (
            {"cpu": 4_000, "memory": 4 * GIB, "slots": 8},
            "1 agent serves queue default: 1 lacks cpu (needs 1 cores)",
        ),
    ],
)
def test_a_task_that_just_does_not_fit_waits_and_says_why(taken: dict[str, Any], why: str) -> None:
    assert picked(an_agent(**taken)) == why


def test_more_is_taken_than_there_is_after_a_host_shrank() -> None:
    assert picked(an_agent(cpu=9_000)) == "1 agent serves queue default: 1 lacks cpu (needs 1 cores)"


def test_the_fullest_agent_that_fits_is_chosen() -> None:
    assert picked(an_agent("empty"), an_agent("half", cpu=2_000), an_agent("full", cpu=3_500)) == "half"


def test_of_equals_the_first_by_name_is_chosen() -> None:
    assert picked(an_agent("b"), an_agent("a"), an_agent("c")) == "a"


# ------------------------------------------------------------------------------------------ leases and proofs


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        (0.001, "host-1"),
        (0, "1 agent serves queue default: 1 lacks a live lease"),
        (-100, "1 agent serves queue default: 1 lacks a live lease"),
    ],
)
def test_a_lease_holds_until_its_last_moment(lease: float, why: str) -> None:
    assert picked(an_agent(lease_until=at(lease))) == why


@pytest.mark.parametrize(
    ("proved", "why"),
    [
        (-20, "host-1"),
        (-20.001, "1 agent serves queue default: 1 lacks a consumer that answers"),
        # A clock that was set back does not count against it.
        (5, "host-1"),
    ],
)
def test_a_consumer_that_was_not_proved_for_20_s_gets_nothing(proved: float, why: str) -> None:
    assert picked(an_agent(proved_at=at(proved))) == why


# ------------------------------------------------------------------------------------------ sentences


def test_no_agent_serves_the_queue() -> None:
    assert picked(an_agent(queues=("gpu",))) == "no agent serves queue default"
    assert picked() == "no agent serves queue default"


def test_an_agent_may_serve_several_queues() -> None:
    assert picked(an_agent(queues=("gpu", "default"))) == "host-1"


def test_each_lack_is_counted() -> None:
    assert picked(
        an_agent("a", cpu=3_900),
        an_agent("b", cpu=3_900),
        an_agent("c", memory=4 * GIB),
        an_agent("d", lease_until=at(-1)),
        an_agent("e", slots=8),
        an_agent("f", proved_at=at(-60)),
        an_agent("g", queues=("gpu",)),
        demand=need(cpu=500, memory=128_000_000),
    ) == (
        "6 agents serve queue default: 1 lacks a consumer that answers, 1 lacks a free slot, "
        "1 lacks a live lease, 2 lack cpu (needs 0.5 cores), 1 lacks memory (needs 0.119 GiB)"
    )


# ------------------------------------------------------------------------------------------ one pass


def test_what_is_placed_is_off_the_room() -> None:
    """Four tasks of one core fit on four cores, the fifth goes to the next host."""
    board = Board.of([an_agent("a"), an_agent("b")], NOW)
    chosen = []
    for _ in range(9):
        choice = board.pick(need())
        chosen.append(choice if isinstance(choice, str) else choice.id)
        if not isinstance(choice, str):
            board.take(choice, need().demand)
    assert chosen == [*"aaaabbbb", "2 agents serve queue default: 2 lack cpu (needs 1 cores)"]


def test_picking_takes_nothing() -> None:
    board = Board.of([an_agent(cpu=3_000)], NOW)
    assert board.pick(need()) == board.pick(need()) == an_agent(cpu=3_000)


def test_agents_on_one_engine_share_cpu_and_memory_but_not_slots() -> None:
    first, second = an_agent("a", engine="E"), an_agent("b", engine="E")
    board = Board.of([first, second], NOW)
    board.take(first, need(cpu=3_000, memory=2 * GIB).demand)
    assert board.pick(need(cpu=1_001, memory=1)) == (
        "2 agents serve queue default: 2 lack cpu (needs 1.001 cores)"
    )
    assert board.pick(need(cpu=1, memory=3 * GIB)) == (
        "2 agents serve queue default: 2 lack memory (needs 3 GiB)"
    )
    taken = Capacity(cpu_millis=3_000, memory_bytes=2 * GIB, slots=1)
    assert board.pick(need(cpu=1, memory=1)) == replace(first, used=taken, engine_tasks=1)
    board.drop(first)
    assert board.pick(need(cpu=1, memory=1)) == replace(second, used=replace(taken, slots=0), engine_tasks=1)


def test_an_agent_that_others_filled_counts_as_full_not_as_gone() -> None:
    board = Board.of([an_agent()], NOW)
    board.drop(an_agent())
    assert board.pick(need()) == "1 agent serves queue default: 1 lacks a free slot"


_capacities: Final = st.builds(
    Capacity,
    cpu_millis=st.integers(0, 4_000),
    memory_bytes=st.integers(0, 4 * GIB),
    slots=st.integers(0, 8),
)


@given(
    hosts=st.lists(_capacities, max_size=4),
    demands=st.lists(
        st.builds(Demand, cpu_millis=st.integers(1, 2_000), memory_bytes=st.integers(1, 2 * GIB)), max_size=20
    ),
)
def test_no_host_is_ever_given_more_than_it_has(hosts: list[Capacity], demands: list[Demand]) -> None:
    agents = {str(place): an_agent(str(place), capacity=host) for place, host in enumerate(hosts)}
    board = Board.of(agents.values(), NOW)
    held: dict[str, list[Demand]] = {name: [] for name in agents}
    for demand in demands:
        choice = board.pick(Need(demand=demand))
        if isinstance(choice, str):
            continue
        board.take(choice, demand)
        held[choice.id].append(demand)
    for name, given_to in held.items():
        room = agents[name].capacity
        assert sum(one.cpu_millis for one in given_to) <= room.cpu_millis
        assert sum(one.memory_bytes for one in given_to) <= room.memory_bytes
        assert len(given_to) <= room.slots
