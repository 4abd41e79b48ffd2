"""A Docker Engine of a test's own, which it may kill, stop and start again while others run on the first.

It lives in a *capsule*: a process namespace, a network namespace and a mount namespace that a sleeping
process holds. Engine, shims and containers are all in there, so when that one process ends the kernel
ends every other and takes the mounts away, however the test or the test run ended. Without a network
namespace of its own, an engine that has no bridge would delete the bridge of the first one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from tests.e2e.jobs import HELLO, WORKLOADS
from tests.e2e.processes import until
from titus_celery.cli.supervisor import leashed

__all__ = ["NO_ANSWER", "SecondEngine", "answering", "connect", "second_engine"]

#: What a client raises when the engine does not answer, or stops to in the middle of an answer.
NO_ANSWER: Final = (DockerException, RequestException, HTTPError, OSError)
#: Where the first engine listens, if the environment does not say.
DEFAULT: Final = "unix:///var/run/docker.sock"
#: Debian keeps dockerd where the PATH of a plain user does not look.
SEARCH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
#: Its directories are as short as this because a Unix socket's path has at most 107 characters.
DIRECTORY: Final = "titus-engine-"
#: The first process of a capsule: starts what it is told to, and ends when we do. Engines that were
#: killed leave it their shims and containerd. Who ignores SIGCHLD need not reap those, and an engine that
#: starts again takes an unreaped containerd for a living one.
HOLDER: Final = """
import json, signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
heed = lambda: signal.signal(signal.SIGCHLD, signal.SIG_DFL)
print("ready", flush=True)
for line in sys.stdin:
    command, log = json.loads(line)
    with open(log, "ab") as out:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=heed)
    print(started.pid, flush=True)
"""
#: A private /run keeps the sockets of shims away from the machine's own.
HOLD: Final = (
    *("sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"),
    *(sys.executable, "-I", "-S", "-c", HOLDER),
)
#: In the order of preference; vfs copies every file, and works in any directory.
DRIVERS: Final = ("overlay2", "vfs")
#: An engine that has containers to stop gives each of them 10 s, twice.
STOPPED_WITHIN: Final = timedelta(seconds=60)
CGROUPS: Final = Path("/sys/fs/cgroup")


def connect(url: str = "") -> APIClient:
    """A client of the engine at *url*, else of the one that the environment names; it must answer."""
    where = {"base_url": url} if url else kwargs_from_env()
    return APIClient(version="auto", **where)


def answering(url: str = "") -> bool:
    """Whether the engine at *url* answers within a second; for one behind a TCP port it is not asked.

    Not done by the library, which leaves sockets open that it could not connect.
    """
    where = url or kwargs_from_env().get("base_url") or DEFAULT
    if not where.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as line, suppress(OSError):
        line.settimeout(1)
        line.connect(where.removeprefix("unix://"))
        line.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
        return b" 200 " in line.recv(64)
    return False


class SecondEngine:
    """An engine on data of its own. Its containers have no network."""

    def __init__(self) -> None:
        self._dockerd = _program("dockerd")
        self._unshare = _program("unshare")
        assert os.geteuid() == 0, "these tests start a Docker Engine of their own, which only root can"
        self.directory = Path(tempfile.mkdtemp(prefix=DIRECTORY))
        self.log = self.directory / "dockerd.log"
        self._exec_root = self.directory / "exec"
        #: For clients, and for TITUS_ENGINE_URL.
        self.url = f"unix://{self.directory}/engine.sock"
        self._cgroup = f"{DIRECTORY}{secrets.token_hex(4)}"
        self._driver = ""
        self._dockerd_pid = 0
        self._capsule, self._holder = _capsule(self._unshare)

    def start(self) -> None:
        """Start it, again too, on the same data, and wait until it answers."""
        assert not self._dockerd_pid, "it runs already"
        for driver in (self._driver,) if self._driver else DRIVERS:
            self._launch(driver)
            if until(self._is_up, f"an engine answers at {self.url}; its log is {self.log}") == "up":
                self._driver = driver
                return
        raise AssertionError(f"the engine did not start:\n{self.text()[-3000:]}")

    def launch(self) -> None:
        """Start it again and do not wait until it answers."""
        assert not self._dockerd_pid, "it runs already"
        self._launch(self._driver)

    @property
    def pid(self) -> int:
        """The process of dockerd itself."""
        assert self._dockerd_pid, "it does not run"
        return self._dockerd_pid

    def answers(self) -> bool:
        """Whether it answers now."""
        return answering(self.url)

    def kill(self) -> None:
        """End dockerd, and nothing else, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self._ended()

    def lose_power(self) -> int:
        """End all of it at once, containers too, as when their machine is switched off; then `start`.

        When that was, in nanoseconds: a witness must be told, because the engine will say that its
        containers ended when it started again.
        """
        self._break_capsule()
        # What a machine keeps in /run does not outlive it.
        shutil.rmtree(self._exec_root, ignore_errors=True)
        (self.directory / "pid").unlink(missing_ok=True)
        self._capsule, self._holder = _capsule(self._unshare)
        mark = self.directory / "dark"
        mark.touch()
        return mark.stat().st_mtime_ns

    def ask_to_stop(self) -> None:
        """Begin an orderly stop, which stops its containers."""
        os.kill(self.pid, signal.SIGTERM)

    def terminate(self) -> None:
        """Stop it in good order, and its containers with it."""
        self.ask_to_stop()
        self._ended()

    def freeze(self) -> None:
        """Take the processor away from dockerd: it takes connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let dockerd go on."""
        os.kill(self.pid, signal.SIGCONT)

    def load(self, *images: str) -> None:
        """Copy images of the first engine."""
        first, own = connect(), connect(self.url)
        for image in images:
            for _ in own.load_image(b"".join(first.get_image(image))):
                pass
        first.close()
        own.close()

    def processes(self) -> dict[int, str]:
        """Every process of the capsule but the one that holds it: engine, shims, containers; its command."""
        inside = os.readlink(f"/proc/{self._holder}/ns/pid")
        parents: dict[int, int] = {}
        commands: dict[int, str] = {}
        found: set[int] = set()
        for entry in Path("/proc").glob("[0-9]*"):
            # Others come and go while we look.
            with suppress(OSError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[pid] = (entry / "cmdline").read_text().replace("\0", " ")
                if os.readlink(entry / "ns" / "pid") == inside:
                    found.add(pid)
        # Containers have process namespaces of their own, below ours.
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return {pid: commands[pid] for pid in found - {self._holder} if pid in commands}

    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        """End it and all that is in it, and leave nothing behind."""
        self._break_capsule()
        for cgroup in [CGROUPS / self._cgroup, *CGROUPS.glob(f"*/{self._cgroup}")]:
            until(partial(_removed, cgroup), f"the control group {cgroup} is empty")
        shutil.rmtree(self.directory)

    def _break_capsule(self) -> None:
        """Returns when no process of it is left: their first one ends last."""
        self._capsule.kill()
        self._capsule.communicate()
        until(partial(_is_over, self._holder), "every process of an engine has ended")
        self._dockerd_pid = 0

    def _launch(self, driver: str) -> None:
        home = self.directory
        command = [
            *(self._dockerd, f"--data-root={home / 'data'}", f"--exec-root={self._exec_root}"),
            *(f"--host={self.url}", f"--pidfile={home / 'pid'}", f"--config-file={self._configuration()}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", f"--storage-driver={driver}"),
            *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self._cgroup}"),
        ]
        assert self._capsule.stdin is not None
        assert self._capsule.stdout is not None
        self._capsule.stdin.write(json.dumps([command, str(self.log)]) + "\n")
        self._capsule.stdin.flush()
        inside = self._capsule.stdout.readline().strip()
        [self._dockerd_pid] = [pid for pid in _children(self._holder) if _inside(pid) == inside]

    def _configuration(self) -> Path:
        """An empty file, so that this machine's own does not count."""
        file = self.directory / "daemon.json"
        file.write_text("{}")
        return file

    def _is_up(self) -> str:
        if _is_over(self.pid):
            self._dockerd_pid = 0
            return "ended"
        return "up" if self.answers() else ""

    def _ended(self) -> None:
        until(partial(_is_over, self.pid), "an engine has ended", STOPPED_WITHIN)
        self._dockerd_pid = 0


@contextmanager
def second_engine() -> Iterator[SecondEngine]:
    """An engine with the images of the tests, gone at the end with all that it started."""
    engine = SecondEngine()
    try:
        engine.start()
        engine.load(HELLO, WORKLOADS)
        yield engine
    finally:
        engine.close()


def _capsule(unshare: str) -> tuple[subprocess.Popen[str], int]:
    """New namespaces, and the process that holds them; they end with it, and it ends with us."""
    namespaces = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
    capsule = subprocess.Popen(
        leashed([unshare, *namespaces, *HOLD], signal.SIGKILL),
        env={**os.environ, "PATH": SEARCH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert capsule.stdout is not None
    ready = capsule.stdout.readline()
    assert ready, "this machine allows no new namespaces, or no mounts in them"
    [holder] = _children(capsule.pid)
    return capsule, holder


def _program(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    assert found, f"these tests need {name} on this machine: `make setup` (Debian: docker.io, util-linux)"
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _inside(pid: int) -> str:
    """The number that a process has in its own namespace."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
    return ""


def _is_over(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _removed(cgroup: Path) -> bool:
    """Remove a control group and those below; False while a process is in one."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
