"""What the executor in memory offers to tests beyond the port."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from titus_celery.adapters.memory_executor import MemoryExecutor, Program, by_command
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    ContainerOrder,
    Phase,
)
from titus_celery.core.model import (
    AgentId,
    Exit,
    JobId,
    TaskId,
)
from titus_celery.errors import EngineFault, StartRefused
from titus_celery.ports import (
    Chunk,
    Source,
)

TASK = TaskId("task-1")


def order(*command: str) -> ContainerOrder:
    return ContainerOrder(
        task_id=TASK,
        job_id=JobId("job-1"),
        installation="here",
        agent_id=AgentId("agent-1"),
        dispatch_number=1,
        image_id="sha256:any",
        entry_point=(),
        command=command,
        env={},
        demand=Demand(cpu_millis=100, memory_bytes=2**20),
        labels={},
    )


def test_without_a_script_a_container_runs_until_it_is_released() -> None:
    engine = MemoryExecutor()
    engine.create(order())
    engine.start(TASK)
    engine.advance(timedelta(days=100))
    assert engine.until(TASK, Phase.RUNNING).exit is None
    engine.release(TASK, Exit(code=4))
    assert engine.wait(TASK) == Exit(code=4)


def test_a_program_ends_when_its_virtual_time_is_over() -> None:
    engine = MemoryExecutor(by_command({("job",): Program(lasts=timedelta(hours=2), exit=Exit(code=5))}))
    engine.create(order("job"))
    begun = engine.start(TASK).at
    engine.advance(timedelta(hours=2) - timedelta.resolution)
    seen = engine.until(TASK, Phase.RUNNING)
    assert (seen.exit, seen.started_at) == (None, begun)
    engine.advance(timedelta.resolution)
    assert engine.wait(TASK) == Exit(code=5)


def test_a_command_that_the_script_does_not_know_is_refused() -> None:
    engine = MemoryExecutor(by_command({}))
    engine.create(order("job"))
    with pytest.raises(StartRefused):
        engine.start(TASK)


def test_what_a_test_writes_reaches_whoever_follows() -> None:
    engine = MemoryExecutor()
    engine.create(order())
    engine.start(TASK)
    follow = engine.output(TASK, 0)
    engine.write(TASK, Source.STDERR, b"oh")
    assert next(follow) == Chunk(0, Source.STDERR, b"oh")
    engine.write(TASK, Source.STDOUT, b"x" * 40_000)
    engine.release(TASK)
    assert [(chunk.offset, len(chunk.data)) for chunk in follow] == [(2, 32_768), (32_770, 7_232)]


def test_a_fault_of_the_next_call_does_nothing_and_happens_once() -> None:
    engine = MemoryExecutor()
    engine.fail_next("create", "disk full")
    with pytest.raises(EngineFault, match="disk full"):
        engine.create(order())
    assert (engine.look(TASK), engine.orders) == (None, [])
    engine.create(order())
    assert engine.orders == [order()]


def test_containers_run_on_while_the_engine_is_away() -> None:
    engine = MemoryExecutor()
    engine.create(order())
    engine.start(TASK)
    engine.leave("no route")
    with pytest.raises(EngineFault, match="no route"):
        engine.stop(TASK, timedelta(0))
    engine.come_back()
    assert engine.until(TASK, Phase.RUNNING).exit is None
    assert engine.stops == []


def test_until_waits_for_another_thread_and_gives_up_in_the_end() -> None:
    engine = MemoryExecutor()
    engine.create(order())
    starter = threading.Thread(target=engine.start, args=(TASK,))
    starter.start()
    assert engine.until(TASK, Phase.RUNNING).phase is Phase.RUNNING
    starter.join()
    with pytest.raises(TimeoutError):
        engine.until(TASK, Phase.EXITED, timedelta(milliseconds=1))


def test_stops_of_running_containers_are_remembered_with_their_grace() -> None:
    engine = MemoryExecutor()
    engine.create(order())
    engine.stop(TASK, timedelta(seconds=1))
    engine.start(TASK)
    engine.stop(TASK, timedelta(seconds=3))
    assert engine.stops == [(TASK, timedelta(seconds=3))]
    assert engine.wait(TASK) == Exit(code=143, signal=15)
