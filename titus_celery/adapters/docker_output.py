"""What a container wrote, put together again from what the engine's log hands out.

The engine keeps output as messages: one per line, long lines in pieces, each with the time at which
it came. Two things are wrong with reading them plainly, both seen on Docker 20.10: following a log
misses its end when the container exits, and the driver `local` forgets the newline of a line that it
cut. A `Transcript` mends both. It knows no network and no Docker library: bytes in, chunks out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from titus_celery.errors import EngineFault
from titus_celery.ports import Chunk, Source

__all__ = ["CHUNK_BYTES", "Frames", "Message", "Resume", "Transcript"]

#: The largest chunk handed on, in bytes: it becomes one entry of a Redis stream.
CHUNK_BYTES: Final = 32 * 1024

#: A frame larger than this, in bytes, is not the engine's: it cuts messages at 16 KiB.
FRAME_BYTES_MAX: Final = 1024 * 1024

#: Before each message: which stream it is of, three zero bytes, and its length.
_HEADER: Final = struct.Struct(">BxxxL")

#: Bytes of a timestamp up to its whole second: 2026-01-31T23:59:59.
_SECOND_BYTES: Final = 19

#: Seconds whose messages are counted. The newest alone would not do: the two streams are stamped
#: apart, so that messages around a full second may be out of order.
_SECONDS_KEPT: Final = 2

_DOING: Final = "reading output"


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the engine's log: a line, or a piece of a long one."""

    source: Source
    #: When the engine got it, as the engine writes it. Pieces of one line share it.
    stamp: bytes
    data: bytes


class Frames:
    """Cuts the engine's byte stream into messages, wherever the network cut it before."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> Iterator[Message]:
        """The messages that *block* completes. EngineFault if these are not frames."""
        data, at = self._rest + block, 0
        while len(data) - at >= _HEADER.size:
            stream, size = _HEADER.unpack_from(data, at)
            if stream not in (Source.STDOUT, Source.STDERR) or size > FRAME_BYTES_MAX:
                raise EngineFault(_DOING, f"a frame of stream {stream} with {size} bytes makes no sense")
            begin = at + _HEADER.size
            if len(data) - begin < size:
                break
            at = begin + size
            stamp, blank, text = data[begin:at].partition(b" ")
            if not blank:
                raise EngineFault(_DOING, "a message came without the time that was asked for")
            yield Message(Source(stream), stamp, text)
        self._rest = data[at:]


@dataclass(frozen=True, slots=True)
class Resume:
    """From where to read the log again, and how much of that is known already."""

    #: Unix seconds; 0 is the log's beginning.
    since: int
    messages: int


class Transcript:
    """One reading of a container's output, begun at *offset*, that may take several passes."""

    def __init__(self, offset: int) -> None:
        self._wanted = offset
        self._end = 0
        self._count = 0
        self._recent: dict[bytes, int] = {}
        self._in_order = True
        self._unended: dict[Source, bytes] = {}

    def resume(self) -> Resume:
        """Where the next pass has to begin, so that it misses nothing.

        Near the end of what was read, if the times of the messages allow that; else at the beginning.
        """
        oldest = min(self._recent, default=b"")
        settled = all(stamp[:_SECOND_BYTES] >= oldest for stamp in self._unended.values())
        if not (self._in_order and settled and len(self._recent) == _SECONDS_KEPT):
            return Resume(0, self._count)
        since = datetime.fromisoformat(oldest.decode("ascii") + "Z")
        return Resume(int(since.timestamp()), sum(self._recent.values()))

    def read(self, blocks: Iterable[bytes], known: int, more: Callable[[], bool]) -> Iterator[Chunk]:
        """The chunks of one pass, whose first *known* messages an earlier one already had.

        Messages of one stream are joined for as long as *more* says that the next bytes wait, so
        that a thousand lines are a few chunks, and yet no line is held back.
        """
        frames, joined = Frames(), _Joined()
        for block in blocks:
            for message in frames.feed(block):
                if known:
                    known -= 1
                    continue
                start, data = self._take(message)
                if not joined.accepts(message.source, data):
                    yield from joined.flush()
                joined.add(start, message.source, data)
            if not more():
                yield from joined.flush()
        yield from joined.flush()

    def _take(self, message: Message) -> tuple[int, bytes]:
        """What *message* adds at or after the wanted offset, and where that begins."""
        self._note(message.stamp[:_SECOND_BYTES])
        data = self._mended(message)
        start, self._end = self._end, self._end + len(data)
        cut = min(max(self._wanted - start, 0), len(data))
        return start + cut, data[cut:]

    def _mended(self, message: Message) -> bytes:
        """Its bytes, after the newline that the driver forgot to put behind the line before."""
        unended = self._unended.pop(message.source, message.stamp)
        if not message.data.endswith(b"\n"):
            self._unended[message.source] = message.stamp
        return message.data if unended == message.stamp else b"\n" + message.data

    def _note(self, second: bytes) -> None:
        """Count the message, as one of its second too while that is one of the newest."""
        self._count += 1
        if len(self._recent) == _SECONDS_KEPT and second < min(self._recent):
            self._in_order = False
            return
        self._recent[second] = self._recent.get(second, 0) + 1
        if len(self._recent) > _SECONDS_KEPT:
            del self._recent[min(self._recent)]


class _Joined:
    """Messages of one stream on their way to become a chunk."""

    def __init__(self) -> None:
        self._start, self._source, self._data = 0, Source.STDOUT, bytearray()

    def accepts(self, source: Source, data: bytes) -> bool:
        return not self._data or (source is self._source and len(self._data) + len(data) <= CHUNK_BYTES)

    def add(self, start: int, source: Source, data: bytes) -> None:
        if not self._data:
            self._start, self._source = start, source
        self._data += data

    def flush(self) -> Iterator[Chunk]:
        data, self._data = bytes(self._data), bytearray()
        for at in range(0, len(data), CHUNK_BYTES):
            yield Chunk(self._start + at, self._source, data[at : at + CHUNK_BYTES])
