"""Where errors become statuses, so that no method handles one (docs/semantics.md B0.8-0.10).

It also parses the requests, because gRPC itself calls it INTERNAL when a client sends bytes that
are no message.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from titus_celery.errors import InvalidRequest, TitusError, Violation
from titus_celery.grpc.status import INTERNAL, STATUS, refusal_of

__all__ = ["Errors"]

#: What an operator must see, too: something behind the gateway does not work.
_FAULTS: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS})

_log = logging.getLogger(__name__)

#: A grpc.RpcMethodHandler, whose published types know the synchronous kind alone.
Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]


class Errors(grpc.aio.ServerInterceptor):
    """Gives every call to *services* (full names) an end that its client can understand."""

    def __init__(self, services: frozenset[str]) -> None:
        self._services = services
        self._guarded: dict[str, Handler] = {}
        #: Calls that ended INTERNAL since the start: each is a bug.
        self.internal_errors = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, guarded if it is one of ours."""
        handler = await continuation(handler_call_details)
        # "/package.Service/Method"
        service = handler_call_details.method.split("/")[1]
        if handler is None or service not in self._services:
            return handler
        method = handler_call_details.method
        if method not in self._guarded:
            self._guarded[method] = self._guard(method, handler)
        return self._guarded[method]

    def _guard(self, method: str, handler: Handler) -> Handler:
        call = _Guard(self, method, handler)
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behavior = call.stream if handler.response_streaming else call.unary
        return make(behavior, None, partial(_serialized, handler.response_serializer))

    async def end(self, context: Context, method: str, error: Exception) -> NoReturn:
        """End the call with the status that *error* means."""
        if isinstance(error, TitusError) and type(error) in STATUS:
            refusal = refusal_of(error)
            if refusal.code in _FAULTS:
                _log.warning("%s: %s", method, error)
        else:
            self.internal_errors += 1
            _log.error("internal error in %s", method, exc_info=error)
            refusal = INTERNAL
        # What the method itself had to say at the end is said, too.
        trailers = (*(context.trailing_metadata() or ()), *refusal.trailers)
        await context.abort(refusal.code, refusal.message, trailers)


def _serialized(serialize: Callable[[Any], bytes], item: Any) -> bytes:
    """The bytes of a message, or of what was put together from bytes."""
    return item if isinstance(item, bytes) else serialize(item)


class _Guard:
    """One call: its bytes in, its reply or its error out."""

    def __init__(self, errors: Errors, method: str, handler: Handler) -> None:
        self._errors = errors
        self._method = method
        self._handler = handler

    async def unary(self, data: bytes, context: Context) -> Any:
        try:
            return await self._handler.unary_unary(self._request(data), context)
        except Exception as error:
            await self._errors.end(context, self._method, error)

    async def stream(self, data: bytes, context: Context) -> None:
        try:
            items: AsyncGenerator[Any] = self._handler.unary_stream(self._request(data), context)
        except Exception as error:
            await self._errors.end(context, self._method, error)
        # Closed here, not when the garbage is collected: a client that leaves frees what it held.
        async with aclosing(items):
            while True:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    await self._errors.end(context, self._method, error)
                # Not guarded: that a client is gone is no error of ours.
                await context.write(item)

    def _request(self, data: bytes) -> Any:
        try:
            return self._handler.request_deserializer(data)
        except DecodeError as error:
            name = self._method.rpartition("/")[2]
            violation = Violation("request", f"these bytes are not the message that {name} takes")
            raise InvalidRequest([violation]) from error
