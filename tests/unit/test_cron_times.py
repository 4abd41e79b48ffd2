"""What a schedule's text means in both forms, and what is refused with which words."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.adapters.cron_times import SPEC_CHARS_MAX, ZONE_CHARS_MAX, schedule
from titus_celery.errors import InvalidSchedule

#: A Wednesday.
NOW: Final = datetime(2025, 1, 1, tzinfo=UTC)
BERLIN: Final = "Europe/Berlin"


def fires(spec: str, count: int) -> list[str]:
    return [f"{each:%Y-%m-%d %H:%M:%S}" for each in schedule(spec).upcoming(NOW, count)]


def days(spec: str, count: int) -> list[str]:
    """On which days it fires, with their names; at midnight, as all of these do."""
    return [f"{each:%m-%d %a}" for each in schedule(spec).upcoming(NOW, count)]


def refused(spec: str, zone: str = "UTC", now: datetime | None = None) -> InvalidSchedule:
    with pytest.raises(InvalidSchedule) as found:
        schedule(spec, zone, now=now)
    assert (found.value.spec, found.value.zone) == (spec, zone)
    return found.value


# --------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("*/20 * * * * *", ["2025-01-01 00:00:20", "2025-01-01 00:00:40", "2025-01-01 00:01:00"]),
        ("0/20 * * * * ?", ["2025-01-01 00:00:20", "2025-01-01 00:00:40", "2025-01-01 00:01:00"]),
        ("10/25 * * * * ?", ["2025-01-01 00:00:10", "2025-01-01 00:00:35", "2025-01-01 00:01:10"]),
        ("0 0/5 * * * ?", ["2025-01-01 00:05:00", "2025-01-01 00:10:00"]),
        ("*/5 * * * *", ["2025-01-01 00:05:00", "2025-01-01 00:10:00"]),
        ("5 4 * * *", ["2025-01-01 04:05:00", "2025-01-02 04:05:00"]),
        ("0 5 4 * * ?", ["2025-01-01 04:05:00", "2025-01-02 04:05:00"]),
        ("59 59 23 31 12 ?", ["2025-12-31 23:59:59", "2026-12-31 23:59:59"]),
        ("0 0 22-2/2 * * ?", ["2025-01-01 02:00:00", "2025-01-01 22:00:00", "2025-01-02 00:00:00"]),
        ("0 0 23-1/2 * * ?", ["2025-01-01 01:00:00", "2025-01-01 23:00:00"]),
        ("0 5-5 4-4 * * ?", ["2025-01-01 04:05:00", "2025-01-02 04:05:00"]),
        ("0 59/15 4 * * ?", ["2025-01-01 04:59:00", "2025-01-02 04:59:00"]),
        ("0 0,30,15 9 * * ?", ["2025-01-01 09:00:00", "2025-01-01 09:15:00", "2025-01-01 09:30:00"]),
        ("0 0 0 1 Nov-fEB/2 ?", ["2025-11-01 00:00:00", "2026-01-01 00:00:00", "2026-11-01 00:00:00"]),
        ("0 0 0 29 2 ?", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 0 ? 2 1#5", ["2032-02-29 00:00:00", "2060-02-29 00:00:00"]),
        ("0 0 0 29 2 ? 2026-2040", ["2028-02-29 00:00:00", "2032-02-29 00:00:00", "2036-02-29 00:00:00"]),
        ("0 0 0 1 1 ? 2026/30", ["2026-01-01 00:00:00", "2056-01-01 00:00:00", "2086-01-01 00:00:00"]),
        ("0 0 0 1 1 ? 1970,2099", ["2099-01-01 00:00:00"]),
        ("  0\t0  12  1 1 ? * ", ["2025-01-01 12:00:00"]),
    ],
)
def test_times_of_a_schedule(spec: str, expected: list[str]) -> None:
    assert fires(spec, len(expected)) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # Quartz: from 1=SUN.
        ("0 0 0 ? * 1", ["01-05 Sun", "01-12 Sun"]),
        ("0 0 0 ? * 7", ["01-04 Sat", "01-11 Sat"]),
        ("0 0 0 ? * L", ["01-04 Sat", "01-11 Sat"]),
        ("0 0 0 ? * 2-6", ["01-02 Thu", "01-03 Fri", "01-06 Mon"]),
        ("0 0 0 ? * mon-fri *", ["01-02 Thu", "01-03 Fri", "01-06 Mon"]),
        ("0 0 0 ? * 7-2", ["01-04 Sat", "01-05 Sun", "01-06 Mon", "01-11 Sat"]),
        ("0 0 0 ? * FRI-SUN/2", ["01-03 Fri", "01-05 Sun", "01-10 Fri"]),
        ("0 0 0 ? * 2,4,FRI", ["01-03 Fri", "01-06 Mon", "01-08 Wed"]),
        ("0 0 0 ? * 2/2", ["01-03 Fri", "01-06 Mon", "01-08 Wed"]),
        ("0 0 0 ? * */3", ["01-04 Sat", "01-05 Sun", "01-08 Wed"]),
        ("0 0 0 ? * 6L", ["01-31 Fri", "02-28 Fri", "03-28 Fri"]),
        ("0 0 0 ? * friL", ["01-31 Fri", "02-28 Fri", "03-28 Fri"]),
        ("0 0 0 ? * 1L", ["01-26 Sun", "02-23 Sun"]),
        ("0 0 0 ? * 6#3", ["01-17 Fri", "02-21 Fri", "03-21 Fri"]),
        ("0 0 0 ? * Sun#5", ["03-30 Sun", "06-29 Sun"]),
        ("0 0 0 L * ?", ["01-31 Fri", "02-28 Fri", "03-31 Mon"]),
        ("0 0 0 1W * *", ["02-03 Mon", "03-03 Mon", "04-01 Tue"]),
        ("0 0 0 15W 2-6 ?", ["02-14 Fri", "03-14 Fri", "04-15 Tue", "05-15 Thu", "06-16 Mon"]),
        ("0 0 0 31 * ?", ["01-31 Fri", "03-31 Mon", "05-31 Sat"]),
        ("0 0 0 30-2/2 * ?", ["01-30 Thu", "02-01 Sat", "03-01 Sat"]),
        ("0 0 0 1/10 * ? *", ["01-11 Sat", "01-21 Tue", "01-31 Fri", "02-01 Sat"]),
        ("0 0 0 * * *", ["01-02 Thu", "01-03 Fri"]),
        ("0 0 0 ? * *", ["01-02 Thu", "01-03 Fri"]),
        # Unix: from 0=SUN, and 7 is SUN too.
        ("0 0 * * 0", ["01-05 Sun", "01-12 Sun"]),
        ("0 0 * * 7", ["01-05 Sun", "01-12 Sun"]),
        ("0 0 * * 5-7", ["01-03 Fri", "01-04 Sat", "01-05 Sun", "01-10 Fri"]),
        ("0 0 ? * 6-1", ["01-04 Sat", "01-05 Sun", "01-06 Mon", "01-11 Sat"]),
        ("0 0 * * 1/2", ["01-03 Fri", "01-06 Mon", "01-08 Wed"]),
        ("0 0 * * 7/2", ["01-05 Sun", "01-12 Sun"]),
        ("0 0 * * Fri-sUN", ["01-03 Fri", "01-04 Sat", "01-05 Sun", "01-10 Fri"]),
        # Either day, unless one field begins with a star.
        ("0 0 15 * 1", ["01-06 Mon", "01-13 Mon", "01-15 Wed", "01-20 Mon"]),
        ("0 0 15 * ?", ["01-15 Wed", "02-15 Sat"]),
        ("0 0 1-31 * 1", ["01-02 Thu", "01-03 Fri"]),
        ("0 0 15 * 0-6", ["01-02 Thu", "01-03 Fri"]),
        ("0 0 30 2 1", ["02-03 Mon", "02-10 Mon"]),
        ("0 0 */7 * 1", ["09-01 Mon", "09-08 Mon", "09-15 Mon", "09-22 Mon", "09-29 Mon", "12-01 Mon"]),
        ("0 0 13 * */5", ["04-13 Sun", "06-13 Fri", "07-13 Sun"]),
    ],
)
def test_days_of_a_schedule(spec: str, expected: list[str]) -> None:
    assert days(spec, len(expected)) == expected


@pytest.mark.parametrize(
    ("hour", "expected"),
    [
        pytest.param("2", ["00:30"], id="named"),
        pytest.param("1-3", ["23:30", "00:30", "02:30"], id="range"),
        pytest.param("1,2,3", ["23:30", "00:30", "02:30"], id="list"),
        pytest.param("*", ["23:30", "00:30", "01:30", "02:30"], id="star"),
        pytest.param("*/2", ["00:30", "01:30", "03:30"], id="star-with-step"),
        pytest.param("1/1", ["23:30", "00:30", "01:30", "02:30"], id="start-with-step"),
        pytest.param("1-3/1", ["23:30", "00:30", "01:30", "02:30"], id="range-with-step"),
        pytest.param("5,2/24", ["00:30", "01:30", "04:30"], id="step-in-a-list"),
    ],
)
@pytest.mark.parametrize("form", ["0 30 {} * * ?", "30 {} * * *"], ids=["quartz", "unix"])
def test_an_hour_that_occurs_twice_fires_twice_if_its_field_has_a_star_or_a_step(
    form: str, hour: str, expected: list[str]
) -> None:
    night = datetime(2025, 10, 25, 23, tzinfo=UTC)
    found = schedule(form.format(hour), BERLIN).upcoming(night, len(expected))
    assert [f"{each:%H:%M}" for each in found] == expected


@pytest.mark.parametrize(
    ("spec", "zone", "since", "expected"),
    [
        ("0 30 2 * * ?", BERLIN, "2025-03-29", ["03-29 01:30", "03-30 01:00", "03-31 00:30"]),
        ("0 */30 2 * * ?", BERLIN, "2025-03-30", ["03-30 01:00", "03-31 00:00", "03-31 00:30"]),
        ("0 30 * * * ?", BERLIN, "2025-03-30", ["03-30 00:30", "03-30 01:30"]),
        ("30 2 * * *", "America/New_York", "2025-03-09", ["03-09 07:00", "03-10 06:30"]),
        ("30 1 * * *", "America/New_York", "2025-11-02", ["11-02 05:30", "11-03 06:30"]),
        (
            "30 */1 * * *",
            "America/New_York",
            "2025-11-02T05:00",
            ["11-02 05:30", "11-02 06:30", "11-02 07:30"],
        ),
        ("0 15 2 * * ?", "Australia/Lord_Howe", "2025-10-04", ["10-04 15:30", "10-05 15:15"]),
        ("0 45 1 * * ?", "Australia/Lord_Howe", "2025-04-05", ["04-05 14:45", "04-06 15:15"]),
        ("0 45 */1 * * ?", "Australia/Lord_Howe", "2025-04-05T14:00", ["04-05 14:45", "04-05 15:15"]),
        ("0 0 8 30 12 ? 2011", "Pacific/Apia", "2011-12-01", ["12-30 10:00"]),
    ],
)
def test_where_clocks_are_set(spec: str, zone: str, since: str, expected: list[str]) -> None:
    begin = datetime.fromisoformat(since).replace(tzinfo=UTC)
    found = schedule(spec, zone).upcoming(begin, len(expected))
    assert [f"{each:%m-%d %H:%M}" for each in found] == expected


def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    shared = schedule("0 30 2 ? * 6#2")
    moments = [datetime(2025, month, 20, tzinfo=UTC) for month in (9, 1, 5, 12, 3)]
    alone = [schedule("0 30 2 ? * 6#2 *").after(moment) for moment in moments]
    assert [shared.after(moment) for moment in moments] == alone
    assert [shared.after(moment) for moment in reversed(moments)] == alone[::-1]


def test_one_schedule_serves_many_threads() -> None:
    shared = schedule("0 30 2 ? * 6#2")
    moments = [NOW + timedelta(days=day) for day in range(1_000)]
    alone = [shared.after(moment) for moment in moments]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(shared.after, moments)) == alone
    finally:
        sys.setswitchinterval(usual)


# ------------------------------------------------------------------------------------------ refusals

BOTH_DAYS: Final = "day of month and day of week are both given; with seconds one of them must be '?'"
NO_DAYS: Final = "day of month and day of week are both '?': one of them must say which days"
FROM_THE_LAST: Final = "days counted from the last one (LW, L-3) are not offered; only L is"
WITH_SECONDS: Final = "L, W and # are for schedules with seconds, 6 or 7 fields"
NEVER: Final = "it never fires: there is no such time"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("", "it is empty"),
        (" \t ", "it is empty"),
        ("@daily", "@hourly and the like are not taken; write the fields out"),
        ("*", "it has 1 field; it takes 5 (minutes first), or 6 or 7 (seconds first)"),
        ("* * * *", "it has 4 fields; it takes 5 (minutes first), or 6 or 7 (seconds first)"),
        ("0 0 0 1 1 ? * *", "it has 8 fields; it takes 5 (minutes first), or 6 or 7 (seconds first)"),
        ("0 0 0 1 1\u00a0?", "it has characters that are not ASCII"),
        ("\udc80 * * * *", "it has characters that are not ASCII"),
        ("* " * 101, "it has 202 characters; 200 is the most"),
        ("60 * * * * ?", "seconds '60': 60 is not from 0 to 59"),
        ("60 * * * *", "minutes '60': 60 is not from 0 to 59"),
        ("0 24 * * *", "hours '24': 24 is not from 0 to 23"),
        ("0 0 0 * *", "day of month '0': 0 is not from 1 to 31"),
        ("0 0 1-32 * *", "day of month '1-32': 32 is not from 1 to 31"),
        ("0 0 * 13 *", "month '13': 13 is not from 1 to 12"),
        ("0 0 * 0 *", "month '0': 0 is not from 1 to 12"),
        ("0 0 * * 8", "day of week '8': 8 is not from 0 to 7"),
        ("0 0 0 ? * 8", "day of week '8': 8 is not from 1 to 7"),
        ("0 0 0 ? * 0", "day of week '0': 0 is not from 1 to 7"),
        ("0 0 0 ? * 0#1", "day of week '0#1': 0 is not from 1 to 7"),
        ("0 0 0 ? * 8L", "day of week '8L': 8 is not from 1 to 7"),
        ("0 0 0 ? * 6#6", "day of week '6#6': a month has a weekday 1 to 5 times"),
        ("0 0 0 ? * 6#0", "day of week '6#0': a month has a weekday 1 to 5 times"),
        ("0 0 0 ? * 2,6L", "day of week '6L': it cannot be read"),
        ("0 0 0 ? * 2#1,4#2", "day of week '2#1': it cannot be read"),
        ("0 0 0 ? * MOO", "day of week 'MOO': 'MOO' is no name that it knows"),
        ("0 0 0 ? * JAN", "day of week 'JAN': 'JAN' is no name that it knows"),
        ("0 0 MON * *", "day of month 'MON': 'MON' is no name that it knows"),
        ("0 0 0 LW * ?", f"day of month 'LW': {FROM_THE_LAST}"),
        ("0 0 0 L-3 * ?", f"day of month 'L-3': {FROM_THE_LAST}"),
        ("0 0 0 L-3W * ?", f"day of month 'L-3W': {FROM_THE_LAST}"),
        ("0 0 0 1,L * ?", "day of month 'L': it cannot be read"),
        ("0 0 0 29W * ?", "day of month '29W': W goes with a day from 1 to 28"),
        ("0 0 0 0W * ?", "day of month '0W': W goes with a day from 1 to 28"),
        ("0 0 0 1,15W * ?", "day of month '15W': it cannot be read"),
        ("0 0 0 15 * 2", BOTH_DAYS),
        ("0 0 0 L * 6L", BOTH_DAYS),
        ("0 0 0 */1 * 1-7", BOTH_DAYS),
        ("0 0 0 ? * ?", NO_DAYS),
        ("0 0 ? * ?", NO_DAYS),
        ("0 0 L * *", f"day of month 'L': {WITH_SECONDS}"),
        ("0 0 15W * *", f"day of month '15W': {WITH_SECONDS}"),
        ("0 0 * * 5#3", f"day of week '5#3': {WITH_SECONDS}"),
        ("0 0 * * 5L", f"day of week '5L': {WITH_SECONDS}"),
        ("? 0 0 1 1 ?", "seconds '?': it cannot be read"),
        ("0 ? * * *", "hours '?': it cannot be read"),
        ("0 0 0 1 ? *", "month '?': it cannot be read"),
        ("*/0 * * * *", "minutes '*/0': a step is from 1 to 60"),
        ("*/90 * * * *", "minutes '*/90': a step is from 1 to 60"),
        ("0 */25 * * *", "hours '*/25': a step is from 1 to 24"),
        ("0 0 * * */8", "day of week '*/8': a step is from 1 to 7"),
        ("1,,2 * * * *", "minutes '': a value is missing"),
        ("1, * * * *", "minutes '': a value is missing"),
        ("*-5 * * * *", "minutes '*-5': it cannot be read"),
        ("1-2-3 * * * *", "minutes '1-2-3': it cannot be read"),
        ("1/2/3 * * * *", "minutes '1/2/3': it cannot be read"),
        ("-1 * * * *", "minutes '-1': it cannot be read"),
        ("1.5 * * * *", "minutes '1.5': it cannot be read"),
        ("H * * * *", "minutes 'H': it cannot be read"),
        ("R(0-9) * * * *", "minutes 'R(0-9)': it cannot be read"),
        ("\0 * * * *", "minutes '\\x00': it cannot be read"),
        ("99999 * * * *", "minutes '99999': it cannot be read"),
        ("9" * 100 + " * * * *", f"minutes '{'9' * 64}...': it cannot be read"),
        ("0 0 0 1 1 ? 1969", "year '1969': 1969 is not from 1970 to 2099"),
        ("0 0 0 1 1 ? 2100", "year '2100': 2100 is not from 1970 to 2099"),
        ("0 0 0 1 1 ? 2030-2020", "year '2030-2020': it ends before it begins"),
        ("0 0 0 1 1 ? ?", "year '?': it cannot be read"),
        ("0 0 30 2 *", NEVER),
        ("0 0 0 31 4,6,9,11 ?", NEVER),
        ("0 0 0 29 2 ? 2025-2027", NEVER),
        ("0 0 0 ? 2 1#5 2028", NEVER),
    ],
)
def test_a_text_that_is_wrong_is_refused_with_what_is_wrong(spec: str, why: str) -> None:
    error = refused(spec)
    assert (error.part, error.why) == ("spec", why)
    assert str(error) == f"the text of a cron schedule: {why}"


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Olympus",
        "Europe",
        "europe/../Europe/Berlin",
        "../zoneinfo/UTC",
        "/etc/passwd",
        "zone.tab",
        "localtime",
        "posixrules",
        "right/Europe/Berlin",
        "posix/UTC",
        "CET-1CEST",
        "+02:00",
        "a\0b",
        "\udc80",
    ],
)
def test_a_zone_that_is_not_known_is_refused(zone: str) -> None:
    error = refused("0 0 * * *", zone)
    assert error.part == "zone"
    assert error.why == f"{zone!a} is no time zone known here; it takes names like Europe/Berlin"
    assert str(error) == f"the time zone of a cron schedule: {error.why}"


def test_a_zone_that_is_very_long_is_refused_for_that() -> None:
    error = refused("0 0 * * *", "A" * (ZONE_CHARS_MAX + 1))
    assert (error.part, error.why) == ("zone", "it has 65 characters; 64 is the most")


def test_a_time_that_its_zone_never_shows_is_refused() -> None:
    """Stepped, so it fires only if shown; New York has skipped this second since 2007."""
    spec = "0 30 2/24 ? 3 1#2 2007-2099"
    assert (refused(spec, "America/New_York").part, refused(spec, "America/New_York").why) == ("spec", NEVER)
    assert fires(spec, 1) == ["2025-03-09 02:30:00"]


def test_what_fires_no_more_is_refused_only_of_who_tells_the_time() -> None:
    past = "0 0 0 1 1 ? 2024,2025"
    error = refused(past, now=NOW)
    assert (error.part, error.why) == ("spec", "it does not fire after 2025-01-01 00:00:00 UTC")
    assert schedule(past, now=datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC)).after(NOW) is None
    assert schedule(past).after(NOW) is None


def test_the_longest_text_is_taken() -> None:
    spec = ",".join(str(minute) for minute in range(60)) + " * * * *"
    assert fires(spec.ljust(SPEC_CHARS_MAX), 1) == ["2025-01-01 00:01:00"]


def test_a_refusal_survives_the_way_to_another_process() -> None:
    error = refused("* *", BERLIN)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


PIECES: Final = [
    "*",
    "?",
    "0",
    "7",
    "59",
    "2099",
    "-",
    "/",
    ",",
    "#",
    "L",
    "W",
    "MON",
    "feb",
    " ",
    "@",
    "\n",
    "é",
]


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.text(max_size=40)))
def test_any_text_is_a_schedule_or_a_refusal(spec: str) -> None:
    try:
        found = schedule(spec).after(NOW)
    except InvalidSchedule as error:
        assert error.why
    else:
        assert found is None or found > NOW
