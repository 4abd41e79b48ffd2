"""Where the bytes of containers and our own notes meet, without running into each other.

What a container writes goes through unchanged. When its last line is not ended, a note begins with
a line end of our own, on standard error, so that nothing is added to what a pipe gets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from titus_celery.cli import console

__all__ = ["Outlet"]


@dataclass(slots=True)
class Outlet:
    """Standard output and standard error; *tell* says a note."""

    tell: Callable[[str], None]
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    #: Whether the last line of a container there is not ended.
    _is_out_open: bool = False
    _is_err_open: bool = False

    def write(self, data: bytes, *, is_error: bool) -> None:
        """Pass on bytes of a container."""
        stream = self.err if is_error else self.out
        stream.buffer.write(data)
        stream.buffer.flush()
        if data:
            is_open = not data.endswith(b"\n")
            if is_error:
                self._is_err_open = is_open
            else:
                self._is_out_open = is_open

    def note(self, text: str) -> None:
        """Say something, on a line of its own."""
        if self.tell is not console.silent:
            self.end_line()
        self.tell(text)

    def end_line(self) -> None:
        """End the line that a note on standard error would run into, if there is one."""
        is_shared = self._is_out_open and _terminal(self.out) is not None
        is_shared = is_shared and _terminal(self.out) == _terminal(self.err)
        if self._is_err_open or is_shared:
            self.err.buffer.write(b"\n")
            self.err.buffer.flush()
            self._is_err_open = False
            self._is_out_open = self._is_out_open and not is_shared


def _terminal(stream: TextIO) -> int | None:
    """Which terminal it is, if it is one."""
    return os.fstat(stream.fileno()).st_rdev if stream.isatty() else None
