"""Output of several containers, by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from titus_celery.cli.lines import LINE_MAX, Lines


def test_a_line_is_shown_when_it_is_complete() -> None:
    lines = Lines("3")
    assert lines.whole(b"hel") == b""
    assert lines.whole(b"lo\nwor") == b"3 | hello\n"
    assert lines.rest() == b"3 | wor\n"
    assert lines.rest() == b""


def test_bytes_that_are_no_text_come_through() -> None:
    assert Lines("0").whole(b"\xff\x00\r\n") == b"0 | \xff\x00\r\n"


def test_a_line_without_an_end_is_shown_in_pieces() -> None:
    shown = Lines("0").whole(b"x" * (LINE_MAX + 1))
    assert shown == b"0 | " + b"x" * (LINE_MAX + 1) + b"\n"


@given(st.lists(st.binary(max_size=20)))
def test_no_byte_is_lost_however_the_output_is_cut(parts: list[bytes]) -> None:
    lines = Lines("7")
    shown = b"".join(map(lines.whole, parts)) + lines.rest()
    written = b"".join(parts)
    want = [b"7 | " + line for line in written.split(b"\n")]
    if want[-1] == b"7 | ":
        want[-1] = b""
    else:
        want.append(b"")
    assert shown == b"\n".join(want)
