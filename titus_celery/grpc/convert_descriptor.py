"""Job descriptors between the wire and the model, both ways.

It carries over and does not judge: what a field may hold is said in core/validation.py, so that
one reply can name everything that is wrong. Refused here is only what the model has no place for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, TypedDict

from titus_celery.core.descriptor import (
    BatchSpec,
    Constraints,
    Container,
    Image,
    Instances,
    JobDescriptor,
    JobGroup,
    JobSpec,
    MantisAgreement,
    MantisSpec,
    Owner,
    RetryKind,
    RetryPolicy,
    ScalingPolicy,
    ServiceSpec,
    Stage,
)
from titus_celery.errors import InvalidRequest, Violation
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = [
    "LONGEST",
    "UINT32_MAX",
    "descriptor_from_pb",
    "descriptor_to_pb",
    "instances_from_pb",
    "owner_to_pb",
    "retry_from_pb",
    "retry_to_pb",
    "uint",
]

#: The longest duration that is told from longer ones: a century. The wire can hold more than a
#: timedelta can, and an instant plus a duration has to stay an instant.
LONGEST: Final = timedelta(days=36_525)

#: The largest number of a uint32 and of a uint64 field.
UINT32_MAX: Final = 2**32 - 1
_UINT64_MAX: Final = 2**64 - 1

_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)


# --------------------------------------------------------------------------- from the wire


def descriptor_from_pb(message: pb.JobDescriptor) -> JobDescriptor:
    """The job that *message* describes; nothing is filled in, nothing is checked.

    InvalidRequest if it has no job spec. Durations beyond `LONGEST` count as that.
    """
    return JobDescriptor(
        spec=_spec_from_pb(message),
        owner=Owner(owner_email=message.owner.ownerEmail, team_email=message.owner.teamEmail),
        app_name=message.appName,
        group=_group_from_pb(message.jobGroupInfo) if message.HasField("jobGroupInfo") else None,
        labels=dict(message.labels),
        containers={name: _container_from_pb(each) for name, each in message.containers.items()},
        cluster_id=message.jobClusterId,
    )


def instances_from_pb(message: pb.TaskInstances) -> Instances:
    """The numbers of tasks that *message* holds; nothing is filled in."""
    return Instances(min=message.min, desired=message.desired, max=message.max)


def retry_from_pb(message: pb.RetryPolicy) -> RetryPolicy | None:
    """The policy, or None if *message* chooses none of the three kinds."""
    match message.WhichOneof("policy"):
        case "immediate":
            return RetryPolicy(kind=RetryKind.IMMEDIATE, retries=message.immediate.retries)
        case "delayed":
            delayed = message.delayed
            return RetryPolicy(
                kind=RetryKind.DELAYED,
                retries=delayed.retries,
                delay_first=_span(delayed.initialDelayMs, _MILLISECOND),
                delay=_span(delayed.delayMs, _MILLISECOND),
            )
        case "exponentialBackOff":
            back_off = message.exponentialBackOff
            return RetryPolicy(
                kind=RetryKind.EXPONENTIAL,
                retries=back_off.retries,
                delay_first=_span(back_off.initialDelayMs, _MILLISECOND),
                delay=_span(back_off.maxDelayIntervalMs, _MILLISECOND),
            )
        case None:
            return None


def _spec_from_pb(message: pb.JobDescriptor) -> JobSpec:
    match message.WhichOneof("jobSpec"):
        case "batch":
            return _batch_from_pb(message.batch)
        case "service":
            return _service_from_pb(message.service)
        case "mantis":
            return _mantis_from_pb(message.mantis)
        case None:
            raise InvalidRequest([Violation("batch", "one of batch, service or mantis must be set")])


def _service_from_pb(message: pb.ServiceJobSpec) -> ServiceSpec:
    return ServiceSpec(
        desired=message.instances.desired,
        min=message.instances.min,
        max=message.instances.max,
        enabled=message.enabled,
        scaling=tuple(
            ScalingPolicy(
                condition=each.condition,
                action=each.action,
                duration=_span(each.durationSecs, _SECOND),
                labels=dict(each.labels),
            )
            for each in message.scalingPolices
        ),
        retry=retry_from_pb(message.retryPolicy),
        container_id=message.containerId,
    )


def _mantis_from_pb(message: pb.MantisJobSpec) -> MantisSpec:
    terms = message.jobSLA
    return MantisSpec(
        name=message.name,
        stages=tuple(
            Stage(
                desired=stage.instances.desired,
                min=stage.instances.min,
                max=stage.instances.max,
                retry=retry_from_pb(stage.retryPolicy),
                container_id=stage.containerId,
                is_scaled=stage.HasField("autoScalingPolicy"),
            )
            for stage in message.stages
        ),
        agreement=MantisAgreement(
            runtime_limit=_span(terms.runtimeLimitSecs, _SECOND),
            min_runtime=_span(terms.minRuntimeSecs, _SECOND),
            is_transient=terms.durationType == pb.MantisJobSLA.Transient,
            user_type=terms.userProvidedType,
        ),
        parameters=dict(message.parameters),
        subscription_timeout=_span(message.subscriptionTimeoutSecs, _SECOND),
    )


def _batch_from_pb(message: pb.BatchJobSpec) -> BatchSpec:
    return BatchSpec(
        desired=message.instances.desired,
        min=message.instances.min,
        max=message.instances.max,
        runtime_limit=_span(message.runtimeLimitSecs, _SECOND),
        retry=retry_from_pb(message.retryPolicy),
        container_id=message.containerId,
    )


def _group_from_pb(message: pb.JobGroupInfo) -> JobGroup:
    return JobGroup(stack=message.stack, detail=message.detail, sequence=message.sequence)


def _container_from_pb(message: pb.Container) -> Container:
    return Container(
        image=Image(name=message.image.name, id=message.image.imageId),
        resources=dict(message.resources),
        security_profile=dict(message.securityProfile),
        parameters=dict(message.parameters),
        entry_point=tuple(message.entryPoint),
        command=tuple(message.command),
        env=dict(message.env),
        soft_constraints=_constraints_from_pb(message.softConstraints),
        hard_constraints=_constraints_from_pb(message.hardConstraints),
    )


def _constraints_from_pb(message: pb.Constraints) -> Constraints:
    return Constraints(constraints=dict(message.constraints), expression=message.expression)


def _span(count: int, unit: timedelta) -> timedelta:
    return unit * min(count, LONGEST // unit)


# ----------------------------------------------------------------------------- to the wire


def descriptor_to_pb(descriptor: JobDescriptor) -> pb.JobDescriptor:
    """*descriptor* as it goes over the wire.

    InvalidRequest for what the wire cannot carry: numbers out of its range, text that is not
    Unicode. Fractions of a second (a millisecond in delays) are rounded up, so that no limit
    becomes none.
    """
    try:
        return pb.JobDescriptor(
            owner=owner_to_pb(descriptor.owner),
            appName=descriptor.app_name,
            jobGroupInfo=_group_to_pb(descriptor.group) if descriptor.group else None,
            labels=descriptor.labels,
            containers={name: _container_to_pb(each) for name, each in descriptor.containers.items()},
            jobClusterId=descriptor.cluster_id,
            **_spec_to_pb(descriptor.spec),
        )
    except UnicodeEncodeError as error:
        # Not the text itself: it may be a secret of the container's environment.
        bad = error.object[error.start : error.end]
        text = f"a text of it has {bad!r} at character {error.start}, which is not Unicode"
        raise InvalidRequest([Violation("jobDescriptor", text)]) from error


def retry_to_pb(policy: RetryPolicy, of: str = "batch") -> pb.RetryPolicy:
    """*policy* of such a job as it goes over the wire; InvalidRequest for numbers that do not fit."""
    at = f"{of}.retryPolicy.{policy.kind.value}"
    retries = uint(policy.retries, UINT32_MAX, f"{at}.retries")
    match policy.kind:
        case RetryKind.IMMEDIATE:
            return pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=retries))
        case RetryKind.DELAYED:
            delayed = pb.RetryPolicy.Delayed(
                initialDelayMs=_units(policy.delay_first, _MILLISECOND, f"{at}.initialDelayMs"),
                delayMs=_units(policy.delay, _MILLISECOND, f"{at}.delayMs"),
                retries=retries,
            )
            return pb.RetryPolicy(delayed=delayed)
        case RetryKind.EXPONENTIAL:
            back_off = pb.RetryPolicy.ExponentialBackOff(
                initialDelayMs=_units(policy.delay_first, _MILLISECOND, f"{at}.initialDelayMs"),
                maxDelayIntervalMs=_units(policy.delay, _MILLISECOND, f"{at}.maxDelayIntervalMs"),
                retries=retries,
            )
            return pb.RetryPolicy(exponentialBackOff=back_off)


class _Spec(TypedDict, total=False):
    """The one member that a descriptor's spec becomes."""

    batch: pb.BatchJobSpec
    service: pb.ServiceJobSpec
    mantis: pb.MantisJobSpec


def _spec_to_pb(spec: JobSpec) -> _Spec:
    match spec:
        case BatchSpec():
            return {"batch": _batch_to_pb(spec)}
        case ServiceSpec():
            return {"service": _service_to_pb(spec)}
        case MantisSpec():
            return {"mantis": _mantis_to_pb(spec)}


def _mantis_to_pb(mantis: MantisSpec) -> pb.MantisJobSpec:
    terms, at = mantis.agreement, "mantis.jobSLA"
    kinds = pb.MantisJobSLA
    return pb.MantisJobSpec(
        name=mantis.name,
        jobSLA=pb.MantisJobSLA(
            runtimeLimitSecs=_units(terms.runtime_limit, _SECOND, f"{at}.runtimeLimitSecs"),
            minRuntimeSecs=_units(terms.min_runtime, _SECOND, f"{at}.minRuntimeSecs"),
            durationType=kinds.Transient if terms.is_transient else kinds.Perpetual,
            userProvidedType=terms.user_type,
        ),
        parameters=mantis.parameters,
        subscriptionTimeoutSecs=_units(
            mantis.subscription_timeout, _SECOND, "mantis.subscriptionTimeoutSecs"
        ),
        stages=[
            pb.MantisStage(
                instances=_instances_to_pb(stage, f"mantis.stages[{number}].instances"),
                containerId=stage.container_id,
                retryPolicy=retry_to_pb(stage.retry, f"mantis.stages[{number}]") if stage.retry else None,
            )
            for number, stage in enumerate(mantis.stages)
        ],
    )


def _batch_to_pb(batch: BatchSpec) -> pb.BatchJobSpec:
    return pb.BatchJobSpec(
        instances=_instances_to_pb(batch, "batch.instances"),
        runtimeLimitSecs=_units(batch.runtime_limit, _SECOND, "batch.runtimeLimitSecs"),
        retryPolicy=retry_to_pb(batch.retry) if batch.retry else None,
        containerId=batch.container_id,
    )


def _service_to_pb(service: ServiceSpec) -> pb.ServiceJobSpec:
    at = "service.scalingPolices"
    return pb.ServiceJobSpec(
        instances=_instances_to_pb(service, "service.instances"),
        enabled=service.enabled,
        scalingPolices=[
            pb.ScalingPolicy(
                condition=each.condition,
                action=each.action,
                durationSecs=_units(each.duration, _SECOND, f"{at}.durationSecs"),
                labels=each.labels,
            )
            for each in service.scaling
        ],
        retryPolicy=retry_to_pb(service.retry, "service") if service.retry else None,
        containerId=service.container_id,
    )


def _instances_to_pb(spec: BatchSpec | ServiceSpec | Stage, at: str) -> pb.TaskInstances:
    return pb.TaskInstances(
        min=uint(spec.min, UINT32_MAX, f"{at}.min"),
        max=uint(spec.max, UINT32_MAX, f"{at}.max"),
        desired=uint(spec.desired, UINT32_MAX, f"{at}.desired"),
    )


def owner_to_pb(owner: Owner) -> pb.Owner | None:
    """*owner* as it goes over the wire; None for nobody."""
    if owner == Owner():
        return None
    return pb.Owner(ownerEmail=owner.owner_email, teamEmail=owner.team_email)


def _group_to_pb(group: JobGroup) -> pb.JobGroupInfo:
    return pb.JobGroupInfo(stack=group.stack, detail=group.detail, sequence=group.sequence)


def _container_to_pb(container: Container) -> pb.Container:
    return pb.Container(
        resources=container.resources,
        securityProfile=container.security_profile,
        image=pb.Image(imageId=container.image.id, name=container.image.name),
        parameters=container.parameters,
        entryPoint=container.entry_point,
        command=container.command,
        env=container.env,
        softConstraints=_constraints_to_pb(container.soft_constraints),
        hardConstraints=_constraints_to_pb(container.hard_constraints),
    )


def _constraints_to_pb(constraints: Constraints) -> pb.Constraints | None:
    if constraints == Constraints():
        return None
    return pb.Constraints(constraints=constraints.constraints, expression=constraints.expression)


def _units(span: timedelta, unit: timedelta, at: str) -> int:
    return uint(-(-span // unit), _UINT64_MAX, at)


def uint(number: int, top: int, at: str) -> int:
    """*number*, if the field *at* can carry it, which goes up to *top*; InvalidRequest if not."""
    if 0 <= number <= top:
        return number
    raise InvalidRequest([Violation(at, f"{number} does not fit: it must be from 0 to {top}")])
