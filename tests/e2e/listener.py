"""Listens to what one engine says happens to containers, and misses nothing of it.

An engine keeps only its last 256 events, so nothing here relies on asking for the past: it listens
before it returns, and a *mark* (a volume that is made and removed) shows that all events before it have
been read. A reader that ended by a fault fails every question. An engine that was away may have had
events that nobody heard: what it shows of its containers afterwards is filled in, and the gap is told.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from docker import APIClient
from docker.errors import NotFound

from tests.e2e.engines import NO_ANSWER, answering
from titus_celery.adapters.docker_records import AGENT, INSTALLATION, TASK, exit_of, instant

__all__ = ["Event", "Life", "Listener", "clock", "lives_of"]

#: Volumes tell marks from everything else that an engine does.
FILTERS: Final = {"type": ["container", "volume"]}
MARK: Final = "titus-witness-"
#: An engine that stops containers before it answers again takes 10 s for the stubborn ones.
ANSWER: Final = timedelta(seconds=60)
#: A mark that was made before the engine had us among its listeners is not seen: make another.
MARK_AGAIN: Final = timedelta(milliseconds=250)
#: Between two attempts to reach an engine that is away.
RETRY_SECONDS: Final = 0.05
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something that happened to a container, *at* nanoseconds of the engine's clock."""

    at: int
    action: str
    task_id: str
    container_id: str
    exit_code: int | None
    labels: tuple[tuple[str, str], ...]
    #: Not heard: the engine was away, and showed it afterwards.
    filled_in: bool = False

    def __str__(self) -> str:
        end = "" if self.exit_code is None else f" with {self.exit_code}"
        how = " (filled in)" if self.filled_in else ""
        return f"{clock(self.at)} {self.task_id} [{self.container_id[:12]}] {self.action}{end}{how}"


@dataclass(frozen=True, slots=True)
class Life:
    """One container from start to end; *ended* is None while it runs."""

    task_id: str
    container_id: str
    started: int
    ended: int | None

    def __str__(self) -> str:
        end = "now" if self.ended is None else clock(self.ended)
        return f"{self.task_id} [{self.container_id[:12]}] from {clock(self.started)} to {end}"


class Listener:
    """Reads the events of the engine at *url* until it is closed, and again when the engine was away."""

    def __init__(self, client: APIClient, url: str = "") -> None:
        self._client, self._url = client, url
        self._changed = threading.Condition()
        self._heard: dict[tuple[int, str, str], Event] = {}
        self._shown: dict[str, Mapping[str, Any]] = {}
        self._marks: dict[str, int] = {}
        #: When it was that the engine was all dead, for containers that it never tells the end of.
        self._died_at: list[int] = []
        self._stream: Any = None
        self._last = ""
        self._fault: BaseException | None = None
        self._closing = False
        #: Each time the engine was away, in words.
        self.gaps: list[str] = []
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()
        self.mark()

    def mark(self) -> int:
        """Wait until all that happened so far was read; the engine's time of that, in nanoseconds."""
        end = time.monotonic() + ANSWER.total_seconds()
        while time.monotonic() < end:
            name = MARK + secrets.token_hex(8)
            try:
                self._reach()
                self._client.create_volume(name)
                self._client.remove_volume(name)
            except NO_ANSWER:
                time.sleep(RETRY_SECONDS)
                continue
            if at := self._seen(name):
                return at
        raise AssertionError(f"{self} does not answer its witness")

    def __str__(self) -> str:
        return f"the engine at {self._url}" if self._url else "the first engine"

    def _seen(self, mark: str) -> int:
        """When the mark was made, once it was read; 0 if that takes too long."""
        with self._changed:
            self._changed.wait_for(
                lambda: mark in self._marks or self._fault is not None, MARK_AGAIN.total_seconds()
            )
            self._check()
            return self._marks.get(mark, 0)

    def events(self) -> list[Event]:
        """All events so far, those that had to be filled in too, in the order of their times."""
        with self._changed:
            self._check()
            heard, shown = list(self._heard.values()), list(self._shown.values())
        filled = [event for each in shown for event in _filled_in(each, _of(heard, each["Id"]))]
        for at in self._died_at:
            for life in lives_of([*heard, *filled]):
                if life.started < at and (life.ended is None or life.ended > at):
                    labels = next(event.labels for event in heard if event.container_id == life.container_id)
                    filled.append(Event(at, "die", life.task_id, life.container_id, None, labels, True))
        return sorted([*heard, *filled])

    def all_died(self, at: int) -> None:
        """Know from elsewhere that every container there was had ended *at* this time."""
        self._died_at.append(at)

    def close(self) -> None:
        """Stop listening."""
        with self._changed:
            self._closing = True
            stream = self._stream
        if stream is not None:
            with suppress(OSError):
                stream.close()
        self._thread.join(ANSWER.total_seconds())
        self._client.close()

    def _check(self) -> None:
        if self._fault is not None:
            raise AssertionError(f"the witness stopped listening: {self._fault!r}") from self._fault

    def _run(self) -> None:
        try:
            while not self._closing:
                self._listen()
        except BaseException as error:
            # Whatever it is, the test must hear of it: there are events that nobody heard.
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _listen(self) -> None:
        """Read until the stream ends, which it does when the engine does."""
        try:
            self._reach()
            stream = self._client.events(decode=True, filters=FILTERS, since=self._last or None)
        except NO_ANSWER:
            time.sleep(RETRY_SECONDS)
            return
        with self._changed:
            self._stream = stream
            if self._closing:
                stream.close()
        with suppress(*NO_ANSWER):
            if self.gaps:
                self._look_around()
            for event in stream:
                self._take(event)
        if not self._closing:
            self.gaps.append(f"{self} was away; the last that was heard of it was at {self._last}")

    def _reach(self) -> None:
        if not answering(self._url):
            raise ConnectionError(f"{self} does not answer")

    def _take(self, event: Mapping[str, Any]) -> None:
        actor, at = event["Actor"], int(event["timeNano"])
        labels = actor["Attributes"]
        with self._changed:
            self._last = f"{at // 10**9}.{at % 10**9:09}"
            if event["Type"] == "volume":
                if event["Action"] == "create":
                    self._marks[actor["ID"]] = at
            elif INSTALLATION in labels and TASK in labels:
                code = labels.get("exitCode")
                # After an absence the same event may come once more.
                self._heard[at, event["Action"], actor["ID"]] = Event(
                    at,
                    event["Action"],
                    labels[TASK],
                    actor["ID"],
                    None if code is None else int(code),
                    _ours(labels),
                )
            self._changed.notify_all()

    def _look_around(self) -> None:
        """Note how containers are after an absence in which events may have been missed."""
        for each in self._client.containers(all=True, filters={"label": INSTALLATION}):
            with suppress(NotFound):
                shown = self._client.inspect_container(each["Id"])
                with self._changed:
                    self._shown[shown["Id"]] = shown


def clock(at: int) -> str:
    """A time as people read it, to the millisecond."""
    return (EPOCH + timedelta(microseconds=at // 1_000)).strftime("%H:%M:%S.%f")[:-3]


def lives_of(events: Sequence[Event]) -> list[Life]:
    """The lives that these events tell of. Each start of a container is a life of its own."""
    lives: list[Life] = []
    for event in events:
        if event.action == "start":
            ends = [
                other.at
                for other in events
                if other.container_id == event.container_id and other.action == "die" and other.at >= event.at
            ]
            lives.append(Life(event.task_id, event.container_id, event.at, min(ends, default=None)))
    return lives


def _ours(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The labels that tell whose it is."""
    return tuple((name, labels[name]) for name in (INSTALLATION, AGENT) if name in labels)


def _of(events: Iterable[Event], container_id: str) -> dict[str, Event]:
    """The events of one container by action."""
    return {event.action: event for event in events if event.container_id == container_id}


def _filled_in(shown: Mapping[str, Any], heard: Mapping[str, Event]) -> list[Event]:
    """What an inspected container went through that was not heard."""
    labels, state = shown["Config"]["Labels"] or {}, shown["State"]
    if TASK not in labels:
        return []
    end = exit_of(shown)
    times = {
        "create": shown["Created"],
        "start": state["StartedAt"],
        "die": state["FinishedAt"] if end else "",
    }
    found: list[Event] = []
    for action, text in times.items():
        at = instant(text) if text and action not in heard else None
        if at is not None:
            code = end.code if end and action == "die" else None
            nanoseconds = (at - EPOCH) // timedelta(microseconds=1) * 1_000
            found.append(Event(nanoseconds, action, labels[TASK], shown["Id"], code, _ours(labels), True))
    return found
