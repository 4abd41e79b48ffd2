"""The keyspace in this process: for embedded use, and for tests that move the time by hand.

It ships, and it obeys the same contract as the one in Redis; nothing survives the process.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from titus_celery.adapters import keyspace as ks
from titus_celery.adapters.memory_values import Held, Sorted, Stream
from titus_celery.errors import StoreCorrupt, StoreUnavailable

__all__ = ["MemoryKeyspace"]

#: As in commit.lua, where sums must stay exact in doubles.
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,14}")
#: Milliseconds in a stream's id; at or beyond, somebody else made that entry.
_STAMP_MAX: Final = 10**15
#: Sorts after every member.
_LAST: Final = chr(0x10FFFF)

_T = TypeVar("_T")


class MemoryKeyspace:
    """A keyspace whose time is what *now* says. Threads may share it.

    A restart can be had without one: `restart` makes it forget up to *undo_max* transactions.
    """

    def __init__(self, now: Callable[[], datetime], namespace: str = "titus", *, undo_max: int = 0) -> None:
        self._now, self._namespace = now, namespace
        self._held = Held()
        self._changed = threading.Condition()
        self._restarts = 0
        self._undo: deque[tuple[Sequence[str], Held]] = deque(maxlen=undo_max)
        #: What `memory` tells: bytes used, and the most that may be (0: all there are).
        self.used_and_maximum = (0, 0)

    @property
    def namespace(self) -> str:
        """What tells this installation's keys from others."""
        return self._namespace

    def now(self) -> datetime:
        """The store's time."""
        return ks.from_ms(ks.to_ms(self._now()))

    def close(self) -> None:
        """There is nothing to let go of."""

    def dump(self) -> Mapping[str, object]:
        """What every key holds, as plain values to look at and compare."""
        with self._changed:
            self._expire()
            held = self._held
            shown: dict[str, object] = {key: dict(fields) for key, fields in held.hashes.items()}
            shown |= {key: tuple(members.order) for key, members in held.sorted.items()}
            shown |= {key: tuple(stream.entries) for key, stream in held.streams.items()}
            return shown | {key: value.decode("utf-8", "replace") for key, value in held.texts.items()}

    def restart(self, forget: int = 0) -> None:
        """Begin another life of the store, in which the last *forget* transactions never were.

        ValueError if it does not know so many of them any more.
        """
        with self._changed:
            if forget > len(self._undo):
                raise ValueError(f"{forget} transactions to forget, but only {len(self._undo)} are known")
            for _ in range(forget):
                self._held.restore(*self._undo.pop())
            self._undo.clear()
            self._restarts += 1
            self._changed.notify_all()

    def epoch(self) -> str:
        """Which life of the store this is."""
        return f"memory:{self._restarts}"

    def memory(self) -> tuple[int, int]:
        """What `used_and_maximum` was set to."""
        return self.used_and_maximum

    def time_left(self, key: str) -> timedelta | None:
        """How long the key will still be there; None: for ever, or it is not."""
        with self._changed:
            self._expire()
            return self._held.until[key] - self.now() if key in self._held.until else None

    # ------------------------------------------------------------------------------------------------ writing

    def transact(self, checks: Sequence[ks.Check], writes: Sequence[ks.Write], *, grows: bool = False) -> str:
        """Do all *writes* if all *checks* pass, else none (see Keyspace)."""
        used, maximum = self.used_and_maximum
        if grows and 0 < maximum < used:
            raise StoreUnavailable(ks.MEMORY_FULL)
        kinds = ks.kinds_of(checks, writes)
        with self._changed:
            self._expire()
            for key, kind in kinds.items():
                self._look(key, kind)
            for part in (*checks, *writes):
                if isinstance(part, ks.AtMost | ks.HashAdd | ks.HashRaise):
                    self._number(part.key, part.field)
                if isinstance(part, ks.Append):
                    self._look_at_end(part.key)
            for check in checks:
                if not self._passes(check):
                    raise ks.check_failed(check)
            if self._undo.maxlen:
                self._undo.append((list(kinds), self._held.copy(kinds)))
            for write in writes:
                self._write(write)
            self._changed.notify_all()
            appended = [write.key for write in writes if isinstance(write, ks.Append)]
            return self._held.streams[appended[-1]].last_id if appended else ""

    def _look(self, key: str, wanted: ks.Kind) -> None:
        found = self._held.kind(key)
        if found not in (None, wanted):
            raise StoreCorrupt(key, f"a {found.value} instead of a {wanted.value}")

    def _number(self, key: str, name: str) -> int:
        text = self._held.hashes.get(key, {}).get(name, "0")
        if not _INTEGER.fullmatch(text):
            raise StoreCorrupt(key, f"no number in {name}: {text[:40]}")
        return int(text)

    def _look_at_end(self, key: str) -> None:
        stream = self._held.streams.get(key)
        if stream and stream.ids and stream.ids[-1][0] >= _STAMP_MAX:
            raise StoreCorrupt(key, f"an entry from the far future: {stream.last_id}")

    def _passes(self, check: ks.Check) -> bool:
        held = self._held
        match check:
            case ks.FieldIs():
                return held.hashes.get(check.key, {}).get(check.field) == check.value
            case ks.Absent():
                return held.kind(check.key) is None
            case ks.RoomFor():
                return len(_scores(held, check.key)) < check.limit
            case ks.SizeIs():
                return len(_scores(held, check.key)) == check.size
            case ks.ScoreIs():
                return _scores(held, check.key).get(check.member) == check.score
            case ks.AtMost():
                return self._number(check.key, check.field) + check.delta <= check.maximum
            case ks.EndsAt():
                return held.streams.get(check.key, Stream()).last_id == check.id
            case ks.TextIs():
                found = held.texts.get(check.key)
                return check.or_absent if found is None else found == check.value.encode()

    def _write(self, write: ks.Write) -> None:
        match write:
            case ks.HashSet() | ks.HashSetNew() | ks.HashAdd() | ks.HashRaise():
                self._write_hash(write, self._held.hashes.setdefault(write.key, {}))
            case ks.SetAdd() | ks.SetRemove() | ks.SetRemoveIf() | ks.SetAddIfEmpty():
                members = self._held.sorted.setdefault(write.key, Sorted())
                self._write_sorted(write, members)
                if not members.order:
                    # An empty set does not exist.
                    self._held.delete(write.key)
            case ks.Append() | ks.Put():
                self._write_stream(write, self._held.streams.setdefault(write.key, Stream()))
            case ks.TextSet():
                value = write.value
                self._held.texts[write.key] = value if isinstance(value, bytes) else value.encode()
                self._held.until.pop(write.key, None)
                if write.span is not None:
                    self._held.until[write.key] = self.now() + write.span
            case ks.Expire():
                if self._held.kind(write.key) and not (write.unless_set and write.key in self._held.until):
                    self._held.until[write.key] = self.now() + write.span
            case ks.Delete():
                self._held.delete(write.key)

    def _write_hash(
        self, write: ks.HashSet | ks.HashSetNew | ks.HashAdd | ks.HashRaise, fields: dict[str, str]
    ) -> None:
        match write:
            case ks.HashSet():
                fields.update(write.fields)
            case ks.HashSetNew():
                fields.setdefault(write.field, write.value)
            case ks.HashAdd():
                fields[write.field] = str(int(fields.get(write.field, "0")) + write.delta)
            case ks.HashRaise():
                now = int(fields.get(write.field, "-1"))
                if write.level > now:
                    fields[write.field] = str(write.level)
                    for level in sorted(write.times):
                        if level > now:
                            fields.setdefault(f"{ks.TIMED}{level}", str(write.times[level]))

    def _write_sorted(
        self, write: ks.SetAdd | ks.SetRemove | ks.SetRemoveIf | ks.SetAddIfEmpty, members: Sorted
    ) -> None:
        match write:
            case ks.SetAdd():
                members.add(write.member, write.score)
            case ks.SetRemove():
                members.remove(write.member)
            case ks.SetRemoveIf():
                if members.scores.get(write.member) == write.score:
                    members.remove(write.member)
            case ks.SetAddIfEmpty():
                if not _scores(self._held, write.empty):
                    members.add(write.member, write.score)

    def _write_stream(self, write: ks.Append | ks.Put, stream: Stream) -> None:
        match write:
            case ks.Append():
                last = stream.ids[-1] if stream.ids else (0, 0)
                at = ks.to_ms(self._now())
                id = (at, 0) if at > last[0] else (last[0], last[1] + 1)
                stream.add(id, {"p": stream.last_id, **write.fields})
                oldest = at - write.keep // timedelta(milliseconds=1)
                stream.drop(bisect_left(stream.ids, (oldest, 0)))
            case ks.Put():
                stream.add(_parsed(write.id), write.fields)
                stream.drop(bisect_left(stream.ids, _parsed(write.first)))
                stream.drop(len(stream.ids) - write.count)

    def trim(self, key: str, bytes_max: int) -> None:
        """Drop the stream's oldest entries until its fields take *bytes_max* at most."""
        with self._changed:
            if stream := self._get(key, ks.Kind.STREAM, self._held.streams):
                sizes = [_bytes_of(entry) for entry in stream.entries]
                used, count = sum(sizes), 0
                while used > bytes_max and count < len(sizes) - 1:
                    used -= sizes[count]
                    count += 1
                stream.drop(count)

    def _expire(self) -> None:
        now = self.now()
        for key in [key for key, until in self._held.until.items() if until <= now]:
            self._held.delete(key)

    # ------------------------------------------------------------------------------------------------ reading

    def hashes(self, keys: Sequence[str]) -> tuple[Sequence[Mapping[str, str]], datetime]:
        """All fields of each hash, and the store's time."""
        with self._changed:
            return [dict(self._get(key, ks.Kind.HASH, self._held.hashes) or {}) for key in keys], self.now()

    def members(
        self, key: str, start: int, limit: int, newest: bool = False
    ) -> tuple[Sequence[tuple[str, int]], int]:
        """A page of the sorted set, and its size."""
        with self._changed:
            order = self._order(key)
            page = order[::-1] if newest else order
            return [(member, score) for score, member in page[start : start + limit]], len(order)

    def members_of(
        self, keys: Sequence[str], limit: int, newest: bool = False
    ) -> Sequence[Sequence[tuple[str, int]]]:
        """At most *limit* members of each sorted set."""
        return [self.members(key, 0, limit, newest)[0] for key in keys]

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""
        with self._changed:
            order = self._order(key)
            count = min(limit, bisect_right(order, (score, _LAST)))
            return [(member, score) for score, member in order[:count]]

    def members_from(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score from *score* on, lowest first."""
        with self._changed:
            order = self._order(key)
            start = bisect_left(order, (score, ""))
            return [(member, score) for score, member in order[start : start + limit]]

    def score(self, key: str, member: str) -> int | None:
        """The score of the sorted set's member, if it is one."""
        with self._changed:
            held = self._get(key, ks.Kind.SORTED, self._held.sorted)
            return held.scores.get(member) if held else None

    def text(self, key: str) -> str | None:
        """The text, if there is one."""
        found = self.blob(key)
        return None if found is None else found.decode("utf-8", "replace")

    def blob(self, key: str) -> bytes | None:
        """The text as the bytes it is made of, if there is one."""
        with self._changed:
            return self._get(key, ks.Kind.TEXT, self._held.texts)

    def blobs(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """The same of each key."""
        return [self.blob(key) for key in keys]

    def entries(self, key: str, after: str, limit: int, block: timedelta) -> Sequence[ks.Entry]:
        """At most *limit* entries after this id; waits up to *block* for the first."""
        found: list[ks.Entry] = []

        def look() -> bool:
            if stream := self._get(key, ks.Kind.STREAM, self._held.streams):
                start = bisect_right(stream.ids, _parsed(after))
                found.extend(stream.entries[start : start + limit])
            return bool(found)

        with self._changed:
            self._changed.wait_for(look, block.total_seconds())
            return found

    def last_entry(self, key: str, until: str = "+") -> ks.Entry | None:
        """The newest entry up to and including this id."""
        with self._changed:
            stream = self._get(key, ks.Kind.STREAM, self._held.streams)
            if stream is None:
                return None
            end = len(stream.ids) if until == "+" else bisect_right(stream.ids, _parsed(until))
            return stream.entries[end - 1] if end else None

    def _get(self, key: str, kind: ks.Kind, held: Mapping[str, _T]) -> _T | None:
        self._expire()
        self._look(key, kind)
        return held.get(key)

    def _order(self, key: str) -> list[tuple[int, str]]:
        held = self._get(key, ks.Kind.SORTED, self._held.sorted)
        return held.order if held else []


def _bytes_of(entry: ks.Entry) -> int:
    return sum(len(name.encode()) + len(value) for name, value in entry.fields.items())


def _scores(held: Held, key: str) -> Mapping[str, int]:
    return held.sorted[key].scores if key in held.sorted else {}


def _parsed(id: str) -> tuple[int, int]:
    time, _, number = id.partition("-")
    return int(time), int(number or 0)
