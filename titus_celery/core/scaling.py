"""The language of a service's scaling policies (docs/semantics.md B7.1).

A condition is `fn(Metric) op number[%]`, several joined by AND and OR, of which AND binds closer. An
action is `addInstances N`, `removeInstances N` or `setInstances N`, where N may be `10%`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from titus_celery.core.descriptor import ScalingPolicy
from titus_celery.core.texts import check_map
from titus_celery.errors import Violation

__all__ = ["POLICIES_MAX", "Action", "Comparison", "action", "check", "condition"]

#: Policies of one job: each is evaluated at every look.
POLICIES_MAX: Final = 20
#: Characters of a condition or an action.
TEXT_MAX: Final = 1_024
#: The longest that a condition may be asked to hold.
DURATION_MAX: Final = timedelta(days=7)

_COMPARISON: Final = re.compile(
    r"\s*(?P<function>avg|min|max|sum)\s*\(\s*(?P<metric>[A-Za-z][A-Za-z0-9_.]*)\s*\)"
    r"\s*(?P<operator>>=|<=|==|>|<)\s*(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?P<percent>%?)\s*",
    re.ASCII,
)
_ACTION: Final = re.compile(
    r"\s*(?P<verb>addInstances|removeInstances|setInstances)\s+(?P<count>[0-9]{1,9})(?P<percent>%?)\s*",
    re.ASCII,
)
_OR: Final = re.compile(r"\sOR\s")
_AND: Final = re.compile(r"\sAND\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One part of a condition: what of which metric is held against which number."""

    function: str
    metric: str
    operator: str
    number: Decimal
    is_percent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is to be done about the number of tasks."""

    verb: str
    count: int
    is_percent: bool


def condition(text: str) -> Sequence[Sequence[Comparison]]:
    """The alternatives, in each of which every comparison must hold; ValueError says what is wrong."""
    if len(text) > TEXT_MAX:
        raise ValueError(f"has {len(text)} characters; the most is {TEXT_MAX}")
    return [[_comparison(part) for part in _AND.split(alternative)] for alternative in _OR.split(text)]


def action(text: str) -> Action:
    """What the action says; ValueError says what is wrong."""
    match = _ACTION.fullmatch(text) if len(text) <= TEXT_MAX else None
    if match is None:
        raise ValueError(f"{_short(text)!r} is not an action such as addInstances 1")
    return Action(verb=match["verb"], count=int(match["count"]), is_percent=bool(match["percent"]))


def check(path: str, policies: Sequence[ScalingPolicy]) -> Iterator[Violation]:
    """Everything wrong with the policies."""
    if len(policies) > POLICIES_MAX:
        yield Violation(path, f"{len(policies)} policies are too many; the most is {POLICIES_MAX}")
    for number, policy in enumerate(policies[:POLICIES_MAX]):
        for field, read, text in (
            ("condition", condition, policy.condition),
            ("action", action, policy.action),
        ):
            try:
                read(text)
            except ValueError as error:
                yield Violation(f"{path}[{number}].{field}", str(error))
        yield from check_map(f"{path}[{number}].labels", policy.labels)
        if policy.duration > DURATION_MAX:
            yield Violation(f"{path}[{number}].durationSecs", f"is over {DURATION_MAX.days} days")


def _comparison(text: str) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ValueError(f"{_short(text)!r} is not a condition such as avg(CPUUtilization) > 80%")
    return Comparison(
        function=match["function"],
        metric=match["metric"],
        operator=match["operator"],
        number=Decimal(match["number"]),
        is_percent=bool(match["percent"]),
    )


def _short(text: str) -> str:
    return text.strip()[:80]
