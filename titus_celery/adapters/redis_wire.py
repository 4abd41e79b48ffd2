"""A transaction as commit.lua takes it: keys, and arguments of which the first is the plan in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from titus_celery.adapters import keyspace as ks

__all__ = ["INLINE_MAX", "wire"]

#: Longer texts go beside the plan, so that they are neither escaped nor sent twice.
INLINE_MAX: Final = 64

_T = TypeVar("_T")
_U = TypeVar("_U")


class _Arguments:
    """What goes beside the plan: each text once, found by its index."""

    def __init__(self) -> None:
        # The plan itself is the first.
        self.texts: list[bytes] = [b""]
        self._index: dict[str | bytes, int] = {}

    def of(self, value: str | bytes | int) -> str | int:
        """The text itself if it is short and plain, else the index under which it is sent."""
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str) and len(value) <= INLINE_MAX and value.isascii():
            return value
        if value not in self._index:
            self.texts.append(value if isinstance(value, bytes) else value.encode("utf-8", "replace"))
            self._index[value] = len(self.texts)
        return self._index[value]


def wire(checks: Sequence[ks.Check], writes: Sequence[ks.Write]) -> tuple[list[str], list[bytes]]:
    """KEYS and ARGV of commit.lua."""
    kinds = ks.kinds_of(checks, writes)
    index = {key: number for number, key in enumerate(kinds, start=1)}
    arguments = _Arguments()

    def step(part: ks.Check | ks.Write) -> list[str | int]:
        name, *rest = _parts(part, index)
        return [str(name), index[part.key], *map(arguments.of, rest)]

    plan = {
        "kinds": [kind.value for kind in kinds.values()],
        "checks": [step(check) for check in checks],
        "writes": [step(write) for write in writes],
    }
    arguments.texts[0] = json.dumps(plan, separators=(",", ":")).encode()
    return list(kinds), arguments.texts


def _parts(part: ks.Check | ks.Write, index: Mapping[str, int]) -> tuple[str | bytes | int, ...]:
    """The name and arguments by which commit.lua knows a check or write."""
    match part:
        case ks.FieldIs():
            return "field-is", part.field, part.value
        case ks.Absent():
            return ("absent",)
        case ks.SizeIs():
            return "size-is", part.size
        case ks.RoomFor():
            return "room-for", part.limit
        case ks.ScoreIs():
            return "score-is", part.member, part.score
        case ks.AtMost():
            return "at-most", part.field, part.delta, part.maximum
        case ks.EndsAt():
            return "ends-at", part.id
        case ks.TextIs():
            return "text-is", part.value, int(part.or_absent)
        case ks.HashSet():
            return "set", *_flat(part.fields)
        case ks.HashSetNew():
            return "set-new", part.field, part.value
        case ks.HashAdd():
            return "add", part.field, part.delta
        case ks.HashRaise():
            return "raise", part.field, part.level, *_flat(dict(sorted(part.times.items())))
        case ks.SetAdd():
            return "put-member", part.member, part.score
        case ks.SetRemove():
            return "drop-member", part.member
        case ks.SetRemoveIf():
            return "drop-member-if", part.member, part.score
        case ks.SetAddIfEmpty():
            return "put-member-if-empty", index[part.empty], part.member, part.score
        case ks.Append():
            return "append", _ms(part.keep), *_flat(part.fields)
        case ks.Put():
            return "put-entry", part.id, part.first, part.count, *_flat(part.fields)
        case ks.TextSet():
            return ("set-text", part.value) if part.span is None else ("set-text", part.value, _ms(part.span))
        case ks.Expire():
            return "expire", _ms(part.span), int(part.unless_set)
        case ks.Delete():
            return ("delete",)


def _flat(fields: Mapping[_T, _U]) -> Iterator[_T | _U]:
    return (text for pair in fields.items() for text in pair)


def _ms(span: timedelta) -> int:
    return max(1, span // timedelta(milliseconds=1))
