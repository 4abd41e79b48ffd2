"""How the engine's log becomes what the container wrote: cut frames, cut lines, second passes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import pytest

from titus_celery.adapters.docker_output import CHUNK_BYTES, Frames, Resume, Transcript
from titus_celery.errors import EngineFault
from titus_celery.ports import Chunk, Source

OUT, ERR = Source.STDOUT, Source.STDERR


def frame(data: bytes, second: float = 0.0, source: Source = OUT) -> bytes:
    """One message as the engine sends it, stamped so many seconds after noon."""
    stamp = b"2026-05-01T12:00:%012.9fZ " % float(second)
    return struct.pack(">BxxxL", source, len(stamp) + len(data)) + stamp + data


def read(transcript: Transcript, *blocks: bytes, known: int = 0, more: bool = False) -> Sequence[Chunk]:
    return list(transcript.read(blocks, known, lambda: more))


def test_messages_are_found_wherever_the_network_cut_them() -> None:
    wire = frame(b"one\n") + frame(b"", source=ERR) + frame(b"two \0\xff")
    for size in range(1, len(wire) + 1):
        frames = Frames()
        blocks = [wire[at : at + size] for at in range(0, len(wire), size)]
        found = [each for block in blocks for each in frames.feed(block)]
        assert [(each.source, each.data) for each in found] == [
            (OUT, b"one\n"),
            (ERR, b""),
            (OUT, b"two \0\xff"),
        ]


@pytest.mark.parametrize(
    "wire",
    [b"\x07\0\0\0\0\0\0\1x", b"\1\0\0\0\xff\xff\xff\xff", struct.pack(">BxxxL", 1, 4) + b"late"],
    ids=["unknown stream", "absurd size", "no stamp"],
)
def test_what_is_no_log_is_a_fault(wire: bytes) -> None:
    with pytest.raises(EngineFault):
        list(Frames().feed(wire))


def test_offsets_count_both_streams_and_start_inside_a_message() -> None:
    wire = frame(b"one\n") + frame(b"two\n", source=ERR) + frame(b"three\n")
    assert read(Transcript(0), wire) == [
        Chunk(0, OUT, b"one\n"),
        Chunk(4, ERR, b"two\n"),
        Chunk(8, OUT, b"three\n"),
    ]
    assert read(Transcript(6), wire) == [Chunk(6, ERR, b"o\n"), Chunk(8, OUT, b"three\n")]
    assert read(Transcript(14), wire) == []


def test_lines_are_joined_while_more_waits_and_handed_on_when_nothing_does() -> None:
    lines = [frame(b"%d\n" % number) for number in range(3)]
    assert read(Transcript(0), *lines, more=True) == [Chunk(0, OUT, b"0\n1\n2\n")]
    assert read(Transcript(0), *lines, more=False) == [
        Chunk(0, OUT, b"0\n"),
        Chunk(2, OUT, b"1\n"),
        Chunk(4, OUT, b"2\n"),
    ]


def test_no_chunk_is_larger_than_its_limit() -> None:
    wire = [frame(b"x" * 10_000 + b"\n") for _ in range(10)] + [frame(b"y" * 100_000)]
    chunks = read(Transcript(0), *wire, more=True)
    assert max(len(chunk.data) for chunk in chunks) <= CHUNK_BYTES
    assert b"".join(chunk.data for chunk in chunks) == (b"x" * 10_000 + b"\n") * 10 + b"y" * 100_000
    assert all(after.offset == before.end for before, after in itertools.pairwise(chunks))


def test_the_newline_that_a_cut_line_lost_is_put_back() -> None:
    """Pieces of one line share their stamp; the last of them came without its newline (Docker 20.10)."""
    cut = frame(b"aaa", 1) + frame(b"a", 1) + frame(b"error\n", 2, ERR) + frame(b"b\n", 3)
    assert b"".join(chunk.data for chunk in read(Transcript(0), cut)) == b"aaaaerror\n\nb\n"


def test_two_cut_lines_of_exactly_the_same_length_stay_two() -> None:
    cut = frame(b"aaa", 1) + frame(b"", 1) + frame(b"bbb", 2) + frame(b"", 2) + frame(b"c\n", 3)
    assert b"".join(chunk.data for chunk in read(Transcript(0), cut)) == b"aaa\nbbb\nc\n"


def test_a_cut_line_that_kept_its_newline_gets_no_second_one() -> None:
    whole = frame(b"aaa", 1) + frame(b"a\n", 1) + frame(b"b\n", 2) + frame(b"no end", 3)
    assert b"".join(chunk.data for chunk in read(Transcript(0), whole)) == b"aaaa\nb\nno end"


def test_a_second_pass_goes_on_where_the_first_broke_off() -> None:
    wire = [frame(b"%d" % second + b"\n", second) for second in range(10)]
    for broken_at in range(11):
        transcript = Transcript(3)
        first = read(transcript, *wire[:broken_at])
        resume = transcript.resume()
        noon = 1_777_636_800
        rest = [each for second, each in enumerate(wire) if noon + second >= resume.since]
        chunks = [*first, *read(transcript, *rest, known=resume.messages)]
        assert b"".join(chunk.data for chunk in chunks) == b"\n2\n3\n4\n5\n6\n7\n8\n9\n"
        assert chunks[0].offset == 3


def test_a_second_pass_over_a_long_log_begins_near_its_end() -> None:
    transcript = Transcript(0)
    read(transcript, *(frame(b"x\n", second / 10) for second in range(300)))
    assert transcript.resume() == Resume(1_777_636_800 + 28, 20)


def test_a_log_whose_clock_went_back_is_read_again_from_its_beginning() -> None:
    transcript = Transcript(0)
    read(transcript, *(frame(b"x\n", second) for second in (10, 11, 12, 3)))
    assert transcript.resume() == Resume(0, 4)


def test_a_line_that_is_not_ended_for_long_is_not_passed_over() -> None:
    """Its further pieces will carry its old stamp, so a pass that begins later would miss them."""
    transcript = Transcript(0)
    read(transcript, frame(b"piece", 1), *(frame(b"x\n", second, ERR) for second in (10, 11, 12)))
    assert transcript.resume() == Resume(0, 4)
