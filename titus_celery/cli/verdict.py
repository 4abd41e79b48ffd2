"""The exit code of a followed job, from how its tasks ended, and nothing from the wording of a reason.

| code | means |
|---|---|
| the container's own | of the last run of each slot, the first that is not 0, by stage and slot |
| 0 | also: a Mantis job that was ended as its owner or its cluster has it |
| 124 | it ran into its runtime limit |
| 125 | no container of that slot ran to an exit, or it was ended from outside and exited with 0 |
| 128+n | signal n ended it |

A task of a service that was made smaller ended well, whatever its exit was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from titus_celery.core.reasons import Code
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1

__all__ = ["Verdict", "of_end", "of_mantis", "of_slots"]

#: How slots are told apart, in their order.
Slot = TypeVar("Slot", int, tuple[int, int])

LIMIT_REACHED: Final = 124
NOT_RUN: Final = 125
SIGNALLED: Final = 128
_OF_LIMIT: Final = "it ran into its runtime limit"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An exit code, and in words why, where the code alone does not tell."""

    code: int
    why: str = ""


def of_end(end: v1.End | None, memory: str) -> Verdict:
    """What one run means. *memory* is its limit, in words; None: nothing could be learnt of its end."""
    if end is None:
        return Verdict(NOT_RUN, "how it ended could not be learnt")
    if end.reason_code in (Code.NORMAL.value, Code.SCALED_DOWN.value):
        return Verdict(0)
    if end.reason_code == Code.LIMIT.value:
        return Verdict(LIMIT_REACHED, _OF_LIMIT)
    reason = end.reason or end.reason_code or "no reason was given"
    if end.reason_code == Code.OOM.value:
        reason = f"out of memory (limit {memory})" if memory else "out of memory"
    if end.exited and end.signal:
        return Verdict(SIGNALLED + end.signal, reason)
    if end.exited and end.exit_code:
        is_plain = end.reason_code in (Code.FAILED.value, Code.CRASHED.value)
        return Verdict(end.exit_code, "" if is_plain else reason)
    return Verdict(NOT_RUN, reason)


def of_mantis(reason: str) -> Verdict:
    """What it means that a Mantis job finished for this reason, although its tasks did not end well."""
    code, _, _ = reason.partition(":")
    if code == Code.LIMIT.value:
        return Verdict(LIMIT_REACHED, _OF_LIMIT)
    return Verdict(0, f"the job finished: {reason}")


def of_slots(verdicts: Mapping[Slot, Verdict]) -> tuple[Slot, Verdict] | None:
    """The first slot that did not end well, and its verdict; None if all of them did."""
    return next(((slot, verdicts[slot]) for slot in sorted(verdicts) if verdicts[slot].code), None)
