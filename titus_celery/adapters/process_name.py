"""What this process is called where a lease says who holds it, and whether such a process is no more.

A process that was killed leaves its lease behind. Its successor need not wait for that to run out if
it can see for itself that the holder is gone: on the same boot of the same machine, in the same
container, a process is told by its id and the moment of its start.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["is_gone", "process_name"]

_PROC: Final = Path("/proc")
#: Field 22 of /proc/<pid>/stat: ticks from boot to the start of the process; counted after the name.
_START_FIELD: Final = 19


def process_name() -> str:
    """This process: host, process id, and in the last part what makes that unique."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}.{_whereabouts()}"


def is_gone(name: str) -> bool:
    """Whether the process of this name has surely ended; False if that cannot be seen from here."""
    host_and_pid, _, unique = name.rpartition("/")
    pid = host_and_pid.rpartition("/")[2]
    started, _, whereabouts = unique.partition(".")
    if not pid.isdecimal() or not whereabouts or whereabouts != _whereabouts():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the process began; "" if there is none."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # The name of the program, in parentheses, may hold anything.
    fields = stat.rpartition(")")[2].split()
    # One that has ended and was not waited for holds nothing any more.
    return "" if fields[0] in ("Z", "X") else fields[_START_FIELD]


def _whereabouts() -> str:
    """The boot of this machine and the namespace of our process ids; "" where these are not told."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    return f"{boot}.{namespace.strip('pid:[]')}"
