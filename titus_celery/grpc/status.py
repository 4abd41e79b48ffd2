"""What a client sees of each error: one table, and the trailers (docs/semantics.md B0.8-0.10).

Everything is cut to what fits: gRPC drops a reply whose trailers exceed 8 KiB, and the client
would learn nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from titus_celery.errors import (
    AlreadyExists,
    AnswerPending,
    Busy,
    Conflict,
    EngineFault,
    FailedPrecondition,
    Fenced,
    Full,
    ImageMissing,
    InvalidRequest,
    InvalidSchedule,
    LimitReached,
    NotFound,
    PartialFailure,
    PlaceTaken,
    PositionLost,
    SettingsError,
    SlowObserver,
    StartRefused,
    StoreCorrupt,
    StoreFull,
    StoreUnavailable,
    Taken,
    TitusError,
    Unavailable,
    Unsupported,
    Violation,
)
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1

__all__ = ["ERROR_KEY", "INTERNAL", "STATUS", "Refusal", "refusal_of"]

#: The trailer that every error of ours carries: "<error>: <message>" in ASCII.
ERROR_KEY: Final = "x-titus-error"
#: Bytes of the message on the wire, where all but printable ASCII takes three for one.
MESSAGE_BYTES_MAX: Final = 1_024
#: Characters of ERROR_KEY's value.
TRAILER_CHARS_MAX: Final = 1_024
#: Bytes of the details; base64 makes them 4 KiB. With the two above and the names: below 8 KiB.
DETAILS_BYTES_MAX: Final = 3_072
#: Characters of one violation's path and of its text: a hostile value does not hide the others.
VIOLATION_CHARS_MAX: Final = 160

STATUS: Final[Mapping[type[TitusError], grpc.StatusCode]] = MappingProxyType(
    {
        AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        AnswerPending: grpc.StatusCode.UNAVAILABLE,
        Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Conflict: grpc.StatusCode.ABORTED,
        EngineFault: grpc.StatusCode.UNAVAILABLE,
        FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        Fenced: grpc.StatusCode.ABORTED,
        Full: grpc.StatusCode.RESOURCE_EXHAUSTED,
        ImageMissing: grpc.StatusCode.INVALID_ARGUMENT,
        InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
        InvalidSchedule: grpc.StatusCode.INVALID_ARGUMENT,
        LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
        NotFound: grpc.StatusCode.NOT_FOUND,
        # Unless all that failed have one status in common.
        PartialFailure: grpc.StatusCode.FAILED_PRECONDITION,
        PlaceTaken: grpc.StatusCode.FAILED_PRECONDITION,
        PositionLost: grpc.StatusCode.OUT_OF_RANGE,
        SettingsError: grpc.StatusCode.FAILED_PRECONDITION,
        SlowObserver: grpc.StatusCode.RESOURCE_EXHAUSTED,
        StartRefused: grpc.StatusCode.FAILED_PRECONDITION,
        StoreCorrupt: grpc.StatusCode.DATA_LOSS,
        StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
        StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
        Taken: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    }
)

Trailers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What ends a call that did not succeed."""

    code: grpc.StatusCode
    message: str
    trailers: Trailers


def refusal_of(error: TitusError) -> Refusal:
    """How *error* is told to a client."""
    code = _code_of(error)
    message = _message_of(error)
    trailers: Trailers = ((ERROR_KEY, _ascii(f"{type(error).__name__}: {message}")),)
    if isinstance(error, InvalidRequest):
        trailers += _details(code, message, error.violations)
    elif isinstance(error, PartialFailure):
        trailers += _partial_details(code, message, error)
    return Refusal(code, message, trailers)


def _code_of(error: TitusError) -> grpc.StatusCode:
    if isinstance(error, PartialFailure):
        codes = {_code_of(each) for _, each in error.failures}
        if len(codes) == 1:
            return codes.pop()
    return STATUS[type(error)]


#: What a client hears of a fault of ours: not what it was, which is in the log.
INTERNAL: Final = Refusal(
    grpc.StatusCode.INTERNAL,
    "a fault of titus_celery itself; its gateway's log says more",
    ((ERROR_KEY, "Internal: a fault of titus_celery itself; its gateway's log says more"),),
)


def _message_of(error: TitusError) -> str:
    if isinstance(error, InvalidRequest):
        return _all_that_fit([str(_cut(violation)) for violation in error.violations])
    text = _encodable(str(error))
    return text if _wire_size(text) <= MESSAGE_BYTES_MAX else _head(text, MESSAGE_BYTES_MAX - 3) + "..."


def _all_that_fit(parts: Sequence[str]) -> str:
    """*parts* joined, or as many of them as fit and how many more there are."""
    text, most = "", MESSAGE_BYTES_MAX - len(f"; ... and {len(parts)} more")
    for shown, part in enumerate(parts):
        longer = f"{text}; {part}" if text else part
        if _wire_size(longer) > most:
            return f"{text or _head(part, most)}; ... and {len(parts) - max(shown, 1)} more"
        text = longer
    return text


def _details(code: grpc.StatusCode, message: str, violations: Sequence[Violation]) -> Trailers:
    """The google.rpc.Status with a BadRequest of as many violations as fit."""
    bad = error_details_pb2.BadRequest()
    status = _rich(code, message, bad)
    for violation in map(_cut, violations):
        bad.field_violations.add(field=violation.field, description=violation.text)
        longer = _rich(code, message, bad)
        if longer.ByteSize() > DETAILS_BYTES_MAX:
            break
        status = longer
    return tuple(rpc_status.to_status(status).trailing_metadata)


def _partial_details(code: grpc.StatusCode, message: str, error: PartialFailure) -> Trailers:
    """The google.rpc.Status with a PartialFailure of as many failures, then ids, as fit."""
    partial = v1.PartialFailure()
    status = _rich(code, message, partial)
    for id, each in error.failures:
        number: int = _code_of(each).value[0]
        partial.failures.add(id=_short(id), code=number, message=_short(_message_of(each)))
        longer = _rich(code, message, partial)
        if longer.ByteSize() > DETAILS_BYTES_MAX:
            break
        status = longer
    for id in error.done:
        partial.done.append(_short(id))
        longer = _rich(code, message, partial)
        if longer.ByteSize() > DETAILS_BYTES_MAX:
            break
        status = longer
    return tuple(rpc_status.to_status(status).trailing_metadata)


def _rich(code: grpc.StatusCode, message: str, bad: Message) -> status_pb2.Status:
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=message)
    status.details.add().Pack(bad)
    return status


def _cut(violation: Violation) -> Violation:
    return Violation(_short(violation.field), _short(violation.text))


def _short(text: str) -> str:
    text = _encodable(text)
    return text if len(text) <= VIOLATION_CHARS_MAX else text[: VIOLATION_CHARS_MAX - 3] + "..."


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _wire_size(text: str) -> int:
    """Bytes of *text* as a status message: percent-encoded but for printable ASCII."""
    return sum(1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode()) for char in text)


def _head(text: str, size: int) -> str:
    """As much of the beginning of *text* as takes at most *size* bytes on the wire."""
    used = 0
    for at, char in enumerate(text):
        used += _wire_size(char)
        if used > size:
            return text[:at]
    return text


def _ascii(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")[:TRAILER_CHARS_MAX]
