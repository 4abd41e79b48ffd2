"""What an agent that was away left running, and when another one has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.builders import START, agent
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.cli.leftovers import Leftovers
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    ContainerOrder,
)
from titus_celery.core.model import (
    AgentId,
    JobId,
    TaskId,
)

LEASE = timedelta(seconds=10)
SECOND = timedelta(seconds=1)
ME = AgentId("dev-1")


class World:
    """An engine, a registry whose time is *now*, and the agent's record from before it ended."""

    def __init__(self) -> None:
        self.now = START
        self.engine = MemoryExecutor()
        self.registry = AgentStore(MemoryKeyspace(lambda: self.now))

    def leftovers(self) -> Leftovers:
        return Leftovers(self.engine, self.registry, "here", ME, LEASE)

    def renew(self) -> None:
        self.now += SECOND
        self.registry.hold(agent(ME, holder="the process"), LEASE, lambda holder: False)

    def prove(self) -> None:
        self.now += SECOND / 10
        self.registry.prove(ME)


def order(task: str, installation: str = "here", agent_id: str = ME) -> ContainerOrder:
    return ContainerOrder(
        task_id=TaskId(task),
        job_id=JobId("job"),
        installation=installation,
        agent_id=AgentId(agent_id),
        dispatch_number=1,
        image_id="sha256:any",
        entry_point=(),
        command=(),
        env={},
        demand=Demand(cpu_millis=100, memory_bytes=2**20),
        labels={},
    )


def test_what_runs_and_is_ours_is_left() -> None:
    world = World()
    first = order("first")
    for each in (first, order("other-agents", agent_id="x"), order("other-installations", "there")):
        world.engine.create(each)
        world.engine.start(each.task_id)
    world.engine.create(replace(first, task_id=TaskId("not-started")))
    left = world.leftovers()
    assert left.running() == ["first"]
    world.engine.stop(first.task_id, SECOND)
    assert left.running() == [], "it ended: the next start tells how"


def test_an_agent_has_adopted_when_it_proved_itself_after_its_second_renewal() -> None:
    world = World()
    world.renew()
    world.prove()
    left = world.leftovers()
    assert not left.are_adopted(), "the agent before"
    world.renew()
    assert not left.are_adopted()
    world.prove()
    assert not left.are_adopted(), "this proof was sent before the adoptions"
    world.renew()
    assert not left.are_adopted()
    world.prove()
    assert left.are_adopted()


def test_an_agent_that_never_was_there_has_adopted_nothing() -> None:
    world = World()
    left = world.leftovers()
    assert not left.are_adopted()
