"""Every store that the contracts are tried on; a missing server is a failure, never a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.contracts.stores import Bench, MemoryBench, RedisBench, server_binary
from titus_celery.adapters.redis_server import RedisServer, start_server


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    """The servers that were needed so far, by name."""
    running: dict[str, RedisServer] = {}
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture(params=["memory", "bundled", "debian"])
def bench(
    request: pytest.FixtureRequest,
    servers: dict[str, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """An empty store behind all of its ports."""
    name: str = request.param
    if name == "memory":
        yield Bench(MemoryBench())
        return
    if name not in servers:
        servers[name] = start_server(tmp_path_factory.mktemp(name), binary=server_binary(name))
    with closing(RedisBench(servers[name].url)) as world:
        yield Bench(world)
