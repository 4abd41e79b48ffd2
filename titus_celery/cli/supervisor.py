"""Keeps the programs of one installation running, and ends them in order.

Each program gets a session of its own, so that Ctrl-C reaches us alone, and dies with us whatever
happens (leash.py). One that ends is started again, after waits that grow while it keeps ending.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

__all__ = ["Child", "Program", "Restarts", "leashed"]

#: Wait before a program that ended is started again; doubles while it keeps ending.
RESTART_FIRST: Final = timedelta(milliseconds=200)
RESTART_MAX: Final = timedelta(seconds=5)
#: A program that ran this long is healthy: the waits begin anew.
HEALTHY_AFTER: Final = timedelta(seconds=30)
#: Restarts in a row that are told one by one; later ones would only repeat it.
TOLD_MAX: Final = 3

_LEASH: Final = Path(__file__).with_name("leash.py")


def leashed(command: Sequence[str], death: signal.Signals) -> list[str]:
    """*command* as one that gets *death* when this process dies."""
    return [sys.executable, "-I", "-S", str(_LEASH), str(int(death)), str(os.getpid()), *command]


@dataclass(slots=True)
class Restarts:
    """How long to wait before a program that ended is started again."""

    in_row: int = 0

    def ended(self, ran: timedelta) -> timedelta:
        """It ended after running for *ran*: the wait."""
        self.in_row = 1 if ran >= HEALTHY_AFTER else self.in_row + 1
        # Past the bound, further doubling says nothing; 2**8 first waits are past it.
        return min(RESTART_FIRST * (1 << min(self.in_row - 1, 8)), RESTART_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, with what added to our environment, and where it writes."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    #: How long it may take to end once it was told to.
    stop_within: timedelta


@dataclass(slots=True)
class Child:
    """One program, kept running until it is stopped. *now* is monotonic everywhere."""

    program: Program
    say: Callable[[str], None]
    _process: subprocess.Popen[bytes] | None = None
    _started: timedelta = timedelta(0)
    _due: timedelta = timedelta(0)
    _restarts: Restarts = field(default_factory=Restarts)

    @property
    def pid(self) -> int | None:
        """Its process, while it has one."""
        return self._process.pid if self._process else None

    def tend(self, now: timedelta) -> None:
        """Start it if it does not run and its wait is over; notice that it ended."""
        if self._process is None:
            if now >= self._due:
                self._start(now)
        elif self._has_ended():
            code = self._reap()
            wait = self._restarts.ended(now - self._started)
            self._due = now + wait
            if self._restarts.in_row <= TOLD_MAX:
                again = f"started again in {wait.total_seconds():g} s"
                if self._restarts.in_row == TOLD_MAX:
                    again = "started again as often as it takes"
                self.say(f"{self.program.name} ended ({_how(code)}), {again}; see {self.program.log}")

    def stop(self) -> None:
        """Tell it to end; `gone` says when it has."""
        if self._process is not None:
            # Popen's own way would reap it first if it has ended, which is for `gone` to do.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def gone(self) -> bool:
        """Whether it has ended, its own children too."""
        if self._process is not None and self._has_ended():
            self._reap()
        return self._process is None

    def kill(self) -> None:
        """End it and its own children at once."""
        if self._process is not None:
            self._kill_group()
            self._reap()

    def _start(self, now: timedelta) -> None:
        self._started = now
        with open(self.program.log, "ab") as log:
            self._process = subprocess.Popen(
                leashed(self.program.command, signal.SIGKILL),
                env={**os.environ, **self.program.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _has_ended(self) -> bool:
        assert self._process is not None
        # Seen but not reaped: its id stays its own until its group has been dealt with.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._process.pid, flags) is not None
        except ChildProcessError:
            # Somebody else reaped it.
            return True

    def _reap(self) -> int:
        assert self._process is not None
        self._kill_group()
        code = self._process.wait()
        self._process = None
        return code

    def _kill_group(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def leashed_script(command: Sequence[str], death: signal.Signals) -> str:
    """A shell script that becomes `leashed(command)` with the script's own arguments added."""
    return f'#!/bin/sh\nexec {shlex.join(leashed(command, death))} "$@"\n'


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
