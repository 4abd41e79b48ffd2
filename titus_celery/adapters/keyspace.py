"""The seam inside the store: a keyspace of hashes, sorted sets, streams and texts, with one way to write.

Everything that makes up the store (records, outputs, agents, leases) is laid out over this seam, so
that Redis and memory differ in one file each and in nothing else. A write is a *transaction*: a list of
checks and a list of writes. First every key is looked at for its type, every number to be incremented
for being one, and every check is made; only when all of that passed are the writes done, and none of
them can fail. So a transaction happens whole or not at all, without anything to roll back.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, Protocol

from titus_celery.errors import Conflict, Full

__all__ = [
    "NO_ENTRY",
    "TIMED",
    "Absent",
    "Append",
    "AtMost",
    "Check",
    "Delete",
    "EndsAt",
    "Entry",
    "Expire",
    "FieldIs",
    "HashAdd",
    "HashRaise",
    "HashSet",
    "HashSetNew",
    "Keyspace",
    "Kind",
    "Put",
    "ScoreIs",
    "SetAdd",
    "SetAddIfEmpty",
    "SetRemove",
    "SetRemoveIf",
    "SizeIs",
    "TextIs",
    "TextSet",
    "Write",
    "check_failed",
    "from_ms",
    "kinds_of",
    "to_ms",
]

#: The entry id before every other: where an empty stream ends.
NO_ENTRY: Final = "0-0"

#: `HashRaise` notes when a level was reached in the field of this name and the level.
TIMED: Final = "at:"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970, rounded down: the precision of every instant in the store."""
    return (at - _EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """The instant that `to_ms` made this number of."""
    return _EPOCH + ms * _MILLISECOND


class Kind(enum.Enum):
    """What a key can hold, by the name that Redis gives it."""

    HASH = "hash"
    SORTED = "zset"
    STREAM = "stream"
    TEXT = "string"


# --------------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True, slots=True)
class FieldIs:
    """The hash's field has this value. *what* names the entity in the Conflict if not."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    value: str
    what: str


@dataclass(frozen=True, slots=True)
class Absent:
    """The key does not exist."""

    key: str
    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class SizeIs:
    """The sorted set has so many members."""

    kind: ClassVar = Kind.SORTED
    key: str
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class ScoreIs:
    """The sorted set's member has this score."""

    kind: ClassVar = Kind.SORTED
    key: str
    member: str
    score: int
    what: str


@dataclass(frozen=True, slots=True)
class AtMost:
    """The hash's number (absent: 0) plus *delta* does not exceed *maximum*; Full if *room*, else Conflict."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    delta: int
    maximum: int
    what: str
    room: bool = False


@dataclass(frozen=True, slots=True)
class EndsAt:
    """The stream's last entry has this id (NO_ENTRY: it is empty)."""

    kind: ClassVar = Kind.STREAM
    key: str
    id: str
    what: str


@dataclass(frozen=True, slots=True)
class TextIs:
    """The text is this, or the key does not exist while *or_absent*."""

    kind: ClassVar = Kind.TEXT
    key: str
    value: str
    what: str
    or_absent: bool = False


Check = FieldIs | Absent | SizeIs | ScoreIs | AtMost | EndsAt | TextIs


def check_failed(check: Check) -> Conflict:
    """The error that a failed check means."""
    return Full(check.what) if isinstance(check, AtMost) and check.room else Conflict(check.what)


# --------------------------------------------------------------------------------------------------- writes


@dataclass(frozen=True, slots=True)
class HashSet:
    """Set these fields; the others stay."""

    kind: ClassVar = Kind.HASH
    key: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HashSetNew:
    """Set this field unless it is there."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class HashAdd:
    """Add *delta* to the number (absent: 0)."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    delta: int


@dataclass(frozen=True, slots=True)
class HashRaise:
    """Lift the number to *level* unless it is as high, and note when: `at:<level>` for each level newly
    reached that *times* (ms) knows and that has no time yet."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    level: int
    times: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SetAdd:
    """Put the member there, or move it to this score."""

    kind: ClassVar = Kind.SORTED
    key: str
    member: str
    score: int


@dataclass(frozen=True, slots=True)
class SetRemove:
    """Take the member out, if it is there."""

    kind: ClassVar = Kind.SORTED
    key: str
    member: str


@dataclass(frozen=True, slots=True)
class SetRemoveIf:
    """Take the member out if it still has this score."""

    kind: ClassVar = Kind.SORTED
    key: str
    member: str
    score: int


@dataclass(frozen=True, slots=True)
class SetAddIfEmpty:
    """`SetAdd`, if the sorted set *empty* has no members when this write is its turn."""

    kind: ClassVar = Kind.SORTED
    key: str
    empty: str
    member: str
    score: int


@dataclass(frozen=True, slots=True)
class Append:
    """Add an entry under the store's time, with its predecessor's id in `p`; drop those older than *keep*.

    Redis drops whole nodes of entries only, so that somewhat older ones may stay.
    """

    kind: ClassVar = Kind.STREAM
    key: str
    fields: Mapping[str, str]
    keep: timedelta


@dataclass(frozen=True, slots=True)
class Put:
    """Add an entry under this id, which an `EndsAt` of the transaction shows to be the next.

    Entries before *first* go, and the oldest if there are more than *count*.
    """

    kind: ClassVar = Kind.STREAM
    key: str
    id: str
    fields: Mapping[str, str | bytes]
    first: str
    count: int


@dataclass(frozen=True, slots=True)
class TextSet:
    """Set the text, for *span* if one is given."""

    kind: ClassVar = Kind.TEXT
    key: str
    value: str
    span: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """Let the key go after *span*, if it exists; with *unless_set*, only if it would stay for ever."""

    key: str
    kind: Kind
    span: timedelta
    unless_set: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key, if it exists."""

    key: str
    kind: Kind


Write = (
    HashSet
    | HashSetNew
    | HashAdd
    | HashRaise
    | SetAdd
    | SetRemove
    | SetRemoveIf
    | SetAddIfEmpty
    | Append
    | Put
    | TextSet
    | Expire
    | Delete
)


def kinds_of(checks: Iterable[Check], writes: Iterable[Write]) -> dict[str, Kind]:
    """Every key of a transaction and what it must hold, in the order of first mention.

    ValueError if two of its parts disagree about a key: no store could do both.
    """
    kinds: dict[str, Kind] = {}
    for part in (*checks, *writes):
        keys = (part.key, part.empty) if isinstance(part, SetAddIfEmpty) else (part.key,)
        for key in keys:
            if kinds.setdefault(key, part.kind) is not part.kind:
                raise ValueError(f"{key} is used as {part.kind.value} and as {kinds[key].value}")
    return kinds


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    id: str
    fields: Mapping[str, bytes]


class Keyspace(Protocol):
    """Where the keys are. Every method may raise StoreUnavailable, and StoreCorrupt for a key that holds
    another kind than asked for. Times have whole milliseconds."""

    @property
    def namespace(self) -> str:
        """What tells this installation's keys from others."""

    def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> None:
        """Do all *writes* if all *checks* pass, else none: Conflict or Full names the first that failed.

        StoreCorrupt if a key holds another kind, or no number where one is to be changed.
        """

    def now(self) -> datetime:
        """The store's time."""

    def hashes(self, keys: Sequence[str]) -> tuple[Sequence[Mapping[str, str]], datetime]:
        """All fields of each hash (none: it does not exist) and the store's time, in one round trip."""

    def members(
        self, key: str, start: int, limit: int, newest: bool = False
    ) -> tuple[Sequence[tuple[str, int]], int]:
        """A page of the sorted set by score, then member (*newest*: backwards), and its size."""

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""

    def text(self, key: str) -> str | None:
        """The text, if there is one."""

    def entries(self, key: str, after: str, limit: int, block: timedelta) -> Sequence[Entry]:
        """At most *limit* entries after this id; waits up to *block* for the first, then []."""

    def last_entry(self, key: str, until: str = "+") -> Entry | None:
        """The newest entry up to and including this id ("+": of all)."""

    def close(self) -> None:
        """Let go of connections."""
