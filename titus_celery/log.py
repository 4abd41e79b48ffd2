"""How processes log: one line an event, for a person or as JSON, with secrets left out.

Ids of jobs and tasks stand in the text of each line, so that one search finds a task everywhere.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection
from typing import Final

__all__ = ["configure", "without_secrets"]

#: The password of a URL such as redis://:password@host.
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):[^@/\s]+@")


def without_secrets(text: str) -> str:
    """*text* with the passwords of URLs left out."""
    return _PASSWORD.sub(r"\1:***@", text)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line))


class _Quiet(logging.Filter):
    """Lets lines below WARNING pass only if they name none of *words*."""

    def __init__(self, words: Collection[str]) -> None:
        super().__init__()
        self._words = words

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        text = record.getMessage()
        return not any(word in text for word in self._words)


def configure(log_format: str, quiet: Collection[str] = ()) -> None:
    """Send everything from INFO up to stderr, as "text" or "json" lines.

    Lines below WARNING that name one of *quiet* are left out: what happens every second is no news.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_Quiet(quiet))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
