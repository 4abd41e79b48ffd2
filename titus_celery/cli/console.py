"""How the command line looks: what goes to which stream, colours on a terminal alone, nothing raw.

Text that comes from a server may hold anything. On its way to a terminal every control character
in it is made visible, so that nobody's job name can clear a screen.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, TextIO

from titus_celery.errors import TitusError

__all__ = ["Fault", "coloured", "complain", "note", "printable", "silent", "table"]

_RED: Final = "31"
_DIM: Final = "2"
#: Control, format (turns the direction of writing), surrogate and separator characters.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Wide enough that nothing is cut when the table goes into a pipe.
_PIPE_WIDTH: Final = 10_000

_STYLES: Final[Mapping[str, str]] = {
    "QUEUED": "yellow",
    "DISPATCHED": "cyan",
    "STARTING": "cyan",
    "RUNNING": "green",
    "FINISHED": "bright_black",
    "FAILED": "red",
    "FIRED": "green",
    "SKIPPED": "yellow",
    "MISSED": "red",
}


class Fault(TitusError):
    """The command cannot go on: what, why, and what to do about it."""

    #: What the program ends with: by default, that the reason is on our side.
    exit_code: ClassVar[int] = 125

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return "; ".join(part for part in (self.what, self.why, self.hint) if part)


def coloured(stream: TextIO) -> bool:
    """Whether colours may be written to *stream*: a terminal, and NO_COLOR is unset."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    """*text* on one line, with every character that a terminal would obey made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSEEN
        else character
        for character in text
    )


def note(text: str) -> None:
    """Say something about what goes on: a line on standard error."""
    _line(f"titus: {printable(text)}", _DIM)


def silent(text: str) -> None:
    """What --quiet puts in the place of `note`."""


def complain(text: str) -> None:
    """Say what went wrong: a line on standard error, red on a terminal."""
    _line(f"titus: {printable(text)}", _RED)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print an aligned table to standard output; a cell that names a state or an outcome gets its colour."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings[:-1]:
        drawn.add_column(heading, no_wrap=True, overflow="ellipsis")
    # The last column has the texts; on a narrow terminal they are folded and not cut.
    drawn.add_column(headings[-1], overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row))
    if sys.stdout.isatty():
        Console(color_system="auto" if coloured(sys.stdout) else None, highlight=False).print(drawn)
        return
    console = Console(width=_PIPE_WIDTH, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(drawn)
    # Blanks that only fill the last column would be data to whoever reads the pipe.
    for line in capture.get().splitlines():
        print(line.rstrip())


def _line(text: str, code: str) -> None:
    if coloured(sys.stderr):
        text = f"\x1b[{code}m{text}\x1b[0m"
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
