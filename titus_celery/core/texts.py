"""How many texts a description may hold, and what names may look like (docs/semantics.md B2).

Every transition of a task reads its job, so each of them pays for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from titus_celery.errors import Violation

__all__ = ["ENTRIES_MAX", "MAP_BYTES_MAX", "NAME_CHARACTERS_MAX", "check_map", "check_name"]

#: Names are shown in tables and searched for.
NAME_CHARACTERS_MAX: Final = 256
#: Entries of one map: far more than anybody writes by hand.
ENTRIES_MAX: Final = 1_000
#: All names and values of one map.
MAP_BYTES_MAX: Final = 32 * 1024


def check_name(path: str, name: str) -> Iterator[Violation]:
    """What is wrong with a name, if it is one at all."""
    if len(name) > NAME_CHARACTERS_MAX:
        yield Violation(path, f"has {len(name)} characters; the most is {NAME_CHARACTERS_MAX}")
    elif not name.isprintable():
        yield Violation(path, "holds characters that cannot be shown")


def check_map(
    path: str, texts: Mapping[str, str], *, bytes_max: int = MAP_BYTES_MAX, each: int = 0
) -> Iterator[Violation]:
    """What is wrong with a map of texts as a whole, and with its names; *each* entry counts so much more."""
    if len(texts) > ENTRIES_MAX:
        yield Violation(path, f"has {len(texts)} entries; the most is {ENTRIES_MAX}")
        return
    size = sum(len(name.encode()) + len(value.encode()) + each for name, value in texts.items())
    if size > bytes_max:
        yield Violation(path, f"has {size} bytes; the most is {bytes_max}")
    for name in texts:
        yield from check_name(f"{path}[{name}]", name)
