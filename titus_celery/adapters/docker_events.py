"""Listens to what is done to our containers behind our back, and notes when their engine was away.

An engine remembers its last 256 events only, and none of before it was started. So one thread listens from
before the first container is started here; when the stream breaks it begins again with all that the engine
remembers. And at each end the engine itself is asked once more, because its answer may be faster than the
thread. What all this means for an end is decided in docker_ends.py.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from docker import APIClient
from requests import Response
from requests.exceptions import RequestException

from titus_celery.adapters.docker_ends import (
    Absence,
    Kill,
    booted_at,
    from_outside,
    life_of,
    signal_number,
)
from titus_celery.adapters.docker_records import TASK
from titus_celery.adapters.system import system_now

__all__ = ["EngineEvents", "bottom_of"]

#: Between two tries to reach an engine that is away, in seconds: as exactly is known when it came back.
_AGAIN_SECONDS: Final = 0.1
#: The same for the first try after it was heard: one that is started again at once refuses for a moment only.
_AT_ONCE_SECONDS: Final = 0.01
#: Seconds for an answer that merely refines what is known already.
_SOON_SECONDS: Final = 2
#: Containers whose signals, and whose stops by us, are remembered: each is forgotten when it is removed,
#: so this is for those that somebody else removes.
_CONTAINERS_KEPT: Final = 10_000
#: Absences of an engine that are remembered; each matters until its containers are reported.
_ABSENCES_KEPT: Final = 100
#: Events that an engine remembers; older ones are forgotten.
_REMEMBERED: Final = 256
#: Events as old as the engine remembers. Without a beginning it would tell the new ones only.
_EVER: Final = "1"
#: An engine of this machine whose clock is off by less has ours: asking takes that long.
_SAME_TIME: Final = timedelta(seconds=1)
#: A question that ends in the engine's past would miss what it noted just now; one that ends in its
#: future takes until then. Here clocks are the same, elsewhere they are known as well as answers are fast.
_JUST_NOW: Final = timedelta(milliseconds=5)
_ABOUT_NOW: Final = timedelta(milliseconds=200)
_STAT: Final = Path("/proc/stat")

_log = logging.getLogger(__name__)


class EngineEvents:
    """The signals that containers of ours were sent, and the absences of their engine. Thread-safe."""

    def __init__(self, client: APIClient, answer_seconds: float) -> None:
        """*client* must open a connection for each request: an engine that stops serves old ones."""
        self._client = client
        self._answer_seconds = answer_seconds
        self._url = f"{client.base_url}/v{client.api_version}/events"
        self._is_here = client.base_url.startswith("http+docker://")
        # Asked once: what is started from now on has not been through a boot, but a clock that is set
        # forward later would move this one.
        self._booted = _booted_here() if self._is_here else None
        self._changed = threading.Condition()
        self._kills: OrderedDict[str, set[Kill]] = OrderedDict()
        self._stopped: OrderedDict[str, None] = OrderedDict()
        self._absences: deque[Absence] = deque(maxlen=_ABSENCES_KEPT)
        self._ahead = timedelta(0)
        self._thread: threading.Thread | None = None
        self._line: socket.socket | None = None
        self._closed = threading.Event()
        # Only the thread's: since when the engine is away, and when it refused last.
        self._gone: datetime | None = None
        self._refused: datetime | None = None

    def attend(self, within: timedelta) -> bool:
        """Listen from now on; whether the engine can be heard, for which up to *within* is waited."""
        self.listen()
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._closed.is_set(), within.total_seconds())
            return self._line is not None

    def listen(self) -> None:
        """Listen from now on, as soon as the engine can be heard."""
        with self._changed:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="engine events", daemon=True)
                self._thread.start()

    def set_clock(self, engine_time: datetime) -> None:
        """Say what time it is for the engine, now."""
        ahead = engine_time - system_now()
        self._ahead = timedelta(0) if self._is_here and abs(ahead) < _SAME_TIME else ahead

    def stopping(self, container_id: str) -> None:
        """From now on we ourselves end this container: signals that it gets are no news."""
        with self._changed:
            self._stopped[container_id] = None
            _bound(self._stopped)

    def forget(self, container_id: str) -> None:
        """It is gone."""
        with self._changed:
            self._stopped.pop(container_id, None)
            self._kills.pop(container_id, None)

    def outside(self, container: Mapping[str, Any]) -> str:
        """What else than itself and we ended this inspected container; empty if nothing is known of it.

        RequestException if that cannot be known before the engine answers again.
        """
        container_id, life = container["Id"], life_of(container)
        with self._changed:
            kills = set(self._kills.get(container_id, ()))
            absences = tuple(self._absences)
            if life is None or container_id in self._stopped:
                return ""
        known = from_outside(life, kills, absences, self._booted)
        try:
            kills |= self._asked(container_id, life.started, _SOON_SECONDS if known else self._answer_seconds)
        except RequestException:
            if not known:
                raise
            return from_outside(life, kills, absences, self._booted, is_away=True)
        if not known:
            absences = self._absences_by_now()
        told = from_outside(life, kills, absences, self._booted)
        surely = from_outside(life, kills, absences, self._booted, is_whole=True)
        return surely if told != surely and self._remembers_all(life.started) else told

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        with self._changed:
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_SOON_SECONDS)

    def _asked(self, container_id: str, since: datetime, within: float) -> set[Kill]:
        """The signals to a container that the engine remembers."""
        filters = {"type": ["container"], "event": ["kill"], "container": [container_id]}
        lines = self._past(since, filters, within)
        return {kill for _, kill in map(_kill_of, lines) if kill is not None}

    def _absences_by_now(self) -> tuple[Absence, ...]:
        """The absences of an engine that answers again, which the thread may learn a moment later."""
        with self._changed:
            is_heard = self._thread is None or self._changed.wait_for(
                lambda: self._line or self._closed.is_set(), self._answer_seconds
            )
            if not is_heard:
                _log.warning("the engine answers and cannot be heard: whether it was away is not known")
            return tuple(self._absences)

    def _remembers_all(self, since: datetime) -> bool:
        """Whether the engine has forgotten nothing from *since* on."""
        return len(self._past(since, {}, self._answer_seconds)) < _REMEMBERED

    def _past(self, since: datetime, filters: Mapping[str, Any], within: float) -> list[bytes]:
        """What the engine remembers, by a connection of its own: an engine that stops refuses it."""
        until = self._now() + (_JUST_NOW if self._is_here else _ABOUT_NOW)
        asked = {"since": _seconds(since), "until": _seconds(until), "filters": json.dumps(filters)}
        answer = self._client.get(self._url, params=asked, timeout=within)
        answer.raise_for_status()
        return list(answer.iter_lines())

    def _now(self) -> datetime:
        return system_now() + self._ahead

    # ------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._follow()
            except (RequestException, OSError, ValueError) as error:
                self._note_fault(error)
            finally:
                was_heard = self._lose()
            self._closed.wait(_AT_ONCE_SECONDS if was_heard else _AGAIN_SECONDS)

    def _follow(self) -> None:
        filters = {"type": ["container"], "event": ["kill"], "label": [TASK]}
        asked = {"since": _EVER, "filters": json.dumps(filters)}
        patience = (self._answer_seconds, None)
        with closing(self._client.get(self._url, params=asked, stream=True, timeout=patience)) as answer:
            answer.raise_for_status()
            self._begin(answer)
            for container_id, kill in map(_kill_of, answer.iter_lines()):
                if kill is not None:
                    self._hear(container_id, kill)

    def _begin(self, answer: Response) -> None:
        """The engine answers: what was away is back."""
        with self._changed:
            if self._gone is not None:
                self._absences.append(Absence(self._gone, self._refused, self._now()))
                _log.info("the engine is back after %s", self._now() - self._gone)
            self._gone = self._refused = None
            # A second handle, by which `close` ends a read that another thread is blocked in.
            self._line = socket.socket(fileno=os.dup(answer.raw.fileno()))
            if self._closed.is_set():
                self._line.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()

    def _hear(self, container_id: str, kill: Kill) -> None:
        with self._changed:
            self._kills.setdefault(container_id, set()).add(kill)
            _bound(self._kills)

    def _note_fault(self, error: BaseException) -> None:
        why = bottom_of(error)
        if not isinstance(why, ConnectionRefusedError | FileNotFoundError):
            _log.info("the engine cannot be heard: %s", why)
            return
        if self._refused is None:
            _log.warning("the engine refuses connections: %s", why)
        self._refused = self._now()

    def _lose(self) -> bool:
        """The engine is not heard any more, if it was: whether it was."""
        with self._changed:
            was_heard = self._line is not None
            if self._line is not None:
                self._line.close()
                self._line = None
            self._gone = self._gone or self._now()
        return was_heard


def bottom_of(error: BaseException) -> BaseException:
    """What is at the bottom of a wrapped error."""
    for below in (getattr(error, "reason", None), *error.args[-1:], error.__cause__):
        if isinstance(below, BaseException):
            return bottom_of(below)
    return error


def _booted_here() -> datetime | None:
    """When this machine was booted, where its kernel tells that."""
    return booted_at(_STAT.read_text()) if _STAT.exists() else None


def _kill_of(line: bytes) -> tuple[str, Kill | None]:
    """A line of the engine's events as a signal to a container. ValueError if it was cut off."""
    event = json.loads(line) if line else {}
    if event.get("Action") != "kill":
        return "", None
    actor = event["Actor"]
    at = datetime.fromtimestamp(int(event["timeNano"]) / 1e9, UTC)
    return str(actor["ID"]), Kill(at, signal_number(actor["Attributes"].get("signal", "")))


def _seconds(at: datetime) -> str:
    return f"{at.timestamp():.6f}"


def _bound(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > _CONTAINERS_KEPT:
        kept.popitem(last=False)
