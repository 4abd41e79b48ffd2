"""Where the front end is measured: a store and a gateway of their own, for a short while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titus_celery.adapters.redis_server import start_server
from titus_celery.cli.processes import import_path
from titus_celery.cli.supervisor import leashed
from titus_celery.settings import ENV_PREFIX

__all__ = ["Process", "gateway", "store"]

_BARE: Final = Path(__file__).with_name("bare.py")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A gateway that runs."""

    address: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time that it took so far."""
        # The name, which may hold anything, ends at the last bracket.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Bytes of memory that it has."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE


@contextmanager
def store() -> Iterator[str]:
    """A Redis server around a block, which gets its URL."""
    with tempfile.TemporaryDirectory(prefix="titus-bench-") as directory:
        server = start_server(Path(directory))
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def gateway(redis_url: str) -> Iterator[Process]:
    """A gateway on that store, with the bare methods beside it, around a block."""
    # What the environment says of another installation is not meant for this one.
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    settings = {f"{ENV_PREFIX}REDIS_URL": redis_url, f"{ENV_PREFIX}LISTEN": "127.0.0.1:0"}
    process = subprocess.Popen(
        leashed([sys.executable, str(_BARE)], signal.SIGTERM),
        env={**plain, **import_path(), **settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise SystemExit("benchmark: the gateway did not start; the reason is above")
        yield Process(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()
