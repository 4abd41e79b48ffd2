"""What a job's description says, in words for a table of facts; what it does not say is an empty text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta

from titus_celery.cli.specs import is_service, spec_of
from titus_celery.core.parameters import VOLUMES
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["container", "group", "labels", "owner", "retries", "seconds"]


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


def labels(of: Mapping[str, str]) -> dict[str, str]:
    """A row for each label."""
    return {f"label {name}": value for name, value in sorted(of.items())}


def retries(of: pb.JobDescriptor) -> str:
    """How often a task is tried again, and after how long."""
    policy = spec_of(of).retryPolicy
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
    return "without end" if is_service(of) else ""


def seconds(count: int) -> str:
    """A span, or nothing if there is none."""
    return str(timedelta(seconds=count)) if count else ""


def _ms(count: int) -> str:
    return f"{count / 1000:g} s"


def _pairs(of: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" if value else name for name, value in sorted(of.items()))
