"""The Celery application: how orders travel, and nothing of what they mean.

Each setting has its reason; together they keep a worker from holding any unacknowledged message,
because Celery on Redis loses its consumer over one when the broker restarts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from celery import Celery
from kombu import Exchange
from kombu import Queue as MessageQueue

from titus_celery.settings import Settings

__all__ = ["CONTROL_QUEUE", "TASK_MODULES", "App", "agent_queue", "is_agent_queue", "make_app"]

#: What `make_app` makes, for those who only hand it on.
App = Celery

CONTROL_QUEUE: Final = "titus.control"
_AGENT_QUEUE: Final = "titus.agent."

#: Where the bodies of our Celery tasks are, by name: adapters know no task.
TASK_MODULES: Final = ("titus_celery.tasks.control", "titus_celery.tasks.agent", "titus_celery.tasks.roles")

#: Threads of an agent beyond its slots: proofs of life must get through when all slots are taken.
AGENT_SPARE_THREADS: Final = 8
#: A peer that is silently gone is noticed within this many seconds.
SOCKET_TIMEOUT_SECONDS: Final = 30
HEALTH_CHECK_SECONDS: Final = 10
#: An idle agent's queue goes by itself after this, so that hosts that left leave nothing behind.
AGENT_QUEUE_EXPIRES: Final = timedelta(days=7)
#: Nothing stays unacknowledged, so nothing is ever restored by this; it must only be long.
VISIBILITY_TIMEOUT: Final = timedelta(days=1)


def agent_queue(agent_id: str) -> str:
    """The queue of messages to one agent."""
    return _AGENT_QUEUE + agent_id


def is_agent_queue(queue: str) -> str:
    """The agent id in the name of an agent's queue; "" if it is another queue."""
    return queue.removeprefix(_AGENT_QUEUE) if queue.startswith(_AGENT_QUEUE) else ""


def make_app(settings: Settings) -> Celery:
    """The application for these settings; nothing connects yet."""
    app = Celery("titus_celery", broker=settings.redis_url, include=list(TASK_MODULES))
    app.conf.update(
        # Truth is in the store; a second, weaker copy of it would only mislead.
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
            "visibility_timeout": int(VISIBILITY_TIMEOUT.total_seconds()),
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
