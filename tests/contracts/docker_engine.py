"""The benches on which the executor tests try a real Docker Engine, and the one in memory."""

from __future__ import annotations

import io
import secrets
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from docker import APIClient
from docker.errors import NotFound
from docker.utils import kwargs_from_env

from tests.contracts.executors import ENDLESS, Bench, MemoryBench
from titus_celery.adapters.docker_executor import DockerExecutor
from titus_celery.core.model import TaskId
from titus_celery.errors import EngineFault
from titus_celery.ports import Executor


class DockerBench:
    """The real engine: for most as it is, for `frail` through a relay."""

    def __init__(self, installation: str, images: DockerImages) -> None:
        self.installation = installation
        self.client = images.client
        self.image_id, self.entry_image_id = images.workloads, images.entry
        self.entry_image_name, self.empty_image_id = images.entry_name, images.empty
        self._docker = DockerExecutor()
        self.executor: Executor = self._docker
        self._relays: list[Relay] = []
        self._relayed: list[DockerExecutor] = []

    def occupy(self, name: TaskId) -> None:
        asked = {"Image": self.image_id, "Cmd": list(ENDLESS)}
        self.client.create_container_from_config(asked, name)
        self.client.start(name)

    def is_occupied(self, name: TaskId) -> bool:
        return bool(self.client.inspect_container(name)["State"]["Running"])

    def interfere(self, task_id: TaskId, signal: str) -> None:
        self.client.kill(task_id, signal)

    def inspect(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.client.inspect_container(name)
        return found

    def frail(self) -> Executor:
        self._relays.append(Relay())
        self._relayed.append(DockerExecutor(self._relays[-1].url))
        return self._relayed[-1]

    def cut(self) -> None:
        for relay in self._relays:
            relay.close()

    def refuse(self) -> None:
        """Take no new connections of the frail executors, as an engine that is about to stop."""
        for relay in self._relays:
            relay.refuse()

    def close(self) -> None:
        # By name, so that those which played somebody else's go, too.
        named = {"name": f"{self.installation}-"}
        for each in self.client.containers(all=True, quiet=True, filters=named):
            with suppress(NotFound):
                self.client.remove_container(each["Id"], force=True, v=True)
        self.cut()
        for executor in (self._docker, *self._relayed):
            executor.close()


class DockerImages:
    """The images of the contract tests; a missing engine is a failure that says how to get one."""

    def __init__(self, run: str) -> None:
        try:
            DockerExecutor().close()
        except EngineFault as error:
            raise AssertionError(f"these tests need a Docker Engine: `make setup`. {error}") from error
        self.client = APIClient(version="auto", **kwargs_from_env())
        self._own: list[str] = []
        layers = busybox_tar()
        self.workloads = self._add(f"titus-contract/workloads:{run}", layers, ("ENV FROM=image",))
        self.entry_name = f"titus-contract/entry:{run}"
        changes = ('ENTRYPOINT ["echo", "image"]', 'CMD ["default"]')
        self.entry = self._add(self.entry_name, layers, changes)
        self.empty = self._add(f"titus-contract/empty:{run}", _tar({"nothing": b""}), ())

    def _add(self, name: str, layers: bytes, changes: tuple[str, ...]) -> str:
        repository, _, tag = name.partition(":")
        self.client.import_image_from_data(layers, repository, tag, changes=list(changes))
        self._own.append(name)
        image_id: str = self.client.inspect_image(name)["Id"]
        return image_id

    def close(self) -> None:
        """Remove those that were made here."""
        for name in self._own:
            self.client.remove_image(name, force=True)
        self.client.close()


#: What the contracts of executors are tried on.
EXECUTORS: Final = ("memory", "docker")


def made_images() -> Iterator[DockerImages]:
    """A fixture: the images, for a module."""
    made = DockerImages(secrets.token_hex(4))
    yield made
    made.close()


def made_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A fixture: a bench, by its name; the real one takes the fixture `images`."""
    installation = f"contract-{secrets.token_hex(4)}"
    made: Bench
    if request.param == "memory":
        made = MemoryBench(installation)
    else:
        made = DockerBench(installation, request.getfixturevalue("images"))
    yield made
    made.close()


def busybox_tar(files: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """The layer of an image with a busybox, all of its applets, and *files*."""
    found = shutil.which("busybox")
    assert found, "these tests need a statically linked busybox: `make setup`"
    listed = subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout
    links = [applet for applet in listed.split() if applet != "busybox"]
    return _tar(
        {"bin/busybox": Path(found).read_bytes(), **files}, {f"bin/{link}": "busybox" for link in links}
    )


def _tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return packed.getvalue()


class Relay:
    """A way to the engine's socket that a test can cut, as a dying engine would."""

    def __init__(self) -> None:
        base_url: str = kwargs_from_env().get("base_url") or "unix:///var/run/docker.sock"
        self._engine = base_url.partition("unix://")[2]
        assert self._engine, f"these tests need an engine behind a Unix socket, not {base_url}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = [self._listener]
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut every connection and take no more."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def refuse(self) -> None:
        """Take no more connections; those that are open go on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                with self._lock:
                    self._open += [caller, engine]
                for source, sink in ((caller, engine), (engine, caller)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
