"""What every `Executor` promises, tried on the one in memory and on a real Docker Engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from tests.contracts.docker_engine import EXECUTORS, DockerImages, made_bench, made_images
from tests.contracts.executors import (
    ENDLESS,
    GRACE,
    GREEDY,
    MIB,
    POLITE,
    STRANGE,
    STRANGE_COMMAND,
    STUBBORN,
    TWO_STREAMS,
    Bench,
    in_background,
    new_task_id,
    order,
    run,
    started,
    text,
)
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.model import (
    AgentId,
    Exit,
)
from titus_celery.errors import EngineFault, ImageMissing, StartRefused
from titus_celery.ports import (
    Chunk,
    Source,
)

#: Seconds after which something that should have ended is taken to hang.
PATIENCE = 30


@pytest.fixture(scope="module")
def images() -> Iterator[DockerImages]:
    yield from made_images()


@pytest.fixture(params=EXECUTORS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from made_bench(request)


# ---------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize(("command", "code"), [(("true",), 0), (("sh", "-c", "exit 3"), 3)])
def test_the_exit_code_of_a_program_is_told(bench: Bench, command: tuple[str, ...], code: int) -> None:
    assert run(bench, order(bench, command))[0] == Exit(code=code)


@pytest.mark.parametrize(("command", "code"), [(("no-such-program",), 127), (("/etc",), 126)])
def test_a_command_that_cannot_run_is_refused_at_each_start(
    bench: Bench, command: tuple[str, ...], code: int
) -> None:
    wanted = order(bench, command)
    bench.executor.create(wanted)
    for _ in range(2):
        with pytest.raises(StartRefused) as refused:
            bench.executor.start(wanted.task_id)
        assert refused.value.exit_code == code
        assert "runc" not in refused.value.why
    seen = bench.executor.look(wanted.task_id)
    assert seen is not None
    assert seen.phase is Phase.CREATED


def test_an_image_without_a_command_is_refused_when_the_job_has_none_either(bench: Bench) -> None:
    with pytest.raises(StartRefused) as refused:
        bench.executor.create(order(bench, image_id=bench.empty_image_id))
    assert refused.value.exit_code == 127


def test_an_image_that_is_not_there_is_missing(bench: Bench) -> None:
    nowhere = "sha256:" + "0" * 64
    with pytest.raises(ImageMissing) as missing:
        bench.executor.create(order(bench, ("true",), image_id=nowhere))
    assert missing.value.image == nowhere


def test_death_by_lack_of_memory_is_told_from_a_kill(bench: Bench) -> None:
    small = Demand(cpu_millis=1_000, memory_bytes=16 * MIB)
    assert run(bench, order(bench, GREEDY, demand=small))[0] == Exit(code=137, signal=9, oom=True)


def test_wait_blocks_until_the_end_and_answers_at_once_afterwards(bench: Bench) -> None:
    task_id = started(bench, POLITE)
    # It is ready to be stopped when it has said so.
    assert next(bench.executor.output(task_id, 0)).data == b"ready\n"
    waiter, came = in_background(lambda: bench.executor.wait(task_id))
    assert not came
    bench.executor.stop(task_id, timedelta(seconds=20))
    waiter.join(PATIENCE)
    assert came == [Exit(code=7)]
    assert bench.executor.wait(task_id) == Exit(code=7)


def test_wait_takes_in_the_start_of_a_container_that_was_only_created(bench: Bench) -> None:
    wanted = order(bench, ("sh", "-c", "exit 3"))
    bench.executor.create(wanted)
    waiter, came = in_background(lambda: bench.executor.wait(wanted.task_id))
    bench.executor.start(wanted.task_id)
    waiter.join(PATIENCE)
    assert came == [Exit(code=3)]


def test_wait_ends_with_nothing_when_the_container_is_removed(bench: Bench) -> None:
    task_id = started(bench, ENDLESS)
    waiter, came = in_background(lambda: bench.executor.wait(task_id))
    bench.executor.remove(task_id)
    waiter.join(PATIENCE)
    assert came == [None]


# -------------------------------------------------------------------------------------------- output


def test_the_two_streams_are_told_apart_and_in_order(bench: Bench) -> None:
    chunks = run(bench, order(bench, TWO_STREAMS))[1]
    assert [(chunk.source, chunk.data) for chunk in chunks] == [
        (Source.STDOUT, b"one\n"),
        (Source.STDERR, b"two\n"),
        (Source.STDOUT, b"three"),
    ]
    assert [chunk.offset for chunk in chunks] == [0, 4, 8]


def test_output_is_the_same_again_from_any_byte_on(bench: Bench) -> None:
    wanted = order(bench, TWO_STREAMS)
    followed = run(bench, wanted)[1]
    for offset in range(followed[-1].end + 2):
        again = list(bench.executor.output(wanted.task_id, offset))
        rest = [
            replace(chunk, offset=max(chunk.offset, offset), data=chunk.data[max(offset - chunk.offset, 0) :])
            for chunk in followed
            if chunk.end > offset
        ]
        assert again == rest


def test_no_byte_is_changed_or_lost_whatever_it_is(bench: Bench) -> None:
    wanted = order(bench, STRANGE_COMMAND)
    chunks = run(bench, wanted)[1]
    assert text(chunks) == STRANGE
    assert text(list(bench.executor.output(wanted.task_id, 0))) == STRANGE
    assert max(len(chunk.data) for chunk in chunks) <= 32 * 1024
    assert [chunk.offset for chunk in chunks[1:]] == [chunk.end for chunk in chunks[:-1]]


def test_output_of_a_container_that_never_started_or_is_unknown_is_empty(bench: Bench) -> None:
    wanted = order(bench, ("true",))
    assert list(bench.executor.output(wanted.task_id, 0)) == []
    bench.executor.create(wanted)
    assert list(bench.executor.output(wanted.task_id, 0)) == []


def test_every_chunk_is_handed_on_while_the_container_still_runs(bench: Bench) -> None:
    task_id = started(bench, STUBBORN)
    follow = bench.executor.output(task_id, 0)
    assert next(follow) == Chunk(0, Source.STDOUT, b"ready\n")
    seen = bench.executor.look(task_id)
    assert seen is not None
    assert seen.phase is Phase.RUNNING
    bench.executor.remove(task_id)
    assert list(follow) == []


# ------------------------------------------------------------------------- what is asked of the image


def test_an_empty_order_runs_what_the_image_says(bench: Bench) -> None:
    assert text(run(bench, order(bench, image_id=bench.entry_image_id))[1]) == b"image default\n"


def test_a_command_gives_arguments_to_the_entry_point_of_the_image(bench: Bench) -> None:
    wanted = order(bench, ("mine",), image_id=bench.entry_image_id)
    assert text(run(bench, wanted)[1]) == b"image mine\n"


def test_an_entry_point_replaces_that_of_the_image_and_its_command(bench: Bench) -> None:
    wanted = order(bench, entry_point=("echo",), image_id=bench.entry_image_id)
    assert text(run(bench, wanted)[1]) == b"\n"


def test_an_entry_point_and_a_command_are_put_together(bench: Bench) -> None:
    wanted = order(bench, ("b",), entry_point=("echo", "a"), image_id=bench.entry_image_id)
    assert text(run(bench, wanted)[1]) == b"a b\n"


def test_images_are_known_by_name_and_by_id(bench: Bench) -> None:
    known = bench.executor.images()
    assert known[bench.entry_image_name] == known[bench.entry_image_id] == bench.entry_image_id
    assert known[bench.image_id] == bench.image_id


# -------------------------------------------------------------------------------------- once and again


def test_create_twice_makes_one_container(bench: Bench) -> None:
    wanted = order(bench, ("true",))
    bench.executor.create(wanted)
    first = bench.executor.look(wanted.task_id)
    bench.executor.create(replace(wanted, dispatch_number=5))
    assert bench.executor.look(wanted.task_id) == first
    assert len(bench.executor.seen(bench.installation)) == 1


def test_create_from_many_threads_makes_one_container(bench: Bench) -> None:
    wanted = order(bench, ("true",))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bench.executor.create, [wanted] * 4)) == [None] * 4
    assert len(bench.executor.seen(bench.installation)) == 1


def test_a_container_that_ran_is_not_started_again(bench: Bench) -> None:
    wanted = order(bench, ("sh", "-c", "exit 3"))
    bench.executor.create(wanted)
    first = bench.executor.start(wanted.task_id)
    bench.executor.wait(wanted.task_id)
    again = bench.executor.start(wanted.task_id)
    assert (again.container_id, again.at, again.address.ip) == (first.container_id, first.at, "")
    seen = bench.executor.look(wanted.task_id)
    assert seen is not None
    assert (seen.phase, seen.exit) == (Phase.EXITED, Exit(code=3))


def test_a_running_container_is_left_running_by_a_second_start(bench: Bench) -> None:
    task_id = started(bench, ENDLESS)
    first = bench.executor.look(task_id)
    assert first is not None
    again = bench.executor.start(task_id)
    assert again.at.tzinfo is UTC
    assert (again.at, again.address.ip) == (first.started_at, first.address.ip)
    assert again.address.ip


def test_a_start_without_a_container_is_a_fault(bench: Bench) -> None:
    with pytest.raises(EngineFault):
        bench.executor.start(new_task_id(bench))


def test_what_is_not_there_is_waited_for_stopped_and_removed_without_ado(bench: Bench) -> None:
    task_id = new_task_id(bench)
    assert bench.executor.wait(task_id) is None
    assert bench.executor.look(task_id) is None
    bench.executor.stop(task_id, GRACE)
    bench.executor.remove(task_id)


def test_remove_takes_a_running_container_and_may_be_repeated(bench: Bench) -> None:
    task_id = started(bench, ENDLESS)
    bench.executor.remove(task_id)
    bench.executor.remove(task_id)
    assert bench.executor.look(task_id) is None
    assert bench.executor.seen(bench.installation) == []


def test_removals_at_the_same_time_do_not_disturb_each_other(bench: Bench) -> None:
    task_id = started(bench, ENDLESS)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bench.executor.remove, [task_id] * 4)) == [None] * 4
    assert bench.executor.look(task_id) is None


# ---------------------------------------------------------------------------------------------- stop


def test_stop_lets_a_program_end_in_its_own_way(bench: Bench) -> None:
    task_id = started(bench, POLITE)
    next(bench.executor.output(task_id, 0))
    bench.executor.stop(task_id, timedelta(seconds=20))
    assert bench.executor.wait(task_id) == Exit(code=7)


def test_stop_kills_after_the_grace_and_has_ended_it_when_it_returns(bench: Bench) -> None:
    task_id = started(bench, STUBBORN)
    next(bench.executor.output(task_id, 0))
    before = time.monotonic()
    bench.executor.stop(task_id, GRACE)
    assert time.monotonic() - before < 8
    seen = bench.executor.look(task_id)
    assert seen is not None
    assert (seen.phase, seen.exit) == (Phase.EXITED, Exit(code=137, signal=9))
    bench.executor.stop(task_id, GRACE)
    assert bench.executor.wait(task_id) == Exit(code=137, signal=9)


def test_stop_without_grace_kills_at_once(bench: Bench) -> None:
    task_id = started(bench, STUBBORN)
    bench.executor.stop(task_id, timedelta(0))
    assert bench.executor.wait(task_id) == Exit(code=137, signal=9)


# ---------------------------------------------------------------------------------- whose is it, and who


def test_seen_are_the_installation_s_own_in_every_phase(bench: Bench) -> None:
    created, ended, running = (order(bench, command) for command in (("true",), ("true",), ENDLESS))
    other = order(bench, ("true",), installation=f"{bench.installation}-other")
    for wanted in (created, ended, running, other):
        bench.executor.create(wanted)
    for wanted in (ended, running):
        bench.executor.start(wanted.task_id)
    bench.executor.wait(ended.task_id)
    seen = {each.task_id: each for each in bench.executor.seen(bench.installation)}
    assert {task_id: (each.phase, each.exit) for task_id, each in seen.items()} == {
        created.task_id: (Phase.CREATED, None),
        ended.task_id: (Phase.EXITED, Exit(code=0)),
        running.task_id: (Phase.RUNNING, None),
    }
    one = seen[running.task_id]
    assert (one.installation, one.agent_id, one.dispatch_number) == (
        bench.installation,
        AgentId("agent-1"),
        4,
    )
    assert one == bench.executor.look(running.task_id)
    assert seen[created.task_id].started_at is None
    assert one.started_at is not None


def test_a_container_of_somebody_else_with_the_name_is_not_touched(bench: Bench) -> None:
    task_id = new_task_id(bench)
    bench.occupy(task_id)
    with pytest.raises(EngineFault):
        bench.executor.create(order(bench, ("true",), task_id=task_id))
    with pytest.raises(EngineFault):
        bench.executor.start(task_id)
    bench.executor.stop(task_id, timedelta(0))
    bench.executor.remove(task_id)
    assert bench.executor.look(task_id) is None
    assert bench.executor.wait(task_id) is None
    assert list(bench.executor.output(task_id, 0)) == []
    assert bench.is_occupied(task_id)


def test_a_container_of_another_installation_is_not_taken_for_ours(bench: Bench) -> None:
    other = order(bench, ("true",), installation=f"{bench.installation}-other")
    bench.executor.create(other)
    with pytest.raises(EngineFault):
        bench.executor.create(replace(other, installation=bench.installation))


def test_the_engine_says_who_and_how_big_it_is(bench: Bench) -> None:
    facts = bench.executor.facts()
    assert facts.id
    assert facts.name
    assert facts.version
    assert facts.api_version.startswith("1.")
    assert facts.capacity.cpu_millis >= 1_000
    assert facts.capacity.memory_bytes > 64 * MIB
    assert facts.capacity.slots == 0
    assert facts == bench.executor.facts()


# -------------------------------------------------------------------------------------- a lost engine


def test_whoever_waits_learns_that_the_engine_is_lost(bench: Bench) -> None:
    task_id, executor = started(bench, STUBBORN), bench.frail()
    follow = executor.output(task_id, 0)
    next(follow)
    threads = [in_background(lambda: executor.wait(task_id)), in_background(lambda: list(follow))]
    bench.cut()
    for thread, came in threads:
        thread.join(PATIENCE)
        assert [type(each) for each in came] == [EngineFault]
    for act in (executor.facts, executor.images, lambda: executor.look(task_id)):
        with pytest.raises(EngineFault):
            act()
