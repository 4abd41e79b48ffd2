"""Celery's event stream, as Flower hears it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.installation import Installation
from tests.e2e.processes import until
from titus_celery.adapters.celery_app import make_app
from titus_celery.settings import Settings

__all__ = ["celery_events", "told_of"]


@contextmanager
def celery_events(installation: Installation) -> Iterator[list[dict[str, Any]]]:
    """What Celery tells while the block runs, in the order of its coming."""
    env = {name: value for name, value in installation.settings.items() if name.startswith("TITUS_")}
    app = make_app(Settings.from_env(env))
    heard: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        # It asks the workers for a sign of life, so that the first event tells that it listens.
        reader = threading.Thread(target=receiver.capture, daemon=True)
        reader.start()
        try:
            until(lambda: heard, "events are heard")
            yield heard
        finally:
            receiver.should_stop = True
            reader.join(10)
    app.close()


def told_of(heard: list[dict[str, Any]], task_id: str) -> list[str]:
    """The types of the events about one task."""
    return [event["type"] for event in heard if event.get("uuid") == task_id]
