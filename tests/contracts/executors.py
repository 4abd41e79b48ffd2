"""What the tests of every executor share: workloads, orders, and the bench in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, Protocol

from titus_celery.adapters.memory_executor import MemoryExecutor, MemoryImage, Program, by_command
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    ContainerOrder,
)
from titus_celery.core.model import (
    AgentId,
    Exit,
    JobId,
    TaskId,
)
from titus_celery.errors import EngineFault
from titus_celery.ports import (
    Chunk,
    Executor,
    Source,
)

MIB: Final = 2**20

#: Both streams, in an order that the engine keeps because the writes are apart.
TWO_STREAMS: Final = ("sh", "-c", "echo one; sleep 0.3; echo two >&2; sleep 0.3; printf three")
#: Runs on until it is stopped, and says goodbye in its own way.
POLITE: Final = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
#: The same, but as if nothing had happened.
CONTENT: Final = ("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
#: Ends with the code of a killed program, though nobody killed it.
LIKE_KILLED: Final = ("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
#: Takes no notice of TERM.
STUBBORN: Final = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
ENDLESS: Final = ("sleep", "1000")
#: Asks for more memory than it may have.
GREEDY: Final = ("tail", "/dev/zero")
#: Long and short lines, an empty line, bytes that are no text, and no newline at the end.
STRANGE: Final = b"a" * 40_000 + b"\n\nb\n" + b"c" * 16_384 + b"\n\xff\xfe\x00\xc3\n" + b"end"
STRANGE_COMMAND: Final = (
    "sh",
    "-c",
    "head -c 40000 /dev/zero | tr '\\0' a; printf '\\n\\nb\\n'; head -c 16384 /dev/zero | tr '\\0' c;"
    " printf '\\n\\377\\376\\000\\303\\nend'",
)


#: How long `STUBBORN` and `POLITE` are given.
GRACE: Final = timedelta(seconds=1)

_numbers: Final = itertools.count(1)


def _out(text: bytes) -> tuple[tuple[Source, bytes], ...]:
    return ((Source.STDOUT, text),)


#: What the commands of the tests do, for the engine in memory.
PROGRAMS: Final[Mapping[tuple[str, ...], Program]] = {
    ("true",): Program(),
    ("sh", "-c", "exit 3"): Program(exit=Exit(code=3)),
    ("/etc",): Program(refusal=126),
    ("echo", "a", "b"): Program(writes=_out(b"a b\n")),
    ("echo", "image", "default"): Program(writes=_out(b"image default\n")),
    ("echo", "image", "mine"): Program(writes=_out(b"image mine\n")),
    ("echo",): Program(writes=_out(b"\n")),
    TWO_STREAMS: Program(
        writes=((Source.STDOUT, b"one\n"), (Source.STDERR, b"two\n"), (Source.STDOUT, b"three"))
    ),
    POLITE: Program(writes=_out(b"ready\n"), lasts=None, on_term=Exit(code=7)),
    STUBBORN: Program(writes=_out(b"ready\n"), lasts=None, on_term=None),
    ENDLESS: Program(lasts=None, on_term=None),
    CONTENT: Program(writes=_out(b"ready\n"), lasts=None, on_term=Exit(code=0)),
    LIKE_KILLED: Program(exit=Exit(code=137, signal=9)),
    GREEDY: Program(exit=Exit(code=137, signal=9, oom=True)),
    STRANGE_COMMAND: Program(writes=_out(STRANGE)),
}


def new_task_id(bench: Bench) -> TaskId:
    """A name that no container has, in this run or another."""
    return TaskId(f"{bench.installation}-{next(_numbers)}")


def order(
    bench: Bench,
    command: tuple[str, ...] = (),
    *,
    entry_point: tuple[str, ...] = (),
    task_id: TaskId | None = None,
    image_id: str | None = None,
    env: Mapping[str, str] | None = None,
    demand: Demand | None = None,
    labels: Mapping[str, str] | None = None,
    installation: str | None = None,
) -> ContainerOrder:
    """An order for a small container of the bench's own installation."""
    return ContainerOrder(
        task_id=task_id or new_task_id(bench),
        job_id=JobId("job-1"),
        installation=installation or bench.installation,
        agent_id=AgentId("agent-1"),
        dispatch_number=4,
        image_id=image_id or bench.image_id,
        entry_point=entry_point,
        command=command,
        env=env or {},
        demand=demand or Demand(cpu_millis=250, memory_bytes=64 * MIB),
        labels=labels or {},
    )


class Bench(Protocol):
    """An executor, and what a test does behind its back."""

    installation: str
    executor: Executor
    #: An image whose commands run, without a command of its own.
    image_id: str
    #: One with the entry point `echo image` and the command `default`.
    entry_image_id: str
    entry_image_name: str
    #: One that says nothing about what to run, because there is nothing in it.
    empty_image_id: str

    def occupy(self, name: TaskId) -> None:
        """Let somebody else's container have this name."""

    def is_occupied(self, name: TaskId) -> bool:
        """Whether that container is still there and runs."""

    def interfere(self, task_id: TaskId, signal: str) -> None:
        """Let somebody else send a signal (TERM, KILL) to its container, through the engine."""

    def frail(self) -> Executor:
        """An executor on the same engine that `cut` can part from it."""

    def cut(self) -> None:
        """Take the engine away from that executor, also from whoever waits on it now."""

    def close(self) -> None:
        """Leave nothing behind."""


class MemoryBench:
    """The executor that ships for tests."""

    def __init__(self, installation: str) -> None:
        self.installation = installation
        self.image_id, self.entry_image_id = "sha256:workloads", "sha256:entry"
        self.entry_image_name, self.empty_image_id = "titus-contract/entry:latest", "sha256:empty"
        entry = MemoryImage(
            id=self.entry_image_id,
            names=(self.entry_image_name,),
            entry_point=("echo", "image"),
            command=("default",),
        )
        plain = (MemoryImage(id=self.image_id), MemoryImage(id=self.empty_image_id))
        self._executor = MemoryExecutor(by_command(PROGRAMS), (entry, *plain))
        self.executor: Executor = self._executor

    def occupy(self, name: TaskId) -> None:
        self._executor.occupy(name)

    def is_occupied(self, name: TaskId) -> bool:
        return name in self._executor.occupied

    def interfere(self, task_id: TaskId, signal: str) -> None:
        order = self._executor.orders[-1]
        assert order.task_id == task_id
        on_term = PROGRAMS[order.command].on_term
        if signal == "KILL":
            self._executor.end_from_outside(task_id)
        elif on_term is not None:
            why = "somebody stopped it on its host (signal 15)"
            self._executor.end_from_outside(task_id, on_term, why)

    def frail(self) -> Executor:
        return self._executor

    def cut(self) -> None:
        self._executor.leave()

    def close(self) -> None:
        """Nothing is left when it is forgotten."""


def run(bench: Bench, wanted: ContainerOrder) -> tuple[Exit | None, list[Chunk]]:
    """Create, start, read and wait, as an agent does."""
    bench.executor.create(wanted)
    bench.executor.start(wanted.task_id)
    chunks = list(bench.executor.output(wanted.task_id, 0))
    return bench.executor.wait(wanted.task_id), chunks


def started(bench: Bench, command: tuple[str, ...]) -> TaskId:
    wanted = order(bench, command)
    bench.executor.create(wanted)
    bench.executor.start(wanted.task_id)
    return wanted.task_id


def text(chunks: list[Chunk], source: Source = Source.STDOUT) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.source is source)


def in_background(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run *act* in a thread; what it returns or raises is then in the list."""
    came: list[object] = []

    def note() -> None:
        try:
            came.append(act())
        except EngineFault as fault:
            came.append(fault)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    return thread, came
