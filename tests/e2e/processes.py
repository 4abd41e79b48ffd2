"""Processes of a test, which it may stop, freeze, thaw and kill one by one; none outlives the test run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from titus_celery.cli.processes import import_path
from titus_celery.cli.supervisor import leashed
from titus_celery.settings import ENV_PREFIX

__all__ = ["Process", "clean_environment", "until"]

#: How long something may take that takes a second when the machine is idle.
PATIENCE: Final = timedelta(seconds=45)
#: Between two looks.
LOOK_EVERY: Final = 0.05

T = TypeVar("T")


def until(what: Callable[[], T], why: str, within: timedelta = PATIENCE) -> T:
    """What *what* answers once that is true; AssertionError saying *why* if it never is."""
    end = time.monotonic() + within.total_seconds()
    while not (found := what()):
        assert time.monotonic() < end, f"not within {within.total_seconds():g} s: {why} (last: {found!r})"
        time.sleep(LOOK_EVERY)
    return found


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This environment without what it says about other installations, and with *settings*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return {**kept, **import_path(), **settings}


class Process:
    """One running command that writes to a log file of its own."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with open(log, "ab") as out:
            self._running = subprocess.Popen(
                # It dies with us, also if we are killed.
                leashed(command, signal.SIGKILL),
                cwd=log.parent,
                env=clean_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._running.poll() is None

    def freeze(self) -> None:
        """Take the processor away from it."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self._running.kill()
        self._running.wait()

    def ask_to_stop(self) -> None:
        """Tell it to end in good order."""
        self._running.send_signal(signal.SIGTERM)
        self.thaw()

    def wait(self, within: timedelta = PATIENCE) -> int:
        """Its exit code; AssertionError, and it is killed, if it does not end in time."""
        try:
            return self._running.wait(within.total_seconds())
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"{self.log.name} did not end in time:\n{self.text()[-2000:]}") from error

    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")
