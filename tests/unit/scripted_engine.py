"""An engine that only tells events, goes away and comes back as a test wants."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["ScriptedEngine", "kill_event"]


def kill_event(container_id: str, signal: str, at: datetime) -> dict[str, Any]:
    """A signal to a container, as an engine tells it."""
    return {
        "Type": "container",
        "Action": "kill",
        "Actor": {"ID": container_id, "Attributes": {"signal": signal}},
        "timeNano": round(at.timestamp() * 1e6) * 1000,
    }


class ScriptedEngine:
    """Serves the stream of events on a port of loopback."""

    def __init__(self) -> None:
        #: What it answers to who asks for the past.
        self.remembers: list[dict[str, Any]] = []
        self._tells: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        #: Somebody has asked to listen.
        self.is_asked = threading.Event()
        #: Cleared: it takes connections and does not answer yet.
        self.serves = threading.Event()
        self.serves.set()
        #: Cleared: who asks to listen is not answered yet, while others are.
        self.lets_listen = threading.Event()
        self.lets_listen.set()
        #: Somebody has asked for the past.
        self.was_questioned = threading.Event()
        self.port = 0
        self.come_back()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"tcp://127.0.0.1:{self.port}"

    def come_back(self) -> None:
        """Be there, where it was."""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                if "until" not in asked:
                    engine.is_asked.set()
                    engine.lets_listen.wait()
                else:
                    engine.was_questioned.set()
                engine.serves.wait()
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for event in engine.remembers if "until" in asked else iter(engine._tells.get, None):
                    self._chunk(json.dumps(event).encode() + b"\n")
                self._chunk(b"")

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        self.is_asked.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def leave(self) -> None:
        """Refuse every connection from now on."""
        self._server.shutdown()
        self._server.socket.close()

    def tell(self, event: dict[str, Any]) -> None:
        """Tell the one that listens, now or as soon as it does."""
        self._tells.put(event)

    def hang_up(self) -> None:
        """End the stream of the one that listens."""
        self._tells.put(None)

    def close(self) -> None:
        """Leave nothing behind."""
        self.serves.set()
        self.lets_listen.set()
        self.hang_up()
        self.leave()
