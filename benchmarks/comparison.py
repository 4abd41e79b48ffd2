"""One way against another, measured in turns, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Turns", "in_turns", "ninety_ninth", "sign_interval", "verdict"]

#: How sure an interval is meant to be; with few values it is the nearest above.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Turns:
    """What was measured of both, round by round."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours to theirs, round by round: what slowed a whole round is in neither."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]


def in_turns(numbers: Sequence[int], ours: Callable[[int], float], theirs: Callable[[int], float]) -> Turns:
    """Measure both in each round, which is given its number; rounds below zero do not count."""
    one: list[float] = []
    other: list[float] = []
    for number in numbers:
        # So that neither always comes second.
        if number % 2:
            mine, their = ours(number), theirs(number)
        else:
            their, mine = theirs(number), ours(number)
        if number >= 0:
            one.append(mine)
            other.append(their)
    return Turns(one, other)


def ninety_ninth(values: Sequence[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def sign_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Bounds of the median, and how sure they are: the narrowest pair of order statistics that suffices.

    It is the interval of the sign test, which assumes nothing about how values are spread.
    """
    ordered, count = sorted(values), len(values)
    bounds = (ordered[0], ordered[-1], 1 - 2 * 0.5**count)
    for rank in range(1, (count + 1) // 2):
        outside = sum(math.comb(count, below) for below in range(rank + 1)) * 0.5**count
        if 1 - 2 * outside < CONFIDENCE:
            break
        bounds = (ordered[rank], ordered[-1 - rank], 1 - 2 * outside)
    return bounds


def verdict(what: str, value: float, *, most: float | None = None, least: float | None = None) -> str:
    """One line: the value, its bound, and whether it is kept."""
    if least is not None:
        return f"{what}: {value:.2f}, at least {least:g} is wanted: {'kept' if value >= least else 'MISSED'}"
    assert most is not None
    return f"{what}: {value:.2f}, at most {most:g} is wanted: {'kept' if value <= most else 'MISSED'}"
