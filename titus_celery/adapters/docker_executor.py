"""The executor that runs containers: the one place that speaks to the Docker Engine.

The container is named after its task and carries our labels; whatever has the name without the
labels is somebody else's and is left alone. Each call looks before it acts, so that each can be
repeated.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from select import POLLIN, poll
from typing import Any, Final

from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env
from requests import Response
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

from titus_celery.adapters import docker_records as records
from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.docker_events import EngineEvents, bottom_of
from titus_celery.adapters.docker_output import CHUNK_BYTES, Transcript
from titus_celery.adapters.docker_pull import Pulls
from titus_celery.core.engine import (
    ContainerOrder,
    EngineFacts,
    Phase,
    Seen,
    Started,
)
from titus_celery.core.model import Exit, TaskId
from titus_celery.errors import EngineFault, ImageMissing, StartRefused
from titus_celery.ports import (
    Chunk,
)

__all__ = ["DockerExecutor"]

#: Seconds to connect, and to wait for the answer to anything but a wait or a log.
_ANSWER_SECONDS: Final = 60

#: How long a start waits until the events of the engine are heard: it has said that it may start now.
_HEARD_WITHIN: Final = timedelta(seconds=5)

#: For waits and logs, which answer when the container does: only connecting has a limit.
_PATIENT: Final = (_ANSWER_SECONDS, None)

#: Connections kept for reuse: a wait and a log for each of an agent's 512 slots by default.
_CONNECTIONS: Final = 1024

#: How often, and after how many seconds, a create is repeated whose name is taken by a container
#: that cannot be seen: it is being removed, or another thread is just making it.
_NAME_ATTEMPTS: Final = 40
_NAME_PAUSE_SECONDS: Final = 0.05

#: What the engine answers if a request is wrong in itself, if there is no such container, and if the
#: name is taken or the container is on its way out.
_BAD_REQUEST: Final = 400
_ABSENT: Final = 404
_CONFLICT: Final = 409

#: Exit codes of a shell, and of `docker run`, for what cannot be run, found or made at all.
_NOT_RUNNABLE: Final = 126
_NOT_FOUND: Final = 127
_NOT_MADE: Final = 125


class DockerExecutor:
    """`Executor` on a Docker Engine, 20.10 or later. Safe to use from many threads.

    *base_url* is like unix:///var/run/docker.sock or tcp://host:2375; without one, DOCKER_HOST with
    its companions decides, else the default socket. EngineFault if no engine answers there.
    """

    def __init__(self, base_url: str | None = None, *, publish_on: str = records.LOOPBACK) -> None:
        """*publish_on*: the address of the host on which ports of containers are published."""
        self._publish_on = publish_on
        try:
            where: dict[str, Any] = {"base_url": base_url} if base_url else kwargs_from_env()
            where |= {"timeout": _ANSWER_SECONDS, "max_pool_size": _CONNECTIONS}
            self._client = APIClient(version="auto", **where)
            self._fresh = APIClient(version=self._client.api_version, **where)
        except DockerException as error:
            why = f"{_root(error)}. Is it running, and may this user open it? DOCKER_HOST names another"
            raise EngineFault(f"connecting to {base_url or 'the engine'}", why) from error
        if self._client.base_url.startswith(("http://", "https://")):
            # The library sizes the pool for Unix sockets only.
            self._client.mount(self._client.base_url, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        # An engine that stops goes on serving the connections it has, and refuses new ones.
        self._fresh.headers["Connection"] = "close"
        self._events = EngineEvents(self._fresh, _ANSWER_SECONDS)
        self._pulls = Pulls(self._client, DockerCredentials())

    def close(self) -> None:
        """Let go of the connections; whoever still waits on one gets an EngineFault or its answer."""
        self._events.close()
        self._fresh.close()
        self._client.close()

    def facts(self) -> EngineFacts:
        """See `Executor.facts`."""
        with _engine("describing itself"):
            info = self._client.info()
            if (now := records.instant(info["SystemTime"])) is not None:
                self._events.set_clock(now)
            return records.facts_of(info, self._client.api_version, _disk_of(info))

    def images(self) -> Mapping[str, str]:
        """See `Executor.images`; also each name@digest."""
        with _engine("listing images"):
            return records.images_of(self._client.images())

    def fetch(self, image_id: str, keep_on: Callable[[], bool]) -> None:
        """See `Executor.fetch`."""
        if "@" in image_id:
            with _engine(f"fetching {image_id}"):
                self._pulls.fetch(image_id, keep_on)

    def create(self, order: ContainerOrder) -> None:
        """See `Executor.create`. EngineFault if a container that is not ours has the name."""
        doing = f"creating {order.task_id}"
        self._events.listen()
        with _engine(doing):
            for _ in range(_NAME_ATTEMPTS):
                if self._made(order, doing):
                    return
                time.sleep(_NAME_PAUSE_SECONDS)
        raise EngineFault(doing, "the name is taken by a container that cannot be seen")

    def start(self, task_id: TaskId) -> Started:
        """See `Executor.start`. What is started must be listened to: who ended it is not told later."""
        doing = f"starting {task_id}"
        with _engine(doing):
            container = self._find(task_id)
            if container is not None and records.phase_of(container) is Phase.CREATED:
                if not self._events.attend(_HEARD_WITHIN):
                    raise EngineFault(doing, "the engine does not tell what happens to containers")
                # One that stops would still start it, leave it behind, and end it when it comes back.
                self._fresh.ping()
                try:
                    self._client.start(container["Id"])
                except APIError as error:
                    self._refuse(task_id, error)
                    raise
                container = self._find(task_id)
            if container is None:
                raise EngineFault(doing, "there is no such container")
            at = records.instant(container["State"]["StartedAt"])
            if at is None:
                raise EngineFault(doing, "the engine does not say when it started")
            return Started(str(container["Id"]), at, records.address_of(container))

    def wait(self, task_id: TaskId) -> Exit | None:
        """See `Executor.wait`. One that was not started yet is waited for, too.

        EngineFault also if it has ended while the engine stops, so that nobody knows yet who ended it.
        """
        self._events.listen()
        with _engine(f"waiting for {task_id}"):
            container = self._ended(task_id)
            end = None if container is None else records.exit_of(container)
            if container is None or end is None:
                return None
            return replace(end, outside=self._events.outside(container))

    def output(self, task_id: TaskId, offset: int) -> Iterator[Chunk]:
        """See `Executor.output`. Nothing for one that was not started yet.

        Every byte in the order of the engine's log, also when read again. One newline may be
        missing: the last of all, if Docker before 23 had to cut the line (16 KiB and more).
        """
        with _engine(f"reading the output of {task_id}"):
            container, transcript = self._find(task_id), Transcript(offset)
            if container is None or records.phase_of(container) is Phase.CREATED:
                return
            if records.phase_of(container) is Phase.RUNNING:
                yield from self._log(container["Id"], transcript, follow=True)
                # What is followed may break off before the end, so what is left is read afterwards.
                self._ended(task_id)
            yield from self._log(container["Id"], transcript, follow=False)

    def stop(self, task_id: TaskId, grace: timedelta) -> None:
        """See `Executor.stop`; the engine counts *grace* in whole seconds, rounded up."""
        with _engine(f"stopping {task_id}"):
            container = self._find(task_id)
            if container is not None:
                self._events.stopping(container["Id"])
                with suppress(NotFound):
                    self._client.stop(container["Id"], timeout=records.grace_seconds(grace))

    def remove(self, task_id: TaskId) -> None:
        """See `Executor.remove`; its anonymous volumes go, too."""
        with _engine(f"removing {task_id}"):
            container = self._find(task_id)
            if container is None:
                return
            self._events.stopping(container["Id"])
            try:
                self._client.remove_container(container["Id"], v=True, force=True)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
                # Somebody else is removing it, which is as good once it is done.
                with self._ask("POST", container["Id"], "wait", {"condition": "removed"}) as answer:
                    if answer.ok:
                        answer.json()
            self._events.forget(container["Id"])

    def look(self, task_id: TaskId) -> Seen | None:
        """See `Executor.look`."""
        with _engine(f"looking at {task_id}"):
            container = self._find(task_id)
            return None if container is None else records.seen_of(container)

    def disk_used(self, task_id: TaskId) -> int:
        """See `Executor.disk_used`; the engine walks through the files for it."""
        with _engine(f"measuring {task_id}"), self._ask("GET", task_id, "json", {"size": "1"}) as answer:
            return int(answer.json().get("SizeRw") or 0) if answer.ok else 0

    def seen(self, installation: str) -> Sequence[Seen]:
        """See `Executor.seen`; costs one request per container."""
        with _engine("listing containers"):
            chosen = {"label": f"{records.INSTALLATION}={installation}"}
            listed = self._client.containers(all=True, quiet=True, filters=chosen)
            inspected = [self._inspect(each["Id"]) for each in listed]
            shown = [records.seen_of(each) for each in inspected if each is not None]
            return [each for each in shown if each is not None]

    def _ended(self, task_id: TaskId) -> Mapping[str, Any] | None:
        """The task's container once it has ended; None if there is none (any more)."""
        while (container := self._find(task_id)) is not None:
            if records.phase_of(container) is Phase.EXITED:
                return container
            with self._ask("POST", container["Id"], "wait", {"condition": "next-exit"}) as answer:
                # Look once more before waiting: the next exit may have been before we asked.
                container = self._find(task_id) if answer.ok else None
                if container is not None and records.phase_of(container) is not Phase.EXITED:
                    answer.json()
        return None

    def _made(self, order: ContainerOrder, doing: str) -> bool:
        """Whether the task has a container now; False if its name cannot be had yet."""
        try:
            self._client.create_container_from_config(records.config(order, self._publish_on), order.task_id)
        except NotFound as error:
            raise ImageMissing(order.image_id) from error
        except APIError as error:
            if error.status_code == _BAD_REQUEST:
                raise self._unmakeable(order, error) from error
            if error.status_code != _CONFLICT:
                raise
            holder = self._inspect(order.task_id)
            if holder is None or records.phase_of(holder) is None:
                return False
            seen = records.seen_of(holder)
            if seen is None or (seen.installation, seen.task_id) != (order.installation, order.task_id):
                raise EngineFault(doing, "a container that is not ours has this name") from error
        return True

    def _unmakeable(self, order: ContainerOrder, error: APIError) -> StartRefused:
        if not (order.entry_point or order.command):
            image = self._client.inspect_image(order.image_id)["Config"]
            if not (image.get("Entrypoint") or image.get("Cmd")):
                return StartRefused(_NOT_FOUND, "neither the job nor the image says what to run")
        return StartRefused(_NOT_MADE, records.short(error.explanation or str(error)))

    def _refuse(self, task_id: TaskId, error: APIError) -> None:
        """StartRefused if *error* is the container's own fault, by what the engine kept of it."""
        container = self._find(task_id)
        if container is None or records.phase_of(container) is not Phase.CREATED:
            return
        state = container["State"]
        if state["ExitCode"] in (_NOT_RUNNABLE, _NOT_FOUND) or error.status_code == _BAD_REQUEST:
            why = records.short(state["Error"] or error.explanation or str(error))
            raise StartRefused(int(state["ExitCode"]), why) from error

    def _find(self, task_id: TaskId) -> Mapping[str, Any] | None:
        """The task's container, unless it is being removed."""
        container = self._inspect(task_id)
        if container is None or not records.is_ours(container, task_id):
            return None
        return None if records.phase_of(container) is None else container

    def _inspect(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._client.inspect_container(name)
        except NotFound:
            return None
        return found

    def _log(self, container_id: str, transcript: Transcript, *, follow: bool) -> Iterator[Chunk]:
        """One pass over the log; ends with what there is, or with the container if *follow*."""
        resume = transcript.resume()
        asked = {
            "stdout": "1",
            "stderr": "1",
            "timestamps": "1",
            "follow": "1" if follow else "0",
            "since": str(resume.since),
        }
        with self._ask("GET", container_id, "logs", asked) as answer:
            if answer.ok:
                ready = poll()
                ready.register(answer.raw.fileno(), POLLIN)
                blocks = answer.iter_content(CHUNK_BYTES)
                yield from transcript.read(blocks, resume.messages, lambda: bool(ready.poll(0)))

    @contextmanager
    def _ask(
        self, method: str, container_id: str, what: str, params: Mapping[str, str]
    ) -> Iterator[Response]:
        """A request whose answer takes as long as the container; not ok: there is no such container.

        The library itself waits until such an answer is complete.
        """
        url = f"{self._client.base_url}/v{self._client.api_version}/containers/{container_id}/{what}"
        answer = self._client.request(method, url, params=params, stream=True, timeout=_PATIENT)
        with closing(answer):
            if answer.status_code not in (_ABSENT, _CONFLICT):
                answer.raise_for_status()
            yield answer


def _disk_of(info: Mapping[str, Any]) -> int:
    """Bytes of the file system that containers write to; 0 if it is another machine's."""
    try:
        return shutil.disk_usage(info["DockerRootDir"]).total
    except OSError:
        return 0


@contextmanager
def _engine(doing: str) -> Iterator[None]:
    """Whatever the engine or the way to it does wrong inside is an EngineFault at *doing*."""
    try:
        yield
    except APIError as error:
        raise EngineFault(doing, records.short(error.explanation or str(error))) from error
    except (DockerException, RequestException) as error:
        raise EngineFault(doing, _root(error)) from error


def _root(error: BaseException) -> str:
    """What is at the bottom of a wrapped error: `Connection refused` rather than three class names."""
    return records.short(str(bottom_of(error)))
