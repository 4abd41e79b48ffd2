"""An installation as its clients meet it, and what a test may do to it from inside.

In front a real gateway on a loopback port, called over a real connection; behind it a store, in memory or a
real Redis, whose time only a test moves. Control is the real one. Agents are either the real ones, over
engines in memory (`inside.host`), or steps that a test takes in their place (`store.advance`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, cast

import grpc

from tests.contracts.stores import World as Bench
from tests.grpc_api.world import PATIENCE, Refused, Store
from tests.grpc_api.world import descriptor as batch
from tests.service.world import Host, Run
from tests.service.world import World as Inside
from titus_celery.adapters.memory_executor import (
    MemoryExecutor,
    MemoryImage,
    Program,
    Script,
    until_released,
)
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.system import SystemIds
from titus_celery.core.model import Exit, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.hub import OBSERVER_EVENTS_MAX
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import (
    ClusterServiceStub,
    ObservationServiceStub,
    TaskOutputServiceStub,
)
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub
from titus_celery.grpc.server import Gateway, build_server
from titus_celery.ports import Ids, ImageResolver
from titus_celery.service.feed import Feed
from titus_celery.settings import Settings

__all__ = ["Hand", "Loop", "Titus", "batch", "container", "service", "serving"]

#: What the engines of this suite have; the names are those of `batch` and of the inside's own jobs.
IMAGE: Final = MemoryImage(id="sha256:1", names=("busybox:1", "app:1"), command=("serve",))
#: Control that looks at the store as often as this was always there.
LOOK_STEP: Final = timedelta(seconds=4)
#: From here on time passes at once, as it does while control is away.
LONG: Final = timedelta(minutes=15)
#: Looks after which something must have happened: some ten seconds.
LOOKS_MAX: Final = 10_000


class Hand(Bench, Protocol):
    """A store whose time a test moves."""

    now: datetime


class Loop:
    """An event loop in a thread of its own, on which gateways run while tests wait for their answers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateways", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Any]) -> Any:
        """What *work* gives, or what it awaits, on the loop."""

        async def body() -> Any:
            found = work()
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(body(), self._loop).result(PATIENCE)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class _Inside(Inside):
    """Control and agents over a store whose time is the hand's."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        super().__init__()

    # The world keeps its time in an attribute of this name.
    @property
    def now(self) -> datetime:
        return self._hand.now

    @now.setter
    def now(self, now: datetime) -> None:
        self._hand.now = now

    def new_keyspace(self, undo_max: int) -> MemoryKeyspace:
        # Nothing here asks for what only a store in memory can do.
        return cast(MemoryKeyspace, self._hand.keyspace)


class Titus:
    """A running installation and a client of it."""

    def __init__(self, hand: Hand, gateway: Gateway, inside: Inside, store: Store) -> None:
        self.hand, self.gateway, self.inside, self.store = hand, gateway, inside, store
        self.channel = grpc.insecure_channel(f"127.0.0.1:{gateway.port}")
        self.jobs = JobManagementServiceStub(self.channel)
        self.outputs = TaskOutputServiceStub(self.channel)
        self.schedules = ClusterServiceStub(self.channel)
        self.observations = ObservationServiceStub(self.channel)

    # ------------------------------------------------------------------------------------- as a client

    def create(self, descriptor: pb.JobDescriptor | None = None, **metadata: str) -> JobId:
        """A new job's id; *metadata* with _ for -."""
        sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        reply = self.jobs.CreateJob(descriptor or batch(), metadata=sent, timeout=PATIENCE)
        return JobId(reply.id)

    def job(self, id: str) -> pb.Job:
        """FindJob."""
        return self.jobs.FindJob(pb.JobId(id=id), timeout=PATIENCE)

    def task(self, id: str) -> pb.Task:
        """FindTask."""
        return self.jobs.FindTask(pb.TaskId(id=id), timeout=PATIENCE)

    def find(self, page: pb.Page | None = None, fields: Sequence[str] = (), **criteria: str) -> Any:
        """FindJobs."""
        return self.found(criteria, page, fields)

    def found(
        self, criteria: Mapping[str, str], page: pb.Page | None = None, fields: Sequence[str] = ()
    ) -> pb.JobQueryResult:
        """FindJobs, by criteria whose names are no names of Python's."""
        query = pb.JobQuery(fiterlingCriteria=criteria, page=page, fields=fields)
        return self.jobs.FindJobs(query, timeout=PATIENCE)

    def tasks(
        self, job_id: str, page: pb.Page | None = None, fields: Sequence[str] = (), **criteria: str
    ) -> pb.TaskQueryResult:
        """FindTasks."""
        query = pb.TaskQuery(jobId=job_id, fiterlingCriteria=criteria, page=page, fields=fields)
        return self.jobs.FindTasks(query, timeout=PATIENCE)

    def refused(
        self, method: Callable[..., Any], request: Any, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Refused:
        """How the call fails, having changed nothing; a failure of the test if it does not."""
        before = self.hand.dump()
        try:
            reply = method(request, metadata=metadata, timeout=PATIENCE)
            if hasattr(reply, "cancel"):
                next(reply)
        except grpc.RpcError as error:
            call: Any = error
            assert self.hand.dump() == before, "a refused call wrote something"
            return Refused(call.code(), call.details() or "", dict(call.trailing_metadata()))
        raise AssertionError(f"it was not refused: {reply}")

    def wrong(self, descriptor: pb.JobDescriptor, *said: str) -> None:
        """CreateJob refuses this as INVALID_ARGUMENT, saying all of that."""
        self.invalid(self.jobs.CreateJob, descriptor, *said)

    def invalid(self, method: Callable[..., Any], request: Any, *said: str) -> None:
        """The method refuses this as INVALID_ARGUMENT, saying all of that."""
        error = self.refused(method, request)
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, error
        for text in said:
            assert text in error.details

    # ------------------------------------------------------------------------------------- inside

    def wait(self, seconds: float, *, silent: bool = False) -> None:
        """Let so much time pass, in which control is there; afterwards it looks for work.

        Agents keep their leases, unless they are *silent*. A long time passes at once.
        """
        # Whoever follows the log has read it: nobody is so slow as to lose some of it.
        self.jobs.FindJobs(pb.JobQuery(), timeout=PATIENCE)
        left = timedelta(seconds=seconds)
        step = LOOK_STEP if left < LONG else left
        while left > timedelta(0):
            step = min(step, left)
            self.inside.passed, left = self.inside.passed + step, left - step
            self.hand.let_pass(step)
            self.inside.control.look()
        for host in self.inside.hosts.values():
            if not silent:
                host.beat()
        self.inside.sweep()

    def host(self, name: str = "host-1", program: Program | None = None, **parts: Any) -> Host:
        """Start an agent on an engine of its own, on which every container does what *program* says."""
        script: Script = (lambda argv, env: program) if program else until_released
        engine = MemoryExecutor(script, images=[IMAGE], engine_id=f"ENGINE:{name}")
        return self.inside.host(name, engine=engine, **parts)

    def carry(self) -> list[Run]:
        """Have control place what waits, and agents bring it to RUNNING."""
        return self.inside.carry_on()

    def run(self, descriptor: pb.JobDescriptor | None = None) -> tuple[JobId, list[Run]]:
        """A new job with all of its tasks RUNNING on real agents."""
        id = self.create(descriptor)
        return id, self.carry()

    def end(self, run: Run, id: str, exit: Exit | None = None) -> pb.Task:
        """End the task's container on its engine; the task as clients see it once that is told."""
        self.inside.release(run, TaskId(id), exit)
        self.inside.sweep()
        return self.task(id)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the gateway work until this holds; each look costs a call to it."""
        for _ in range(LOOKS_MAX):
            if condition():
                return
            self.jobs.FindJobs(pb.JobQuery(), timeout=PATIENCE)
        raise AssertionError("it never became so")

    def over(self, id: JobId, state: State = State.FINISHED) -> None:
        """Bring every task of a job to its end, and the job."""
        self.store.finish(id, state)


def container(**parts: Any) -> pb.JobDescriptor:
    """A batch job with such a container."""
    fields: dict[str, Any] = {"image": pb.Image(name="busybox:1"), "entryPoint": ["true"], **parts}
    return batch(containers={"main": pb.Container(**fields)})


def service(desired: int = 1, *, retries: int | None = None, **parts: Any) -> pb.JobDescriptor:
    """A service job; *retries* without delay, or with None as services are restarted anyway."""
    policy = None if retries is None else pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=retries))
    numbers = {name: parts.pop(name) for name in ("min", "max") if name in parts}
    spec = pb.ServiceJobSpec(
        instances=pb.TaskInstances(desired=desired, **numbers),
        containerId="main",
        retryPolicy=policy,
        **{name: parts.pop(name) for name in ("enabled", "scalingPolices") if name in parts},
    )
    made = batch(**parts)
    made.service.CopyFrom(spec)
    return made


@contextmanager
def serving(
    hand: Hand,
    loop: Loop,
    *,
    events_max: int = OBSERVER_EVENTS_MAX,
    resolver: ImageResolver | None = None,
    ids: Ids | None = None,
    feed: Feed | None = None,
    **settings: Any,
) -> Iterator[Titus]:
    """An installation over this store; it is an error of its test if a call ended INTERNAL."""
    inside = _Inside(hand)
    store = Store(
        clock=hand,
        at=inside.keyspace,
        committed=inside.committed,
        queue=inside.queue,
        ids=ids or SystemIds(),
        own=inside,
        settings=Settings(**settings),
    )

    def build() -> Gateway:
        return build_server(store.services(resolver, feed), "127.0.0.1:0", events_max=events_max)

    gateway: Gateway = loop.run(build)
    loop.run(gateway.start)
    titus = Titus(hand, gateway, inside, store)
    try:
        yield titus
        assert gateway.internal_errors == 0, "calls ended INTERNAL; the log above says why"
    finally:
        titus.channel.close()
        for host in inside.hosts.values():
            # What its runs still do concerns nobody any more.
            host.die()
        loop.run(gateway.stop)
