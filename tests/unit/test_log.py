"""How processes log: as configured, one line an event, and never a secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from titus_celery.log import configure, without_secrets


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is the whole process's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://ann:secret@host/0", "redis://ann:***@host/0"),
        ("rediss://ann:s%40cr:t@host", "rediss://ann:***@host"),
        ("from redis://:one@a to redis://:two@b", "from redis://:***@a to redis://:***@b"),
        # Nothing to hide.
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("ann@example.com: 1:2", "ann@example.com: 1:2"),
    ],
)
def test_passwords_of_urls_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_line_for_people_has_time_level_name_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    logging.getLogger("titus").warning("task %s is lost", "j-0-1")
    line = capsys.readouterr().err
    assert line.endswith(" WARNING titus: task j-0-1 is lost\n")


def test_a_line_for_machines_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    logging.getLogger("titus").info("two\nlines")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    shown = json.loads(line)
    assert shown.pop("at").startswith("20")
    assert shown == {"level": "info", "logger": "titus", "message": "two\nlines"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_left_out_of_messages_arguments_and_tracebacks(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(form)
    try:
        raise OSError("no answer from redis://ann:hunter2@host")
    except OSError:
        logging.getLogger("titus").exception("cannot reach %s", "redis://:hunter3@host")
    shown = capsys.readouterr().err
    assert "redis://ann:***@host" in shown
    assert "redis://:***@host" in shown
    assert "hunter" not in shown


def test_debug_is_not_logged_and_info_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    logging.getLogger("titus").debug("small talk")
    logging.getLogger("titus").info("news")
    shown = capsys.readouterr().err
    assert "small talk" not in shown
    assert "news" in shown


def test_what_happens_every_second_is_not_logged_unless_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", quiet=("titus.sweep",))
    logging.getLogger("celery").info("Task titus.sweep[1] received")
    logging.getLogger("celery").error("Task titus.sweep[2] raised")
    logging.getLogger("celery").info("Task titus.run_container[3] received")
    shown = capsys.readouterr().err
    assert "[1]" not in shown
    assert "[2]" in shown
    assert "[3]" in shown
