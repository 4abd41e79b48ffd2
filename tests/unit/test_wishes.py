"""Where a task may go when its owner has wishes (docs/semantics.md B8.2) or needs disk, network or GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import START, agent, at
from titus_celery.core.constraints import Wishes, check, wishes
from titus_celery.core.descriptor import Constraints, Container, Demand, Image
from titus_celery.core.model import Agent, Capacity, EngineId
from titus_celery.core.placement import Board, Need, Spread, need_of

GIB = 2**30
SMALL = Demand(cpu_millis=100, memory_bytes=1)


def an_agent(name: str, *, cpu: int = 0, engine: str = "", **parts: Any) -> Agent:
    """A live agent of its own engine, of which so much cpu is taken."""
    parts.setdefault("used", Capacity(cpu_millis=cpu, memory_bytes=0, slots=0))
    return agent(name, engine=engine or f"E:{name}", lease_until=at(10), **parts)


def picked(need: Need, *agents: Agent, spread: dict[str, int] | None = None) -> str:
    """The id of the agent that is chosen, or why there is none."""
    there: Spread = {EngineId(f"E:{name}"): count for name, count in (spread or {}).items()}
    choice = Board.of(agents, START).pick(need, there)
    return choice if isinstance(choice, str) else choice.id


def hard(**parts: Any) -> Need:
    return Need(demand=SMALL, hard=Wishes(**parts))


def soft(**parts: Any) -> Need:
    return Need(demand=SMALL, soft=Wishes(**parts))


# ------------------------------------------------------------------------------------------ reading them


def test_constraints_are_read_in_any_case_and_a_switch_needs_no_value() -> None:
    given = {"ZONEBALANCE": "", "uniqueHost": "TRUE", "exclusivehost": " false ", "Host": " h1 "}
    assert wishes(Constraints(constraints=given)) == Wishes(zone_balance=True, unique_host=True, host="h1")
    assert wishes(Constraints(constraints={"serverGroup": "gpu"})) == Wishes(queue="gpu")


@pytest.mark.parametrize(
    ("soft_ones", "hard_ones", "field"),
    [
        ({"colour": "red"}, {}, "softConstraints.constraints[colour]"),
        ({}, {"uniqueHost": "yes"}, "hardConstraints.constraints[uniqueHost]"),
        ({}, {"host": " "}, "hardConstraints.constraints[host]"),
        ({}, {"serverGroup": ""}, "hardConstraints.constraints[serverGroup]"),
        ({}, {"host": "x" * 256}, "hardConstraints.constraints[host]"),
        ({"UniqueHost": ""}, {"uniquehost": ""}, "hardConstraints.constraints[uniqueHost]"),
    ],
)
def test_what_no_constraint_can_be_is_refused(
    soft_ones: dict[str, str], hard_ones: dict[str, str], field: str
) -> None:
    found = check("c", Constraints(constraints=soft_ones), Constraints(constraints=hard_ones))
    assert [violation.field for violation in found] == [f"c.{field}"]


def test_expressions_are_refused() -> None:
    expression = Constraints(expression="zoneBalance AND host == x")
    found = check("c", expression, expression)
    assert [each.field for each in found] == ["c.softConstraints.expression", "c.hardConstraints.expression"]


# ------------------------------------------------------------------------------------------ hosts


def test_a_host_that_is_insisted_on_is_the_only_one() -> None:
    agents = [an_agent("a"), an_agent("b", cpu=3_950)]
    assert picked(hard(host="b"), *agents) == (
        "2 agents serve queue default: 1 is not host b, 1 lacks cpu (needs 0.1 cores)"
    )
    assert picked(hard(host="a"), *agents) == "a"


def test_a_host_that_is_wished_for_comes_first_and_others_will_do() -> None:
    assert picked(soft(host="b"), an_agent("a", cpu=3_000), an_agent("b")) == "b"
    assert picked(soft(host="b"), an_agent("a"), an_agent("b", cpu=4_000)) == "a"


def test_a_server_group_is_a_queue() -> None:
    need = need_of(
        Container(
            image=Image(id="r/app@sha256:1"),
            hard_constraints=Constraints(constraints={"serverGroup": "gpu"}),
        ),
        {},
    )
    assert need.queue == "gpu"
    assert picked(need, an_agent("a")) == "no agent serves queue gpu"
    assert picked(need, an_agent("a"), an_agent("b", queues=("default", "gpu"))) == "b"


def test_a_server_group_that_is_wished_for_comes_first() -> None:
    agents = [an_agent("a", cpu=3_000), an_agent("b", queues=("default", "gpu"))]
    assert picked(soft(queue="gpu"), *agents) == "b"
    assert picked(soft(queue="fast"), *agents) == "a"


# ------------------------------------------------------------------------------------------ company


def test_no_two_tasks_of_a_job_on_one_host_if_that_is_insisted_on() -> None:
    agents = [an_agent("a", cpu=3_000), an_agent("b")]
    assert picked(hard(unique_host=True), *agents, spread={"a": 1}) == "b"
    assert picked(hard(unique_host=True), *agents, spread={"a": 1, "b": 2}) == (
        "2 agents serve queue default: 2 have a task of this job"
    )


def test_two_tasks_of_a_job_on_one_host_if_there_is_no_other() -> None:
    agents = [an_agent("a", cpu=3_000), an_agent("b")]
    assert picked(soft(unique_host=True), *agents, spread={"a": 1}) == "b"
    assert picked(soft(unique_host=True), *agents[:1], spread={"a": 1}) == "a"


def test_a_job_that_wants_a_host_for_itself_gets_one_without_other_jobs() -> None:
    busy, free = an_agent("a", engine_tasks=3), an_agent("b")
    assert picked(hard(exclusive_host=True), busy, free) == "b"
    assert picked(hard(exclusive_host=True), busy) == (
        "1 agent serves queue default: 1 has tasks of other jobs"
    )
    # Its own tasks are no company.
    assert picked(hard(exclusive_host=True), busy, spread={"a": 3}) == "a"


def test_nobody_else_comes_to_a_host_that_a_job_has_for_itself() -> None:
    kept = an_agent("a", engine_tasks=2, engine_exclusive=2)
    assert picked(Need(demand=SMALL), kept) == ("1 agent serves queue default: 1 is kept by a job for itself")
    assert picked(Need(demand=SMALL), kept, an_agent("b")) == "b"
    assert picked(hard(exclusive_host=True), kept, spread={"a": 2}) == "a"


def test_what_a_pass_places_is_company_for_the_next() -> None:
    board = Board.of([an_agent("a")], START)
    first = board.pick(hard(exclusive_host=True))
    assert isinstance(first, Agent)
    board.take(first, SMALL, exclusive=True)
    assert board.pick(Need(demand=SMALL)) == "1 agent serves queue default: 1 is kept by a job for itself"


# ------------------------------------------------------------------------------------------ zones


def zoned(*zones: str) -> list[Agent]:
    return [an_agent(f"{zone}{number}", zone=zone) for number, zone in enumerate(zones)]


def test_tasks_are_spread_evenly_over_zones() -> None:
    agents = zoned("x", "x", "y")
    assert picked(hard(zone_balance=True), *agents, spread={"x0": 1}) == "y2"
    assert picked(soft(zone_balance=True), *agents, spread={"x0": 1, "x1": 1, "y2": 1}) == "y2"
    assert picked(hard(zone_balance=True), *agents, spread={"x0": 1, "y2": 2}) == "x0"


def test_a_zone_without_room_is_waited_for_only_if_that_is_insisted_on() -> None:
    agents = [an_agent("x0", zone="x"), an_agent("y1", zone="y", cpu=4_000)]
    assert picked(hard(zone_balance=True), *agents, spread={"x0": 1}) == (
        "2 agents serve queue default: 1 is in a zone that has more, 1 lacks cpu (needs 0.1 cores)"
    )
    assert picked(soft(zone_balance=True), *agents, spread={"x0": 1}) == "x0"


def test_a_zone_without_a_live_agent_is_not_waited_for() -> None:
    dead = agent("y1", engine="E:y1", zone="y", lease_until=at(-1))
    assert picked(hard(zone_balance=True), an_agent("x0", zone="x"), dead, spread={"x0": 4}) == "x0"


# ------------------------------------------------------------------------------------------ images


def test_an_image_that_only_some_engines_have_binds_the_task_to_them() -> None:
    container = Container(image=Image(name="app:1", id="sha256:1"))
    inventories = {EngineId("E:b"): ["sha256:1"], EngineId("E:a"): ["sha256:2"]}
    agents = [an_agent("a"), an_agent("b")]
    assert picked(need_of(container, inventories), *agents) == "b"
    assert picked(need_of(container, {}), *agents) == "2 agents serve queue default: 2 lack the image"


def test_an_image_that_is_known_by_its_digest_can_be_had_anywhere() -> None:
    container = Container(image=Image(name="r.example.com/app:1", id="r.example.com/app@sha256:1"))
    assert need_of(container, {}).engines is None


# ------------------------------------------------------------------------------------------ amounts

ROOM = Capacity(
    cpu_millis=4_000, memory_bytes=4 * GIB, slots=8, disk_bytes=10**10, network_mbps=1_000, gpus=("g0", "g1")
)


@pytest.mark.parametrize(
    ("demand", "used", "why"),
    [
        ({"disk_bytes": 5 * 10**9}, {"disk_bytes": 6 * 10**9}, "disk (needs 5 GB)"),
        ({"network_mbps": 200}, {"network_mbps": 801}, "network (needs 200 Mbps)"),
        ({"gpus": 2}, {"gpus": ("g1",)}, "GPUs (needs 2)"),
    ],
)
def test_disk_network_and_gpus_are_room_too(demand: dict[str, Any], used: dict[str, Any], why: str) -> None:
    need = Need(demand=Demand(cpu_millis=1, memory_bytes=1, **demand))
    nothing = Capacity(cpu_millis=0, memory_bytes=0, slots=0)
    assert picked(need, an_agent("a", capacity=ROOM, used=nothing)) == "a"
    taken = Capacity(cpu_millis=0, memory_bytes=0, slots=0, **used)
    assert picked(need, an_agent("a", capacity=ROOM, used=taken)) == (
        f"1 agent serves queue default: 1 lacks {why}"
    )


def test_disk_and_network_that_nobody_measured_are_without_a_limit() -> None:
    need = Need(demand=Demand(cpu_millis=1, memory_bytes=1, disk_bytes=10**15, network_mbps=10**6))
    assert picked(need, an_agent("a")) == "a"
    assert picked(Need(demand=Demand(cpu_millis=1, memory_bytes=1, gpus=1)), an_agent("a")) == (
        "1 agent serves queue default: 1 lacks GPUs (needs 1)"
    )
