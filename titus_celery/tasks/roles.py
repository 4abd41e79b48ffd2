"""What a Celery worker becomes by the queues it consumes: control, an agent, or both.

So `celery -A titus_celery worker -Q titus.agent.NAME` is all that it takes to start an agent.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from celery import bootsteps, signals

from titus_celery import bootstrap, log
from titus_celery.adapters.celery_app import ANY_AGENT_QUEUE, CONTROL_QUEUE, agent_queue, is_agent_queue
from titus_celery.adapters.celery_queue import PROVE, SWEEP, agent_node
from titus_celery.errors import EXIT_OURS, StoreUnavailable, TitusError, Unavailable
from titus_celery.service.agent import AgentLife
from titus_celery.service.runs import Runs
from titus_celery.tasks.deafness import end_deaf, is_asked_to_end, listen, talk_to_itself
from titus_celery.tasks.wired import wire, wired

__all__: list[str] = []

#: Beyond the stop grace: for the engine to remove containers and the store to hear of it.
STOP_SLACK: Final = timedelta(seconds=10)

#: For the store to hear that an agent leaves; its lease tells the same a little later.
LEAVE_WITHIN: Final = timedelta(seconds=3)

#: Open files of a run: its wait and its output, each a connection to the engine, and one to the store.
FILES_PER_RUN: Final = 4
#: Open files of the worker itself, generously.
FILES_SPARE: Final = 512

_log = logging.getLogger(__name__)
_stop: Final = threading.Event()
#: What else this worker does from when it is ready until it stops, by name.
_duties: Final[dict[str, Callable[[threading.Event], None]]] = {}


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logging(**_: Any) -> None:
    log.configure(bootstrap.process_settings().log_format, quiet=(PROVE, SWEEP))


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _name_agents(instance: Any, options: Mapping[str, Any], **_: Any) -> None:
    """An agent's worker answers under the agent's own name, whatever name it was started with."""
    queues = options.get("queues") or ()
    names = queues.split(",") if isinstance(queues, str) else queues
    for name in map(str, names):
        if name == ANY_AGENT_QUEUE:
            # Only now, before Celery uses the name anywhere, can it still become that of a place.
            with _or_end():
                _become_agent(instance.app, "")
            instance.hostname = agent_node(wired().agent.id)
        elif agent_id := is_agent_queue(name):
            instance.hostname = agent_node(agent_id)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _take_roles(sender: Any, **_: Any) -> None:
    settings, app = bootstrap.process_settings(), sender.app
    # Workers of ours do not need to know each other; what they would exchange breaks reconnects.
    sender.options.update(without_gossip=True, without_mingle=True)
    with _or_end():
        bootstrap.check_store(settings)
        for queue in list(app.amqp.queues.consume_from):
            if queue == CONTROL_QUEUE:
                wire(control=bootstrap.control(settings, app))
            elif queue == ANY_AGENT_QUEUE:
                app.amqp.queues.deselect([queue])
                app.amqp.queues.select_add(agent_queue(wired().agent.id))
            elif agent_id := is_agent_queue(queue):
                _become_agent(app, agent_id)
    sender.app.steps["worker"].add(Ending)
    listen(sender, settings.deaf_after)
    if wired().agent_parts is None:
        _duties["proofs"] = talk_to_itself(app, sender.hostname)


def _become_agent(app: Any, agent_id: str) -> None:
    wire(agent=bootstrap.agent(bootstrap.process_settings(), app, agent_id, _give_way))


def _give_way(why: str) -> None:
    """Another process has our place: whatever we would still do could only be wrong."""
    end_deaf(why)


@contextmanager
def _or_end() -> Iterator[None]:
    """Celery would go on without the role; a worker that cannot work must say so and end."""
    try:
        yield
    except TitusError as error:
        hint = "; TITUS_REDIS_URL says where it is" if isinstance(error, StoreUnavailable) else ""
        print(f"titus: {error}{hint}", file=sys.stderr, flush=True)
        os._exit(EXIT_OURS)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _begin(**_: Any) -> None:
    settings, mine = bootstrap.process_settings(), wired()
    if mine.control_parts is not None:
        _thread("ahead", mine.control.ahead.run)
        if settings.control_timer:
            _thread("deadlines", mine.control.timer.run)
    if mine.agent_parts is not None:
        _allow_files(settings.slots * FILES_PER_RUN + FILES_SPARE)
        _thread("lease", mine.agent.life.keep_lease)
        _thread("agent", mine.agent.life.run)
    for name, duty in _duties.items():
        _thread(name, duty)


class Ending(bootsteps.StartStopStep):  # type: ignore[misc]
    """What happens first when Celery begins to stop a worker, for whatever reason."""

    requires = ("celery.worker.components:Pool",)

    def close(self, worker: Any) -> None:
        """End at once what Celery would keep until the last container has ended, deaf to everything."""
        if not is_asked_to_end(worker):
            end_deaf("Celery gave up consuming, for the reason that it told above")
        _end()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end(**_: Any) -> None:
    if _stop.is_set():
        return
    _stop.set()
    if wired().agent_parts is not None:
        # Celery would now wait for the containers; we must not, and cannot end their threads.
        threading.Thread(target=_leave, args=(wired().agent.runs, wired().agent.life), name="leave").start()


def _leave(runs: Runs, life: AgentLife) -> None:
    settings = bootstrap.process_settings()
    try:
        word = threading.Thread(target=_say_goodbye, args=(life,), daemon=True)
        word.start()
        word.join(LEAVE_WITHIN.total_seconds())
        if settings.on_stop == "stop" and not runs.stop_all(settings.stop_grace + STOP_SLACK):
            _log.warning("some containers did not end in time; the next start finds them")
    finally:
        logging.shutdown()
        os._exit(0)


def _say_goodbye(life: AgentLife) -> None:
    try:
        life.leave()
    except Unavailable as error:
        _log.warning("leaving without a word to the store: %s", error)


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if possible > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        _log.warning("only %d files may be open; %d would serve all slots", possible, wanted)


def _thread(name: str, body: Callable[[threading.Event], None]) -> None:
    threading.Thread(target=body, args=(_stop,), name=name, daemon=True).start()
