"""Real registries on loopback for tests, open or with a password, and images that are put there.

The server is Debian's `docker-registry`; a missing one is a failure that says how to get it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from docker import APIClient
from docker.errors import DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from tests.contracts.docker_engine import busybox_tar

__all__ = ["PASSWORD", "USER", "Publisher", "Registry", "configure", "running"]

USER: Final = "ann"
PASSWORD: Final = "open sesame"
#: The two as `htpasswd -B` writes them. Registries take bcrypt alone.
_HTPASSWD: Final = "ann:$2b$04$bCDnKQMqoaO.bwKvaxzWwe3e7/j1aDDtnVWX4hDlZHoKtb.CaYDDq"
#: The two as engines and configurations take them.
_LOGIN: Final = {"username": USER, "password": PASSWORD}
#: Seconds after which a registry that does not listen, or was not asked, never will.
PATIENCE: Final = 30
#: How a registry says where it listens.
_LISTENING: Final = re.compile(r"listening on (127\.0\.0\.1:\d+)")


class Registry:
    """A registry process with its images in a directory of its own."""

    def __init__(self, directory: Path, *, is_private: bool = False) -> None:
        self._directory = directory
        self._is_private = is_private
        self._changed = threading.Condition()
        self._log: list[str] = []
        self._process = self._start()
        try:
            #: Where it is, as names of images begin.
            self.host: str = self.until(_LISTENING)[1]
        except BaseException:
            self.stop()
            raise

    def _start(self) -> subprocess.Popen[str]:
        binary = shutil.which("docker-registry", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/bin")
        assert binary, "these tests need docker-registry: `make setup`"
        self._directory.mkdir(exist_ok=True)
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "images")}},
            "http": {"addr": "127.0.0.1:0", "secret": "none"},
        }
        if self._is_private:
            users = self._directory / "htpasswd"
            users.write_text(f"{_HTPASSWD}\n")
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        # JSON is YAML.
        (self._directory / "config.yml").write_text(json.dumps(config))
        process = subprocess.Popen(
            [binary, "serve", "config.yml"],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._log.append(line)
                    self._changed.notify_all()

    def until(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The first place in its log that matches; waits for it."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = filter(None, map(pattern.search, self._log))
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(look, PATIENCE), "".join(self._log[-20:])
        return found[0]

    def asked(self, what: str) -> int:
        """How often it was asked for *what*: `GET /v2/...`."""
        with self._changed:
            return sum(f'"{what} ' in line for line in self._log)

    def freeze(self) -> None:
        """Let it take connections and say nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; nobody listens there then."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Publisher:
    """Puts images into a registry and leaves none of them on the engine."""

    def __init__(self, registry: Registry) -> None:
        self._host = registry.host
        try:
            self.client = APIClient(version="auto", **kwargs_from_env())
        except DockerException as error:
            raise AssertionError(f"these tests need a Docker Engine: `make setup`. {error}") from error

    def put(self, name: str, says: str, tag: str = "latest") -> str:
        """Publish an image that says *says*; its digest. The engine does not have it then."""
        place = f"{self._host}/{name}"
        data = busybox_tar({"word": says.encode()})
        self.client.import_image_from_data(data, place, tag, changes=['CMD ["cat", "/word"]'])
        told = list(self.client.push(place, tag, stream=True, decode=True, auth_config=_LOGIN))
        self.clear()
        digests = [line["aux"]["Digest"] for line in told if "aux" in line]
        assert digests, told
        return str(digests[-1])

    def clear(self) -> None:
        """Let the engine forget every image of this registry."""
        for image in self.client.images():
            for name in [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]:
                if name.startswith(f"{self._host}/"):
                    # Digests go along with the last tag.
                    with suppress(ImageNotFound):
                        self.client.remove_image(name, force=True)

    def close(self) -> None:
        """Leave nothing behind."""
        self.clear()
        self.client.close()


@contextmanager
def running(directory: Path, *, is_private: bool = False) -> Iterator[tuple[Registry, Publisher]]:
    """A registry, and what puts images into it; gone afterwards."""
    registry = Registry(directory, is_private=is_private)
    try:
        publisher = Publisher(registry)
        try:
            yield registry, publisher
        finally:
            publisher.close()
    finally:
        registry.stop()


def configure(directory: Path, registry: str, password: str = PASSWORD, user: str = USER) -> None:
    """Write what `docker login` would for this registry into a Docker client configuration."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {registry: {"auth": login}}}))
