"""A registry that answers what it is told to, over real HTTP: what the real one cannot be made to say."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

__all__ = ["HOST_WITH_TLS", "Answer", "Asked", "ScriptedRegistry", "certificate", "scripted"]

#: This machine by a name that is not one of loopback's, so that nobody goes there without TLS.
HOST_WITH_TLS: Final = "127.1"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class ScriptedRegistry:
    """Where it is, what it says, and what it was asked."""

    host: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def scripted(
    answer: Callable[[Asked], Answer], certificate: Path | None = None
) -> Iterator[ScriptedRegistry]:
    """A registry on loopback, with TLS if there is a *certificate*."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked = Asked(self.path, dict(self.headers.items()))
            registry.asked.append(asked)
            told = registry.answer(asked)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """What was asked is in the list."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    name = "127.0.0.1"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # Handshakes are made by the thread of their own request, so that a bad one hinders no other.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        name = HOST_WITH_TLS
    registry = ScriptedRegistry(f"{name}:{server.server_port}", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificate(directory: Path) -> Path:
    """A certificate for HOST_WITH_TLS with its key, which vouches for itself."""
    openssl = shutil.which("openssl")
    assert openssl, "these tests need openssl: `make setup`"
    made, key = directory / "made.pem", directory / "key.pem"
    what = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    whose = ("-subj", "/CN=tests", "-addext", f"subjectAltName=DNS:{HOST_WITH_TLS}")
    where = ("-keyout", str(key), "-out", str(made))
    subprocess.run([openssl, *what, *whose, *where], check=True, capture_output=True)
    made.write_text(made.read_text() + key.read_text())
    return made
