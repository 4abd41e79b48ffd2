"""What every `Executor` knows of who ended a container: it itself, we, or somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contracts.docker_engine import EXECUTORS, DockerImages, made_bench, made_images
from tests.contracts.executors import (
    CONTENT,
    LIKE_KILLED,
    POLITE,
    STUBBORN,
    Bench,
    in_background,
    order,
    run,
    started,
)
from titus_celery.core.model import Exit

#: Seconds after which something that should have ended is taken to hang.
PATIENCE = 30


@pytest.fixture(scope="module")
def images() -> Iterator[DockerImages]:
    yield from made_images()


@pytest.fixture(params=EXECUTORS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from made_bench(request)


@pytest.mark.parametrize(
    ("command", "signal", "exit"),
    [
        (STUBBORN, "KILL", Exit(code=137, signal=9, outside="somebody stopped it on its host (signal 9)")),
        (POLITE, "TERM", Exit(code=7, outside="somebody stopped it on its host (signal 15)")),
        (CONTENT, "TERM", Exit(code=0, outside="somebody stopped it on its host (signal 15)")),
    ],
    ids=["KILL", "TERM and 7", "TERM and 0"],
)
def test_an_end_that_somebody_else_brought_about_is_told_as_such(
    bench: Bench, command: tuple[str, ...], signal: str, exit: Exit
) -> None:
    task_id = started(bench, command)
    next(bench.executor.output(task_id, 0))
    waiter, came = in_background(lambda: bench.executor.wait(task_id))
    bench.interfere(task_id, signal)
    waiter.join(PATIENCE)
    # Also for who asks later, and of two that ask.
    assert [*came, bench.executor.wait(task_id)] == [exit, exit]
    seen = bench.executor.look(task_id)
    assert seen is not None
    assert seen.exit == replace(exit, outside="")


def test_a_program_that_ends_like_a_killed_one_ended_by_itself(bench: Bench) -> None:
    assert run(bench, order(bench, LIKE_KILLED))[0] == Exit(code=137, signal=9)


def test_a_container_that_we_stopped_was_not_ended_from_outside(bench: Bench) -> None:
    task_id = started(bench, CONTENT)
    next(bench.executor.output(task_id, 0))
    waiter, came = in_background(lambda: bench.executor.wait(task_id))
    bench.executor.stop(task_id, timedelta(seconds=20))
    waiter.join(PATIENCE)
    assert [*came, bench.executor.wait(task_id)] == [Exit(code=0), Exit(code=0)]
