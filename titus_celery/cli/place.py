"""The directory in which `titus dev` keeps one installation: whose it is, its agent's id, its ports."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Final, Self

from titus_celery.adapters.system import SystemIds
from titus_celery.cli.console import Fault

__all__ = ["Place", "claim_port"]

#: What an agent-id file holds: printable ASCII without blanks, and the end of the line.
_ID: Final = re.compile(rb"([!-~]+)\s*")


class Place:
    """A state directory, held by this process alone until `leave`."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.redis = directory / "redis"
        self._lock = lock

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Make the directory ours; Fault names the process that has it already."""
        directory = directory.absolute()
        try:
            (directory / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
            # What is written here, outputs of containers in the store for example, is the owner's alone.
            directory.chmod(0o700)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Fault(
                f"cannot use {directory}", error.strerror or str(error), "choose another with --state-dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode().strip() or "unknown"
            os.close(lock)
            raise Fault(
                f"{directory} is in use",
                f"by another titus dev, process {holder}",
                "stop that one, or choose another directory with --state-dir",
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return cls(directory, lock)

    def leave(self) -> None:
        """Let others use it."""
        os.close(self._lock)

    def agent_id(self) -> str:
        """The id of this directory's agent, the same at every start, so that it adopts its containers."""
        path = self.directory / "agent-id"
        found = _ID.fullmatch(path.read_bytes()) if path.exists() else None
        if found is not None:
            return found[1].decode()
        # What a crash left of it is no id. In place at once or not at all, so that none is left again.
        id = f"dev-{SystemIds().new()[:8]}"
        fresh = self.directory / "agent-id.new"
        with open(fresh, "w") as file:
            file.write(f"{id}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        return id


def claim_port(port: int, option: str) -> int:
    """*port*, which must be free on loopback, or any free one for 0. Fault names it and *option*."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "another program listens on it" if error.errno == errno.EADDRINUSE else error.strerror
            raise Fault(
                f"cannot use port {port}", why or str(error), f"choose another with {option}"
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen
