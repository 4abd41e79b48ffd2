"""How a worker notices that it hears no messages any more, and its end if so.

What a worker sends to itself is `titus.prove`. An agent sends it through its own queue, the one that its
orders come through, as part of its life (service/agent.py). Workers of control share theirs, so each of
them gets a queue of its own besides; one consumer serves both in turn, so that what comes through one
proves the other. Counting happens where it is sent, in threads that Celery's loop has no part in.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, NoReturn

from celery import bootsteps, shared_task, signals
from celery.worker import state

from titus_celery.adapters.celery_app import App, own_queue
from titus_celery.adapters.celery_queue import PROVE, send_proof
from titus_celery.adapters.system import SystemClock, SystemIds
from titus_celery.errors import Unavailable
from titus_celery.service.watchdog import Watchdog
from titus_celery.tasks.wired import wired

__all__ = ["EXIT_DEAF", "end_deaf", "is_asked_to_end", "listen", "prove", "talk_to_itself"]

#: The exit code of a worker that cannot go on but whose next start can: EX_TEMPFAIL of sysexits.h.
EXIT_DEAF: Final = 75
#: Between two messages of a worker of control to itself: as often as agents do it.
TALK_PERIOD: Final = timedelta(seconds=2)

_log = logging.getLogger(__name__)


class _Hearing:
    """What this process knows of its hearing; nothing before `listen`."""

    def __init__(self) -> None:
        self.watchdog: Watchdog | None = None
        self.worker: Any = None

    def is_full(self) -> bool:
        """Whether no message is taken because no thread is free for it."""
        # Without its consumer it waits for no thread, whatever the threads do.
        consumes = self.worker.consumer.blueprint.state == bootsteps.RUN
        return bool(consumes and len(state.reserved_requests) >= self.worker.concurrency)


_HEARING: Final = _Hearing()


def listen(worker: Any, deaf_after: timedelta) -> None:
    """Begin to watch over the hearing of a Celery worker, which must hear itself this often at least."""
    _HEARING.worker, _HEARING.watchdog = worker, Watchdog(SystemClock(), deaf_after)


def talk_to_itself(app: App, node: str) -> Callable[[threading.Event], None]:
    """Give a worker that has no queue for itself one; what sends messages through it until told to stop."""
    queue = own_queue(node, SystemIds().new())
    app.amqp.queues.select_add(queue)

    def talk(stop: threading.Event) -> None:
        while not stop.wait(TALK_PERIOD.total_seconds()):
            try:
                send_proof(app, queue.name)
            except Unavailable as error:
                # Celery's own attempts are in the log already.
                _log.debug("no message to itself: %s", error)

    return talk


@shared_task(name=PROVE, send_events=False)  # type: ignore[untyped-decorator]
def prove() -> None:
    """Show that this worker's consumer consumes."""
    if _HEARING.watchdog is not None:
        _HEARING.watchdog.heard()
    if wired().agent_parts is not None:
        wired().agent.life.proved()


@signals.after_task_publish.connect(sender=PROVE)  # type: ignore[untyped-decorator]
def _count(**_: Any) -> None:
    """The broker took a message from this worker to itself: no other process sends it one."""
    if _HEARING.watchdog is None:
        return
    deaf = _HEARING.watchdog.sent(is_full=_HEARING.is_full())
    if deaf is not None:
        seconds = int(deaf.total_seconds())
        end_deaf(f"for {seconds} s the broker took messages for this worker, and none of them came")


def is_asked_to_end(worker: Any) -> bool:
    """Whether somebody wants the worker to end: by a signal, or by Celery's remote `shutdown`."""
    flags = (state.should_stop, state.should_terminate)
    # 0 is an exit code, and means yes.
    return any(flag is not None and flag is not False for flag in flags) or worker.exitcode == os.EX_OK


def end_deaf(why: str) -> NoReturn:
    """End this process at once, without a word to anybody who could keep it waiting."""
    _log.critical("%s; it ends (exit code %d) and can be started again, containers go on", why, EXIT_DEAF)
    logging.shutdown()
    os._exit(EXIT_DEAF)
