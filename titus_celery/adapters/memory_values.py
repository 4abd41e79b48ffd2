"""What the keys of the keyspace in this process hold, kind by kind."""

from __future__ import annotations

import copy
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from titus_celery.adapters import keyspace as ks

__all__ = ["Held", "Sorted", "Stream"]


class Sorted:
    """A sorted set: members by score, then by text."""

    def __init__(self) -> None:
        self.scores: dict[str, int] = {}
        self.order: list[tuple[int, str]] = []

    def add(self, member: str, score: int) -> None:
        """Put the member there, or move it to this score."""
        self.remove(member)
        self.scores[member] = score
        insort(self.order, (score, member))

    def remove(self, member: str) -> None:
        """Take the member out, if it is there."""
        if (score := self.scores.pop(member, None)) is not None:
            del self.order[bisect_left(self.order, (score, member))]


class Stream:
    """A stream: entries by their ids, as pairs of numbers."""

    def __init__(self) -> None:
        self.ids: list[tuple[int, int]] = []
        self.entries: list[ks.Entry] = []

    @property
    def last_id(self) -> str:
        """The newest entry's id, or NO_ENTRY."""
        return self.entries[-1].id if self.entries else ks.NO_ENTRY

    def add(self, id: tuple[int, int], fields: Mapping[str, str | bytes]) -> None:
        """Put an entry at the end."""
        raw = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
        self.ids.append(id)
        self.entries.append(ks.Entry(f"{id[0]}-{id[1]}", raw))

    def drop(self, count: int) -> None:
        """Take out so many of the oldest entries."""
        if count > 0:
            del self.ids[:count], self.entries[:count]


@dataclass(slots=True)
class Held:
    """What the keys hold, by kind, and until when."""

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    sorted: dict[str, Sorted] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
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

    def copy(self, keys: Collection[str]) -> Held:
        """What these keys hold, apart from what becomes of it here."""
        one = Held()
        for (_, theirs), (_, ours) in zip(one.by_kind(), self.by_kind(), strict=True):
            theirs.update({key: copy.deepcopy(ours[key]) for key in keys if key in ours})
        one.until.update({key: self.until[key] for key in keys if key in self.until})
        return one

    def restore(self, keys: Collection[str], one: Held) -> None:
        """Let these keys hold what they held when *one* was copied."""
        for key in keys:
            self.delete(key)
        for (_, theirs), (_, ours) in zip(one.by_kind(), self.by_kind(), strict=True):
            ours.update(theirs)
        self.until.update(one.until)
