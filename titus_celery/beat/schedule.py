"""What ticks when. Each tick expires soon: a backlog of old ones is dropped, never replayed."""

from __future__ import annotations

from typing import Final

from celery import Celery

from titus_celery.adapters.celery_app import CONTROL_QUEUE
from titus_celery.adapters.celery_queue import SWEEP
from titus_celery.settings import Settings

__all__ = ["install"]

#: Ticks that may wait at once; later ones say the same.
TICKS_WAITING_MAX: Final = 2


def install(app: Celery, settings: Settings) -> None:
    """Give *app* its schedule."""
    period = settings.tick_period.total_seconds()
    app.conf.beat_schedule = {
        SWEEP: {
            "task": SWEEP,
            "schedule": settings.tick_period,
            "options": {"queue": CONTROL_QUEUE, "expires": period * TICKS_WAITING_MAX},
        }
    }
