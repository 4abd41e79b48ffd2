"""The installation that every rule is tried on, twice: over a store in memory, and over a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conformance.installation import Hand, Loop, Titus, serving
from tests.contracts.stores import HandMovedRedisBench, MemoryBench, server_binary
from titus_celery.adapters.redis_server import start_server


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """Where the gateways run."""
    with closing(Loop()) as running:
        yield running


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this suite's own."""
    server = start_server(tmp_path_factory.mktemp("redis"), binary=server_binary("debian"))
    yield server.url
    server.stop()


@pytest.fixture(params=["memory", "redis"])
def hand(request: pytest.FixtureRequest) -> Iterator[Hand]:
    """An empty store whose time only the test moves."""
    if request.param == "memory":
        yield MemoryBench()
        return
    with closing(HandMovedRedisBench(request.getfixturevalue("redis_url"))) as bench:
        yield bench
        bench.raw.flushdb()


@pytest.fixture
def titus(hand: Hand, loop: Loop) -> Iterator[Titus]:
    """A running installation and a client of it."""
    with serving(hand, loop) as running:
        yield running
