"""The gateway's process side: listen, serve, drain."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from titus_celery.errors import SettingsError
from titus_celery.grpc.cluster_schedule_servicer import ClusterSchedules
from titus_celery.grpc.hub import OBSERVER_EVENTS_MAX, Hub
from titus_celery.grpc.interceptor import Errors
from titus_celery.grpc.observation_servicer import Observations
from titus_celery.grpc.outputs_servicer import TaskOutputs
from titus_celery.grpc.proto import titus_celery_v1_pb2, titus_job_api_pb2
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import (
    add_ClusterServiceServicer_to_server,
    add_ObservationServiceServicer_to_server,
    add_TaskOutputServiceServicer_to_server,
)
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import add_JobManagementServiceServicer_to_server
from titus_celery.grpc.queries import Queries
from titus_celery.grpc.servicer import JobManagement
from titus_celery.grpc.streams import Streams
from titus_celery.grpc.threads import Threads
from titus_celery.ports import ChangeLog
from titus_celery.service.change import Committed
from titus_celery.service.clusters import JobClusters
from titus_celery.service.feed import Feed
from titus_celery.service.jobs import Jobs
from titus_celery.service.subscriptions import Subscriptions
from titus_celery.service.tail import Tails
from titus_celery.settings import Settings

__all__ = ["SERVICES", "Gateway", "GatewayServices", "build_server", "serve", "stop_on_signals"]

#: The services of ours, by full name.
SERVICES: Final = (
    titus_job_api_pb2.DESCRIPTOR.services_by_name["JobManagementService"].full_name,
    titus_celery_v1_pb2.DESCRIPTOR.services_by_name["TaskOutputService"].full_name,
    titus_celery_v1_pb2.DESCRIPTOR.services_by_name["ObservationService"].full_name,
    titus_celery_v1_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
)

#: Threads for calls to the store: each takes milliseconds, so this many serve thousands a second.
CALL_THREADS: Final = 32
#: Threads for creating jobs, which may wait for a registry for seconds: kills and finds never wait behind it.
CREATE_THREADS: Final = 32
#: Calls and streams open at once; past it gRPC answers RESOURCE_EXHAUSTED instead of piling up.
CALLS_MAX: Final = 10_000
#: Bytes of one request that are taken in at all. Far above what any may hold, so that whoever sends too much
#: is told which limit it was; past this gRPC itself answers RESOURCE_EXHAUSTED.
REQUEST_BYTES_MAX: Final = 16 * 1024 * 1024
#: A connection that is silent this long is asked whether it lives.
KEEPALIVE: Final = timedelta(seconds=60)
#: How long it may take to answer.
KEEPALIVE_ANSWER: Final = timedelta(seconds=20)
#: Clients may ask us as often as this.
PING_INTERVAL_MIN: Final = timedelta(seconds=10)
#: How long calls may go on after we were told to stop.
DRAIN: Final = timedelta(seconds=5)

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    # Two gateways on one port would each get half of the calls: the second must fail to start.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    # Replies are bounded by page sizes; what a client takes is the client's to say.
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", KEEPALIVE // timedelta(milliseconds=1)),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER // timedelta(milliseconds=1)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN // timedelta(milliseconds=1)),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayServices:
    """The use cases that the gateway offers."""

    jobs: Jobs
    clusters: JobClusters
    feed: Feed
    log: ChangeLog
    #: Told of each commit of *jobs* and *clusters*.
    committed: Committed
    tails: Tails
    subscriptions: Subscriptions
    #: Bytes of the description of a job or cluster.
    descriptor_bytes_max: int


class Gateway:
    """A server that listens from the moment it is made. Make it on the event loop."""

    def __init__(
        self,
        services: GatewayServices,
        listen: str,
        events_max: int,
        beside: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        self._feed = services.feed
        self._subscriptions = services.subscriptions
        self._threads = Threads("titus-call", CALL_THREADS)
        self._creations = Threads("titus-create", CREATE_THREADS)
        self._outputs = TaskOutputs(services.tails)
        self._health = health.aio.HealthServicer()
        self._errors = Errors(frozenset(SERVICES))
        self._server = grpc.aio.server(
            interceptors=[self._errors], options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX
        )
        self._hub = Hub(events_max=events_max)
        services.committed.listener = self._hub.wrote
        streams = Streams(services.jobs, self._hub, services.log, self._threads, self._subscriptions)
        queries = Queries(services.jobs, self._hub, self._threads)
        jobs = JobManagement(
            services.jobs,
            services.clusters,
            queries,
            streams,
            self._threads,
            self._creations,
            services.descriptor_bytes_max,
        )
        add_JobManagementServiceServicer_to_server(jobs, self._server)
        add_ObservationServiceServicer_to_server(Observations(streams), self._server)
        schedules = ClusterSchedules(services.clusters, self._threads)
        add_ClusterServiceServicer_to_server(schedules, self._server)
        add_TaskOutputServiceServicer_to_server(self._outputs, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers(beside)
        #: The port it listens on.
        self.port = _bind(self._server, listen)

    @property
    def internal_errors(self) -> int:
        """Calls that ended INTERNAL: each is a bug."""
        return self._errors.internal_errors

    @property
    def observers(self) -> int:
        """How many streams of observers are open."""
        return self._hub.observers

    async def start(self) -> None:
        """Serve; health says so once all that lives is known, and while the store can be followed."""
        self._hub.on_ready(self._tell_health)
        self._tell_health(False)
        self._feed.start(self._hub)
        await self._server.start()

    def _tell_health(self, is_ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self._set_health(status.SERVING if is_ready else status.NOT_SERVING)

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        self._telling = asyncio.ensure_future(self._say(status))

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Take no more calls, tell observers and followers to go, give the rest DRAIN to end."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(DRAIN.total_seconds()))
        self._outputs.let_go()
        await asyncio.to_thread(self._feed.close)
        await stopping
        await asyncio.to_thread(self._subscriptions.close)
        self._outputs.close()
        self._threads.close()
        self._creations.close()


def build_server(
    services: GatewayServices,
    listen: str,
    *,
    events_max: int = OBSERVER_EVENTS_MAX,
    beside: Sequence[grpc.GenericRpcHandler] = (),
) -> Gateway:
    """A gateway that listens on *listen* ("host:port"; port 0: any free one).

    What *beside* serves is served along with the services of ours, as it is: its errors are its own.
    SettingsError when it cannot listen: the port is taken, or the address is not this machine's.
    """
    return Gateway(services, listen, events_max, beside)


async def serve(settings: Settings, services: GatewayServices, stop: asyncio.Event) -> None:
    """Serve until *stop* is set, then drain. SettingsError if the address cannot be listened on."""
    gateway = build_server(services, settings.listen)
    await gateway.start()
    _log.info("gateway serves on %s", settings.listen)
    try:
        await stop.wait()
    finally:
        _log.info("gateway drains for at most %g s", DRAIN.total_seconds())
        await gateway.stop()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets, for `serve`. Call it on the event loop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _bind(server: grpc.aio.Server, listen: str) -> int:
    host, port = _address(listen)
    if not _is_loopback(host):
        _log.warning("%s can be reached from other machines, and nobody is asked who they are", listen)
    try:
        return server.add_insecure_port(listen)
    except RuntimeError as error:
        raise SettingsError("TITUS_LISTEN", f"cannot listen on {listen}: {_why_not(host, port)}") from error


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) >= 2**16:
        raise SettingsError("TITUS_LISTEN", f"{listen!r} is not host:port")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why_not(host: str, port: int) -> str:
    """What the system says to the same wish: gRPC keeps it to itself."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return "the address was taken a moment ago"
