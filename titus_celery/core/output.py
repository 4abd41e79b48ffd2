"""What a container wrote: its bytes, in the order of both of its streams, and where some are gone."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Chunk", "Gap", "Source"]


class Source(enum.IntEnum):
    """Where a container wrote."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes a container wrote, at *offset* in the order of both of its streams together."""

    offset: int
    source: Source
    data: bytes

    @property
    def end(self) -> int:
        """The offset of the byte after."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes from *start* up to *end* that are no longer kept."""

    start: int
    end: int
