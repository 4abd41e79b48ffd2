"""The steps of a transaction: what it checks, what it writes, and which kinds of keys it does that to.

They are values, so that a transaction can be made up in one place (layout.py), looked at, and carried
out in another (the keyspaces).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from titus_celery.core.model import Holding
from titus_celery.errors import Conflict, Fenced, Full, LimitReached, Taken, TitusError

__all__ = [
    "NO_ENTRY",
    "TIMED",
    "Absent",
    "Append",
    "AtMost",
    "Check",
    "Delete",
    "EndsAt",
    "Expire",
    "FieldIs",
    "HashAdd",
    "HashRaise",
    "HashSet",
    "HashSetNew",
    "Kind",
    "Put",
    "RoomFor",
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
    """The hash's field is there and has this value. *what* names the entity in the Conflict if not;
    with *fence* the failure is Fenced: whoever writes under that lease has lost it."""

    kind: ClassVar = Kind.HASH
    key: str
    field: str
    value: str
    what: str
    fence: Holding | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The key does not exist; Taken if it is a *name* that one can have at a time, else Conflict."""

    key: str
    kind: Kind
    what: str
    name: bool = False


@dataclass(frozen=True, slots=True)
class SizeIs:
    """The sorted set has so many members."""

    kind: ClassVar = Kind.SORTED
    key: str
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class RoomFor:
    """The sorted set has fewer members than *limit*; LimitReached if not."""

    kind: ClassVar = Kind.SORTED
    key: str
    limit: int
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


Check = FieldIs | Absent | SizeIs | RoomFor | ScoreIs | AtMost | EndsAt | TextIs


def check_failed(check: Check) -> TitusError:
    """The error that a failed check means."""
    if isinstance(check, RoomFor):
        return LimitReached(check.what, check.limit)
    if isinstance(check, Absent) and check.name:
        return Taken(check.what)
    if isinstance(check, FieldIs) and check.fence:
        return Fenced(check.fence.agent_id, check.fence.epoch)
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
    value: str | bytes
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
