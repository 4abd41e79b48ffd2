"""The keyspace in this process: for embedded use, and for tests that move the time by hand.

It ships, and it obeys the same contract as the one in Redis; nothing survives the process.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from titus_celery.adapters import keyspace as ks
from titus_celery.errors import StoreCorrupt

__all__ = ["MemoryKeyspace"]

#: As in commit.lua, where sums must stay exact in doubles.
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,14}")
#: Milliseconds in a stream's id; at or beyond, somebody else made that entry.
_STAMP_MAX: Final = 10**15
#: Sorts after every member.
_LAST: Final = chr(0x10FFFF)

_T = TypeVar("_T")


class _Sorted:
    """A sorted set: members by score, then by text."""

    def __init__(self) -> None:
        self.scores: dict[str, int] = {}
        self.order: list[tuple[int, str]] = []

    def add(self, member: str, score: int) -> None:
        self.remove(member)
        self.scores[member] = score
        insort(self.order, (score, member))

    def remove(self, member: str) -> None:
        if (score := self.scores.pop(member, None)) is not None:
            del self.order[bisect_left(self.order, (score, member))]


class _Stream:
    """A stream: entries by their ids, as pairs of numbers."""

    def __init__(self) -> None:
        self.ids: list[tuple[int, int]] = []
        self.entries: list[ks.Entry] = []

    @property
    def last_id(self) -> str:
        return self.entries[-1].id if self.entries else ks.NO_ENTRY

    def add(self, id: tuple[int, int], fields: Mapping[str, str | bytes]) -> None:
        raw = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
        self.ids.append(id)
        self.entries.append(ks.Entry(f"{id[0]}-{id[1]}", raw))

    def drop(self, count: int) -> None:
        if count > 0:
            del self.ids[:count], self.entries[:count]


@dataclass(slots=True)
class _Held:
    """What the keys hold, by kind, and until when."""

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    sorted: dict[str, _Sorted] = field(default_factory=dict)
    streams: dict[str, _Stream] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    until: dict[str, datetime] = field(default_factory=dict)

    def by_kind(self) -> Iterable[tuple[ks.Kind, dict[str, object]]]:
        """Every kind and its keys."""
        kinds: tuple[tuple[ks.Kind, object], ...] = (
            (ks.Kind.HASH, self.hashes),
            (ks.Kind.SORTED, self.sorted),
            (ks.Kind.STREAM, self.streams),
            (ks.Kind.TEXT, self.texts),
        )
        return kinds  # type: ignore[return-value]  # dicts are invariant; only whole values are dropped

    def kind(self, key: str) -> ks.Kind | None:
        """What the key holds, if it exists."""
        return next((kind for kind, held in self.by_kind() if key in held), None)

    def delete(self, key: str) -> None:
        """Forget the key."""
        self.until.pop(key, None)
        for _, held in self.by_kind():
            held.pop(key, None)


class MemoryKeyspace:
    """A keyspace whose time is what *now* says. Threads may share it."""

    def __init__(self, now: Callable[[], datetime], namespace: str = "titus") -> None:
        self._now, self._namespace = now, namespace
        self._held = _Held()
        self._changed = threading.Condition()

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
            return shown | held.texts

    def time_left(self, key: str) -> timedelta | None:
        """How long the key will still be there; None: for ever, or it is not."""
        with self._changed:
            self._expire()
            return self._held.until[key] - self.now() if key in self._held.until else None

    # ------------------------------------------------------------------------------------------------ writing

    def transact(self, checks: Sequence[ks.Check], writes: Sequence[ks.Write]) -> None:
        """Do all *writes* if all *checks* pass, else none (see Keyspace)."""
        with self._changed:
            self._expire()
            for key, kind in ks.kinds_of(checks, writes).items():
                self._look(key, kind)
            for part in (*checks, *writes):
                if isinstance(part, ks.AtMost | ks.HashAdd | ks.HashRaise):
                    self._number(part.key, part.field)
                if isinstance(part, ks.Append):
                    self._look_at_end(part.key)
            for check in checks:
                if not self._passes(check):
                    raise ks.check_failed(check)
            for write in writes:
                self._write(write)
            self._changed.notify_all()

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
            case ks.SizeIs():
                return len(_scores(held, check.key)) == check.size
            case ks.ScoreIs():
                return _scores(held, check.key).get(check.member) == check.score
            case ks.AtMost():
                return self._number(check.key, check.field) + check.delta <= check.maximum
            case ks.EndsAt():
                return held.streams.get(check.key, _Stream()).last_id == check.id
            case ks.TextIs():
                found = held.texts.get(check.key)
                return check.or_absent if found is None else found == check.value

    def _write(self, write: ks.Write) -> None:
        match write:
            case ks.HashSet() | ks.HashSetNew() | ks.HashAdd() | ks.HashRaise():
                self._write_hash(write, self._held.hashes.setdefault(write.key, {}))
            case ks.SetAdd() | ks.SetRemove() | ks.SetRemoveIf() | ks.SetAddIfEmpty():
                members = self._held.sorted.setdefault(write.key, _Sorted())
                self._write_sorted(write, members)
                if not members.order:
                    # An empty set does not exist.
                    self._held.delete(write.key)
            case ks.Append() | ks.Put():
                self._write_stream(write, self._held.streams.setdefault(write.key, _Stream()))
            case ks.TextSet():
                self._held.texts[write.key] = write.value
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
        self, write: ks.SetAdd | ks.SetRemove | ks.SetRemoveIf | ks.SetAddIfEmpty, members: _Sorted
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

    def _write_stream(self, write: ks.Append | ks.Put, stream: _Stream) -> None:
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

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""
        with self._changed:
            order = self._order(key)
            count = min(limit, bisect_right(order, (score, _LAST)))
            return [(member, score) for score, member in order[:count]]

    def text(self, key: str) -> str | None:
        """The text, if there is one."""
        with self._changed:
            return self._get(key, ks.Kind.TEXT, self._held.texts)

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


def _scores(held: _Held, key: str) -> Mapping[str, int]:
    return held.sorted[key].scores if key in held.sorted else {}


def _parsed(id: str) -> tuple[int, int]:
    time, _, number = id.partition("-")
    return int(time), int(number or 0)
