"""Wall-clock times placed in zones: what fires when clocks are set, and that every search ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from titus_celery.core.cron import END, START, Schedule

MINUTE: Final = timedelta(minutes=1)
SECOND: Final = timedelta(seconds=1)
BERLIN: Final = "Europe/Berlin"
NEW_YORK: Final = "America/New_York"
LORD_HOWE: Final = "Australia/Lord_Howe"
APIA: Final = "Pacific/Apia"


@dataclass(frozen=True)
class Daily:
    """Some times of each day, `H:MM`, by hand."""

    times: tuple[str, ...]

    def after(self, wall: datetime) -> datetime | None:
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        clock = [timedelta(hours=int(h), minutes=int(m)) for h, m in (time.split(":") for time in self.times)]
        found = [midnight + timedelta(days=day) + time for day in (0, 1) for time in clock]
        return min(each for each in found if each > wall)


@dataclass(frozen=True)
class Periodic:
    """Every so often, counted from midnight."""

    period: timedelta

    def after(self, wall: datetime) -> datetime | None:
        return datetime.min + ((wall - datetime.min) // self.period + 1) * self.period


@dataclass(frozen=True)
class Dates:
    """These and no others."""

    dates: tuple[datetime, ...]

    def after(self, wall: datetime) -> datetime | None:
        return min((each for each in self.dates if each > wall), default=None)


class LastSundaysOfMarch:
    """02:30 on each, for ever: what no clock in Berlin shows since 1996. Nobody should ask for ever."""

    def after(self, wall: datetime) -> datetime | None:
        assert wall.year <= END.year
        for year in (wall.year, wall.year + 1):
            last = datetime(year, 3, 31, 2, 30)
            last -= timedelta(days=last.isoweekday() % 7)
            if last > wall:
                return last
        raise AssertionError("one of two years has it")


def fixed(zone: str, *times: str) -> Schedule:
    return Schedule(Daily(times), ZoneInfo(zone), True)


def elapsing(zone: str, *times: str) -> Schedule:
    return Schedule(Daily(times), ZoneInfo(zone), False)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(schedule: Schedule, since: str, count: int) -> list[str]:
    """What it fires after *since*, which is UTC as they are."""
    return [f"{each:%m-%d %H:%M}" for each in schedule.upcoming(utc(since), count)]


# -------------------------------------------------------------------------------------- named hours


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        pytest.param(
            fixed(BERLIN, "2:30"),
            "2025-03-28 12:00",
            ["03-29 01:30", "03-30 01:00", "03-31 00:30"],
            id="Berlin-skips-it-it-fires-at-the-turn",
        ),
        pytest.param(
            fixed(BERLIN, "2:00", "2:15", "2:30", "2:59", "3:00", "3:01"),
            "2025-03-30 00:00",
            ["03-30 01:00", "03-30 01:01", "03-31 00:00"],
            id="Berlin-skips-many-they-fire-once",
        ),
        pytest.param(
            fixed(BERLIN, "2:30"),
            "2025-10-25 12:00",
            ["10-26 00:30", "10-27 01:30"],
            id="Berlin-shows-it-twice-it-fires-the-first-time",
        ),
        pytest.param(
            fixed(BERLIN, "2:00", "2:59", "3:00"),
            "2025-10-25 12:00",
            ["10-26 00:00", "10-26 00:59", "10-26 02:00", "10-27 01:00"],
            id="Berlin-both-ends-of-the-doubled-hour",
        ),
        pytest.param(
            fixed(BERLIN, "2:59"),
            "2025-10-26 01:30",
            ["10-27 01:59"],
            id="Berlin-asked-in-the-second-showing",
        ),
        pytest.param(
            fixed(NEW_YORK, "2:30"),
            "2025-03-09 00:00",
            ["03-09 07:00", "03-10 06:30"],
            id="New-York-skips-it",
        ),
        pytest.param(
            fixed(NEW_YORK, "1:30"),
            "2025-11-02 00:00",
            ["11-02 05:30", "11-03 06:30"],
            id="New-York-doubles-it",
        ),
        pytest.param(
            fixed(LORD_HOWE, "2:15", "2:45"),
            "2025-10-04 00:00",
            ["10-04 15:30", "10-04 15:45", "10-05 15:15"],
            id="Lord-Howe-skips-half-an-hour",
        ),
        pytest.param(
            fixed(LORD_HOWE, "1:15", "1:45"),
            "2025-04-05 00:00",
            ["04-05 14:15", "04-05 14:45", "04-06 14:45"],
            id="Lord-Howe-doubles-half-an-hour",
        ),
        pytest.param(
            fixed(APIA, "8:00", "20:00"),
            "2011-12-29 12:00",
            ["12-29 18:00", "12-30 06:00", "12-30 10:00", "12-30 18:00"],
            id="Apia-skips-a-day-it-fires-once",
        ),
        pytest.param(
            fixed("Africa/Monrovia", "0:10", "1:00"),
            "1972-01-06 12:00",
            ["01-07 00:44", "01-07 01:00", "01-08 00:10"],
            id="Monrovia-moves-by-44-and-a-half-minutes",
        ),
    ],
)
def test_a_named_hour_fires_once_a_day(schedule: Schedule, since: str, expected: list[str]) -> None:
    assert shown(schedule, since, len(expected)) == expected


# ------------------------------------------------------------------------------------- time that goes by


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        pytest.param(
            elapsing(BERLIN, "1:30", "2:30", "3:30"),
            "2025-03-30 00:00",
            ["03-30 00:30", "03-30 01:30", "03-30 23:30"],
            id="Berlin-skips-it-it-does-not-fire",
        ),
        pytest.param(
            elapsing(BERLIN, "1:30", "2:30", "3:30"),
            "2025-10-25 23:00",
            ["10-25 23:30", "10-26 00:30", "10-26 01:30", "10-26 02:30"],
            id="Berlin-shows-it-twice-it-fires-twice",
        ),
        pytest.param(
            elapsing(BERLIN, "2:00", "3:00"),
            "2025-10-25 23:00",
            ["10-26 00:00", "10-26 01:00", "10-26 02:00"],
            id="Berlin-both-ends-of-the-doubled-hour",
        ),
        pytest.param(
            elapsing(BERLIN, "3:00"), "2025-10-26 00:30", ["10-26 02:00"], id="Berlin-set-back-just-before"
        ),
        pytest.param(
            elapsing(BERLIN, "2:15"),
            "2025-10-26 00:20",
            ["10-26 01:15"],
            id="Berlin-the-second-is-still-to-come",
        ),
        pytest.param(
            elapsing(LORD_HOWE, "1:15", "1:45"),
            "2025-04-05 00:00",
            ["04-05 14:15", "04-05 14:45", "04-05 15:15", "04-06 14:45"],
            id="Lord-Howe-doubles-half-an-hour",
        ),
        pytest.param(
            elapsing(LORD_HOWE, "2:15", "2:45"),
            "2025-10-04 00:00",
            ["10-04 15:45", "10-05 15:15"],
            id="Lord-Howe-skips-half-an-hour",
        ),
        pytest.param(
            elapsing(APIA, "8:00"), "2011-12-29 12:00", ["12-29 18:00", "12-30 18:00"], id="Apia-skips-a-day"
        ),
    ],
)
def test_a_wildcard_hour_fires_whenever_the_clock_shows_it(
    schedule: Schedule, since: str, expected: list[str]
) -> None:
    assert shown(schedule, since, len(expected)) == expected


@pytest.mark.parametrize("start", ["2025-03-30 00:00", "2025-10-26 00:00"])
def test_what_fires_every_quarter_of_an_hour_does_so_whatever_the_clock_shows(start: str) -> None:
    quarter = timedelta(minutes=15)
    schedule = Schedule(Periodic(quarter), ZoneInfo(BERLIN), False)
    assert schedule.upcoming(utc(start), 20) == tuple(utc(start) + quarter * nth for nth in range(1, 21))


# ------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("fixed_hours", [True, False])
@pytest.mark.parametrize("zone", ["UTC", BERLIN, LORD_HOWE])
def test_every_answer_is_later_than_the_question_and_the_same_until_it_fires(
    zone: str, fixed_hours: bool
) -> None:
    schedule = Schedule(Periodic(10 * MINUTE), ZoneInfo(zone), fixed_hours)
    for begin in (utc("2025-04-05 12:00"), utc("2025-10-26 00:00")):
        for step in range(0, 300):
            moment = begin + step * MINUTE + timedelta(microseconds=1)
            found = schedule.after(moment)
            assert found is not None
            assert found > moment
            assert schedule.after(found - timedelta(microseconds=1)) == found
            assert schedule.after(found - SECOND) == found
            assert schedule.after(found) != found


def test_answers_are_utc_and_whole_seconds_whatever_the_question() -> None:
    schedule = fixed(BERLIN, "12:00")
    asked = datetime(2025, 6, 1, 11, 59, 59, 999_999, ZoneInfo(BERLIN))
    found = schedule.after(asked)
    assert found == utc("2025-06-01 10:00")
    assert found.tzinfo is UTC
    assert schedule.after(asked.astimezone(timezone(timedelta(hours=-7)))) == found


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        fixed("UTC", "12:00").after(datetime(2025, 6, 1))


@pytest.mark.parametrize("fixed_hours", [True, False])
def test_nothing_fires_outside_the_years_that_a_schedule_can_name(fixed_hours: bool) -> None:
    for zone in ("UTC", BERLIN, NEW_YORK, LORD_HOWE):
        schedule = Schedule(Periodic(MINUTE), ZoneInfo(zone), fixed_hours)
        assert schedule.after(datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))) == START
        assert schedule.upcoming(END - 2 * MINUTE, 9) == (END - MINUTE,)
        assert schedule.after(datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))) is None


@pytest.mark.parametrize("fixed_hours", [True, False])
def test_what_has_no_more_times_fires_no_more(fixed_hours: bool) -> None:
    one = datetime(2025, 10, 26, 2, 30)
    schedule = Schedule(Dates((one,)), ZoneInfo(BERLIN), fixed_hours)
    both = (utc("2025-10-26 00:30"), utc("2025-10-26 01:30"))
    assert schedule.upcoming(START, 9) == (both[:1] if fixed_hours else both)


def test_a_time_that_is_always_skipped_is_given_up() -> None:
    schedule = Schedule(LastSundaysOfMarch(), ZoneInfo(BERLIN), False)
    assert schedule.after(utc("2000-01-01")) is None
    assert Schedule(LastSundaysOfMarch(), ZoneInfo(BERLIN), True).after(utc("2025-01-01")) == utc(
        "2025-03-30 01:00"
    )
