"""Random schedules held against a matcher that looks at every second, or every day, by itself.

A schedule is drawn as text together with what it means, so nothing here reads text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from titus_celery.adapters.cron_times import schedule

SECOND: Final = timedelta(seconds=1)
DAY: Final = timedelta(days=1)
NAMES: Final = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS: Final = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
#: Where clocks were set: by an hour, by half of one, by a day, by 44 min 30 s, at midnight, twice in a month.
TURNS: Final = [
    ("Europe/Berlin", "2025-03-30T01:00"),
    ("Europe/Berlin", "2025-10-26T01:00"),
    ("Europe/Berlin", "2080-10-27T01:00"),
    ("America/New_York", "2025-03-09T07:00"),
    ("America/New_York", "2025-11-02T06:00"),
    ("Australia/Lord_Howe", "2025-10-04T15:30"),
    ("Australia/Lord_Howe", "2025-04-05T15:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Pacific/Kwajalein", "1993-08-21T12:00"),
    ("Africa/Monrovia", "1972-01-07T00:44"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00"),
    ("America/St_Johns", "2006-10-29T02:31"),
    ("Africa/Casablanca", "2025-02-23T02:00"),
    ("Europe/Dublin", "2025-10-26T01:00"),
    ("Antarctica/Troll", "2025-03-30T01:00"),
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("UTC", "2024-02-29T00:00"),
]


@dataclass(frozen=True)
class Part:
    """A field: its text, and the values that it means."""

    text: str
    values: frozenset[int]

    def __str__(self) -> str:
        return self.text


def parts(first: int, size: int, *, counts_from: int = 0) -> st.SearchStrategy[Part]:
    """A field of *size* values. *counts_from*: what its first one is called, if not what it is."""
    values = [first + nth for nth in range(size)]

    def named(value: int) -> str:
        return str(value + counts_from)

    def stepped(start: int, span: int, step: int) -> frozenset[int]:
        return frozenset(values[(start + nth) % size] for nth in range(0, span + 1, step))

    def range_of(draw: st.DrawFn) -> Part:
        start, span = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
        step = draw(st.integers(1, size))
        text = f"{named(values[start])}-{named(values[(start + span) % size])}"
        return Part(f"{text}/{step}" if step > 1 else text, stepped(start, span, step))

    def start_of(draw: st.DrawFn) -> Part:
        start, step = draw(st.integers(0, size - 1)), draw(st.integers(1, size))
        star = "*" if start == 0 and draw(st.booleans()) else named(values[start])
        return Part(f"{star}/{step}", stepped(start, size - 1 - start, step))

    single = st.sampled_from(values).map(lambda value: Part(named(value), frozenset({value})))
    item = st.one_of(single, st.composite(range_of)(), st.composite(start_of)())
    some = st.lists(item, min_size=1, max_size=3).map(
        lambda items: Part(",".join(map(str, items)), frozenset().union(*(each.values for each in items)))
    )
    return st.one_of(st.just(Part("*", frozenset(values))), some)


# -------------------------------------------------------------------------------------------- every second


@dataclass(frozen=True)
class Clock:
    """Times of each day."""

    seconds: Part
    minutes: Part
    hours: Part

    @property
    def has_fixed_hours(self) -> bool:
        return not set("*/") & set(self.hours.text)

    def has(self, wall: datetime) -> bool:
        return (
            wall.second in self.seconds.values
            and wall.minute in self.minutes.values
            and wall.hour in self.hours.values
        )


def firings(clock: Clock, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """After *begin*, up to *end*: what a watcher of the wall clock would note, second by second.

    At *begin* it shows nothing that it has shown before.
    """
    found = []
    seen = begin.astimezone(zone).replace(tzinfo=None)
    moment = begin
    while moment < end:
        moment += SECOND
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if not clock.has_fixed_hours:
            if clock.has(wall):
                found.append(moment)
            continue
        # A named time fires once the clock has reached it, or has been set past it.
        due = False
        while seen < wall:
            seen += SECOND
            due = due or clock.has(seen)
        if due:
            found.append(moment)
    return found


CLOCKS: Final = st.builds(Clock, parts(0, 60), parts(0, 60), parts(0, 24))


@settings(max_examples=120, deadline=None)
@given(
    clock=CLOCKS, turn=st.sampled_from(TURNS), shift=st.integers(1, 7_200), fraction=st.integers(0, 999_999)
)
def test_nothing_is_missing_or_doubled_around_a_turn(
    clock: Clock, turn: tuple[str, str], shift: int, fraction: int
) -> None:
    zone, at = turn
    begin = datetime.fromisoformat(at).replace(tzinfo=UTC) - shift * SECOND
    end = begin + timedelta(hours=4)
    expected = firings(clock, ZoneInfo(zone), begin, end)
    made = schedule(f"{clock.seconds} {clock.minutes} {clock.hours} * * ?", zone)
    found: list[datetime] = []
    moment = begin + timedelta(microseconds=fraction)
    while (one := made.after(moment)) is not None and one <= end and len(found) <= 300:
        assert one > moment
        found.append(one)
        moment = one
    assert found == expected[: len(found)]
    assert len(found) in (len(expected), 301)
    # Asked in between, where nothing was asked before.
    for nth in range(0, len(expected), len(expected) // 10 + 1):
        before = expected[nth - 1] if nth else begin
        middle = before + (expected[nth] - before) / 2
        assert made.after(middle) == expected[nth]


# ----------------------------------------------------------------------------------------------- every day


@dataclass(frozen=True)
class Days:
    """The fields that say which days, and the days that they mean."""

    text: str
    has: Callable[[date], bool]


def weekday(day: date) -> int:
    return day.isoweekday() % 7


def is_last_of_its_weekday(day: date) -> bool:
    return (day + 7 * DAY).month != day.month


def nearest_working_day(day: date, number: int) -> bool:
    """Whether *day* is, of its month's working days, the one that is nearest to the *number*th."""
    month = [day.replace(day=1) + nth * DAY for nth in range(31)]
    working = [each for each in month if each.month == day.month and weekday(each) not in (0, 6)]
    return day == min(working, key=lambda each: abs(each.day - number))


@st.composite
def quartz_days(draw: st.DrawFn) -> Days:
    month = draw(parts(1, 12))
    of_week = draw(parts(0, 7, counts_from=1))
    of_month = draw(parts(1, 31))
    which, number, nth = draw(st.integers(0, 6)), draw(st.integers(1, 28)), draw(st.integers(1, 5))
    name = draw(st.sampled_from([NAMES[which], NAMES[which].lower(), str(which + 1)]))
    forms: list[tuple[str, Callable[[date], bool]]] = [
        (f"{of_month} {month} ?", lambda day: day.day in of_month.values),
        (f"? {month} {of_week}", lambda day: weekday(day) in of_week.values),
        (f"L {month} ?", lambda day: (day + DAY).day == 1),
        (f"{number}W {month} *", lambda day: nearest_working_day(day, number)),
        (f"? {month} {name}L", lambda day: weekday(day) == which and is_last_of_its_weekday(day)),
        (f"* {month} {name}#{nth}", lambda day: weekday(day) == which and (day.day + 6) // 7 == nth),
        (f"? {month} {name}", lambda day: weekday(day) == which),
    ]
    text, has = draw(st.sampled_from(forms))
    years = draw(st.sampled_from([Part("", frozenset(range(1970, 2100))), None]))
    if years is None:
        first, step = draw(st.integers(1970, 2098)), draw(st.integers(1, 5))
        years = Part(f"{first}-2099/{step}", frozenset(range(first, 2100, step)))
    return Days(
        f"0 0 12 {text} {years}",
        lambda day: day.month in month.values and day.year in years.values and has(day),
    )


@st.composite
def unix_days(draw: st.DrawFn) -> Days:
    of_month, month, of_week = draw(parts(1, 31)), draw(parts(1, 12)), draw(parts(0, 7))

    def has(day: date) -> bool:
        fits = (day.day in of_month.values, weekday(day) in of_week.values)
        is_both = of_month.text.startswith("*") or of_week.text.startswith("*")
        return day.month in month.values and (all(fits) if is_both else any(fits))

    return Days(f"0 12 {of_month} {month} {of_week}", has)


@settings(max_examples=300, deadline=None)
@given(days=st.one_of(quartz_days(), unix_days()), start=st.dates(date(1970, 1, 1), date(2097, 1, 1)))
def test_every_day_that_fits_and_no_other(days: Days, start: date) -> None:
    noon = datetime(start.year, start.month, start.day, 12, tzinfo=UTC)
    every = [noon + nth * DAY for nth in range(1, 1_000)]
    expected = [each for each in every if days.has(each.date())][:40]
    if not expected:
        # It may be one that never fires, which is refused (tests/unit/test_cron_times.py).
        return
    assert list(schedule(days.text).upcoming(noon, len(expected))) == expected
