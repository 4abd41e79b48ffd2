"""What tasks wrote: one stream per task, whose entry ids are byte offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import NO_ENTRY, EndsAt, Entry, Expire, Keyspace, Kind, Put, Write
from titus_celery.adapters.layout import OUTPUT_KEPT
from titus_celery.core.model import TaskId
from titus_celery.errors import Conflict, StoreCorrupt
from titus_celery.ports import Chunk, Gap, Source

__all__ = ["CHUNK_BYTES_MAX", "OUTPUT_BYTES_MAX", "OUTPUT_CHUNKS_MAX", "OutputStore"]

#: Kept of one task's output: enough to see why it failed, little beside 1,000 tasks in one store.
OUTPUT_BYTES_MAX: Final = 1024 * 1024
#: A store keeps some 20 bytes more for each chunk, which a task that writes byte by byte must not abuse.
OUTPUT_CHUNKS_MAX: Final = 8_192
#: Larger chunks are split, so that no single command takes long.
CHUNK_BYTES_MAX: Final = 32 * 1024
#: An unfinished task's output goes after this, should nobody ever end the task: longer than any run.
UNFINISHED_KEPT: Final = timedelta(days=30)
#: Chunks read at once.
READ_MAX: Final = 1_000

#: Fields of an entry: where it was written, and the bytes.
_SOURCE, _BYTES = "s", "b"
#: What follows the offset in an entry's id, because a stream cannot have an entry 0-0.
_NUMBER: Final = "-1"
#: Offsets are numbers of 64 bits to a stream; no output gets here.
_OFFSET_MAX: Final = 2**63


class OutputStore:
    """The Outputs of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def append(self, task_id: TaskId, chunks: Sequence[Chunk]) -> None:
        """Keep what of *chunks* lies after `end(task_id)`.

        Chunks may overlap what is there, with other borders: an agent that restarts reads the
        container's output again.
        """
        key = self._keys.output(task_id)
        while True:
            last = self._last(key)
            fresh = list(_fresh(chunks, _end(key, last) if last else 0))
            if not fresh:
                return
            first = max(0, fresh[-1].end - OUTPUT_BYTES_MAX)
            writes: list[Write] = [
                Put(key, _id(one.offset), _fields(one), _id(first), OUTPUT_CHUNKS_MAX) for one in fresh
            ]
            writes.append(Expire(key, Kind.STREAM, UNFINISHED_KEPT, unless_set=True))
            try:
                id = last.id if last else NO_ENTRY
                self._keyspace.transact([EndsAt(key, id, f"the output of {task_id}")], writes)
                return
            except Conflict:
                # Another writer was first: less of it is fresh now.
                continue

    def end(self, task_id: TaskId) -> int:
        """The offset after the last byte kept; 0 if nothing was."""
        key = self._keys.output(task_id)
        last = self._last(key)
        return _end(key, last) if last else 0

    def read(self, task_id: TaskId, offset: int, block: timedelta) -> Sequence[Chunk | Gap]:
        """What is kept from *offset* on; waits up to *block* for the first of it (see Outputs)."""
        key = self._keys.output(task_id)
        offset = min(max(offset, 0), _OFFSET_MAX)
        begun = self._keyspace.last_entry(key, _id(offset))
        entries = [begun] if begun and _end(key, begun) > offset else []
        after = begun.id if begun else NO_ENTRY
        entries += self._keyspace.entries(key, after, READ_MAX, timedelta(0) if entries else block)
        return list(_pieces(key, entries, offset))

    def expire(self, task_id: TaskId) -> None:
        """Let go of it OUTPUT_KEPT from now."""
        key = self._keys.output(task_id)
        self._keyspace.transact([], [Expire(key, Kind.STREAM, OUTPUT_KEPT)])

    def _last(self, key: str) -> Entry | None:
        return self._keyspace.last_entry(key)


def _fresh(chunks: Sequence[Chunk], end: int) -> Iterator[Chunk]:
    """What lies from *end* on, joined where one source goes on, and split where it is long."""
    waiting: Chunk | None = None
    for chunk in chunks:
        if not (piece := _cut(chunk, end)):
            continue
        end = piece.end
        if waiting and waiting.source is piece.source and waiting.end == piece.offset:
            waiting = Chunk(waiting.offset, waiting.source, waiting.data + piece.data)
        else:
            yield from _split(waiting)
            waiting = piece
    yield from _split(waiting)


def _cut(chunk: Chunk, start: int) -> Chunk | None:
    """The part of *chunk* from *start* on."""
    skip = max(0, start - chunk.offset)
    return Chunk(chunk.offset + skip, chunk.source, chunk.data[skip:]) if skip < len(chunk.data) else None


def _split(chunk: Chunk | None) -> Iterator[Chunk]:
    if chunk:
        for start in range(0, len(chunk.data), CHUNK_BYTES_MAX):
            yield Chunk(chunk.offset + start, chunk.source, chunk.data[start : start + CHUNK_BYTES_MAX])


def _pieces(key: str, entries: Sequence[Entry], offset: int) -> Iterator[Chunk | Gap]:
    for entry in entries:
        if piece := _cut(_chunk(key, entry), offset):
            if piece.offset > offset:
                yield Gap(offset, piece.offset)
            yield piece
            offset = piece.end


def _id(offset: int) -> str:
    return f"{offset}{_NUMBER}"


def _fields(chunk: Chunk) -> Mapping[str, str | bytes]:
    return {_SOURCE: str(int(chunk.source)), _BYTES: chunk.data}


def _chunk(key: str, entry: Entry) -> Chunk:
    try:
        return Chunk(
            int(entry.id.removesuffix(_NUMBER)), Source(int(entry.fields[_SOURCE])), entry.fields[_BYTES]
        )
    except (KeyError, ValueError) as error:
        raise StoreCorrupt(key, f"an entry {entry.id} that is no output") from error


def _end(key: str, entry: Entry) -> int:
    return _chunk(key, entry).end
