"""A gateway, with what gRPC alone can do served beside it: the yardstick of its calls and streams.

    python benchmarks/bare.py

Settings come from the environment, as for `titus gateway`. It prints its port and serves until it is told
to end. Both are in one process and on one server, so that what the machine, the event loop, the garbage
and other clients do meets both alike.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

import grpc

from titus_celery import bootstrap
from titus_celery.errors import TitusError
from titus_celery.grpc.__main__ import process_services
from titus_celery.grpc.server import build_server, stop_on_signals

__all__ = ["ECHO", "LISTEN", "SEND"]

_SERVICE: Final = "benchmark.Bare"
#: Gives back the bytes that it gets.
ECHO: Final = f"/{_SERVICE}/Echo"
#: A stream of all that is sent from when its initial metadata are there.
LISTEN: Final = f"/{_SERVICE}/Listen"
#: Sends its bytes to all streams.
SEND: Final = f"/{_SERVICE}/Send"

#: A call's context, of bytes that nobody serialises.
Context = Any


class Bare:
    """The methods, each with as little as it can be made of."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[bytes]] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server takes."""
        methods: dict[str, Any] = {
            ECHO: grpc.unary_unary_rpc_method_handler(self.echo),
            LISTEN: grpc.unary_stream_rpc_method_handler(self.listen),
            SEND: grpc.unary_unary_rpc_method_handler(self.send),
        }
        named = {path.rpartition("/")[2]: method for path, method in methods.items()}
        return grpc.method_handlers_generic_handler(_SERVICE, named)

    async def echo(self, request: bytes, context: Context) -> bytes:
        """See ECHO."""
        return request

    async def listen(self, request: bytes, context: Context) -> None:
        """See LISTEN."""
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.add(waiting)
        try:
            await context.send_initial_metadata(())
            while True:
                await context.write(await waiting.get())
        finally:
            self._listeners.discard(waiting)

    async def send(self, request: bytes, context: Context) -> bytes:
        """See SEND."""
        for waiting in self._listeners:
            waiting.put_nowait(request)
        return b""


async def serve() -> None:
    """Serve until SIGTERM or SIGINT."""
    # What else a gateway has to say would only stand between the figures.
    logging.basicConfig(level=logging.ERROR)
    stop = stop_on_signals()
    listen = bootstrap.process_settings().listen
    gateway = build_server(process_services(), listen, beside=[Bare().handler()])
    await gateway.start()
    print(gateway.port, flush=True)
    await stop.wait()
    await gateway.stop()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
