"""The Celery application: how orders travel, and nothing of what they mean.

Each setting has its reason; together they keep a worker from holding any unacknowledged message,
because Celery on Redis loses its consumer over one when the broker restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from celery import Celery
from kombu import Exchange
from kombu import Queue as MessageQueue

from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.store import RecordStore
from titus_celery.ports import Records
from titus_celery.settings import Settings

__all__ = [
    "ANY_AGENT_QUEUE",
    "CONTROL_QUEUE",
    "TASK_MODULES",
    "App",
    "agent_queue",
    "is_agent_queue",
    "make_app",
    "own_queue",
]

CONTROL_QUEUE: Final = "titus.control"
#: What a worker is told to consume that is to become whichever agent is free on its engine.
ANY_AGENT_QUEUE: Final = "titus.agent"
_AGENT_QUEUE: Final = f"{ANY_AGENT_QUEUE}."
_OWN_QUEUE: Final = "titus.node."

#: Where the bodies of our Celery tasks are, by name: adapters know no task.
TASK_MODULES: Final = tuple(
    f"titus_celery.tasks.{name}" for name in ("control", "agent", "deafness", "roles")
)

#: Threads of an agent beyond its slots: proofs of life must get through when all slots are taken.
AGENT_SPARE_THREADS: Final = 8
#: A peer that is silently gone is noticed within this many seconds.
SOCKET_TIMEOUT_SECONDS: Final = 30
HEALTH_CHECK_SECONDS: Final = 10
#: An idle agent's queue goes by itself after this, so that hosts that left leave nothing behind.
AGENT_QUEUE_EXPIRES: Final = timedelta(days=7)
#: What a worker that ended left in the queue of its own goes after this; it holds proofs of some seconds.
OWN_QUEUE_EXPIRES: Final = timedelta(minutes=1)


class App(Celery):  # type: ignore[misc]  # Celery has no types
    """Celery, with a way to the records that its results are read from."""

    # By name: Celery 5.6 takes no class.
    backend_cls = "titus_celery.adapters.celery_results:RecordsBackend"
    #: Gives the records; called when a process first asks for a result.
    open_records: Callable[[], Records]


def agent_queue(agent_id: str) -> str:
    """The queue of messages to one agent."""
    return _AGENT_QUEUE + agent_id


def is_agent_queue(queue: str) -> str:
    """The agent id in the name of an agent's queue; "" if it is another queue."""
    return queue.removeprefix(_AGENT_QUEUE) if queue.startswith(_AGENT_QUEUE) else ""


def own_queue(node: str, id: str) -> MessageQueue:
    """A queue of messages from the worker *node* to itself; *id* tells it from others of its name."""
    name = f"{_OWN_QUEUE}{node}.{id}"
    # On the default exchange, which binds nothing: it leaves no trace once it is empty.
    return MessageQueue(name, routing_key=name, expires=OWN_QUEUE_EXPIRES.total_seconds())


def make_app(settings: Settings, open_records: Callable[[], Records] | None = None) -> App:
    """The application for these settings; nothing connects yet.

    Its results are the records that *open_records* gives: by default those in the settings' store.
    """
    app = App("titus_celery", broker=settings.redis_url, include=list(TASK_MODULES))
    # Not in Celery's configuration, which workers show to whoever asks: the address holds a password.
    app.open_records = open_records or (
        lambda: RecordStore(RedisKeyspace(settings.redis_url, settings.namespace))
    )
    app.conf.update(
        # Results are read from the records (celery_results.py); a second copy could only mislead.
        task_ignore_result=True,
        # JSON only: who can write to the broker must not be able to run code.
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        # Containers are waited for by hundreds of cheap threads.
        worker_pool="threads",
        worker_concurrency=settings.slots + AGENT_SPARE_THREADS,
        # Early ack, and a message is taken only by a free thread: none is ever held unacknowledged.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # So there is nothing to reduce after a reconnect.
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Flower lives from events; our own states are sent as events of their own.
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_track_started=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": f"{settings.namespace}-mq:",
            # Unacknowledged messages are not kept in Redis: an acknowledgement that fails because Redis is
            # away would be enough for one. What is lost so is sent again from the store.
            "ack_emulation": False,
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_SECONDS,
        },
        task_default_queue=CONTROL_QUEUE,
        task_queues=[MessageQueue(CONTROL_QUEUE, Exchange(CONTROL_QUEUE), routing_key=CONTROL_QUEUE)],
        task_create_missing_queues=True,
        # Beat only ticks; what is due is in the store.
        beat_scheduler="titus_celery.beat.scheduler:LeasedScheduler",
        beat_max_loop_interval=1,
        timezone="UTC",
        enable_utc=True,
    )
    return app
