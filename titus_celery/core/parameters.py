"""What a container's parameters become: variables of its environment, and volumes (docs/semantics.md A21)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from titus_celery.core.descriptor import Container
from titus_celery.errors import Violation

__all__ = ["ENV_PREFIX", "VOLUMES", "Volume", "check", "env_of", "volumes"]

#: What the variables of parameters begin with.
ENV_PREFIX: Final = "TITUS_PARAM_"
#: The parameter that lists volumes.
VOLUMES: Final = "volumes"
#: Mounts of one container.
VOLUMES_MAX: Final = 32
_RESERVED: Final = "titus."
#: What operators write who allow every named volume.
_ANY_NAMED: Final = "*"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_MODES: Final = {"": False, "rw": False, "ro": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Something of the host that is seen in the container: a named volume, or a directory if absolute."""

    source: str
    target: str
    read_only: bool = False


def env_of(container: Container) -> Mapping[str, str]:
    """The variables that (valid) parameters become."""
    return {_variable(name): value for name, value in container.parameters.items() if name != VOLUMES}


def volumes(text: str) -> Sequence[Volume]:
    """The volumes of `source:target[:ro],...`; ValueError says what is wrong."""
    found = [_volume(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) > VOLUMES_MAX:
        raise ValueError(f"{len(found)} volumes are too many; the most is {VOLUMES_MAX}")
    if len({each.target for each in found}) < len(found):
        raise ValueError("mounts two volumes at one place")
    return found


def check(path: str, container: Container, allowed: Sequence[str]) -> Iterator[Violation]:
    """Everything wrong with a container's parameters, where jobs may mount what is *allowed*."""
    variables: dict[str, str] = {}
    for name, value in container.parameters.items():
        if name.startswith(_RESERVED):
            yield Violation(f"{path}[{name}]", "names that start with 'titus.' are reserved")
        elif not name.strip():
            yield Violation(path, "a parameter needs a name")
        elif "\0" in value:
            yield Violation(f"{path}[{name}]", "holds a NUL character")
        elif name == VOLUMES:
            yield from _check_volumes(f"{path}[{name}]", value, allowed)
        elif (other := variables.setdefault(_variable(name), name)) != name:
            yield Violation(f"{path}[{name}]", f"becomes the same variable as {other!r}")
    for variable in sorted(variables.keys() & container.env.keys()):
        yield Violation(f"{path}[{variables[variable]}]", f"becomes {variable}, which env sets, too")


def _check_volumes(path: str, text: str, allowed: Sequence[str]) -> Iterator[Violation]:
    try:
        wanted = volumes(text)
    except ValueError as error:
        yield Violation(path, str(error))
        return
    for volume in wanted:
        if not any(_covers(policy, volume.source) for policy in allowed):
            yield Violation(path, f"{volume.source!r} may not be mounted by jobs of this installation")


def _covers(policy: str, source: str) -> bool:
    if not source.startswith("/"):
        return policy in (source, _ANY_NAMED)
    return policy.startswith("/") and (source == policy or source.startswith(policy.rstrip("/") + "/"))


def _variable(name: str) -> str:
    return ENV_PREFIX + re.sub(r"[^A-Z0-9]", "_", name.strip().upper())


def _volume(text: str) -> Volume:
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or mode not in _MODES:
        raise ValueError(f"{text[:80]!r} is not source:target or source:target:ro")
    if not _NAME.fullmatch(source) and not _is_plain_path(source):
        raise ValueError(f"{source[:80]!r} is neither the name of a volume nor a plain absolute path")
    if not _is_plain_path(target) or target == "/":
        raise ValueError(f"{target[:80]!r} is not a plain absolute path below /")
    return Volume(source=source, target=target, read_only=_MODES[mode])


def _is_plain_path(text: str) -> bool:
    # Two slashes at the beginning are left alone by normpath, and mean the same as one.
    is_rooted = text.startswith("/") and not text.startswith("//")
    return is_rooted and "\0" not in text and posixpath.normpath(text) == text
