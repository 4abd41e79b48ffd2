"""What resource texts mean: "0.5" of a core, "128MB" of memory (docs/semantics.md A4).

A bare number of memory is megabytes, `M`, `MB` and `Mb` are 10^6 bytes, `MiB` is 2^20, and so on up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from titus_celery.core.model import Demand

__all__ = ["CPU", "DEFAULTS", "KNOWN_UNSUPPORTED", "MEMORY", "cpu_millis", "demand", "memory_bytes"]

CPU: Final = "cpu"
MEMORY: Final = "memory"

#: What a task gets that names nothing (A4).
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({CPU: "0.1", MEMORY: "128MB"})

#: Kinds that Titus knows and this release cannot enforce: refused rather than ignored.
KNOWN_UNSUPPORTED: Final = frozenset({"disk", "network", "gpu", "ports", "allocateIP", "eni"})

#: Thousandths of a core: the finest step that the engine and the ledger keep.
MILLIS: Final = 1_000
#: Longer texts are no amounts; keeps Decimal from being fed nonsense.
TEXT_MAX: Final = 32

_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_DECIMAL_STEP: Final = 1_000
_BINARY_STEP: Final = 1_024
_MEGA: Final = 1_000_000
_UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "": _MEGA,
        "b": 1,
        **{
            form: step ** (power + 1)
            for power, letter in enumerate("kmgt")
            for step, forms in (
                (_DECIMAL_STEP, (letter, letter + "b")),
                (_BINARY_STEP, (letter + "i", letter + "ib")),
            )
            for form in forms
        },
    }
)


def _amount(text: str) -> tuple[Decimal, str]:
    match = _AMOUNT.fullmatch(text.strip()) if len(text) <= TEXT_MAX else None
    if match is None:
        raise ValueError(f"{text[:TEXT_MAX]!r} is not an amount such as 1, 0.5 or 128MB")
    return Decimal(match[1]), match[2].lower()


def cpu_millis(text: str) -> int:
    """Thousandths of a core; ValueError with a sentence for what cannot be read."""
    number, unit = _amount(text)
    if unit:
        raise ValueError(f"{text.strip()!r} has a unit; cpu is a number of cores such as 0.5")
    return int(number * MILLIS)


def memory_bytes(text: str) -> int:
    """Bytes; ValueError with a sentence for what cannot be read."""
    number, unit = _amount(text)
    if unit not in _UNITS:
        raise ValueError(f"{text.strip()!r} has the unknown unit {unit!r}; use MB, GB, MiB or GiB")
    return int(number * _UNITS[unit])


def demand(resources: Mapping[str, str]) -> Demand:
    """What a task with these (valid) resources needs."""
    return Demand(
        cpu_millis=cpu_millis(resources.get(CPU, DEFAULTS[CPU])),
        memory_bytes=memory_bytes(resources.get(MEMORY, DEFAULTS[MEMORY])),
    )
