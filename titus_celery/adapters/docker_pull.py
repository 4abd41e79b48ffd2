"""Fetching images from registries: once for all who want the same one, and no longer than one of them does.

Credentials are the engine's affair: what its host's Docker configuration has for a registry, helpers
included (docs/semantics.md A22).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from docker import APIClient
from docker.errors import APIError, NotFound

from titus_celery.adapters.docker_records import short
from titus_celery.errors import EngineFault, ImageMissing

__all__ = ["Pulls"]

#: While another thread pulls the same image, who waits for it looks this often (s) whether it still is
#: wanted at all.
_LOOK_SECONDS: Final = 0.5
#: What a registry refuses for good: nobody gets it by trying again.
_REFUSED: Final = (401, 403, 404)
#: The same where the engine answers 500 and only its text tells.
_REFUSED_TEXTS: Final = ("unauthorized", "authentication required", "no basic auth credentials", "denied")

_log = logging.getLogger(__name__)


class Pulls:
    """The pulls of one agent. Safe to use from many threads."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._pulling: dict[str, threading.Lock] = {}

    def fetch(self, image: str, keep_on: Callable[[], bool]) -> None:
        """Have the image here, by its `name@digest`; returns early once *keep_on* says no.

        ImageMissing if the registry has it not, or not for us; EngineFault if it cannot be reached.
        """
        with self._lock:
            mine = self._pulling.setdefault(image, threading.Lock())
        while not mine.acquire(timeout=_LOOK_SECONDS):
            if not keep_on():
                return
        try:
            if keep_on() and not self._is_here(image):
                self._pull(image, keep_on)
        finally:
            mine.release()

    def _is_here(self, image: str) -> bool:
        try:
            self._client.inspect_image(image)
        except NotFound:
            return False
        return True

    def _pull(self, image: str, keep_on: Callable[[], bool]) -> None:
        name, _, digest = image.partition("@")
        _log.info("pulling %s", image)
        try:
            with closing(self._client.pull(name, tag=digest, stream=True, decode=True)) as lines:
                for line in lines:
                    _raise_if_failed(image, line)
                    if not keep_on():
                        _log.info("pulling %s is given up: nobody wants it any more", image)
                        return
        except APIError as error:
            why = short(error.explanation or str(error))
            if error.status_code in _REFUSED or _is_refusal(why):
                raise ImageMissing(image, why) from error
            raise EngineFault(f"pulling {image}", why) from error


def _raise_if_failed(image: str, line: dict[str, Any]) -> None:
    if why := line.get("error"):
        text = short(str(why))
        raise ImageMissing(image, text) if _is_refusal(text) else EngineFault(f"pulling {image}", text)


def _is_refusal(why: str) -> bool:
    return any(text in why.lower() for text in (*_REFUSED_TEXTS, "not found", "manifest unknown"))
