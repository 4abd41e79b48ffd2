"""Fetching images from registries: once for all who want the same one, and no longer than one of them does.

Logins are those of the agent's host: what its Docker configuration has for a registry, helpers included
(docs/semantics.md A22).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

from docker import APIClient, auth
from docker.errors import APIError, NotFound, create_api_error_from_http_exception
from requests import Response
from requests.exceptions import HTTPError

from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.docker_records import short
from titus_celery.errors import EngineFault, ImageMissing, Unavailable

__all__ = ["Pulls"]

#: Who waits for an image looks this often (s) whether it still is wanted: a registry that hangs says
#: nothing.
_LOOK_SECONDS: Final = 0.5
#: An engine that says nothing of a pull for so long (s) waits for a registry that has forgotten it. Checking
#: and unpacking a layer of many GB is silent, too, but takes less.
_SILENCE_SECONDS: Final = 600
#: Seconds to connect to the engine.
_CONNECT_SECONDS: Final = 60
#: What a registry refuses for good: nobody gets it by trying again.
_REFUSED: Final = (401, 403, 404)
#: The same where the engine answers 500 and only its text tells.
_REFUSED_TEXTS: Final = ("unauthorized", "authentication required", "no basic auth credentials", "denied")

_log = logging.getLogger(__name__)


class _Pull:
    """One pull under way, in a thread of its own."""

    def __init__(self) -> None:
        #: Whoever began it, and who joined.
        self.wanted_by = 1
        self.over = threading.Event()
        self.failure: Exception | None = None


class Pulls:
    """The pulls of one agent. Safe to use from many threads."""

    def __init__(self, client: APIClient, credentials: DockerCredentials) -> None:
        self._client = client
        self._credentials = credentials
        self._lock = threading.Lock()
        self._pulls: dict[str, _Pull] = {}

    def fetch(self, image: str, keep_on: Callable[[], bool]) -> None:
        """Have the image here, by its `name@digest`; returns early once *keep_on* says no.

        ImageMissing if the registry has it not, or not for us; EngineFault if it cannot be reached.
        """
        if not keep_on() or self._is_here(image):
            return
        pull = self._join(image)
        try:
            while not pull.over.wait(_LOOK_SECONDS):
                if not keep_on():
                    return
        finally:
            self._leave(image, pull)
        if pull.failure is not None:
            raise pull.failure

    def _is_here(self, image: str) -> bool:
        try:
            self._client.inspect_image(image)
        except NotFound:
            return False
        return True

    def _join(self, image: str) -> _Pull:
        """The pull of the image that is under way, or a new one; one more wants it."""
        with self._lock:
            pull = self._pulls.get(image)
            if pull is None:
                pull = _Pull()
                # A registry may let it hang for long: whoever waits for it can leave, and this process end.
                threading.Thread(target=self._carry, args=(image, pull), name="pull", daemon=True).start()
                self._pulls[image] = pull
            else:
                pull.wanted_by += 1
            return pull

    def _leave(self, image: str, pull: _Pull) -> None:
        """One fewer wants it. What nobody wants is given up: who comes later begins anew."""
        with self._lock:
            pull.wanted_by -= 1
            if not pull.wanted_by and self._pulls.get(image) is pull:
                del self._pulls[image]

    def _carry(self, image: str, pull: _Pull) -> None:
        try:
            self._pull(image, lambda: pull.wanted_by > 0)
        except Exception as error:
            pull.failure = error
        finally:
            pull.over.set()

    def _pull(self, image: str, is_wanted: Callable[[], bool]) -> None:
        _log.info("pulling %s", image)
        try:
            with closing(self._ask(image)) as answer:
                for line in filter(None, answer.iter_lines()):
                    _raise_if_failed(image, json.loads(line))
                    if not is_wanted():
                        _log.info("pulling %s is given up: nobody wants it any more", image)
                        return
        except APIError as error:
            why = short(error.explanation or str(error))
            if error.status_code in _REFUSED or _is_refusal(why):
                raise ImageMissing(image, why) from error
            raise EngineFault(f"pulling {image}", why) from error
        except json.JSONDecodeError as error:
            raise EngineFault(f"pulling {image}", "its account of it is no JSON") from error

    def _ask(self, image: str) -> Response:
        """The engine's account of a pull, line by line. (The library's own pull waits for each for ever.)"""
        name, _, digest = image.partition("@")
        answer: Response = self._client.request(
            "POST",
            f"{self._client.base_url}/v{self._client.api_version}/images/create",
            params={"fromImage": name, "tag": digest},
            headers=self._login(image, name),
            stream=True,
            timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
        )
        try:
            answer.raise_for_status()
        except HTTPError as error:
            with closing(answer):
                create_api_error_from_http_exception(error)
        return answer

    def _login(self, image: str, name: str) -> Mapping[str, bytes]:
        """What tells the engine who we are; read each time, for the library reads it once."""
        registry, _ = auth.resolve_repository_name(name)
        try:
            login = self._credentials.of(registry)
        except Unavailable as error:
            raise EngineFault(f"pulling {image}", str(error)) from error
        if login is None:
            return {}
        told = {"username": login.username, "password": login.password, "serveraddress": registry}
        if login.identity_token:
            told = {"identitytoken": login.identity_token, "serveraddress": registry}
        return {"X-Registry-Auth": auth.encode_header(told)}


def _raise_if_failed(image: str, line: dict[str, Any]) -> None:
    if why := line.get("error"):
        text = short(str(why))
        raise ImageMissing(image, text) if _is_refusal(text) else EngineFault(f"pulling {image}", text)


def _is_refusal(why: str) -> bool:
    return any(text in why.lower() for text in (*_REFUSED_TEXTS, "not found", "manifest unknown"))
