"""An engine in memory, for tests and dry runs: containers do what a script says.

It keeps the contract of `Executor`, and blocks where the real engine blocks, but nothing in it takes
time: a container ends when the test says so, when its virtual time is over, or when it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Condition
from typing import Final

from titus_celery.core.engine import (
    ContainerOrder,
    EngineFacts,
    Phase,
    Seen,
    Started,
)
from titus_celery.core.model import NO_ADDRESS, Address, Capacity, EngineId, Exit, Port, TaskId
from titus_celery.errors import EngineFault, ImageMissing, StartRefused
from titus_celery.ports import (
    Chunk,
    Source,
)

__all__ = ["MemoryExecutor", "MemoryImage", "Program", "Script", "by_command", "until_released"]

#: The largest chunk handed on, in bytes, as with the real engine.
_CHUNK_BYTES: Final = 32 * 1024

#: What a shell says if there is no such program.
_NOT_FOUND: Final = 127

_SUCCESS: Final = Exit(code=0)

#: SIGTERM and SIGKILL, and the exit codes that the engine shows for them.
_TERMINATED: Final = Exit(code=143, signal=15)
_KILLED: Final = Exit(code=137, signal=9)

#: Who ends a container from outside, unless a test says otherwise.
_SOMEBODY: Final = "somebody stopped it on its host (signal 9)"

#: Room for whatever a test wants to place.
_ROOMY: Final = Capacity(cpu_millis=8_000, memory_bytes=16 * 2**30, slots=0)

#: How long `until` waits in real time for another thread, unless told otherwise.
_PATIENCE: Final = timedelta(seconds=10)

#: The host's port for a container's port is so much more.
_FIRST_PORT: Final = 30_000

#: When the virtual time begins.
_DAWN: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What one container does once it is started."""

    #: What it writes at once.
    writes: tuple[tuple[Source, bytes], ...] = ()
    #: How long it runs in virtual time; None: until it is released or stopped.
    lasts: timedelta | None = timedelta(0)
    #: How it then ends.
    exit: Exit = _SUCCESS
    #: How it ends when asked to stop; None: it takes no notice and is killed.
    on_term: Exit | None = _TERMINATED
    #: The exit code with which its start is refused; 0: it can be started.
    refusal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryImage:
    """An image: what it is called, and what it runs unless it is told otherwise."""

    id: str
    names: tuple[str, ...] = ()
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


#: Says what a container with these arguments and this environment does.
Script = Callable[[tuple[str, ...], Mapping[str, str]], Program]


def until_released(argv: tuple[str, ...], env: Mapping[str, str]) -> Program:
    """The script in which every container runs until it is released or stopped."""
    return Program(lasts=None)


def by_command(programs: Mapping[tuple[str, ...], Program]) -> Script:
    """The script that knows these commands; any other is refused with 127."""
    return lambda argv, env: programs.get(argv, Program(refusal=_NOT_FOUND))


@dataclass(slots=True)
class _Container:
    order: ContainerOrder
    program: Program
    id: str
    phase: Phase = Phase.CREATED
    exit: Exit | None = None
    started_at: datetime | None = None
    written: list[tuple[Source, bytes]] = field(default_factory=list)

    @property
    def ends_at(self) -> datetime | None:
        if self.phase is not Phase.RUNNING or self.started_at is None or self.program.lasts is None:
            return None
        return self.started_at + self.program.lasts

    @property
    def address(self) -> Address:
        """An address that depends on nothing but what was asked for."""
        return Address(
            ip="10.0.0.1",
            ports=tuple(Port(inside=port, outside=_FIRST_PORT + port) for port in self.order.demand.ports),
        )

    def seen(self) -> Seen:
        return Seen(
            task_id=self.order.task_id,
            container_id=self.id,
            installation=self.order.installation,
            agent_id=self.order.agent_id,
            dispatch_number=self.order.dispatch_number,
            phase=self.phase,
            # Who ended it is told to whoever waits for it only, as with the real engine.
            exit=None if self.exit is None else replace(self.exit, outside=""),
            started_at=self.started_at,
            address=self.address if self.phase is Phase.RUNNING else NO_ADDRESS,
        )


class MemoryExecutor:
    """`Executor` without an engine. Safe to use from many threads.

    Beyond the port it offers what a test does to an engine: `release`, `end_from_outside`, `write`,
    `advance`, `leave` and `come_back`, `fail_next`, `occupy`, `until`; and it remembers `orders` and
    `stops`.
    """

    def __init__(
        self,
        script: Script = until_released,
        images: Sequence[MemoryImage] = (),
        *,
        engine_id: str = "memory-engine",
        capacity: Capacity = _ROOMY,
        now: datetime = _DAWN,
    ) -> None:
        self._script = script
        self._images = {image.id: image for image in images}
        self._facts = EngineFacts(EngineId(engine_id), engine_id, "in memory", "1.41", capacity)
        self._now = now
        self._changed = Condition()
        self._containers: dict[TaskId, _Container] = {}
        self._occupied: set[TaskId] = set()
        self._away = ""
        self._faults: dict[str, str] = {}
        #: The images that can be fetched, by name@digest.
        self.registry: dict[str, MemoryImage] = {}
        #: What containers wrote to disk, in bytes.
        self.disks: dict[TaskId, int] = {}
        #: Every order that led to a container, oldest first.
        self.orders: list[ContainerOrder] = []
        #: Every call of `stop` that found its container running, with its grace.
        self.stops: list[tuple[TaskId, timedelta]] = []

    # ------------------------------------------------------------------ what a test does to the engine

    def release(self, task_id: TaskId, exit: Exit = _SUCCESS) -> None:
        """End a container in this way, if it runs. KeyError if there is none."""
        with self._changed:
            self._end(self._containers[task_id], exit)

    def end_from_outside(self, task_id: TaskId, exit: Exit = _KILLED, why: str = _SOMEBODY) -> None:
        """Let somebody else end a container, if it runs. KeyError if there is none."""
        with self._changed:
            self._end(self._containers[task_id], replace(exit, outside=why))

    def write(self, task_id: TaskId, source: Source, data: bytes) -> None:
        """Let the container write. KeyError if there is none."""
        with self._changed:
            self._containers[task_id].written.append((source, data))
            self._changed.notify_all()

    def advance(self, span: timedelta) -> None:
        """Let virtual time pass; programs whose time is over end."""
        with self._changed:
            self._now += span
            self._end_due()

    def leave(self, why: str = "connection refused") -> None:
        """Be away: every call, also one that waits already, is an EngineFault. Containers run on."""
        with self._changed:
            self._away = why
            self._changed.notify_all()

    def come_back(self) -> None:
        """Be there again."""
        with self._changed:
            self._away = ""

    def fail_next(self, method: str, why: str) -> None:
        """Let the next call of *method* ("create", "start", ...) be an EngineFault that did nothing."""
        with self._changed:
            self._faults[method] = why

    def occupy(self, name: TaskId) -> None:
        """Put a container of somebody else there under this name."""
        with self._changed:
            self._occupied.add(name)

    def until(self, task_id: TaskId, phase: Phase, within: timedelta = _PATIENCE) -> Seen:
        """Block until another thread has brought the container so far. TimeoutError after *within*."""

        def is_so_far() -> bool:
            container = self._containers.get(task_id)
            return container is not None and container.phase is phase

        with self._changed:
            if not self._changed.wait_for(is_so_far, within.total_seconds()):
                raise TimeoutError(f"{task_id} is not {phase.value} after {within}")
            return self._containers[task_id].seen()

    @property
    def occupied(self) -> frozenset[TaskId]:
        """The names of the containers that are somebody else's."""
        with self._changed:
            return frozenset(self._occupied)

    # ------------------------------------------------------------------ the port

    def facts(self) -> EngineFacts:
        """See `Executor.facts`."""
        with self._changed:
            self._answer("facts")
            return self._facts

    def images(self) -> Mapping[str, str]:
        """See `Executor.images`."""
        with self._changed:
            self._answer("images")
            return {name: image.id for image in self._images.values() for name in (image.id, *image.names)}

    def fetch(self, image_id: str, keep_on: Callable[[], bool]) -> None:
        """See `Executor.fetch`: its registry is `registry`."""
        with self._changed:
            self._answer("fetch")
            if "@" not in image_id or image_id in self._images or not keep_on():
                return
            image = self.registry.get(image_id)
            if image is None:
                raise ImageMissing(image_id, "manifest unknown")
            self._images[image_id] = image

    def create(self, order: ContainerOrder) -> None:
        """See `Executor.create`. Without images given to the constructor, every image is there."""
        with self._changed:
            self._answer("create")
            if order.task_id in self._occupied:
                raise EngineFault(f"creating {order.task_id}", "a container that is not ours has this name")
            held = self._containers.get(order.task_id)
            if held is not None:
                if held.order.installation != order.installation:
                    raise EngineFault(f"creating {order.task_id}", "another installation has this name")
                return
            self._containers[order.task_id] = _Container(order, self._program(order), f"c-{order.task_id}")
            self.orders.append(order)
            self._changed.notify_all()

    def start(self, task_id: TaskId) -> Started:
        """See `Executor.start`."""
        with self._changed:
            self._answer("start")
            container = self._containers.get(task_id)
            if container is None:
                raise EngineFault(f"starting {task_id}", "there is no such container")
            if container.phase is Phase.CREATED:
                if container.program.refusal:
                    raise StartRefused(container.program.refusal, "its command cannot be run")
                container.phase, container.started_at = Phase.RUNNING, self._now
                container.written += container.program.writes
            seen = container.seen()
            started = Started(container.id, seen.started_at or self._now, seen.address)
            self._end_due()
            self._changed.notify_all()
            return started

    def wait(self, task_id: TaskId) -> Exit | None:
        """See `Executor.wait`."""
        with self._changed:
            self._answer("wait")
            mine = self._containers.get(task_id)
            while mine is not None and mine is self._containers.get(task_id) and mine.exit is None:
                self._changed.wait()
                self._be_there("waiting")
            return mine.exit if mine is not None and mine is self._containers.get(task_id) else None

    def output(self, task_id: TaskId, offset: int) -> Iterator[Chunk]:
        """See `Executor.output`. Nothing for one that was not started yet."""
        with self._changed:
            self._answer("output")
            container = self._containers.get(task_id)
        end, entry = 0, 0
        while container is not None:
            with self._changed:
                self._be_there("reading output")
                while entry == len(container.written) and self._is_live(container):
                    self._changed.wait()
                    self._be_there("reading output")
                if entry == len(container.written):
                    return
                source, data = container.written[entry]
            entry, start, end = entry + 1, max(end, min(offset, end + len(data))), end + len(data)
            for at in range(start, end, _CHUNK_BYTES):
                cut = at - (end - len(data))
                yield Chunk(at, source, data[cut : cut + _CHUNK_BYTES])

    def stop(self, task_id: TaskId, grace: timedelta) -> None:
        """See `Executor.stop`. The grace does not pass: what takes no notice is killed at once."""
        with self._changed:
            self._answer("stop")
            container = self._containers.get(task_id)
            if container is not None and container.phase is Phase.RUNNING:
                self.stops.append((task_id, grace))
                self._end(container, container.program.on_term or _KILLED)

    def remove(self, task_id: TaskId) -> None:
        """See `Executor.remove`."""
        with self._changed:
            self._answer("remove")
            self._containers.pop(task_id, None)
            self._changed.notify_all()

    def look(self, task_id: TaskId) -> Seen | None:
        """See `Executor.look`."""
        with self._changed:
            self._answer("look")
            container = self._containers.get(task_id)
            return None if container is None else container.seen()

    def disk_used(self, task_id: TaskId) -> int:
        """See `Executor.disk_used`: what a test put into `disks`."""
        with self._changed:
            self._answer("disk_used")
            return self.disks.get(task_id, 0) if task_id in self._containers else 0

    def seen(self, installation: str) -> Sequence[Seen]:
        """See `Executor.seen`."""
        with self._changed:
            self._answer("seen")
            every = [container.seen() for container in self._containers.values()]
            return [each for each in every if each.installation == installation]

    # ------------------------------------------------------------------ all below: the lock is held

    def _answer(self, method: str) -> None:
        self._be_there(method)
        if method in self._faults:
            raise EngineFault(method, self._faults.pop(method))

    def _be_there(self, doing: str) -> None:
        if self._away:
            raise EngineFault(doing, self._away)

    def _program(self, order: ContainerOrder) -> Program:
        image = self._images.get(order.image_id)
        if image is None:
            if self._images:
                raise ImageMissing(order.image_id)
            image = MemoryImage(id=order.image_id)
            if not (order.entry_point or order.command):
                return self._script((), order.env)
        entry = order.entry_point or image.entry_point
        argv = entry + (order.command or (() if order.entry_point else image.command))
        if not argv:
            raise StartRefused(_NOT_FOUND, "neither the job nor the image says what to run")
        return self._script(argv, {**image.env, **order.env})

    def _is_live(self, container: _Container) -> bool:
        here = self._containers.get(container.order.task_id) is container
        return here and container.phase is Phase.RUNNING

    def _end_due(self) -> None:
        for container in self._containers.values():
            if container.ends_at is not None and container.ends_at <= self._now:
                self._end(container, container.program.exit)

    def _end(self, container: _Container, exit: Exit) -> None:
        if container.phase is Phase.RUNNING:
            container.phase, container.exit = Phase.EXITED, exit
            self._changed.notify_all()
