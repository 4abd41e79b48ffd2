"""What the tests of the commands share: a running scripted server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.scripted_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    servicer = Server()  # type: ignore[abstract]  # the methods that no command calls are missing
    running = servicer.start()
    yield servicer
    running.stop(None).wait()
