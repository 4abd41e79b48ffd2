"""What a caller learns when a call did not succeed: one kind of error, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from titus_celery.errors import TitusError

__all__ = ["CallFailed", "describe", "failure"]

#: What to do, by gRPC status; for the others the server's own words are all there is.
_HINTS: Final[Mapping[str, str]] = {
    "DEADLINE_EXCEEDED": "the server is slow or hung; try again",
    "INTERNAL": "this is a fault of the server; its log has the details",
    "INVALID_ARGUMENT": "correct the request and send it again",
    "RESOURCE_EXHAUSTED": "try again later",
    "UNIMPLEMENTED": "this server does not offer it",
}

#: How the gRPC library words a failure to reach anybody. Its wording is not a contract: if it changes,
#: the message is less helpful and nothing else happens.
_NOBODY_THERE: Final = (
    "failed to connect",
    "DNS resolution failed",
    "errors resolving",
    "address lookup failed",
    "Socket closed",
    "keepalive watchdog",
)


class CallFailed(TitusError):
    """A call was refused, or the server could not be reached.

    *status* is the name of the gRPC status, *why* the server's own message, *hint* what to try.
    """

    def __init__(self, doing: str, status: str, why: str, hint: str = "") -> None:
        super().__init__(doing, status, why, hint)
        self.doing, self.status, self.why, self.hint = doing, status, why, hint

    def __str__(self) -> str:
        return "; ".join(part for part in (f"cannot {self.doing}", self.why, self.hint) if part)


def failure(status: str, why: str, doing: str, server: str) -> CallFailed:
    """What ended with *status* and *why*, for somebody who was *doing* something at *server*."""
    if status == "UNAVAILABLE":
        if any(words in why for words in _NOBODY_THERE):
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


def describe(error: grpc.RpcError) -> tuple[str, str]:
    """Name of the status, and message, of an error that a call raised."""
    assert isinstance(error, grpc.Call)
    return error.code().name, error.details() or ""
