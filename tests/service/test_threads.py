"""What runs on its own: control's timer, sweeps that meet, and output that is copied while a task runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from tests.service.world import ANN, APP, World, a_job
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import Change
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import DeadlineKind, TaskId
from titus_celery.core.states import State
from titus_celery.errors import EngineFault, StoreUnavailable
from titus_celery.ports import Chunk, Source
from titus_celery.service.timer import Timer

#: How long (s) a test waits for another thread before it fails.
PATIENCE: Final = 20.0


@contextmanager
def timing(world: World) -> Iterator[None]:
    """Let a timer of control's run meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=Timer(world.records, world.control).run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def watched(world: World, count: int) -> threading.Event:
    """Set when so many commits were tried."""
    done = threading.Event()
    commits = []

    def see(change: Change) -> None:
        commits.append(change)
        if len(commits) >= count:
            done.set()

    world.records.before_commit = see
    return done


def test_the_timer_acts_on_what_is_due_without_any_tick() -> None:
    world = World()
    world.host(cores=1)
    id = world.create(a_job(3, cpu="2"))
    world.jobs.kill(id, ANN)
    # Three tasks, then the job.
    done = watched(world, 4)
    with timing(world):
        assert done.wait(PATIENCE)
    (last,) = world.records.due(world.now + timedelta(days=99), 10)
    assert last.kind is DeadlineKind.ARCHIVE
    assert world.why(id).startswith("killed: by ann")


def test_the_timer_survives_a_store_that_goes_away() -> None:
    world = World()
    world.host(cores=1)
    id = world.create(a_job(cpu="2"))
    world.jobs.kill(id, ANN)
    tries = threading.Semaphore(0)

    def away_at_first(change: Change) -> None:
        world.records.before_commit = settle
        tries.release()
        raise StoreUnavailable("connection refused")

    def settle(change: Change) -> None:
        tries.release()

    world.records.before_commit = away_at_first
    with timing(world):
        for _ in range(3):
            assert tries.acquire(timeout=PATIENCE)
    assert world.why(task_id(id, 0, 1)).startswith("killed: by ann")


def test_a_sweep_asked_for_during_a_sweep_is_made_after_it() -> None:
    """The job comes while the sweep that cannot see it any more is at work."""
    world = World()
    world.host()
    world.create()
    late = []

    def another(change: Change) -> None:
        world.records.before_commit = None
        late.append(world.create())
        asked = threading.Thread(target=world.sweep)
        asked.start()
        asked.join(PATIENCE)
        assert world.states(late[0]) == {"0-1": "QUEUED"}

    world.records.before_commit = another
    world.sweep()
    assert world.states(late[0]) == {"0-1": "DISPATCHED"}


def test_output_is_read_on_after_an_engine_that_did_not_answer() -> None:
    world = World()
    host = world.host()
    host.engine.fail_next("output", "no answer")
    id, (run,) = world.started()
    one = task_id(id, 0, 1)
    host.engine.write(one, Source.STDOUT, b"all of it")
    world.release(run, one)
    assert world.outputs.read(one, 0, timedelta(0)) == [Chunk(0, Source.STDOUT, b"all of it")]


def test_output_goes_on_where_the_process_before_stopped() -> None:
    world = World()
    host = world.host()
    id, (_,) = world.started()
    one = task_id(id, 0, 1)
    host.engine.write(one, Source.STDOUT, b"before ")
    host.restart()
    host.life.reconcile()
    (run,) = world.deliver()
    host.engine.write(one, Source.STDERR, b"after")
    world.release(run, one)
    kept = world.outputs.read(one, 0, timedelta(0))
    assert b"".join(piece.data for piece in kept if isinstance(piece, Chunk)) == b"before after"


class Mute(MemoryExecutor):
    """An engine whose containers have no logs."""

    def output(self, task_id: TaskId, offset: int) -> Iterator[Chunk]:
        """Nothing can be read."""
        raise EngineFault("reading output", "its log driver keeps none")


def test_output_that_can_never_be_read_does_not_keep_a_task_from_ending() -> None:
    world = World()
    world.host(engine=Mute(images=[APP]))
    id, (run,) = world.started()
    assert world.release(run, task_id(id, 0, 1)).state is State.FINISHED
    assert world.outputs.end(task_id(id, 0, 1)) == 0
