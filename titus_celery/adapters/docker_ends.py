"""Whether a container ended by itself, or something on its host ended it: what the evidence says.

An exit code tells nothing of that. An engine that stops or starts sends its containers TERM and KILL, and
what they then exit with may be 0 or any other code; an engine that found its host switched off shows 255.
What can be known is who was sent which signal, when the engine was away, and when the host was booted.
Pure: the evidence is gathered in docker_events.py.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from titus_celery.adapters.docker_records import exit_of, instant

__all__ = ["Absence", "Kill", "Life", "booted_at", "from_outside", "life_of", "signal_number"]

#: An end this soon after a signal that asks for one is taken for its effect: twice what engines and
#: service managers usually give, and too short for a job that took no notice to be likely to end just then.
STOPS_WITHIN: Final = timedelta(seconds=60)
#: From when a host begins to stop its services until its kernel starts again: slow firmware takes minutes.
REBOOTS_WITHIN: Final = timedelta(minutes=15)

#: Signals with which programs are asked to end, whatever their image says. Others (HUP, USR1) mean
#: something else to most programs, unless the container died of them.
_ENDING: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM})
#: What an engine shows that found a container dead and cannot know more: its host lost power.
_UNKNOWN: Final = 255

#: The first real-time signal, as engines count (and glibc does).
_RTMIN: Final = 34


@dataclass(frozen=True, slots=True, order=True)
class Kill:
    """A signal that was sent to a container through its engine; *at* is the engine's time."""

    at: datetime
    signal: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which the engine could not be reached, in the engine's time."""

    begun: datetime
    #: The last moment at which it surely did not serve; None: it was never refused, merely not heard.
    refused: datetime | None
    #: When it answered again: only then has it stopped what it found running.
    over: datetime


@dataclass(frozen=True, slots=True)
class Life:
    """A container that has ended, in the engine's time."""

    started: datetime
    finished: datetime
    code: int
    #: The signal that ended it, or 0.
    signal: int
    #: The one by which its image wants to be stopped.
    stop_signal: int


def life_of(container: Mapping[str, Any]) -> Life | None:
    """The life of an inspected container; None if it did not run or has not ended."""
    end, state = exit_of(container), container["State"]
    started, finished = instant(state["StartedAt"]), instant(state["FinishedAt"])
    if end is None or started is None or finished is None:
        return None
    wanted = signal_number(container["Config"].get("StopSignal") or "TERM")
    return Life(started, finished, end.code, end.signal, wanted)


def from_outside(
    life: Life,
    kills: Iterable[Kill],
    absences: Iterable[Absence],
    booted: datetime | None,
    *,
    is_away: bool = False,
    is_whole: bool = False,
) -> str:
    """What else than the program ended it, in words; empty if nothing is known of that.

    *booted*: when its host was, if that is known. *is_away*: the engine does not answer now. *is_whole*:
    no signal that the engine sent since it started is missing among *kills*.
    """
    if booted is not None and life.started < booted < life.finished + REBOOTS_WITHIN:
        return "the host restarted"
    gone = list(absences)
    is_certain = is_whole and life.code != _UNKNOWN
    if not is_certain and any(_started_again(life, absence) for absence in gone):
        return "the engine restarted"
    sent = [kill for kill in kills if _asks_for_end(life, kill)]
    if not sent:
        return ""
    if any(absence.begun - STOPS_WITHIN < kill.at <= absence.over for absence in gone for kill in sent):
        return "the engine restarted"
    if is_away:
        return "the engine stopped"
    return f"somebody stopped it on its host (signal {max(sent).signal})"


def signal_number(text: str) -> int:
    """The number of a signal as engines and images name it: 15, TERM, SIGTERM, RTMIN+3; 0 if unknown."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdecimal():
        return int(name)
    if name.startswith("RTMIN"):
        offset = name.removeprefix("RTMIN").removeprefix("+") or "0"
        return _RTMIN + int(offset) if offset.isdecimal() else 0
    found = signal.Signals.__members__.get(f"SIG{name}")
    return int(found) if found is not None else 0


def booted_at(stat: str) -> datetime | None:
    """When a machine was booted, by what its kernel says in /proc/stat."""
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name == "btime" and value.strip().isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
    return None


def _started_again(life: Life, absence: Absence) -> bool:
    """Whether it ended when its engine may have started: that ends what runs before it answers anybody.

    What ended before, while nobody was there to end it, ended by itself. When exactly the engine started
    is not known, so an end just before may be its own. An engine that was never refused may be started so
    fast that nobody met it while it was not there: then one that it found dead tells.
    """
    since = absence.begun if absence.refused is None and life.code == _UNKNOWN else absence.refused
    return since is not None and life.started < since < life.finished <= absence.over


def _asks_for_end(life: Life, kill: Kill) -> bool:
    is_such = kill.signal in _ENDING or kill.signal in (life.stop_signal, life.signal)
    return is_such and kill.at > life.started and life.finished - kill.at < STOPS_WITHIN
