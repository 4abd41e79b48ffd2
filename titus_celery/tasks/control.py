"""Messages to control."""

from __future__ import annotations

from celery import shared_task

from titus_celery.adapters.celery_queue import SWEEP
from titus_celery.tasks.wired import wired

__all__ = ["sweep"]


# Ticks come every second: as events they would push the runs out of Flower's memory.
@shared_task(name=SWEEP, send_events=False)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Look for due deadlines and waiting tasks, and now and then for what is kept too long."""
    control = wired().control
    try:
        control.sweep.run()
    finally:
        # Also after a sweep that met a broken record, lest that fills the store in the end.
        control.retention.when_due()
