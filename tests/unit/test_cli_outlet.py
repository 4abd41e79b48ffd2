"""Containers' bytes and our notes on the same terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TextIO

import pytest

from tests.unit.scripted_server import Server, titus
from titus_celery.cli import console
from titus_celery.cli.outlet import Outlet
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1

#: What was written to standard output, and to standard error, so far.
Read = Callable[[int], bytes]


def teller(stream: TextIO) -> Callable[[str], None]:
    def tell(text: str) -> None:
        stream.write(f"titus: {text}\n")
        stream.flush()

    return tell


@pytest.fixture
def piped() -> Iterator[tuple[Outlet, Read]]:
    """An outlet on two pipes, and what came out of the first or second."""
    with ExitStack() as stack:
        ends = [os.pipe(), os.pipe()]
        out, err = (stack.enter_context(os.fdopen(end, "w")) for _, end in ends)
        for end, _ in ends:
            stack.callback(os.close, end)
            os.set_blocking(end, False)
        yield Outlet(teller(err), out, err), lambda which: os.read(ends[which][0], 1000)


def test_a_note_does_not_run_into_an_unended_line_of_standard_error(piped: tuple[Outlet, Read]) -> None:
    outlet, read = piped
    outlet.write(b"oops", is_error=True)
    outlet.note("one")
    outlet.note("two")
    outlet.write(b"done\n", is_error=True)
    outlet.note("three")
    assert read(1) == b"oops\ntitus: one\ntitus: two\ndone\ntitus: three\n"


def test_what_a_pipe_gets_of_standard_output_stays_as_it_was_written(piped: tuple[Outlet, Read]) -> None:
    outlet, read = piped
    outlet.write(b"no end", is_error=False)
    outlet.note("one")
    assert (read(0), read(1)) == (b"no end", b"titus: one\n")


def test_a_note_does_not_run_into_standard_output_on_the_same_terminal() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as out, os.fdopen(os.dup(theirs), "w") as err:
        outlet = Outlet(teller(err), out, err)
        outlet.write(b"no end", is_error=False)
        outlet.note("one")
        outlet.note("two")
        # A terminal gives what it has, which may be a part.
        shown = b""
        while not shown.endswith(b"two\r\n"):
            shown += os.read(ours, 1000)
        assert shown.replace(b"\r", b"") == b"no end\ntitus: one\ntitus: two\n"
    os.close(ours)


def test_nothing_is_added_when_nothing_is_said(piped: tuple[Outlet, Read]) -> None:
    outlet, read = piped
    outlet.tell = console.silent
    outlet.write(b"oops", is_error=True)
    outlet.note("one")
    assert read(1) == b"oops"


def test_the_end_of_a_run_is_told_on_a_line_of_its_own(server: Server) -> None:
    server.output, server.source = b"oops", v1.STDERR
    assert "oops\ntitus: task 0 failed: exit code 3\n" in titus(server, "run", "i").stderr
