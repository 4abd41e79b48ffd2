"""Tests about chance: once in the fast tier, many times in the full one (`make test-full`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

__all__ = ["again"]

F = TypeVar("F", bound=Callable[..., Any])


def again(times: int) -> Callable[[F], F]:
    """Run a test so many times in the full tier, each time with everything made anew."""
    rounds = [1, *(pytest.param(nth, marks=pytest.mark.full) for nth in range(2, times + 1))]
    repeated = pytest.mark.parametrize("nth", rounds, indirect=True)
    return lambda test: pytest.mark.usefixtures("nth")(repeated(test))
