"""Outputs: the newest bytes of each task, in order, with every gap told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import job, task
from tests.contracts.stores import Bench, at_once
from titus_celery.adapters.keyspace import EndsAt, Put
from titus_celery.adapters.outputs import CHUNK_BYTES_MAX, OUTPUT_BYTES_MAX, OUTPUT_CHUNKS_MAX
from titus_celery.core.model import TaskId
from titus_celery.errors import NotFound, StoreCorrupt
from titus_celery.ports import Chunk, Gap, Source

NOT_AT_ALL = timedelta(0)
LONG = timedelta(seconds=20)
OUT, ERR = Source.STDOUT, Source.STDERR


def new_task() -> TaskId:
    """A task that wrote nothing yet."""
    return task(job()).id


def whole(bench: Bench, id: TaskId) -> bytes:
    """All bytes of a task, which must have no gap."""
    data = b""
    while pieces := bench.outputs.read(id, len(data), NOT_AT_ALL):
        for piece in pieces:
            assert isinstance(piece, Chunk) and piece.offset == len(data)
            data += piece.data
    return data


def test_what_was_written_is_read_from_any_byte_on(bench: Bench) -> None:
    id = new_task()
    bench.outputs.append(id, [Chunk(0, OUT, b"one\n"), Chunk(4, ERR, b"tw\0\xff")])
    bench.outputs.append(id, [Chunk(8, OUT, b"three")])
    assert bench.outputs.end(id) == 13
    assert bench.outputs.read(id, 0, NOT_AT_ALL) == [
        Chunk(0, OUT, b"one\n"),
        Chunk(4, ERR, b"tw\0\xff"),
        Chunk(8, OUT, b"three"),
    ]
    assert bench.outputs.read(id, 4, NOT_AT_ALL)[0] == Chunk(4, ERR, b"tw\0\xff")
    assert bench.outputs.read(id, 6, NOT_AT_ALL) == [Chunk(6, ERR, b"\0\xff"), Chunk(8, OUT, b"three")]
    assert bench.outputs.read(id, 13, NOT_AT_ALL) == []
    assert bench.outputs.read(id, 99, NOT_AT_ALL) == []


def test_a_task_that_wrote_nothing_has_nothing(bench: Bench) -> None:
    id = new_task()
    bench.outputs.append(id, [])
    bench.outputs.append(id, [Chunk(0, OUT, b"")])
    assert bench.outputs.end(id) == 0
    assert bench.outputs.read(id, 0, timedelta(milliseconds=10)) == []


def test_tasks_do_not_share_output(bench: Bench) -> None:
    one, other = new_task(), new_task()
    bench.outputs.append(one, [Chunk(0, OUT, b"mine")])
    assert bench.outputs.end(other) == 0


def test_a_replay_with_other_borders_adds_only_its_new_tail(bench: Bench) -> None:
    id = new_task()
    bench.outputs.append(id, [Chunk(0, OUT, b"abc"), Chunk(3, ERR, b"def")])
    bench.outputs.append(id, [Chunk(0, OUT, b"ab")])
    bench.outputs.append(id, [Chunk(0, OUT, b"abc"), Chunk(3, ERR, b"defgh"), Chunk(8, OUT, b"i")])
    assert whole(bench, id) == b"abcdefghi"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=60), cuts=st.lists(st.lists(st.integers(0, 60)), max_size=4))
def test_any_replays_of_one_output_leave_that_output(
    bench: Bench, data: bytes, cuts: list[list[int]]
) -> None:
    id = new_task()
    for borders in [*cuts, []]:
        edges = sorted({0, len(data), *(cut for cut in borders if cut < len(data))})
        for start, end in pairwise(edges):
            bench.outputs.append(id, [Chunk(start, Source(1 + start % 2), data[start:end])])
    assert whole(bench, id) == data


def test_two_writers_at_once_do_not_double_a_byte(bench: Bench) -> None:
    id = new_task()
    data = bytes(range(240))

    def write(size: int) -> None:
        for start in range(0, len(data), size + 3):
            bench.outputs.append(id, [Chunk(start, OUT, data[start : start + size + 3])])

    at_once(4, write)
    assert whole(bench, id) == data


def test_large_chunks_are_split_and_small_ones_of_one_source_joined(bench: Bench) -> None:
    id = new_task()
    big = bytes(i % 251 for i in range(CHUNK_BYTES_MAX * 2 + 5))
    bench.outputs.append(id, [Chunk(0, OUT, big[:10]), Chunk(10, OUT, big[10:])])
    pieces = bench.outputs.read(id, 0, NOT_AT_ALL)
    assert [len(piece.data) for piece in pieces if isinstance(piece, Chunk)] == [
        CHUNK_BYTES_MAX,
        CHUNK_BYTES_MAX,
        5,
    ]
    assert whole(bench, id) == big


def test_the_oldest_bytes_go_and_the_gap_is_told(bench: Bench) -> None:
    id = new_task()
    block = 10_000
    total = OUTPUT_BYTES_MAX + 50_000
    for start in range(0, total, block):
        bench.outputs.append(id, [Chunk(start, OUT, bytes([start // block % 256]) * block)])
    end = bench.outputs.end(id)
    gap, first, *_ = bench.outputs.read(id, 7, NOT_AT_ALL)
    assert isinstance(gap, Gap) and isinstance(first, Chunk)
    assert (gap.start, gap.end) == (7, first.offset)
    assert OUTPUT_BYTES_MAX - block <= end - first.offset <= OUTPUT_BYTES_MAX
    assert first.data == bytes([first.offset // block % 256]) * block
    assert bench.outputs.read(id, first.offset, NOT_AT_ALL)[0] == first


def test_one_append_larger_than_what_is_kept_keeps_its_end(bench: Bench) -> None:
    id = new_task()
    data = bytes(OUTPUT_BYTES_MAX) + b"the end"
    bench.outputs.append(id, [Chunk(0, OUT, data)])
    assert bench.outputs.end(id) == len(data)
    first = bench.outputs.read(id, 0, NOT_AT_ALL)[0]
    assert isinstance(first, Gap) and 0 < first.end < CHUNK_BYTES_MAX + 8


def test_a_task_that_writes_byte_by_byte_keeps_a_bounded_number_of_chunks(bench: Bench) -> None:
    id = new_task()
    count = OUTPUT_CHUNKS_MAX + 500
    bench.outputs.append(id, [Chunk(at, Source(1 + at % 2), b"x") for at in range(count)])
    gap = bench.outputs.read(id, 0, NOT_AT_ALL)[0]
    assert gap == Gap(0, 500)


def test_a_hole_that_the_writer_left_is_a_gap(bench: Bench) -> None:
    id = new_task()
    bench.outputs.append(id, [Chunk(0, OUT, b"ab")])
    bench.outputs.append(id, [Chunk(5, OUT, b"cd")])
    assert bench.outputs.read(id, 1, NOT_AT_ALL) == [Chunk(1, OUT, b"b"), Gap(2, 5), Chunk(5, OUT, b"cd")]


@pytest.mark.parametrize("already", [b"", b"abc"])
def test_a_waiting_reader_wakes_when_something_is_written(bench: Bench, already: bytes) -> None:
    id = new_task()
    bench.outputs.append(id, [Chunk(0, OUT, already)])
    waits = threading.Event()

    def wait() -> list[Chunk | Gap]:
        waits.set()
        return list(bench.outputs.read(id, len(already), LONG))

    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(wait)
        waits.wait()
        bench.outputs.append(id, [Chunk(len(already), ERR, b"new")])
        assert read.result(LONG.total_seconds() / 2) == [Chunk(len(already), ERR, b"new")]


def test_output_goes_some_time_after_it_was_let_go(bench: Bench) -> None:
    id = new_task()
    bench.outputs.expire(id)
    assert bench.outputs.end(id) == 0
    bench.outputs.append(id, [Chunk(0, OUT, b"a")])
    bench.outputs.expire(id)
    left = bench.world.time_left(bench.keys.output(id))
    assert left is not None and timedelta(minutes=9) < left <= timedelta(minutes=10)
    # What comes late does not prolong it.
    bench.outputs.append(id, [Chunk(1, OUT, b"b")])
    left = bench.world.time_left(bench.keys.output(id))
    assert left is not None and left <= timedelta(minutes=10)


def test_an_id_that_cannot_be_a_tasks_has_no_output(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.outputs.read(TaskId("*"), 0, NOT_AT_ALL)
    with pytest.raises(NotFound):
        bench.outputs.append(TaskId("x:y-0-1"), [Chunk(0, OUT, b"a")])


@pytest.mark.parametrize("offset", [-1, 2**63, 2**70])
def test_an_offset_beyond_all_bounds_gives_what_there_is_from_there(bench: Bench, offset: int) -> None:
    id = new_task()
    bench.outputs.append(id, [Chunk(0, OUT, b"abc")])
    assert bench.outputs.read(id, offset, NOT_AT_ALL) == ([Chunk(0, OUT, b"abc")] if offset < 0 else [])


def test_an_entry_that_is_no_output_is_named(bench: Bench) -> None:
    id = new_task()
    key = bench.keys.output(id)
    odd = Put(key, "5-1", {"s": "7", "b": "x"}, "0-1", 10)
    bench.keyspace.transact([EndsAt(key, "0-0", "it")], [odd])
    with pytest.raises(StoreCorrupt):
        bench.outputs.end(id)
