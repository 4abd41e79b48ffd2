"""A whole installation in one process: gateway, control and agents over a store in memory.

Nothing happens by itself: a test moves the clock, lets control sweep, delivers or loses messages, and
releases containers. Only agents' runs are threads, because they block where their containers do.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from tests.builders import START, agent
from tests.service.control import job_clusters, sweep
from tests.service.process import PATIENCE, DiedError, Line, Run, Store
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.keyspace import Keyspace
from titus_celery.adapters.memory_executor import MemoryExecutor, MemoryImage
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.adapters.outputs import OutputStore
from titus_celery.adapters.registry import AgentStore
from titus_celery.core.decision import Command, Decision, Prove, RunTask, StopTask
from titus_celery.core.descriptor import BatchSpec, Container, Image, JobDescriptor, RetryPolicy
from titus_celery.core.engine import Phase
from titus_celery.core.lifecycle import claimed
from titus_celery.core.model import (
    Agent,
    AgentId,
    Caller,
    Exit,
    Job,
    JobId,
    Task,
    TaskId,
)
from titus_celery.core.states import State
from titus_celery.ports import ImageResolver
from titus_celery.service.agent import AgentLife, Periods
from titus_celery.service.change import Committed, WritePath
from titus_celery.service.jobs import Jobs
from titus_celery.service.lease import Lease, gone_after
from titus_celery.service.runs import Runs
from titus_celery.service.sweep import Sweep
from titus_celery.service.tools import Tools
from titus_celery.settings import Settings

__all__ = ["ANN", "APP", "PATIENCE", "SPANS", "DiedError", "Host", "Run", "Store", "World", "a_job"]

ANN: Final = Caller(id="ann", email="ann@example.com")
APP: Final = MemoryImage(id="sha256:1", names=("app:1",), command=("serve",))
SPANS: Final = Settings().spans()
LEASE: Final = timedelta(seconds=10)
LOST_AFTER: Final = timedelta(seconds=60)
GRACE: Final = timedelta(seconds=10)
FENCE_AFTER: Final = timedelta(seconds=45)
LIMITS: Final = Settings().limits()
#: Ids of jobs are UUIDs, which have so many dashes; ids of tasks have more.
UUID_DASHES: Final = 4


def a_job(
    desired: int = 1,
    *,
    cpu: str = "1",
    limit: float = 3_600,
    retry: RetryPolicy | None = None,
    image: str = "app:1",
) -> JobDescriptor:
    """A job of tasks that each need one core."""
    return JobDescriptor(
        app_name="app",
        spec=BatchSpec(
            desired=desired, runtime_limit=timedelta(seconds=limit), retry=retry, container_id="main"
        ),
        containers={"main": Container(image=Image(name=image), resources={"cpu": cpu})},
    )


class SameIds:
    """Ids that count up."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """The next id."""
        return f"00000000-0000-4000-8000-{next(self._numbers):012}"


class Host:
    """A Docker host in memory with one agent on it; `restart` is a new process of that agent."""

    def __init__(
        self,
        world: World,
        name: str,
        engine: MemoryExecutor,
        *,
        cores: int,
        slots: int,
        fence_after: timedelta,
        room: Mapping[str, Any],
        parts: Mapping[str, Any],
    ) -> None:
        plain = agent(name, engine=engine.facts().id)
        capacity = replace(plain.capacity, cpu_millis=cores * 1_000, slots=slots, **room)
        self.id: AgentId = plain.id
        self.engine = engine
        self._fence_after = fence_after
        promise = gone_after(LEASE, fence_after, GRACE)
        self._plain: Agent = replace(plain, capacity=capacity, gone_after=promise, **parts)
        self._world = world
        self._starts = 0
        self.records = Store(world.keyspace)
        #: Why processes of this agent gave way to others, oldest first.
        self.displaced: list[str] = []
        self.restart()

    def restart(self) -> None:
        """End the agent's process and start another; the engine and the store know the rest."""
        self.die()
        self.start()
        self.life.renew()

    def die(self) -> None:
        """End the agent's process, as SIGKILL does."""
        self.records.is_dead = True
        self._world.dead.add(f"{self.id}/{self._starts}")

    def start(self) -> None:
        """Start a process of this agent, still without its lease; the one before is frozen, not dead."""
        world = self._world
        self._starts += 1
        me = replace(self._plain, holder=f"{self.id}/{self._starts}")
        self.line = Line(world.keyspace)
        line = cast(Keyspace, self.line)
        self.records, registry = Store(line), AgentStore(line)
        self.lease = Lease(world, LEASE, self._fence_after)
        self.writes = WritePath(self.records, world.queue, self.lease.holding, world.committed)
        tools = Tools(
            agent=me,
            installation=world.records.installation(),
            records=self.records,
            writes=self.writes,
            executor=self.engine,
            outputs=world.outputs,
            lease=self.lease,
            spans=SPANS,
            grace=GRACE,
        )
        self.runs = Runs(tools, self.displaced.append)
        self.life = AgentLife(
            agent=me,
            installation=world.records.installation(),
            records=self.records,
            registry=registry,
            queue=world.queue,
            executor=self.engine,
            runs=self.runs,
            writes=self.writes,
            lease=self.lease,
            periods=Periods(lease=LEASE, poll=timedelta(seconds=3), grace=GRACE),
            clock=world,
            is_gone=world.dead.__contains__,
            displaced=self.displaced.append,
        )

    def beat(self) -> None:
        """Renew the lease, report images, and prove the consumer."""
        self.life.renew()
        self.life.check_engine()
        self.life.proved()

    def carry(self, order: RunTask) -> Run:
        """Begin to carry the order in a thread."""

        def body() -> None:
            try:
                run.task = self.runs.carry(
                    order.task_id, order.dispatch.number, run.announce, adopt=order.adopt
                )
            except BaseException as error:
                run.error = error

        run = Run(threading.Thread(target=body, name=f"run {order.task_id}", daemon=True))
        run.thread.start()
        return run

    def claiming(self, number: int) -> Callable[[Job, Task, datetime], Decision]:
        """What the agent decides of an order before it does anything else."""
        return lambda job, task, now: claimed(job, task, self.id, number, now, SPANS)

    def phase(self, id: TaskId) -> Phase | None:
        """What the engine knows of the task's container; None: it has none."""
        seen = self.engine.look(id)
        return seen.phase if seen else None


class World:
    """The installation, its clock and its messages."""

    def __init__(
        self,
        resolver: ImageResolver | None = None,
        receiver: Callable[[Command], None] | None = None,
        *,
        undo_max: int = 0,
    ) -> None:
        """*undo_max*: so many of its last transactions can a restart of the store forget."""
        self.now = START
        #: What every process's own clock shows; only `jump` sets the store's clock apart from it.
        self.passed = timedelta(0)
        #: Names of the processes that are dead, as everybody on their machines can see.
        self.dead: set[str] = set()
        keyspace = self.new_keyspace(undo_max)
        self.keyspace = keyspace
        self.records = Store(keyspace)
        self.registry = AgentStore(keyspace)
        self.outputs = OutputStore(keyspace)
        self.queue = MemoryQueue(receiver)
        #: Told of each commit, whoever made it.
        self.committed = Committed()
        self.writes = WritePath(self.records, self.queue, committed=self.committed)
        self.resolver = resolver or InventoryResolver(self.registry)
        clusters = ClusterStore(keyspace)
        self.jobs = Jobs(self.records, self.writes, clusters, self.resolver, SameIds(), LIMITS, self)
        self.clusters = job_clusters(keyspace, self.writes, LIMITS, self)
        self.control = self.new_control()
        self.hosts: dict[AgentId, Host] = {}

    # -------------------------------------------------------------------------------------- what there is

    def new_keyspace(self, undo_max: int) -> MemoryKeyspace:
        """Where everything is stored."""
        return MemoryKeyspace(now=lambda: self.now, undo_max=undo_max)

    def new_control(self) -> Sweep:
        """Another control process, which has looked at the store once."""
        control = sweep(
            self.keyspace,
            self.records,
            self.registry,
            self.writes,
            self.resolver,
            (LIMITS, SPANS, LOST_AFTER),
            self,
        )
        control.look()
        return control

    def host(
        self,
        name: str = "host-1",
        *,
        engine: MemoryExecutor | None = None,
        cores: int = 4,
        slots: int = 8,
        fence_after: timedelta = FENCE_AFTER,
        room: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> Host:
        """Start an agent, on an engine of its own unless one is given; *room* is as in Capacity, *parts*
        are as in Agent."""
        place = Host(
            self,
            name,
            engine or MemoryExecutor(images=[APP], engine_id=f"ENGINE:{name}"),
            cores=cores,
            slots=slots,
            fence_after=fence_after,
            room=room or {},
            parts=parts,
        )
        self.hosts[place.id] = place
        place.beat()
        return place

    def job(self, id: JobId) -> Job:
        """The job's record."""
        return self.records.job(id)[0]

    def task(self, id: TaskId) -> Task:
        """The task's record."""
        return self.records.task(id).task

    def states(self, id: JobId) -> dict[str, str]:
        """The job's tasks, as "slot-attempt" to the name of the state."""
        tasks = self.jobs.find(id).tasks
        return {f"{one.slot}-{one.attempt}": one.state.name for one in tasks}

    def why(self, id: JobId | TaskId) -> str:
        """The reason on the record of a task or job."""
        one: Job | Task = self.task(TaskId(id)) if id.count("-") > UUID_DASHES else self.job(JobId(id))
        return str(one.reason)

    # ------------------------------------------------------------------------------------- what may happen

    def create(self, descriptor: JobDescriptor | None = None) -> JobId:
        """Have Ann create a job."""
        return self.jobs.create(descriptor or a_job(), ANN)

    def sleep(self, seconds: float, *, beating: bool = True) -> None:
        """Let so much time pass; control's timer asks the store, and agents keep their leases meanwhile."""
        left = timedelta(seconds=seconds)
        while left > timedelta(0):
            step = min(left, timedelta(seconds=1))
            self.now, self.passed, left = self.now + step, self.passed + step, left - step
            self.control.look()
        if beating:
            for place in self.hosts.values():
                place.beat()

    def live(self, seconds: float, *hosts: Host) -> None:
        """Let time pass in which only these agents live, and the others do nothing at all."""
        for _ in range(int(seconds)):
            self.sleep(1, beating=False)
            for place in hosts:
                place.beat()
                place.life.poll()
                place.life.take_over()

    def monotonic(self) -> timedelta:
        """The time of the processes' own clocks: the world is their Clock."""
        return self.passed

    def jump(self, seconds: float) -> None:
        """Set the store's clock, while no time passes."""
        self.now += timedelta(seconds=seconds)

    def sweep(self) -> None:
        """Have control look for work."""
        self.control.run()

    def commands(self) -> Sequence[Command]:
        """Everything that was sent, taken off the queue; proofs and wakes left out."""
        return [one for one in self.queue.take() if isinstance(one, RunTask | StopTask)]

    def orders(self) -> list[RunTask]:
        """The orders to run that were sent, taken off the queue, stops lost."""
        return [one for one in self.commands() if isinstance(one, RunTask)]

    def deliver(self) -> list[Run]:
        """Hand everything that was sent to whom it is for, unless it is dead; the runs that this began."""
        runs = []
        for command in self.queue.take():
            match command:
                case RunTask(dispatch=order) if not self.hosts[order.agent_id].records.is_dead:
                    runs.append(self.hosts[order.agent_id].carry(command))
                case StopTask() if not self.hosts[command.agent_id].records.is_dead:
                    self.hosts[command.agent_id].runs.look_after(command.task_id)
                case Prove():
                    self.hosts[command.agent_id].life.proved()
        return runs

    def placed(self, descriptor: JobDescriptor | None = None) -> tuple[JobId, RunTask]:
        """Create a job of one task, and take the order for it off the queue."""
        id = self.create(descriptor)
        self.sweep()
        (order,) = self.orders()
        return id, order

    def started(self, descriptor: JobDescriptor | None = None) -> tuple[JobId, list[Run]]:
        """Create a job and bring what is placed of it to RUNNING."""
        id = self.create(descriptor)
        self.sweep()
        runs = self.deliver()
        for run in runs:
            run.until(State.RUNNING)
        return id, runs

    def carry_on(self) -> list[Run]:
        """Sweep, deliver, and wait until what was begun runs."""
        self.sweep()
        runs = self.deliver()
        for run in runs:
            run.until(State.RUNNING)
        return runs

    def release(self, run: Run, id: TaskId, exit: Exit | None = None) -> Task:
        """End the task's container, and wait for its report; the task as it is on record then."""
        holder = next(place for place in self.hosts.values() if place.engine.look(id) is not None)
        holder.engine.release(id, exit or Exit(code=0))
        told, task = run.end(), self.task(id)
        assert told is not None
        assert (told.state, told.reason, told.exit) == (task.state, task.reason, task.exit)
        return task

    def elapsed(self, at: datetime | None) -> float | None:
        """An instant as seconds since the beginning."""
        return None if at is None else (at - START).total_seconds()
