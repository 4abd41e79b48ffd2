"""What a job's description says, in words for a table of facts; what it does not say is an empty text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from titus_celery.cli.specs import Part
from titus_celery.core.cluster import CATCH_UP, TIME_ZONE
from titus_celery.core.parameters import VOLUMES
from titus_celery.core.retry import WORKER_DELAYS, WORKER_RETRIES_MAX
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["container", "group", "kind", "labels", "mantis", "owner", "retries", "schedule", "seconds"]

_KINDS: Final = {"batch": "batch job", "service": "service", "mantis": "Mantis job"}


def kind(of: pb.JobDescriptor) -> str:
    """What kind of job it is."""
    return _KINDS.get(of.WhichOneof("jobSpec") or "", "job")


def owner(of: pb.Owner) -> dict[str, str]:
    """Who answers for it; the team only if it is somebody else."""
    return {"owner": of.ownerEmail, "team": of.teamEmail if of.teamEmail != of.ownerEmail else ""}


def group(of: pb.JobGroupInfo) -> dict[str, str]:
    """Its place within an application."""
    return {"stack": of.stack, "detail": of.detail, "sequence": of.sequence}


def container(of: pb.Container) -> dict[str, str]:
    """What is run, with what, and where it may be. The values of its environment are not for a screen."""
    parameters = {name: value for name, value in of.parameters.items() if name != VOLUMES}
    return {
        "image": of.image.name,
        "image id": of.image.imageId,
        "command": shlex.join([*of.entryPoint, *of.command]),
        **dict(sorted(of.resources.items())),
        "volumes": of.parameters.get(VOLUMES, ""),
        "parameters": _pairs(parameters),
        "constraints": _pairs(of.hardConstraints.constraints),
        "soft constraints": _pairs(of.softConstraints.constraints),
        "security profile": _pairs(of.securityProfile),
    }


def mantis(of: pb.MantisJobSpec) -> dict[str, str]:
    """How long a Mantis job lives, and what holds for all of its stages."""
    terms = of.jobSLA
    idle = ""
    if terms.durationType == pb.MantisJobSLA.Transient:
        idle = f"after {seconds(of.subscriptionTimeoutSecs) or 'some time'} without observers"
        idle += f", {seconds(terms.minRuntimeSecs)} after it runs at the soonest" * bool(terms.minRuntimeSecs)
    return {
        "time limit": seconds(terms.runtimeLimitSecs),
        "ends": idle,
        "unique as": terms.userProvidedType,
        "job parameters": _pairs(of.parameters),
    }


def labels(of: Mapping[str, str]) -> dict[str, str]:
    """A row for each label."""
    return {f"label {name}": value for name, value in sorted(of.items())}


def retries(of: Part) -> str:
    """How often a task of this part is tried again, and after how long."""
    policy = of.retryPolicy
    match policy.WhichOneof("policy"):
        case "immediate":
            return str(policy.immediate.retries)
        case "delayed":
            first, later = policy.delayed.initialDelayMs, policy.delayed.delayMs
            return f"{policy.delayed.retries}, the first after {_ms(first)}, others after {_ms(later)}"
        case "exponentialBackOff":
            backed_off = policy.exponentialBackOff
            most = f", at most {_ms(backed_off.maxDelayIntervalMs)}" if backed_off.maxDelayIntervalMs else ""
            return f"{backed_off.retries}, after {_ms(backed_off.initialDelayMs)}, then doubling{most}"
    if isinstance(of, pb.MantisStage):
        soonest, *others = (f"{delay.total_seconds():g}" for delay in WORKER_DELAYS)
        return f"{WORKER_RETRIES_MAX}, the first after {soonest} s, others after {', '.join(others)} s"
    return "without end" if isinstance(of, pb.ServiceJobSpec) else ""


def schedule(of: pb.JobClusterDescriptor) -> str:
    """When jobs of the cluster are made, on whose clocks, and what about one that lives then."""
    rules, parameters = of.mantis, of.jobDescriptor.mantis.parameters
    if not rules.cronSpec:
        return ""
    told = [f"{rules.cronSpec} ({parameters.get(TIME_ZONE) or 'UTC'})", rules.cronPolicy]
    told += ["catches up"] if parameters.get(CATCH_UP) == "once" else []
    return ", ".join(part for part in told if part)


def seconds(count: int) -> str:
    """A span, or nothing if there is none."""
    return str(timedelta(seconds=count)) if count else ""


def _ms(count: int) -> str:
    return f"{count / 1000:g} s"


def _pairs(of: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" if value else name for name, value in sorted(of.items()))
