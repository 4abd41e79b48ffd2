"""Reads cron schedules. The calendar is croniter's; the language that it is asked in is made here.

What is let through is what Quartz and Unix document; croniter takes more, and reads some of it in its own
way (`5-5` is everything to it). It is asked about naive times alone: placing them in a time zone is done in
`core/cron.py`, since croniter fires a named hour twice where clocks are set back.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

from titus_celery.core.cron import END, START, Schedule
from titus_celery.errors import InvalidSchedule

__all__ = ["SPEC_CHARS_MAX", "ZONE_CHARS_MAX", "schedule"]

#: Room for each minute of an hour by name, and not for much more.
SPEC_CHARS_MAX: Final = 200
#: Twice the longest name there is.
ZONE_CHARS_MAX: Final = 64
#: Schedules kept as read, so that each look at each cluster does not read its own again.
_KEPT: Final = 4_096
#: Years in which a date may be missing: the 29th of February falls on each weekday once in so many. The
#: years of a schedule that names some may be as far apart as they can be.
_YEARS_APART: Final = 28
_YEARS_APART_IF_NAMED: Final = END.year - START.year

_UNIX_FIELDS: Final = 5
_QUARTZ_FIELDS: Final = (6, 7)


class _Wrong(Exception):
    """What is wrong with the text of a schedule."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: *size* values from *first* on, then from *first* again; and what they are called, if so."""

    title: str
    first: int
    size: int
    names: tuple[str, ...] = ()
    #: Beyond the values: another way to write the first one.
    also: int | None = None
    #: What croniter calls the first value.
    theirs: int | None = None

    @property
    def last(self) -> int:
        return self.first + self.size - 1


_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_SECONDS: Final = _Field("seconds", 0, 60)
_MINUTES: Final = _Field("minutes", 0, 60)
_HOURS: Final = _Field("hours", 0, 24)
_DAYS: Final = _Field("day of month", 1, 31)
_MONTH: Final = _Field("month", 1, 12, _MONTHS)
_WEEKDAY_UNIX: Final = _Field("day of week", 0, 7, _WEEKDAYS, also=7)
_WEEKDAY_QUARTZ: Final = _Field("day of week", 1, 7, _WEEKDAYS, theirs=0)
_YEAR: Final = _Field("year", START.year, END.year - START.year)

_ITEM: Final = re.compile(r"(\*|[0-9]{1,4}|[A-Z]{3})(?:-([0-9]{1,4}|[A-Z]{3}))?(?:/([0-9]{1,4}))?")
_NEAREST: Final = re.compile(r"([0-9]{1,2})W")
_NTH: Final = re.compile(r"([0-9]|[A-Z]{3})#([0-9])")
_LAST: Final = re.compile(r"([0-9]|[A-Z]{3})L")
_ANY: Final = ("*", "?")
#: Every month has them, so the weekday nearest to one is in each month, and all programs agree which it is.
_NEAREST_TO_MAX: Final = 28
#: Of a weekday in a month.
_NTH_MAX: Final = 5
_SATURDAY: Final = 6


class _CroniterTimes:
    """The WallTimes of one expression."""

    def __init__(self, expression: str, *, either_day: bool, years_apart: int) -> None:
        self._croniter = croniter(
            expression,
            START.replace(tzinfo=None),
            ret_type=datetime,
            day_or=either_day,
            max_years_between_matches=years_apart,
            second_at_beginning=True,
        )

    def after(self, wall: datetime) -> datetime | None:
        # It remembers where it is, so each question gets a copy; what was parsed is shared.
        mine: Any = copy.copy(self._croniter)
        try:
            found: datetime = mine.get_next(start_time=wall)
        except CroniterBadDateError:
            return None
        return found


def schedule(spec: str, zone: str = "UTC", *, now: datetime | None = None) -> Schedule:
    """The schedule that *spec* describes, on the clocks of *zone* (a name of the IANA data base).

    *spec* has 6 or 7 fields as in Quartz (seconds first, weekdays from 1=SUN), or 5 as in Unix (minutes
    first, weekdays from 0=SUN; 7 is SUN too). InvalidSchedule if either cannot be read, if it never fires
    from 1970 to 2099, or if *now* is given and it does not fire after that.
    """
    made = _read(spec, zone)
    if now is not None and made.after(now) is None:
        raise InvalidSchedule(
            spec, zone, f"it does not fire after {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", "spec"
        )
    return made


@lru_cache(maxsize=_KEPT)
def _read(spec: str, zone: str) -> Schedule:
    try:
        times, fixed_hours = _times(spec)
    except _Wrong as wrong:
        raise InvalidSchedule(spec, zone, str(wrong), "spec") from None
    try:
        made = Schedule(times, _zone(zone), fixed_hours)
    except _Wrong as wrong:
        raise InvalidSchedule(spec, zone, str(wrong), "zone") from None
    if made.after(START - timedelta(seconds=1)) is None:
        raise InvalidSchedule(spec, zone, "it never fires: there is no such time", "spec")
    return made


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        # It is there on hosts that have no data base too.
        return UTC
    if len(name) > ZONE_CHARS_MAX:
        raise _Wrong(f"it has {len(name)} characters; {ZONE_CHARS_MAX} is the most")
    # Files of the data base that are no zone, or another on each host, or count leap seconds.
    if name not in ("localtime", "posixrules") and not name.startswith(("posix/", "right/")):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise _Wrong(f"{_quoted(name)} is no time zone known here; it takes names like Europe/Berlin")


def _times(spec: str) -> tuple[_CroniterTimes, bool]:
    """The times of *spec*, and whether their hours are fixed."""
    fields = _fields(spec)
    year = "*"
    if len(fields) == _UNIX_FIELDS:
        fields, weekday = ["0", *fields], _WEEKDAY_UNIX
    else:
        weekday = _WEEKDAY_QUARTZ
        if len(fields) == _QUARTZ_FIELDS[-1]:
            year = fields.pop()
    seconds, minutes, hours, day, month, of_week = fields
    if weekday is _WEEKDAY_QUARTZ:
        _check_days(day, of_week)
        day_text, of_week_text = _quartz_day(day), _quartz_weekday(of_week)
    else:
        day_text, of_week_text = _unix_day(day, _DAYS), _unix_day(of_week, weekday)
    if day == of_week == "?":
        raise _Wrong("day of month and day of week are both '?': one of them must say which days")
    parts = [_values(seconds, _SECONDS), _values(minutes, _MINUTES), _values(hours, _HOURS)]
    parts += [day_text, _values(month, _MONTH), of_week_text]
    years_apart = _YEARS_APART
    if year != "*":
        parts.append(_values(year, _YEAR))
        years_apart = _YEARS_APART_IF_NAMED
    # Unix: a day that fits either field, unless one begins with a star, even one with a step.
    either = not (day.startswith("*") or of_week.startswith("*"))
    times = _CroniterTimes(" ".join(parts), either_day=either, years_apart=years_apart)
    return times, not ("*" in hours or "/" in hours)


def _fields(spec: str) -> list[str]:
    if len(spec) > SPEC_CHARS_MAX:
        raise _Wrong(f"it has {len(spec)} characters; {SPEC_CHARS_MAX} is the most")
    if not spec.isascii():
        raise _Wrong("it has characters that are not ASCII")
    fields = spec.upper().split()
    if not fields:
        raise _Wrong("it is empty")
    if fields[0].startswith("@"):
        raise _Wrong("@hourly and the like are not taken; write the fields out")
    if len(fields) not in (_UNIX_FIELDS, *_QUARTZ_FIELDS):
        raise _Wrong(f"it has {_count(len(fields))}; it takes 5 (minutes first), or 6 or 7 (seconds first)")
    return fields


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def _check_days(day: str, of_week: str) -> None:
    if day not in _ANY and of_week not in _ANY:
        raise _Wrong("day of month and day of week are both given; with seconds one of them must be '?'")


def _unix_day(text: str, field: _Field) -> str:
    if "#" in text or text.startswith("L") or text.endswith(("L", "W")):
        _refuse(field, text, "L, W and # are for schedules with seconds, 6 or 7 fields")
    return "*" if text == "?" else _values(text, field)


def _quartz_day(text: str) -> str:
    """The field as croniter has it; besides values: `L`, the last day, and `15W`, the nearest weekday."""
    if text in (*_ANY, "L"):
        return "*" if text in _ANY else text
    if text == "LW" or text.startswith("L-"):
        _refuse(_DAYS, text, "days counted from the last one (LW, L-3) are not offered; only L is")
    if (nearest := _NEAREST.fullmatch(text)) is not None:
        if not 1 <= int(nearest[1]) <= _NEAREST_TO_MAX:
            _refuse(_DAYS, text, f"W goes with a day from 1 to {_NEAREST_TO_MAX}")
        return text
    return _values(text, _DAYS)


def _quartz_weekday(text: str) -> str:
    """The field as croniter has it; besides values: `L`, SAT, `6L`, the last FRI, and `6#3`, the third."""
    field = _WEEKDAY_QUARTZ
    if text in _ANY:
        return "*"
    if text == "L":
        return str(_SATURDAY)
    if (last := _LAST.fullmatch(text)) is not None:
        return f"L{_number(last[1], text, field) - field.first}"
    if (nth := _NTH.fullmatch(text)) is not None:
        if not 1 <= int(nth[2]) <= _NTH_MAX:
            _refuse(field, text, f"a month has a weekday 1 to {_NTH_MAX} times")
        return f"{_number(nth[1], text, field) - field.first}#{nth[2]}"
    return _values(text, field)


def _values(text: str, field: _Field) -> str:
    """The values that *text* names, one by one in croniter's numbers; or a star for any."""
    if text == "*":
        return text
    found: set[int] = set()
    for item in text.split(","):
        found.update(_item(item, field))
    shift = 0 if field.theirs is None else field.theirs - field.first
    return ",".join(str(value + shift) for value in sorted(found))


def _item(item: str, field: _Field) -> list[int]:
    read = _ITEM.fullmatch(item)
    if read is None or (read[1] == "*" and read[2]):
        _refuse(field, item, "it cannot be read" if item else "a value is missing")
    low_text, high_text, step_text = read[1], read[2], read[3]
    low = field.first if low_text == "*" else _number(low_text, item, field)
    high = low
    if high_text:
        high = _number(high_text, item, field)
    elif step_text or low_text == "*":
        high = max(low, field.last)
    if low > high:
        if field is _YEAR:
            _refuse(field, item, "it ends before it begins")
        high += field.size
    step = int(step_text) if step_text else 1
    if not 1 <= step <= field.size:
        _refuse(field, item, f"a step is from 1 to {field.size}")
    return [field.first + (value - field.first) % field.size for value in range(low, high + 1, step)]


def _number(text: str, item: str, field: _Field) -> int:
    if not text.isdigit():
        if text not in field.names:
            _refuse(field, item, f"{_quoted(text)} is no name that it knows")
        return field.first + field.names.index(text)
    number, most = int(text), field.also or field.last
    if not field.first <= number <= most:
        _refuse(field, item, f"{number} is not from {field.first} to {most}")
    return number


def _refuse(field: _Field, item: str, why: str) -> NoReturn:
    raise _Wrong(f"{field.title} {_quoted(item)}: {why}")


def _quoted(text: str) -> str:
    """*text* as a message shows it: short, and plain ASCII."""
    return ascii(text if len(text) <= ZONE_CHARS_MAX else text[:ZONE_CHARS_MAX] + "...")
