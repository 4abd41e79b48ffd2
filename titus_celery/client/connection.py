"""A connection to one server: how calls are made and streams are opened, whatever they are about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import uuid4

import grpc

from titus_celery.client.failure import CallFailed, describe, failure, partly, parts_of
from titus_celery.client.repeating import repeated
from titus_celery.client.streams import Disconnected, OpenStream, Reconnected, resumed
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

__all__ = ["DEADLINE", "DEFAULT_SERVER", "PAGE_SIZE", "PATIENCE", "Connection"]

DEFAULT_SERVER: Final = "127.0.0.1:7104"

#: How long one call may take, and for how long a creation is repeated.
DEADLINE: Final = timedelta(seconds=20)
#: How long a stream may be without a server before it is given up.
PATIENCE: Final = timedelta(seconds=60)
#: Jobs and the like asked for at a time: what the server answers by itself.
PAGE_SIZE: Final = 100
#: Under which a creation can be repeated (docs/semantics.md A19).
KEY: Final = "x-titus-idempotency-key"

#: Reconnect within a second of the server's return; notice a peer that vanished without a word.
#: Messages as large as a job of a thousand tasks needs.
_CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # The proxy settings of a desktop are about the web; servers are named explicitly.
    ("grpc.enable_http_proxy", 0),
)

#: A HealthCheckResponse that says SERVING: field 1, varint 1. Written out because the package with
#: the message comes with the server alone.
_SERVING: Final = b"\x08\x01"

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Metadata = tuple[tuple[str, str], ...]


class _Real:
    """Time as it passes, until the client is closed."""

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed

    def now(self) -> timedelta:
        """Time since some fixed moment."""
        return timedelta(seconds=time.monotonic())

    def wait(self, span: timedelta) -> bool:
        """Let *span* pass; True if the client was closed."""
        return self._closed.wait(span.total_seconds())


class Connection:
    """A connection to one server. Safe to use from several threads; close it, or use it in `with`.

    *caller* is an e-mail address; it becomes the owner of what names none (docs/semantics.md A3).
    Every method raises CallFailed.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        caller: str = "",
        *,
        deadline: timedelta = DEADLINE,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.server = server
        self._metadata: Metadata = (
            (("x-titus-callerid", caller), ("x-titus-caller-email", caller)) if caller else ()
        )
        self._deadline = deadline
        self._patience = patience
        self._closed = threading.Event()
        self._channel = grpc.insecure_channel(server, options=_CHANNEL_OPTIONS)
        self._jobs = pb_grpc.JobManagementServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every open stream, whichever thread reads it, and let go of the connection."""
        self._closed.set()
        self._channel.close()

    def serving(self) -> bool:
        """Whether the server says that it is ready to serve; False also if none answers."""
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda request: request,
            response_deserializer=lambda reply: reply,
        )
        try:
            return bool(check(b"", timeout=1) == _SERVING)
        except grpc.RpcError:
            return False

    # ----------------------------------------------------------------------------------------- inside

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        doing: str,
        patient: bool = False,
    ) -> Reply:
        span = self._patience if patient else self._deadline
        try:
            return method(
                request, timeout=span.total_seconds(), metadata=self._metadata, wait_for_ready=patient
            )
        except grpc.RpcError as error:
            failures, done = parts_of(error)
            if failures:
                raise partly(doing, failures, done) from error
            raise failure(*describe(error), doing, self.server) from error

    def _create(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        doing: str,
        key: str | None,
        on_wait: Callable[[CallFailed], None],
    ) -> Reply:
        """The reply of a call that makes something, sent again under its key while the server is away."""
        key = str(uuid4()) if key is None else key
        if not (key.strip() and key.isascii() and key.isprintable()):
            raise CallFailed(doing, "INVALID_ARGUMENT", f"{key!r} is no key: it takes plain characters")
        metadata = (*self._metadata, (KEY, key))

        def send(left: timedelta) -> Reply:
            return method(request, timeout=left.total_seconds(), metadata=metadata)

        refuse = partial(failure, doing=doing, server=self.server)
        unsure = f"it may have been accepted; sent again with the key {key} it is made once"
        return repeated(send, self._deadline, _Real(self._closed), refuse, on_wait, unsure)

    def _stream(
        self, opener: Callable[[], OpenStream[Reply]], last: Callable[[Reply], bool], doing: str
    ) -> Iterator[Reply | Disconnected | Reconnected]:
        refuse = partial(failure, doing=doing, server=self.server)
        return resumed(opener, last, self._patience, _Real(self._closed), refuse)
