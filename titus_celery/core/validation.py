"""What a batch job must look like: defaults filled in, and every violation found at once.

Nothing is stored or looked up here. Field paths are those of the wire, so that a caller finds the
place (docs/semantics.md A18, B1.9, B2).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from titus_celery.core import resources
from titus_celery.core.model import (
    Caller,
    Constraints,
    Container,
    Image,
    JobDescriptor,
    JobGroup,
    Owner,
    RetryPolicy,
)
from titus_celery.errors import Unsupported, Violation

__all__ = ["Limits", "check", "command_of", "effective"]

#: What an application is called that says nothing.
APP_NAME_DEFAULT: Final = "batchJob"
#: Keys and values of all environment variables plus two bytes each: what an exec can carry safely.
ENV_BYTES_MAX: Final = 32 * 1024
#: Entry point, and command, together with its separators: same reason.
COMMAND_BYTES_MAX: Final = 16 * 1024
#: The engine refuses containers with less (bytes).
MEMORY_MIN: Final = 6 * 2**20
#: The engine cannot grant less than a hundredth of a core.
CPU_MILLIS_MIN: Final = 10

#: All keys and values of one map of texts; every transition of a task reads its job, so this is
#: part of what each costs.
MAP_BYTES_MAX: Final = 32 * 1024
#: Names are shown in tables and searched for.
NAME_CHARACTERS_MAX: Final = 256

_MEGA: Final = 1_000_000
_LABEL_RESERVED: Final = "titus"
_PARAMETER_RESERVED: Final = "titus."
#: [registry[:port]/]path[:tag][@digest], in the characters that registries allow.
_IMAGE_NAME: Final = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-zA-Z0-9./_-]+(?::[a-zA-Z0-9._-]+)?(?:@[a-z0-9]+:[a-f0-9]+)?",
    re.ASCII,
)
_IMAGE_TEXT_MAX: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings that validation needs."""

    runtime_default: timedelta
    runtime_max: timedelta
    tasks_max: int
    cpu_max: int
    memory_mb_max: int


def effective(job: JobDescriptor, caller: Caller, limits: Limits) -> JobDescriptor:
    """*job* trimmed and with every default filled in, valid or not."""
    email = caller.email.strip()
    batch = replace(
        job.batch,
        runtime_limit=job.batch.runtime_limit or limits.runtime_default,
        retry=job.batch.retry or RetryPolicy(),
    )
    return replace(
        job,
        owner=Owner(
            owner_email=job.owner.owner_email.strip() or email,
            team_email=job.owner.team_email.strip() or email,
        ),
        app_name=job.app_name.strip() or APP_NAME_DEFAULT,
        batch=batch,
        containers={key: _filled(container) for key, container in job.containers.items()},
    )


def check(job: JobDescriptor, limits: Limits) -> list[Violation]:
    """Everything wrong with an *effective* job; [] if nothing is.

    Raises Unsupported, if nothing is wrong, for what this release does not offer.
    """
    found = [
        *_owner(job.owner),
        *_names(job),
        *_labels(job.labels),
        *_batch(job, limits),
        *(
            violation
            for key, container in job.containers.items()
            for violation in _container(f"containers[{key}]", container, limits)
        ),
    ]
    if not found:
        for key, container in job.containers.items():
            _refuse_unsupported(f"containers[{key}]", container)
    return found


def command_of(container: Container) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The entry point and the command to run.

    A single entry point with blanks is split as a shell would, because old clients send whole
    command lines there; several elements are taken as they are (docs/semantics.md B8.5).
    """
    entry = container.entry_point
    if len(entry) == 1 and any(character.isspace() for character in entry[0]):
        entry = tuple(shlex.split(entry[0]))
    return entry, container.command


def _filled(container: Container) -> Container:
    given = {key: value.strip() for key, value in container.resources.items()}
    filled = {key: given.get(key) or default for key, default in resources.DEFAULTS.items()}
    return replace(
        container,
        resources={**given, **filled},
        image=Image(name=container.image.name.strip(), id=container.image.id.strip()),
    )


def _owner(owner: Owner) -> Iterator[Violation]:
    for field, email in (("owner.ownerEmail", owner.owner_email), ("owner.teamEmail", owner.team_email)):
        if not email:
            yield Violation(field, "is empty and the caller's e-mail is not known")
        elif "@" not in email:
            yield Violation(field, f"{email!r} is not an e-mail address")


def _names(job: JobDescriptor) -> Iterator[Violation]:
    group = job.group or JobGroup()
    for field, text in (
        ("owner.ownerEmail", job.owner.owner_email),
        ("owner.teamEmail", job.owner.team_email),
        ("appName", job.app_name),
        ("jobGroupInfo.stack", group.stack),
        ("jobGroupInfo.detail", group.detail),
        ("jobGroupInfo.sequence", group.sequence),
    ):
        if len(text) > NAME_CHARACTERS_MAX:
            yield Violation(field, f"has {len(text)} characters; the most is {NAME_CHARACTERS_MAX}")
        elif not text.isprintable():
            yield Violation(field, "holds characters that cannot be shown")


def _map(path: str, texts: Mapping[str, str]) -> Iterator[Violation]:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())
    if size > MAP_BYTES_MAX:
        yield Violation(path, f"has {size} bytes; the most is {MAP_BYTES_MAX}")


def _labels(labels: Mapping[str, str]) -> Iterator[Violation]:
    yield from _map("labels", labels)
    for key in labels:
        if not key.strip():
            yield Violation("labels", "a label needs a name")
        elif key.lower().startswith(_LABEL_RESERVED):
            yield Violation(f"labels[{key}]", "names that start with 'titus' are reserved")


def _batch(job: JobDescriptor, limits: Limits) -> Iterator[Violation]:
    batch = job.batch
    if not 1 <= batch.desired <= limits.tasks_max:
        yield Violation("batch.instances.desired", f"{batch.desired} is not within 1 and {limits.tasks_max}")
    if batch.runtime_limit > limits.runtime_max:
        most = int(limits.runtime_max.total_seconds())
        asked = int(batch.runtime_limit.total_seconds())
        yield Violation("batch.runtimeLimitSecs", f"{asked} is more than the longest allowed, {most}")
    if len(job.containers) != 1:
        yield Violation("containers", f"a batch job has exactly one container, not {len(job.containers)}")
    if not batch.container_id:
        yield Violation("batch.containerId", "must name the job's container")
    elif batch.container_id not in job.containers:
        yield Violation("batch.containerId", f"there is no container {batch.container_id!r}")


def _container(path: str, container: Container, limits: Limits) -> Iterator[Violation]:
    yield from _image(f"{path}.image", container.image)
    yield from _resources(f"{path}.resources", container.resources, limits)
    yield from _map(f"{path}.resources", container.resources)
    yield from _map(f"{path}.securityProfile", container.security_profile)
    yield from _texts(path, container)
    yield from _env(f"{path}.env", container.env)
    for key in container.parameters:
        if key.startswith(_PARAMETER_RESERVED):
            yield Violation(f"{path}.parameters[{key}]", "names that start with 'titus.' are reserved")
    for field, wish in _wishes(container):
        if wish.expression:
            yield Violation(f"{path}.{field}.expression", "expressions are not supported; use constraints")


def _image(path: str, image: Image) -> Iterator[Violation]:
    if bool(image.name) == bool(image.id):
        yield Violation(path, "exactly one of name and imageId must be set")
    elif len(image.name or image.id) > _IMAGE_TEXT_MAX:
        yield Violation(path, f"is longer than {_IMAGE_TEXT_MAX} characters")
    elif image.name and not _IMAGE_NAME.fullmatch(image.name):
        yield Violation(f"{path}.name", f"{image.name!r} is not an image name such as app:1.2")


def _resources(path: str, given: Mapping[str, str], limits: Limits) -> Iterator[Violation]:
    for key in sorted(resources.KNOWN_UNSUPPORTED & given.keys()):
        yield Violation(f"{path}[{key}]", "is not enforced by this release; leave it out")
    yield from _within(
        f"{path}[{resources.CPU}]",
        given[resources.CPU],
        resources.cpu_millis,
        (CPU_MILLIS_MIN, "the least is 0.01 cores"),
        (limits.cpu_max * resources.MILLIS, f"the most is {limits.cpu_max} cores"),
    )
    yield from _within(
        f"{path}[{resources.MEMORY}]",
        given[resources.MEMORY],
        resources.memory_bytes,
        (MEMORY_MIN, "the least is 6MiB"),
        (limits.memory_mb_max * _MEGA, f"the most is {limits.memory_mb_max}MB"),
    )


def _within(
    path: str, text: str, parse: Callable[[str], int], least: tuple[int, str], most: tuple[int, str]
) -> Iterator[Violation]:
    try:
        amount = parse(text)
    except ValueError as error:
        yield Violation(path, str(error))
        return
    if amount < least[0]:
        yield Violation(path, f"{text} is too little; {least[1]}")
    elif amount > most[0]:
        yield Violation(path, f"{text} is too much; {most[1]}")


def _texts(path: str, container: Container) -> Iterator[Violation]:
    for field, parts in (("entryPoint", container.entry_point), ("command", container.command)):
        size = sum(len(part.encode()) + 1 for part in parts)
        if size > COMMAND_BYTES_MAX:
            yield Violation(f"{path}.{field}", f"has {size} bytes; the most is {COMMAND_BYTES_MAX}")
        if any("\0" in part for part in parts):
            yield Violation(f"{path}.{field}", "holds a NUL character")
    try:
        command_of(container)
    except ValueError as error:
        yield Violation(f"{path}.entryPoint", f"cannot be split into words: {error}")


def _env(path: str, env: Mapping[str, str]) -> Iterator[Violation]:
    size = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in env.items())
    if size > ENV_BYTES_MAX:
        yield Violation(path, f"has {size} bytes; the most is {ENV_BYTES_MAX}")
    for key, value in env.items():
        if not key or "=" in key or "\0" in key:
            yield Violation(f"{path}[{key}]", "is not a name for an environment variable")
        elif "\0" in value:
            yield Violation(f"{path}[{key}]", "holds a NUL character")


def _refuse_unsupported(path: str, container: Container) -> None:
    if container.parameters:
        raise Unsupported(f"{path}.parameters")
    for field, wish in _wishes(container):
        if wish.constraints:
            raise Unsupported(f"{path}.{field}")


def _wishes(container: Container) -> tuple[tuple[str, Constraints], ...]:
    return (
        ("softConstraints", container.soft_constraints),
        ("hardConstraints", container.hard_constraints),
    )
