"""What this release does not have yet is refused by name and changes nothing (A16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.conformance.installation import Titus, service
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def unsupported(titus: Titus, method: Callable[..., Any], request: Any, *said: str, **metadata: str) -> None:
    """This release does not have it, says so by name, and nothing changes."""
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    error = titus.refused(method, request, sent)
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert "is not supported by this release" in error.details
    for text in said:
        assert text in error.details


POLICY = pb.ScalingPolicy(
    condition="avg(CPUUtilization) > 80% AND max(queue.depth) >= 2.5 OR min(x) == 0",
    action="addInstances 10%",
)


def test_a_scaling_policy_that_can_be_read_is_refused_by_name(titus: Titus) -> None:
    for action in ("addInstances 1", "removeInstances 10%", "setInstances 3"):
        policy = pb.ScalingPolicy(condition=POLICY.condition, action=action, durationSecs=60)
        unsupported(titus, titus.jobs.CreateJob, service(1, scalingPolices=[policy]), "scalingPolices")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("condition", ""),
        ("condition", "CPUUtilization > 80%"),
        ("condition", "avg(CPU) > 80 AND"),
        ("condition", "median(CPU) > 80"),
        ("condition", "avg(CPU) <> 80"),
        ("condition", "avg(CPU) > NaN"),
        ("condition", "avg(CPU) > -1"),
        ("condition", "x" * 1_025),
        ("action", ""),
        ("action", "addInstances"),
        ("action", "addInstances -1"),
        ("action", "add 1"),
        ("action", "addInstances 1.5"),
    ],
)
def test_a_scaling_policy_that_cannot_be_read_is_a_wrong_one(titus: Titus, field: str, text: str) -> None:
    policy = pb.ScalingPolicy()
    policy.CopyFrom(POLICY)
    setattr(policy, field, text)
    titus.wrong(service(1, scalingPolices=[policy]), f"service.scalingPolices[0].{field}")


def test_scaling_policies_have_their_bounds(titus: Titus) -> None:
    titus.wrong(service(1, scalingPolices=[POLICY] * 21), "service.scalingPolices:", "the most is 20")
    long = pb.ScalingPolicy(condition="avg(x) > 1", action="addInstances 1", durationSecs=2**64 - 1)
    titus.wrong(service(1, scalingPolices=[long]), "service.scalingPolices[0].durationSecs")
    wide = pb.ScalingPolicy(condition="avg(x) > 1", action="addInstances 1", labels={"x": "x" * 2**16})
    titus.wrong(service(1, scalingPolices=[wide]), "service.scalingPolices[0].labels: has 65537 bytes")
