"""What tests of every kind share."""

from __future__ import annotations

import pytest


@pytest.fixture
def nth(request: pytest.FixtureRequest) -> int:
    """Which repetition it is, from 1 (see tests/repetition.py)."""
    number: int = request.param
    return number
