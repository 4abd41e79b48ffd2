"""What a Mantis job must look like: its stages, its agreement, its parameters (docs/semantics.md B2, B6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from titus_celery.core.descriptor import Container, MantisSpec, Stage
from titus_celery.core.texts import check_map, check_name
from titus_celery.errors import Violation

__all__ = ["STAGES_MAX", "WORKERS_MAX", "check", "check_stage", "effective"]

#: Workers of one stage.
WORKERS_MAX: Final = 1_500
#: Stages of one job: far more than anybody chains.
STAGES_MAX: Final = 32
#: How long a transient job lives without subscribers unless it says so.
SUBSCRIPTION_TIMEOUT: Final = timedelta(seconds=300)

_RESERVED: Final = "titus."


def effective(spec: MantisSpec) -> MantisSpec:
    """*spec* trimmed and with its defaults filled in."""
    terms = spec.agreement
    timeout = (spec.subscription_timeout or SUBSCRIPTION_TIMEOUT) if terms.is_transient else timedelta(0)
    return replace(
        spec,
        name=spec.name.strip(),
        agreement=replace(terms, user_type=terms.user_type.strip()),
        subscription_timeout=timeout,
    )


def check(spec: MantisSpec, containers: Mapping[str, Container]) -> Iterator[Violation]:
    """Everything wrong with an *effective* Mantis job of these containers."""
    if not spec.name:
        yield Violation("mantis.name", "a Mantis job needs a name")
    yield from check_name("mantis.name", spec.name)
    yield from check_name("mantis.jobSLA.userProvidedType", spec.agreement.user_type)
    yield from check_map("mantis.parameters", spec.parameters)
    for name in spec.parameters:
        if name.startswith(_RESERVED):
            yield Violation(f"mantis.parameters[{name}]", "names that start with 'titus.' are reserved")
    if not 1 <= len(spec.stages) <= STAGES_MAX:
        yield Violation("mantis.stages", f"has {len(spec.stages)} stages; there must be 1 to {STAGES_MAX}")
        return
    if len(containers) != len(spec.stages):
        many = f"there are {len(containers)} for {len(spec.stages)} stages; each has one of its own"
        yield Violation("containers", many)
    seen: dict[str, int] = {}
    for number, stage in enumerate(spec.stages):
        at = f"mantis.stages[{number}]"
        yield from check_stage(f"{at}.instances", stage)
        if stage.desired == 0:
            yield Violation(f"{at}.instances.desired", "a stage begins with one worker at least")
        if not stage.container_id:
            yield Violation(f"{at}.containerId", "must name the stage's container")
        elif stage.container_id not in containers:
            yield Violation(f"{at}.containerId", f"there is no container {stage.container_id!r}")
        elif (other := seen.setdefault(stage.container_id, number)) != number:
            yield Violation(f"{at}.containerId", f"{stage.container_id!r} is the container of stage {other}")


def check_stage(path: str, stage: Stage) -> Iterator[Violation]:
    """Everything wrong with the numbers of a stage's workers."""
    for field, count in (("desired", stage.desired), ("max", stage.max)):
        if count > WORKERS_MAX:
            yield Violation(f"{path}.{field}", f"{count} is more than a stage may have, {WORKERS_MAX}")
    if stage.max and stage.min > stage.max:
        yield Violation(f"{path}.min", f"{stage.min} is more than max, {stage.max}")
    elif stage.desired < stage.min or (stage.max and stage.desired > stage.max):
        bounds = f"{stage.min} and {stage.max}" if stage.max else f"{stage.min} and no bound"
        yield Violation(f"{path}.desired", f"{stage.desired} is not within min and max, {bounds}")
