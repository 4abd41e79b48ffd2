"""What a container must look like: defaults filled in, every violation found, and what it asks for.

Field paths are those of the wire (docs/semantics.md A4, A20, A21, B2, B8).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from titus_celery.core import constraints, parameters, resources
from titus_celery.core.descriptor import Container, Image
from titus_celery.core.texts import check_map
from titus_celery.errors import Violation

__all__ = ["ContainerLimits", "check", "command_of", "effective"]

#: Keys and values of all environment variables plus two bytes each: what an exec can carry safely.
ENV_BYTES_MAX: Final = 32 * 1024
#: Entry point, and command, together with its separators: same reason.
COMMAND_BYTES_MAX: Final = 16 * 1024
#: The engine refuses containers with less (bytes).
MEMORY_MIN: Final = 6 * 2**20
#: The engine cannot grant less than a hundredth of a core.
CPU_MILLIS_MIN: Final = 10

_MEGA: Final = 1_000_000
#: [registry[:port]/]path[:tag][@digest], in the characters that registries allow.
_IMAGE_NAME: Final = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-zA-Z0-9./_-]+(?::[a-zA-Z0-9._-]+)?(?:@[a-z0-9]+:[a-f0-9]+)?",
    re.ASCII,
)
_IMAGE_TEXT_MAX: Final = 512

#: What the security profile may hold that means something here.
_GROUPS: Final = "securityGroups"
_PROFILES: Final = ("iamProfile", "iamRole")
_GROUP: Final = re.compile(r"sg-[A-Za-z0-9-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLimits:
    """The settings that judging a container needs."""

    cpu_max: int
    memory_mb_max: int
    disk_mb_max: int
    network_mbps_max: int
    gpu_max: int
    #: Named volumes and directories of hosts that jobs may mount (A21).
    volumes: tuple[str, ...] = ()
    #: What a container gets that names none.
    security_groups: tuple[str, ...] = ()
    iam_profile: str = ""


def effective(container: Container, limits: ContainerLimits) -> Container:
    """*container* trimmed and with every default filled in, valid or not."""
    given = {key: value.strip() for key, value in container.resources.items()}
    filled = {key: given.get(key) or default for key, default in resources.DEFAULTS.items()}
    profile = {key: value.strip() for key, value in container.security_profile.items()}
    if limits.security_groups and not profile.get(_GROUPS):
        profile[_GROUPS] = ",".join(limits.security_groups)
    if limits.iam_profile and not any(profile.get(name) for name in _PROFILES):
        profile[_PROFILES[0]] = limits.iam_profile
    return replace(
        container,
        resources={**given, **filled},
        security_profile=profile,
        image=Image(name=container.image.name.strip(), id=container.image.id.strip()),
    )


def check(path: str, container: Container, limits: ContainerLimits) -> Iterator[Violation]:
    """Everything wrong with an *effective* container."""
    yield from _image(f"{path}.image", container.image)
    yield from _resources(f"{path}.resources", container.resources, limits)
    yield from _shown(f"{path}.resources", container.resources)
    yield from _security(f"{path}.securityProfile", container.security_profile)
    yield from _texts(path, container)
    yield from _env(f"{path}.env", container.env)
    yield from parameters.check(f"{path}.parameters", container, limits.volumes)
    yield from check_map(f"{path}.parameters", container.parameters)
    yield from constraints.check(path, container.soft_constraints, container.hard_constraints)


def command_of(container: Container) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The entry point and the command to run.

    A single entry point with blanks is split as a shell would, because old clients send whole
    command lines there; several elements are taken as they are (docs/semantics.md B8.5).
    """
    entry = container.entry_point
    if len(entry) == 1 and any(character.isspace() for character in entry[0]):
        entry = tuple(shlex.split(entry[0]))
    return entry, container.command


def _image(path: str, image: Image) -> Iterator[Violation]:
    if bool(image.name) == bool(image.id):
        yield Violation(path, "exactly one of name and imageId must be set")
    elif len(image.name or image.id) > _IMAGE_TEXT_MAX:
        yield Violation(path, f"is longer than {_IMAGE_TEXT_MAX} characters")
    elif image.name and not _IMAGE_NAME.fullmatch(image.name):
        yield Violation(f"{path}.name", f"{image.name!r} is not an image name such as app:1.2")


@dataclass(frozen=True, slots=True)
class _Bounds:
    """How the text of a kind is read, and within what its amount must be."""

    read: Callable[[str], int]
    most: int
    most_text: str
    least: int = 0
    least_text: str = ""


def _bounds(limits: ContainerLimits) -> Mapping[str, _Bounds]:
    return MappingProxyType(
        {
            resources.CPU: _Bounds(
                resources.cpu_millis,
                limits.cpu_max * resources.MILLIS,
                f"{limits.cpu_max} cores",
                CPU_MILLIS_MIN,
                "0.01 cores",
            ),
            resources.MEMORY: _Bounds(
                resources.memory_bytes,
                limits.memory_mb_max * _MEGA,
                f"{limits.memory_mb_max}MB",
                MEMORY_MIN,
                "6MiB",
            ),
            resources.DISK: _Bounds(
                resources.memory_bytes, limits.disk_mb_max * _MEGA, f"{limits.disk_mb_max}MB"
            ),
            resources.NETWORK: _Bounds(
                resources.network_mbps, limits.network_mbps_max, f"{limits.network_mbps_max}Mbps"
            ),
            resources.GPU: _Bounds(resources.gpus, limits.gpu_max, f"{limits.gpu_max}"),
        }
    )


def _resources(path: str, given: Mapping[str, str], limits: ContainerLimits) -> Iterator[Violation]:
    for kind, bounds in _bounds(limits).items():
        if text := given.get(kind):
            why = _out_of(bounds, text)
            if why:
                yield Violation(f"{path}[{kind}]", why)
    for kind, read in ((resources.PORTS, resources.ports), (resources.ALLOCATE_IP, resources.is_true)):
        try:
            read(given.get(kind, ""))
        except ValueError as error:
            yield Violation(f"{path}[{kind}]", str(error))
    if resources.ENI in given:
        yield Violation(f"{path}[{resources.ENI}]", "cannot be had on Docker hosts; leave it out")


def _out_of(bounds: _Bounds, text: str) -> str:
    try:
        amount = bounds.read(text)
    except ValueError as error:
        return str(error)
    if amount < bounds.least:
        return f"{text} is too little; the least is {bounds.least_text}"
    return f"{text} is too much; the most is {bounds.most_text}" if amount > bounds.most else ""


def _security(path: str, profile: Mapping[str, str]) -> Iterator[Violation]:
    yield from _shown(path, profile)
    for group in filter(None, (each.strip() for each in profile.get(_GROUPS, "").split(","))):
        if not _GROUP.fullmatch(group):
            yield Violation(f"{path}[{_GROUPS}]", f"{group[:64]!r} is not a security group such as sg-1")
    for name in _PROFILES:
        if any(character.isspace() for character in profile.get(name, "")):
            yield Violation(f"{path}[{name}]", "holds a blank")


def _shown(path: str, texts: Mapping[str, str]) -> Iterator[Violation]:
    """What is wrong with a map whose values become labels of the container, or its environment."""
    yield from check_map(path, texts)
    for name, value in texts.items():
        if not value.isprintable():
            yield Violation(f"{path}[{name}]", "holds characters that cannot be shown")


def _texts(path: str, container: Container) -> Iterator[Violation]:
    for field, parts in (("entryPoint", container.entry_point), ("command", container.command)):
        size = sum(len(part.encode()) + 1 for part in parts)
        if size > COMMAND_BYTES_MAX:
            yield Violation(f"{path}.{field}", f"has {size} bytes; the most is {COMMAND_BYTES_MAX}")
            # What is so long is not looked into any more.
            return
        if any("\0" in part for part in parts):
            yield Violation(f"{path}.{field}", "holds a NUL character")
    try:
        command_of(container)
    except ValueError as error:
        yield Violation(f"{path}.entryPoint", f"cannot be split into words: {error}")


def _env(path: str, env: Mapping[str, str]) -> Iterator[Violation]:
    yield from check_map(path, env, bytes_max=ENV_BYTES_MAX, each=2)
    for key, value in env.items():
        if not key or "=" in key:
            yield Violation(f"{path}[{key}]", "is not a name for an environment variable")
        elif "\0" in value:
            yield Violation(f"{path}[{key}]", "holds a NUL character")
