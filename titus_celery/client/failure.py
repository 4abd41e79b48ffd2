"""What a caller learns when a call did not succeed: one kind of error, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from titus_celery.errors import TitusError
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1

__all__ = ["CallFailed", "Failed", "describe", "failure", "is_unreached", "partly", "parts_of"]

#: What to do, by gRPC status; for the others the server's own words are all there is.
_HINTS: Final[Mapping[str, str]] = {
    "ALREADY_EXISTS": "send it with another key, or the same job as before",
    "DEADLINE_EXCEEDED": "the server is slow or hung; try again",
    "INTERNAL": "this is a fault of the server; its log has the details",
    "INVALID_ARGUMENT": "correct the request and send it again",
    "RESOURCE_EXHAUSTED": "try again later",
    "UNIMPLEMENTED": "this server does not offer it",
}

#: How the gRPC library words it that no connection came about. Its wording is not a contract: if it
#: changes, messages are less helpful, and a server that is not there is looked for a little longer.
_UNREACHED: Final = (
    "failed to connect",
    "DNS resolution failed",
    "errors resolving",
    "address lookup failed",
)
#: The same for a connection that broke.
_BROKEN: Final = ("Socket closed", "keepalive watchdog")

_NAMES: Final[Mapping[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}
#: Things that were not done and are named in the message of an error; its fields have all of them.
NAMED_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Failed:
    """One of several things that was not done: the name of the gRPC status, and the server's message."""

    id: str
    status: str
    why: str


class CallFailed(TitusError):
    """A call was refused, or the server could not be reached.

    *status* is the name of the gRPC status, *why* the server's own message, *hint* what to try. Of a call
    about several things, *failures* has those that were not done, and *done* the ids of those that were.
    """

    def __init__(
        self,
        doing: str,
        status: str,
        why: str,
        hint: str = "",
        failures: Sequence[Failed] = (),
        done: Sequence[str] = (),
    ) -> None:
        super().__init__(doing, status, why, hint, tuple(failures), tuple(done))
        self.doing, self.status, self.why, self.hint = doing, status, why, hint
        self.failures: tuple[Failed, ...] = tuple(failures)
        self.done: tuple[str, ...] = tuple(done)

    def with_hint(self, hint: str) -> CallFailed:
        """The same, with something else to try."""
        return CallFailed(self.doing, self.status, self.why, hint, self.failures, self.done)

    def __str__(self) -> str:
        return "; ".join(part for part in (f"cannot {self.doing}", self.why, self.hint) if part)


def failure(status: str, why: str, doing: str, server: str) -> CallFailed:
    """What ended with *status* and *why*, for somebody who was *doing* something at *server*."""
    if status == "UNAVAILABLE":
        if is_unreached(status, why) or any(words in why for words in _BROKEN):
            return CallFailed(
                doing,
                status,
                f"no Titus server answers at {server}",
                "start one with `titus dev`, or name yours with --server",
            )
        return CallFailed(
            doing, status, why or f"the server at {server} is not ready", "try again in a moment"
        )
    return CallFailed(doing, status, why or f"the server answered {status}", _HINTS.get(status, ""))


def is_unreached(status: str, why: str) -> bool:
    """Whether there was nobody to send anything to."""
    return status == "UNAVAILABLE" and any(words in why for words in _UNREACHED)


def describe(error: grpc.RpcError) -> tuple[str, str]:
    """Name of the status, and message, of an error that a call raised."""
    assert isinstance(error, grpc.Call)
    return error.code().name, error.details() or ""


def parts_of(error: grpc.RpcError) -> tuple[Sequence[Failed], Sequence[str]]:
    """What a call about several things did not do, and did, as the details of its error say."""
    assert isinstance(error, grpc.Call)
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that are none, or belong to another status: the message is all there is then.
        status = None
    partial = v1.PartialFailure()
    for detail in status.details if status is not None else ():
        if detail.Unpack(partial):
            break
    failures = [Failed(each.id, _NAMES.get(each.code, "UNKNOWN"), each.message) for each in partial.failures]
    return failures, list(partial.done)


def partly(doing: str, failures: Sequence[Failed], done: Sequence[str]) -> CallFailed:
    """The error that some things were not done. If their statuses differ, its own is FAILED_PRECONDITION."""
    statuses = {each.status for each in failures}
    status = statuses.pop() if len(statuses) == 1 else "FAILED_PRECONDITION"
    told = [f"{each.id}: {each.why}" for each in failures[:NAMED_MAX]]
    if len(failures) > NAMED_MAX:
        told.append(f"and {len(failures) - NAMED_MAX} more")
    return CallFailed(doing, status, "; ".join(told), failures=failures, done=done)
