"""What is heard of an engine: signals, absences, and nothing of what we asked for ourselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from docker import APIClient
from requests.exceptions import RequestException

from tests.unit.scripted_engine import ScriptedEngine, kill_event
from titus_celery.adapters.docker_events import EngineEvents
from titus_celery.adapters.system import system_now

PATIENCE = timedelta(seconds=20)
SECOND = timedelta(seconds=1)
SOMEBODY = "somebody stopped it on its host (signal 15)"


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    made = ScriptedEngine()
    yield made
    made.close()


@pytest.fixture
def events(engine: ScriptedEngine) -> Iterator[EngineEvents]:
    client = APIClient(engine.url, version="1.41")
    client.headers["Connection"] = "close"
    made = EngineEvents(client, answer_seconds=5)
    yield made
    made.close()
    client.close()


def ended(finished: datetime, container_id: str = "one") -> dict[str, Any]:
    """An inspected container that ran for an hour, and ended well."""
    state = {
        "Status": "exited",
        "ExitCode": 0,
        "OOMKilled": False,
        "StartedAt": (finished - timedelta(hours=1)).isoformat(),
        "FinishedAt": finished.isoformat(),
    }
    return {"Id": container_id, "State": state, "Config": {}}


def heard(events: EngineEvents, container: dict[str, Any]) -> str:
    """What is known of its end, as soon as the thread that listens has heard of it."""
    tries = (events.outside(container) for _ in range(10_000))
    return next(filter(None, tries), "")


@pytest.fixture
def refusal() -> Iterator[threading.Event]:
    """Set once a connection was refused."""
    logger, refused = logging.getLogger(EngineEvents.__module__), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "refuses" in record.getMessage():
                refused.set()

    handler = Handler()
    logger.addHandler(handler)
    yield refused
    logger.removeHandler(handler)


def test_a_signal_is_known_that_the_engine_tells_when_asked(
    engine: ScriptedEngine, events: EngineEvents
) -> None:
    """The thread that listens may not have come to it yet."""
    now = system_now()
    assert events.attend(PATIENCE)
    engine.remembers.append(kill_event("one", "15", now))
    assert events.outside(ended(now)) == SOMEBODY


def test_a_signal_is_known_that_the_engine_has_forgotten(
    engine: ScriptedEngine, events: EngineEvents
) -> None:
    now = system_now()
    engine.tell(kill_event("one", "15", now))
    assert events.attend(PATIENCE)
    assert heard(events, ended(now)) == SOMEBODY
    assert events.outside(ended(now, "two")) == ""


def test_what_we_stop_ourselves_is_not_ended_from_outside(
    engine: ScriptedEngine, events: EngineEvents
) -> None:
    now = system_now()
    engine.remembers.append(kill_event("one", "15", now))
    events.stopping("one")
    assert events.outside(ended(now)) == ""
    events.forget("one")
    assert events.outside(ended(now)) == SOMEBODY


def test_an_end_is_not_believed_while_the_engine_is_gone(
    engine: ScriptedEngine, events: EngineEvents
) -> None:
    assert events.attend(PATIENCE)
    engine.leave()
    with pytest.raises(RequestException):
        events.outside(ended(system_now()))


def test_the_stop_of_an_engine_is_known_once_it_is_gone(engine: ScriptedEngine, events: EngineEvents) -> None:
    now = system_now()
    engine.tell(kill_event("one", "15", now))
    assert events.attend(PATIENCE)
    assert heard(events, ended(now)) == SOMEBODY
    engine.leave()
    assert events.outside(ended(now)) == "the engine stopped"


@pytest.mark.parametrize(("remembered", "why"), [(256, "the engine restarted"), (255, "")])
def test_an_engine_that_forgets_is_taken_to_have_ended_what_ended_while_it_started(
    engine: ScriptedEngine, events: EngineEvents, refusal: threading.Event, remembered: int, why: str
) -> None:
    """One that forgets nothing has said whom it ended."""
    assert events.attend(PATIENCE)
    engine.leave()
    engine.hang_up()
    # Refused until it is there again, and then left without an answer.
    assert refusal.wait(PATIENCE.total_seconds())
    engine.serves.clear()
    engine.come_back()
    assert engine.is_asked.wait(PATIENCE.total_seconds())
    finished = system_now()
    engine.serves.set()
    assert events.attend(PATIENCE)
    engine.remembers = [{"Action": "die"}] * remembered
    assert events.outside(ended(finished)) == why
    assert events.outside(ended(finished - timedelta(minutes=1))) == ""


def test_an_engine_that_answers_before_it_is_heard_again_was_away(
    engine: ScriptedEngine, events: EngineEvents, refusal: threading.Event
) -> None:
    assert events.attend(PATIENCE)
    engine.leave()
    engine.hang_up()
    assert refusal.wait(PATIENCE.total_seconds())
    engine.lets_listen.clear()
    engine.come_back()
    engine.remembers = [{"Action": "die"}] * 256
    assert engine.is_asked.wait(PATIENCE.total_seconds())
    finished = system_now()
    told: list[str] = []
    asking = threading.Thread(target=lambda: told.append(events.outside(ended(finished))))
    asking.start()
    assert engine.was_questioned.wait(PATIENCE.total_seconds())
    engine.lets_listen.set()
    asking.join(PATIENCE.total_seconds())
    assert told == ["the engine restarted"]


def test_a_stream_that_breaks_off_is_taken_up_again(engine: ScriptedEngine, events: EngineEvents) -> None:
    assert events.attend(PATIENCE)
    now = system_now()
    engine.is_asked.clear()
    engine.hang_up()
    assert engine.is_asked.wait(PATIENCE.total_seconds())
    engine.tell(kill_event("one", "9", now - SECOND))
    assert heard(events, ended(now)) == "the engine restarted"


def test_nobody_is_attended_to_once_it_is_closed(engine: ScriptedEngine, events: EngineEvents) -> None:
    assert events.attend(PATIENCE)
    events.close()
    assert not events.attend(PATIENCE)
