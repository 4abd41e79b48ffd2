"""`titus dev` and the other commands as a user runs them, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.installation import GRACE, Engine, faults, free_port
from tests.e2e.processes import Process, clean_environment, until
from tests.e2e.witness import Witness
from titus_celery.adapters.docker_records import AGENT

__all__ = ["OWNER", "Dev", "Done", "developing", "titus"]

OWNER: Final = "dev@example.com"
TITUS: Final = (sys.executable, "-m", "titus_celery")
#: What tells the programs of an installation apart, in their command lines.
MARKS: Final = {
    "gateway": "titus_celery.grpc",
    "control": "titus.control",
    "agent": "titus.agent.",
    "beat": "beat",
    "flower": "flower",
    # redis-server or valkey-server, whichever is installed.
    "store": "-server",
}
#: For a command of the command line that should end by itself.
COMMAND_SECONDS: Final = 90


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


def titus(*arguments: str, server: str = "", **settings: str) -> Done:
    """Run `titus` to its end."""
    done = subprocess.run(
        [*TITUS, *arguments],
        env=clean_environment({"TITUS_SERVER": server, "TITUS_OWNER": OWNER, **settings}),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Dev:
    """One `titus dev`, on a state directory that outlives it."""

    def __init__(self, directory: Path, *options: str, **settings: str) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.engine = Engine()
        self.witness = Witness(lambda: self.label)
        self.witness.watch()
        self.port, self.flower_port = free_port(), free_port()
        self.server = f"127.0.0.1:{self.port}"
        self._options, self._settings = options, {**GRACE, **settings}
        self._starts = 0
        self.process: Process | None = None
        #: Programs in whose logs Celery may put a traceback, because a test broke what it stands on.
        self.shaken: set[str] = set()

    @property
    def label(self) -> str:
        """The label of its containers."""
        return f"{AGENT}={(self.state / 'agent-id').read_text().strip()}"

    @property
    def command(self) -> Sequence[str]:
        """What starts it."""
        ports = ("--port", str(self.port), "--flower-port", str(self.flower_port))
        return (*TITUS, "dev", *ports, "--state-dir", str(self.state), *self._options)

    def start(self) -> None:
        """Start it, again too, and wait until it says that it is ready."""
        self._starts += 1
        log = self.directory / f"dev-{self._starts}.txt"
        self.process = process = Process(self.command, self._settings, log)

        def is_ready() -> bool:
            assert process.alive(), process.text()
            return any(line.startswith("try ") for line in process.text().splitlines())

        until(is_ready, f"titus dev is ready: {log}")

    def interrupt(self) -> int:
        """Press Ctrl-C and wait; its exit code."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGINT)
        code = self.process.wait()
        self.process = None
        return code

    def crash(self) -> None:
        """End titus dev itself, and nothing else, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process = None

    def pid(self, name: str) -> int:
        """The process of one of its programs, once it has one."""
        return until(lambda: self._find(name), f"{name} runs")

    def kill(self, name: str) -> int:
        """End one of its programs as a crash would; the process that ended."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def _find(self, name: str) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                # Until it has become the program itself it is the leash, with the same arguments.
                if any(MARKS[name] in word for word in words) and not any("leash" in word for word in words):
                    return int(child)
        return 0

    def titus(self, *arguments: str) -> Done:
        """Run `titus` against it."""
        return titus(*arguments, server=self.server)

    def follow(self, name: str, *arguments: str) -> Following:
        """Start `titus` against it and go on."""
        return Following(self.directory / name, self.server, arguments)

    def close(self) -> None:
        """Stop it; AssertionError if it left anything or its logs tell of a fault."""
        problems: list[str] = []
        if self.process is not None and (code := self.interrupt()):
            problems.append(f"titus dev ended with {code}")
        with closing(self.witness), suppress(FileNotFoundError):
            problems += [f"container {name} is left" for name in self.engine.containers(self.label)]
            problems += self.witness.problems()
            self.engine.clear(self.label)
        problems += faults(self.state / "logs", self.shaken)
        self.engine.close()
        assert not problems, "\n".join([*problems, f"the logs are in {self.state / 'logs'}"])


class Following:
    """A command that runs while the test does something else."""

    def __init__(self, path: Path, server: str, arguments: Sequence[str]) -> None:
        self._out, self._err = path.with_suffix(".out"), path.with_suffix(".err")
        env = clean_environment({"TITUS_SERVER": server, "TITUS_OWNER": OWNER})
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = subprocess.Popen([*TITUS, *arguments], env=env, stdout=out, stderr=err)

    @property
    def out(self) -> str:
        """What it wrote to standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return self._err.read_text()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Its exit code."""
        try:
            return self._process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


@contextmanager
def developing(directory: Path, *options: str, **settings: str) -> Iterator[Dev]:
    """A `titus dev` that is ready, and stopped at the end."""
    dev = Dev(directory, *options, **settings)
    try:
        dev.start()
        yield dev
    except BaseException:
        with suppress(AssertionError):
            dev.close()
        raise
    dev.close()
