"""What gRPC raises, and time that passes by waiting alone, for the tests of the client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc

__all__ = ["Broke", "Waits"]


class Broke(grpc.RpcError, grpc.Call):
    """What gRPC raises when a call ends with another status than OK."""

    def __init__(self, code: grpc.StatusCode, details: str = "words", trailers: tuple[Any, ...] = ()) -> None:
        self._code = code
        self._details = details
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[Any, ...]:
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._trailers

    def add_callback(self, callback: object) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0


class Waits:
    """Time that passes by waiting alone, until the client is closed in the middle of a wait."""

    def __init__(self, closed_after: int = 1_000_000) -> None:
        self.spans: list[timedelta] = []
        self._closed_after = closed_after

    def now(self) -> timedelta:
        return sum(self.spans, timedelta(0))

    def wait(self, span: timedelta) -> bool:
        self.spans.append(span)
        return len(self.spans) >= self._closed_after
