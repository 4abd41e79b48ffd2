"""When a cron schedule fires: wall-clock times of a calendar, placed in a time zone (docs/semantics.md A11).

Wall clocks are set: an hour occurs twice, or not at all. Whoever says *3:00* wants one run a day whatever
the clock does; whoever says *every hour* wants an hour between two runs. So there are two rules, and which
one holds is told by the hour of the schedule: named, or a wildcard.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Protocol

__all__ = ["END", "START", "Schedule", "WallTimes"]

#: Nothing fires before, nothing from END on: the years that a schedule can name. It bounds every search.
START: Final = datetime(1970, 1, 1, tzinfo=UTC)
END: Final = datetime(2100, 1, 1, tzinfo=UTC)

_SECOND: Final = timedelta(seconds=1)


class WallTimes(Protocol):
    """The times of a schedule as a clock on the wall shows them, on a calendar without time zones."""

    def after(self, wall: datetime) -> datetime | None:
        """The first time that is later than *wall*, in whole seconds; None if there is none. Both naive."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """The clock being set: from *at* on it shows *after*, where it would have shown *before*."""

    at: datetime
    before: datetime
    after: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """The instants at which *times* fire in *zone*. Safe to share between threads if *times* is.

    fixed_hours: a time that the clock shows twice fires once, the first time; one that it skips fires at the
    moment of skipping, and all that are skipped at once fire once. Otherwise what counts is the time that
    goes by: whatever the clock shows fires, twice if it shows it twice; what it does not show does not.
    """

    times: WallTimes
    zone: tzinfo
    fixed_hours: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first firing later than *moment*: UTC, whole seconds; None if it never fires again.

        *moment* has a time zone. Two moments between which nothing fires have the same answer.
        """
        if moment.tzinfo is None:
            raise ValueError("a moment without a time zone is none")
        if moment >= END:
            return None
        since = moment.astimezone(UTC).replace(microsecond=0) if moment >= START else START - _SECOND
        found = self._fixed(since) if self.fixed_hours else self._elapsing(since)
        return found if found is not None and found < END else None

    def upcoming(self, moment: datetime, count: int) -> tuple[datetime, ...]:
        """The first *count* firings later than *moment*, in order; fewer if there are no more."""
        found: list[datetime] = []
        while len(found) < count and (one := self.after(found[-1] if found else moment)) is not None:
            found.append(one)
        return tuple(found)

    def _fixed(self, since: datetime) -> datetime | None:
        local = since.astimezone(self.zone)
        wall = local.replace(tzinfo=None, fold=0)
        if local.fold:
            # Shown for the second time: everything up to where the clock was set back has fired.
            wall = self._turn(wall).before - _SECOND
        wanted = self.times.after(wall)
        if wanted is None:
            return None
        first, second = self._offsets(wanted)
        return self._turn(wanted).at if first < second else _instant(wanted, first)

    def _elapsing(self, since: datetime) -> datetime | None:
        local = since.astimezone(self.zone)
        wall = local.replace(tzinfo=None, fold=0)
        first, second = self._offsets(wall)
        if first > second and not local.fold:
            turn = self._turn(wall)
            wanted = self.times.after(wall)
            if wanted is not None and wanted < turn.before:
                return _instant(wanted, first)
            # Nothing more before the clock is set back. Go on from there, with what it shows again.
            since, wall = turn.at - _SECOND, turn.after - _SECOND
        wanted = self.times.after(wall)
        while wanted is not None and wanted.year <= END.year:
            first, second = self._offsets(wanted)
            if first >= second:
                found = _instant(wanted, first)
                return found if found > since else _instant(wanted, second)
            wanted = self.times.after(self._turn(wanted).after - _SECOND)
        return None

    def _offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """What the zone is ahead of UTC when *wall* is shown first and last.

        The first is larger if it is shown twice; the second is, if it is skipped: then they are those before
        and after the clock is set.
        """
        aware = wall.replace(tzinfo=self.zone)
        return aware.utcoffset() or timedelta(0), aware.replace(fold=1).utcoffset() or timedelta(0)

    def _turn(self, wall: datetime) -> _Turn:
        """When the clock is set, so that *wall* is shown twice or not at all."""
        first, second = self._offsets(wall)
        low, high = sorted((_instant(wall, first), _instant(wall, second)))
        while high - low > _SECOND:
            middle = low + (high - low) // _SECOND // 2 * _SECOND
            if middle.astimezone(self.zone).utcoffset() == first:
                low = middle
            else:
                high = middle
        utc = high.replace(tzinfo=None)
        return _Turn(high, utc + first, utc + second)


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)
