"""What an owner wishes of the place where a task runs (docs/semantics.md B8.2).

Hard wishes keep a task QUEUED until they can be met; soft ones are met as far as that goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from titus_celery.core.descriptor import Constraints
from titus_celery.core.resources import is_true
from titus_celery.errors import Violation

__all__ = ["NONE", "Wishes", "check", "wishes"]

_ZONE_BALANCE: Final = "zonebalance"
_UNIQUE_HOST: Final = "uniquehost"
_EXCLUSIVE_HOST: Final = "exclusivehost"
_HOST: Final = "host"
_SERVER_GROUP: Final = "servergroup"

#: The names as they are known, by how they are compared.
_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        _ZONE_BALANCE: "zoneBalance",
        _UNIQUE_HOST: "uniqueHost",
        _EXCLUSIVE_HOST: "exclusiveHost",
        _HOST: "host",
        _SERVER_GROUP: "serverGroup",
    }
)
#: Those that are a switch; the others take the name of something.
_SWITCHES: Final = frozenset({_ZONE_BALANCE, _UNIQUE_HOST, _EXCLUSIVE_HOST})
#: Constraints of one container, soft or hard: there are fewer that differ.
GIVEN_MAX: Final = 32
#: Characters of a name: as long as names of hosts can be.
_NAME_MAX: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """One set of constraints, read. An engine is a host; empty texts mean no wish."""

    #: The job's tasks are spread evenly over the zones.
    zone_balance: bool = False
    #: No two tasks of the job are on one host.
    unique_host: bool = False
    #: No task of another job is on the host.
    exclusive_host: bool = False
    #: The host of this name.
    host: str = ""
    #: An agent that serves this queue.
    queue: str = ""


NONE: Final = Wishes()


def wishes(given: Constraints) -> Wishes:
    """What (valid) constraints mean."""
    texts = _by_name(given)
    return Wishes(
        zone_balance=_is_on(texts, _ZONE_BALANCE),
        unique_host=_is_on(texts, _UNIQUE_HOST),
        exclusive_host=_is_on(texts, _EXCLUSIVE_HOST),
        host=texts.get(_HOST, ""),
        queue=texts.get(_SERVER_GROUP, ""),
    )


def check(path: str, soft: Constraints, hard: Constraints) -> Iterator[Violation]:
    """Everything wrong with a container's constraints."""
    for field, given in (("softConstraints", soft), ("hardConstraints", hard)):
        if given.expression:
            yield Violation(f"{path}.{field}.expression", "expressions are not supported; use constraints")
        if len(given.constraints) > GIVEN_MAX:
            most = f"has {len(given.constraints)} entries; the most is {GIVEN_MAX}"
            yield Violation(f"{path}.{field}.constraints", most)
            continue
        for name, text in given.constraints.items():
            why = _fault(name.strip().lower(), text.strip())
            if why:
                yield Violation(f"{path}.{field}.constraints[{name}]", why)
    for name in sorted(_by_name(soft).keys() & _by_name(hard).keys()):
        yield Violation(f"{path}.hardConstraints.constraints[{_NAMES.get(name, name)}]", "is a soft one, too")


def _by_name(given: Constraints) -> dict[str, str]:
    return {name.strip().lower(): text.strip() for name, text in given.constraints.items()}


def _is_on(texts: Mapping[str, str], name: str) -> bool:
    # To name it is to want it: a value is an afterthought of the wire.
    return name in texts and (texts[name] == "" or is_true(texts[name]))


def _fault(name: str, text: str) -> str:
    if name not in _NAMES:
        return f"is unknown; there are {', '.join(_NAMES.values())}"
    if name not in _SWITCHES:
        return "" if 0 < len(text) <= _NAME_MAX else f"must be a name of at most {_NAME_MAX} characters"
    try:
        is_true(text)
    except ValueError as error:
        return str(error)
    return ""
