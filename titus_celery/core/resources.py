"""What resource texts mean: "0.5" of a core, "128MB" of memory, "8080,9090" (docs/semantics.md A4, B8.1).

A bare number of memory or disk is megabytes, of network megabits a second. `M`, `MB` and `Mb` are 10^6
bytes, `MiB` is 2^20, and so on up. Every reader raises ValueError with a sentence for what it cannot read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from titus_celery.core.descriptor import Demand

__all__ = [
    "ALLOCATE_IP",
    "CPU",
    "DEFAULTS",
    "DISK",
    "ENI",
    "GPU",
    "KINDS",
    "MEMORY",
    "NETWORK",
    "PORTS",
    "cpu_millis",
    "demand",
    "gpus",
    "is_true",
    "memory_bytes",
    "network_mbps",
    "ports",
]

CPU: Final = "cpu"
MEMORY: Final = "memory"
DISK: Final = "disk"
NETWORK: Final = "network"
GPU: Final = "gpu"
PORTS: Final = "ports"
#: Every container has an address of its own, so that this asks for nothing more.
ALLOCATE_IP: Final = "allocateIP"
#: Network interfaces of a cloud, which Docker hosts have not: refused.
ENI: Final = "eni"
#: The kinds that mean something here; any other is the owner's own.
KINDS: Final = frozenset({CPU, MEMORY, DISK, NETWORK, GPU, PORTS, ALLOCATE_IP, ENI})

#: What a task gets that names nothing (A4). The other kinds are unlimited, or none.
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({CPU: "0.1", MEMORY: "128MB"})

#: Thousandths of a core: the finest step that the engine and the ledger keep.
MILLIS: Final = 1_000
#: Longer texts are no amounts; keeps Decimal from being fed nonsense.
TEXT_MAX: Final = 32
#: The last port there is.
PORT_MAX: Final = 65_535
#: Ports of one container: each is a rule in the host's firewall.
PORTS_MAX: Final = 32

_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
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
#: Thousandths of a megabit a second.
_RATES: Final[Mapping[str, int]] = MappingProxyType({"": 1_000, "kbps": 1, "mbps": 1_000, "gbps": 1_000_000})


def _amount(text: str) -> tuple[Decimal, str]:
    match = _AMOUNT.fullmatch(text.strip()) if len(text) <= TEXT_MAX else None
    if match is None:
        raise ValueError(f"{text[:TEXT_MAX]!r} is not an amount such as 1, 0.5 or 128MB")
    return Decimal(match[1]), match[2].lower()


def cpu_millis(text: str) -> int:
    """Thousandths of a core."""
    number, unit = _amount(text)
    if unit:
        raise ValueError(f"{text.strip()!r} has a unit; cpu is a number of cores such as 0.5")
    return int(number * MILLIS)


def memory_bytes(text: str) -> int:
    """Bytes, of memory or disk."""
    number, unit = _amount(text)
    if unit not in _UNITS:
        raise ValueError(f"{text.strip()!r} has the unknown unit {unit!r}; use MB, GB, MiB or GiB")
    return int(number * _UNITS[unit])


def network_mbps(text: str) -> int:
    """Megabits a second, fractions rounded up."""
    number, unit = _amount(text)
    if unit not in _RATES:
        raise ValueError(f"{text.strip()!r} has the unknown unit {unit!r}; use Kbps, Mbps or Gbps")
    return math.ceil(number * _RATES[unit] / _RATES["mbps"])


def gpus(text: str) -> int:
    """How many whole GPUs."""
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{text.strip()[:TEXT_MAX]!r} is not a whole number of GPUs")
    return int(text)


def ports(text: str) -> tuple[int, ...]:
    """The container's ports that are to be reached from outside, as they are listed."""
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if not _NUMBER.fullmatch(part) or not 1 <= int(part) <= PORT_MAX:
            raise ValueError(f"{part[:TEXT_MAX]!r} is not a port from 1 to {PORT_MAX}")
        found.append(int(part))
    if len(found) > PORTS_MAX:
        raise ValueError(f"{len(found)} ports are too many; the most is {PORTS_MAX}")
    if len(set(found)) < len(found):
        raise ValueError("names a port twice")
    return tuple(found)


def is_true(text: str) -> bool:
    """ "true" or "false", in any case; nothing means false."""
    try:
        return {"true": True, "false": False, "": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text.strip()[:TEXT_MAX]!r} is neither true nor false") from None


def demand(resources: Mapping[str, str]) -> Demand:
    """What a task with these (valid) resources needs."""
    return Demand(
        cpu_millis=cpu_millis(resources.get(CPU, DEFAULTS[CPU])),
        memory_bytes=memory_bytes(resources.get(MEMORY, DEFAULTS[MEMORY])),
        disk_bytes=memory_bytes(resources.get(DISK) or "0"),
        network_mbps=network_mbps(resources.get(NETWORK) or "0"),
        gpus=gpus(resources.get(GPU) or "0"),
        ports=ports(resources.get(PORTS, "")),
    )
