"""The seam inside the store: a keyspace of hashes, sorted sets, streams and texts, with one way to write.

Everything that makes up the store (records, outputs, agents, leases) is laid out over this seam, so
that Redis and memory differ in one file each and in nothing else. A write is a *transaction*: a list of
checks and a list of writes (steps.py, whose names can be had from here too). First every key is looked
at for its type, every number to be incremented for being one, and every check is made; only when all of
that passed are the writes done, and none of them can fail. So a transaction happens whole or not at
all, without anything to roll back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from titus_celery.adapters.steps import (
    NO_ENTRY,
    TIMED,
    Absent,
    Append,
    AtMost,
    Check,
    Delete,
    EndsAt,
    Expire,
    FieldIs,
    HashAdd,
    HashRaise,
    HashSet,
    HashSetNew,
    Kind,
    Put,
    RoomFor,
    ScoreIs,
    SetAdd,
    SetAddIfEmpty,
    SetRemove,
    SetRemoveIf,
    SizeIs,
    TextIs,
    TextSet,
    Write,
    check_failed,
    from_ms,
    kinds_of,
    to_ms,
)

__all__ = [
    "MEMORY_FULL",
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

#: Why a transaction that grows the store is refused while its memory is used up.
MEMORY_FULL: Final = "its memory is full: raise the server's maxmemory, or let finished jobs go"


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

    def transact(self, checks: Sequence[Check], writes: Sequence[Write], *, grows: bool = False) -> str:
        """Do all *writes* if all *checks* pass, else none: an error tells of the first that failed
        (`check_failed`). The id of the last entry that was appended; "" if none was.

        StoreCorrupt if a key holds another kind, or no number where one is to be changed. Where memory
        is limited and used up, one that *grows* the store is refused with StoreUnavailable, and every
        other goes through, so that what is there can end (a server before Redis 7 may refuse it too).
        """

    def now(self) -> datetime:
        """The store's time."""

    def epoch(self) -> str:
        """Which life of the store this is: another one after it was restarted or failed over."""

    def memory(self) -> tuple[int, int]:
        """Bytes that the store uses, and that it may use (0: all there are)."""

    def trim(self, key: str, bytes_max: int) -> None:
        """Drop the stream's oldest entries until it takes about *bytes_max* of memory or less.

        Nothing happens if it is smaller or not there; its newest entry always stays.
        """

    def hashes(self, keys: Sequence[str]) -> tuple[Sequence[Mapping[str, str]], datetime]:
        """All fields of each hash (none: it does not exist) and the store's time, in one round trip."""

    def members(
        self, key: str, start: int, limit: int, newest: bool = False
    ) -> tuple[Sequence[tuple[str, int]], int]:
        """A page of the sorted set by score, then member (*newest*: backwards), and its size."""

    def members_of(
        self, keys: Sequence[str], limit: int, newest: bool = False
    ) -> Sequence[Sequence[tuple[str, int]]]:
        """At most *limit* members of each sorted set, as in `members`, in one round trip."""

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""

    def members_from(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score from *score* on, lowest first."""

    def score(self, key: str, member: str) -> int | None:
        """The score of the sorted set's member, if it is one."""

    def text(self, key: str) -> str | None:
        """The text, if there is one."""

    def blob(self, key: str) -> bytes | None:
        """The text as the bytes it is made of, if there is one."""

    def blobs(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """The same of each key, in one round trip."""

    def entries(self, key: str, after: str, limit: int, block: timedelta) -> Sequence[Entry]:
        """At most *limit* entries after this id; waits up to *block* for the first, then []."""

    def last_entry(self, key: str, until: str = "+") -> Entry | None:
        """The newest entry up to and including this id ("+": of all)."""

    def close(self) -> None:
        """Let go of connections."""
