"""Spans of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

__all__ = ["seconds", "span"]

_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SPAN: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def span(text: str) -> timedelta:
    """The duration of "10m", "1h30m", "500ms" or (in seconds) "90"; ValueError says what is allowed."""
    compact = text.strip().lower()
    if _NUMBER.fullmatch(compact):
        compact += "s"
    if not _SPAN.fullmatch(compact):
        raise ValueError(f"{text!r} is no duration; write for example 90s, 10m or 1h30m")
    try:
        return sum((float(count) * _UNITS[unit] for count, unit in _PART.findall(compact)), timedelta(0))
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None


def seconds(text: str) -> int:
    """The duration in whole seconds, at least one; ValueError says what is allowed."""
    length = span(text)
    if length < timedelta(seconds=1) or length.microseconds:
        raise ValueError(f"{text!r} is not a whole number of seconds, at least 1")
    return length // timedelta(seconds=1)
