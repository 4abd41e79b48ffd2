"""Field selection: what is left of an item of which only some fields are wanted (docs/semantics.md B4.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from titus_celery.errors import InvalidRequest, Violation

__all__ = ["Selection", "selection"]

#: Paths of one query, and characters of a path: far above what the API has fields for.
PATHS_MAX: Final = 200
PATH_CHARACTERS_MAX: Final = 256
#: Names that the API's own documentation has for the ids.
_ID: Final = "id"
_ID_ALIASES: Final = frozenset({"taskId", "jobId"})
#: What comes whatever was asked for, by the name of the message.
_ALWAYS: Final = {
    "Job": ((_ID,), ("jobDescriptor", "appName")),
    "Task": ((_ID,),),
    "JobCluster": ((_ID,),),
}


class Selection:
    """A tree of names: below each those that are wanted of it, or nothing for all of it."""

    def __init__(self) -> None:
        self._below: dict[str, Selection] = {}
        self._is_whole = False

    def want(self, path: Iterable[str]) -> None:
        """Add what a path names. The whole of something is more than any part of it."""
        here = self
        for name in path:
            if here._is_whole:
                return
            here = here._below.setdefault(name, Selection())
        here._is_whole = True
        here._below.clear()

    def keep_in(self, message: Message) -> None:
        """Remove everything from *message* that is not wanted. Names that it has not name nothing."""
        if self._is_whole:
            return
        for field, value in message.ListFields():
            wanted = self._below.get(field.name)
            if wanted is None:
                message.ClearField(field.name)
            elif field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
                for part in value if field.is_repeated else (value,):
                    wanted.keep_in(part)


def selection(paths: Iterable[str], of: type[Message]) -> Selection | None:
    """What these paths ask for of each item; None for everything. InvalidRequest for absurd ones."""
    wanted = list(paths)
    if not wanted:
        return None
    if len(wanted) > PATHS_MAX or any(len(path) > PATH_CHARACTERS_MAX for path in wanted):
        most = f"at most {PATHS_MAX} paths of {PATH_CHARACTERS_MAX} characters can be asked for"
        raise InvalidRequest([Violation("fields", most)])
    found = Selection()
    for path in (*_ALWAYS[of.DESCRIPTOR.name], *(path.strip().split(".") for path in wanted)):
        found.want([_ID if name in _ID_ALIASES else name for name in path])
    return found


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
