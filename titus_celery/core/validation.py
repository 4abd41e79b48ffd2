"""What a job must look like: defaults filled in, and every violation found at once.

Nothing is stored or looked up here. Field paths are those of the wire, so that a caller finds the
place (docs/semantics.md A18, B1.9, B2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from titus_celery.core import containers, scaling, stages
from titus_celery.core.containers import ContainerLimits
from titus_celery.core.descriptor import (
    BatchSpec,
    JobDescriptor,
    JobGroup,
    JobSpec,
    MantisSpec,
    Owner,
    RetryPolicy,
    ServiceSpec,
    type_of,
)
from titus_celery.core.model import Caller
from titus_celery.core.texts import check_map, check_name
from titus_celery.errors import Unsupported, Violation

__all__ = ["INSTANCES_MAX", "Limits", "check", "check_instances", "check_owner", "effective", "with_bounds"]

#: What an application is called that says nothing.
_APP_NAMES: Final[Mapping[type[JobSpec], str]] = {
    BatchSpec: "batchJob",
    ServiceSpec: "serviceJob",
    MantisSpec: "mantisJob",
}
#: The upper bound of a service that names none.
INSTANCES_MAX: Final = 2**31 - 1

_LABEL_RESERVED: Final = "titus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings that validation needs."""

    runtime_default: timedelta
    runtime_max: timedelta
    #: Tasks of one batch, and of one service job.
    batch_max: int
    service_max: int
    #: Jobs that may be alive at once.
    jobs_max: int
    container: ContainerLimits


def effective(job: JobDescriptor, caller: Caller, limits: Limits) -> JobDescriptor:
    """*job* trimmed and with every default filled in, valid or not."""
    email = caller.email.strip()
    return replace(
        job,
        owner=Owner(
            owner_email=job.owner.owner_email.strip() or email,
            team_email=job.owner.team_email.strip() or email,
        ),
        app_name=job.app_name.strip() or _APP_NAMES[type(job.spec)],
        spec=_filled(job.spec, limits),
        containers={
            key: containers.effective(container, limits.container)
            for key, container in job.containers.items()
        },
    )


def check(job: JobDescriptor, limits: Limits) -> list[Violation]:
    """Everything wrong with an *effective* job; [] if nothing is.

    Raises Unsupported, if nothing is wrong, for what this release does not offer.
    """
    found = [
        *check_owner(job.owner),
        *_names(job),
        *_labels(job.labels),
        *_spec(job, limits),
        *(
            violation
            for key, container in job.containers.items()
            for violation in containers.check(f"containers[{key}]", container, limits.container)
        ),
    ]
    if not found and isinstance(job.spec, ServiceSpec) and job.spec.scaling:
        raise Unsupported("service.scalingPolices (to have them acted on)")
    if not found and isinstance(job.spec, MantisSpec) and any(stage.is_scaled for stage in job.spec.stages):
        raise Unsupported("mantis.stages.autoScalingPolicy (to have it acted on)")
    return found


def with_bounds(spec: ServiceSpec) -> ServiceSpec:
    """*spec* with the bounds filled in that its owner left out (B2)."""
    return replace(spec, max=spec.max or INSTANCES_MAX)


def check_instances(path: str, spec: ServiceSpec, most: int) -> Iterator[Violation]:
    """Everything wrong with the numbers of a service's tasks, of which it may have *most*."""
    if spec.desired > most:
        yield Violation(f"{path}.desired", f"{spec.desired} is more than a service may have, {most}")
    if spec.max != INSTANCES_MAX and spec.max > most:
        yield Violation(f"{path}.max", f"{spec.max} is more than a service may have, {most}")
    if spec.min > spec.max:
        yield Violation(f"{path}.min", f"{spec.min} is more than max, {spec.max}")
    elif not spec.min <= spec.desired <= spec.max:
        yield Violation(
            f"{path}.desired", f"{spec.desired} is not within min and max, {spec.min} and {spec.max}"
        )


def _filled(spec: JobSpec, limits: Limits) -> JobSpec:
    if isinstance(spec, ServiceSpec):
        return with_bounds(spec)
    if isinstance(spec, MantisSpec):
        return stages.effective(spec)
    return replace(
        spec,
        runtime_limit=spec.runtime_limit or limits.runtime_default,
        retry=spec.retry or RetryPolicy(),
    )


def check_owner(owner: Owner) -> Iterator[Violation]:
    """Everything wrong with an owner whose defaults are filled in (docs/semantics.md A3)."""
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
        *(("containers", name) for name in job.containers),
    ):
        yield from check_name(field, text)


def _labels(labels: Mapping[str, str]) -> Iterator[Violation]:
    yield from check_map("labels", labels)
    for key in labels:
        if not key.strip():
            yield Violation("labels", "a label needs a name")
        elif key.lower().startswith(_LABEL_RESERVED):
            yield Violation(f"labels[{key}]", "names that start with 'titus' are reserved")


def _spec(job: JobDescriptor, limits: Limits) -> Iterator[Violation]:
    spec = job.spec
    if isinstance(spec, MantisSpec):
        yield from stages.check(spec, job.containers)
        return
    kind = type_of(spec).value
    if isinstance(spec, BatchSpec):
        yield from _batch(spec, limits)
    else:
        yield from check_instances("service.instances", spec, limits.service_max)
        yield from scaling.check("service.scalingPolices", spec.scaling)
    if len(job.containers) != 1:
        yield Violation("containers", f"a {kind} job has exactly one container, not {len(job.containers)}")
    if not spec.container_id:
        yield Violation(f"{kind}.containerId", "must name the job's container")
    elif spec.container_id not in job.containers:
        yield Violation(f"{kind}.containerId", f"there is no container {spec.container_id!r}")


def _batch(batch: BatchSpec, limits: Limits) -> Iterator[Violation]:
    if not 1 <= batch.desired <= limits.batch_max:
        yield Violation("batch.instances.desired", f"{batch.desired} is not within 1 and {limits.batch_max}")
    if batch.runtime_limit > limits.runtime_max:
        most = int(limits.runtime_max.total_seconds())
        asked = int(batch.runtime_limit.total_seconds())
        yield Violation("batch.runtimeLimitSecs", f"{asked} is more than the longest allowed, {most}")
