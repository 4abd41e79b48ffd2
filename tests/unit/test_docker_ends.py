"""What the evidence says about who ended a container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from titus_celery.adapters.docker_ends import (
    Absence,
    Kill,
    Life,
    booted_at,
    from_outside,
    life_of,
    signal_number,
)

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
TERM, KILL, HUP = 15, 9, 1


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


#: Ran from 100 s to 200 s.
LIFE = Life(started=at(100), finished=at(200), code=0, signal=0, stop_signal=TERM)


def who(
    life: Life = LIFE,
    *kills: Kill,
    absences: Sequence[Absence] = (),
    booted: datetime | None = None,
    is_away: bool = False,
    is_whole: bool = False,
) -> str:
    return from_outside(life, kills, absences, booted, is_away=is_away, is_whole=is_whole)


@pytest.mark.parametrize("away", [True, False])
def test_without_evidence_it_ended_by_itself(away: bool) -> None:
    assert who(is_away=away) == ""


@pytest.mark.parametrize("signal", [TERM, KILL])
def test_a_signal_that_asks_for_an_end_brought_it_about(signal: int) -> None:
    assert who(LIFE, Kill(at(199.9), signal)) == f"somebody stopped it on its host (signal {signal})"
    # The engine notes the signal after it sent it.
    assert who(LIFE, Kill(at(200.01), signal)) == f"somebody stopped it on its host (signal {signal})"


def test_the_last_of_several_signals_is_told() -> None:
    kills = (Kill(at(190), TERM), Kill(at(199.9), KILL))
    assert who(LIFE, *kills) == "somebody stopped it on its host (signal 9)"


@pytest.mark.parametrize(
    ("kill", "life"),
    [
        (Kill(at(140), TERM), LIFE),
        (Kill(at(189), TERM), replace(LIFE, started=at(190))),
        (Kill(at(199.9), HUP), LIFE),
    ],
    ids=["ignored for a minute", "before it was started again", "means no end"],
)
def test_a_signal_that_did_not_bring_it_about_does_not_count(kill: Kill, life: Life) -> None:
    assert who(life, kill) == ""


def test_a_signal_that_it_died_of_counts_whatever_it_is() -> None:
    kill = Kill(at(199.9), HUP)
    assert who(replace(LIFE, signal=HUP), kill) == "somebody stopped it on its host (signal 1)"


def test_the_stop_signal_of_its_image_counts() -> None:
    kill = Kill(at(199.9), HUP)
    assert who(replace(LIFE, stop_signal=HUP), kill) == "somebody stopped it on its host (signal 1)"


def test_a_signal_by_an_engine_that_is_no_more_there_was_its_stop() -> None:
    assert who(LIFE, Kill(at(199.9), TERM), is_away=True) == "the engine stopped"


#: The engine was gone at 150 s, refused until 190 s, and answered at 210 s.
GONE = Absence(begun=at(150), refused=at(190), over=at(210))


def test_what_ended_while_its_engine_started_was_ended_by_that() -> None:
    assert who(absences=[GONE]) == "the engine restarted"
    assert who(replace(LIFE, finished=at(210)), absences=[GONE]) == "the engine restarted"


def test_an_engine_that_tells_of_all_its_signals_ended_nothing_else() -> None:
    """It ended just before the engine started. What an engine merely found dead it did not end either."""
    assert who(absences=[GONE], is_whole=True) == ""
    assert who(LIFE, Kill(at(199.9), TERM), absences=[GONE], is_whole=True) == "the engine restarted"
    assert who(replace(LIFE, code=255), absences=[GONE], is_whole=True) == "the engine restarted"


@pytest.mark.parametrize(
    "life",
    [
        replace(LIFE, finished=at(189)),
        replace(LIFE, finished=at(211)),
        replace(LIFE, started=at(195)),
    ],
    ids=["while the engine was down", "after it was back, as it had kept running", "started only then"],
)
def test_an_end_before_or_after_the_start_of_the_engine_was_its_own(life: Life) -> None:
    assert who(life, absences=[GONE]) == ""


def test_an_engine_that_never_refused_may_not_have_restarted() -> None:
    assert who(absences=[replace(GONE, refused=None)]) == ""


def test_what_an_engine_found_dead_tells_that_it_restarted_though_it_never_refused() -> None:
    fast = [replace(GONE, refused=None)]
    assert who(replace(LIFE, code=255), absences=fast) == "the engine restarted"
    assert who(replace(LIFE, code=255, finished=at(149)), absences=fast) == ""
    assert who(replace(LIFE, code=255, finished=at(211)), absences=fast) == ""


@pytest.mark.parametrize("kill", [Kill(at(199.9), TERM), Kill(at(149), TERM)], ids=["start", "stop"])
def test_signals_around_an_absence_are_the_engine_s(kill: Kill) -> None:
    life = replace(LIFE, finished=kill.at)
    assert who(life, kill, absences=[replace(GONE, refused=None)]) == "the engine restarted"


def test_what_ran_when_its_host_went_down_was_ended_by_that() -> None:
    assert who(booted=at(150)) == "the host restarted"
    assert who(booted=at(200 + 14 * 60)) == "the host restarted"


def test_what_ended_long_before_its_host_was_booted_or_began_after_ended_by_itself() -> None:
    assert who(booted=at(200 + 15 * 60)) == ""
    assert who(booted=at(99)) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("SIGTERM", 15), ("term", 15), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("", 0), ("SIGX", 0)],
)
def test_signals_are_known_by_number_and_name(text: str, number: int) -> None:
    assert signal_number(text) == number


def test_the_boot_time_is_read_from_what_the_kernel_says() -> None:
    assert booted_at("cpu 1 2\nbtime 1777636800\nprocesses 5\n") == START
    assert booted_at("cpu 1 2\n") is None


def test_a_life_is_read_from_an_inspected_container() -> None:
    state = {
        "Status": "exited",
        "ExitCode": 129,
        "OOMKilled": False,
        "StartedAt": "2026-05-01T12:01:40Z",
        "FinishedAt": "2026-05-01T12:03:20Z",
    }
    container = {"State": state, "Config": {"StopSignal": "SIGQUIT"}}
    assert life_of(container) == replace(LIFE, code=129, signal=HUP, stop_signal=3)
    assert life_of({**container, "State": {**state, "Status": "running"}}) is None
    assert life_of({**container, "Config": {}}) == replace(LIFE, code=129, signal=HUP)
