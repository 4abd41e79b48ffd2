"""The way from a client to a gateway, which can be cut, made deaf, and led elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Line", "line"]

#: Bytes passed on at once.
CHUNK = 64 * 1024


class Line:
    """Passes on what comes, both ways."""

    def __init__(self, target: int) -> None:
        #: The port that it leads to.
        self.target = target
        #: Whether answers get lost.
        self.is_deaf = False
        self.port = 0
        self._ends: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection, as when a machine dies: what is on its way is lost."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the way of one connection, to its end."""
        self._ends.add(writer)
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._ends.add(back)
            with suppress(ConnectionError):
                await asyncio.gather(self._pass(reader, back, False), self._pass(there, writer, True))
            back.transport.abort()
        writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_back: bool) -> None:
        while data := await reader.read(CHUNK):
            if not (is_back and self.is_deaf):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def line(target: int) -> AsyncIterator[Line]:
    """A line to this port."""
    made = Line(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
