"""The gateway that most tests call, and the rule that no call may end in a fault of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.grpc_api.world import World, world


@pytest.fixture
async def titus() -> AsyncIterator[World]:
    """A running gateway; it is an error of the test that uses it if a call to it ended INTERNAL."""
    async with world() as running:
        yield running
        faults = running.gateway.internal_errors
    assert faults == 0, f"{faults} calls ended INTERNAL; the log above says why"
