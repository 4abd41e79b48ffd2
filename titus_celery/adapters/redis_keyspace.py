"""The keyspace in Redis 6.2 or later, or Valkey.

Writes go through one script (commit.lua) and are never repeated here: after a lost connection nobody
knows whether they took place, so the caller hears StoreUnavailable and looks. Reads are repeated once,
because a connection that was idle may have gone without either side having noticed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib.resources import files
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from titus_celery.adapters import keyspace as ks
from titus_celery.adapters.redis_wire import wire
from titus_celery.errors import SettingsError, StoreCorrupt, StoreUnavailable

__all__ = ["RedisKeyspace", "ServerFacts", "script_header", "server_facts"]

_LOG: Final = logging.getLogger(__name__)

#: A server that does not accept a connection this soon is taken to be away.
CONNECT_TIMEOUT: Final = timedelta(seconds=2)
#: No script or read of ours takes anywhere near this long.
ANSWER_TIMEOUT: Final = timedelta(seconds=10)
#: Connections idle for longer are tried with a PING before use.
HEALTH_CHECK_AFTER: Final = timedelta(seconds=15)
#: A longer wait is made of several of these, each shorter than ANSWER_TIMEOUT.
BLOCK_MAX: Final = timedelta(seconds=5)
#: Connections of one process; each thread uses one at a time, a waiting observer included.
CONNECTIONS_MAX: Final = 4_096
#: What the script needs (XADD with MINID) came with it.
VERSION_MIN: Final = (6, 2)
#: From here on a script can say that it is to run although memory is used up.
VERSION_WITH_FLAGS: Final = (7, 0)

#: What a server says when it lives but cannot serve; any other refusal is a fault of ours.
_AWAY: Final = ("LOADING", "BUSY", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")
#: The same, where the client has a class of its own and leaves the code out of the text.
_AWAY_ERRORS: Final = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.NoPermissionError,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself, for start-up and `titus doctor`."""

    version: str
    #: Whether every write is kept in an append-only file (P1).
    append_only: bool
    #: Bytes it may use; 0: all there are.
    memory_max: int


@dataclass(frozen=True, slots=True)
class _Script:
    """A script, and what a server that knows it calls it."""

    source: bytes
    id: str

    @classmethod
    def of(cls, source: bytes) -> _Script:
        return cls(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def server_facts(info: Mapping[str, Any]) -> ServerFacts:
    """What matters of a server's INFO; SettingsError if such a server cannot be the store."""
    version = str(info.get("redis_version", "0"))
    if _version(info) < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise SettingsError("TITUS_REDIS_URL", f"the server is Redis {version}; {wanted} is needed")
    policy = info.get("maxmemory_policy")
    if policy is None:
        _LOG.warning("cannot see the Redis setting maxmemory-policy; make sure that it is noeviction")
    elif policy != "noeviction":
        raise SettingsError(
            "TITUS_REDIS_URL",
            f"the server's maxmemory-policy is {policy}, which drops records when memory is short; "
            "set it to noeviction",
        )
    return ServerFacts(
        version=version,
        append_only=bool(info.get("aof_enabled", 0)),
        memory_max=int(info.get("maxmemory", 0)),
    )


def script_header(info: Mapping[str, Any]) -> bytes:
    """The first line that lets a script run although memory is used up; none before Redis 7.

    Valkey gives itself a Redis version above that.
    """
    return b"#!lua flags=allow-oom\n" if _version(info) >= VERSION_WITH_FLAGS else b""


def _version(info: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])


class RedisKeyspace:
    """The keyspace of the server at *url*; connects at first use. Threads may share it."""

    def __init__(self, url: str, namespace: str = "titus") -> None:
        self._namespace = namespace
        try:
            self._client = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=CONNECT_TIMEOUT.total_seconds(),
                socket_timeout=ANSWER_TIMEOUT.total_seconds(),
                health_check_interval=int(HEALTH_CHECK_AFTER.total_seconds()),
                max_connections=CONNECTIONS_MAX,
            )
        except ValueError as error:
            raise SettingsError("TITUS_REDIS_URL", str(error)) from error
        # Typed here, because the client's own methods are not.
        self._do: Callable[..., Any] = self._client.execute_command
        self._growing = _Script.of(files(__package__).joinpath("commit.lua").read_bytes())
        #: The same for writes that must go through; known once the server's version is.
        self._lasting: _Script | None = None

    @property
    def namespace(self) -> str:
        """What tells this installation's keys from others."""
        return self._namespace

    def check_server(self) -> ServerFacts:
        """Look whether this server can be the store; SettingsError says what it lacks."""
        with _told():
            info: dict[str, Any] = {}
            for section in ("server", "memory", "persistence"):
                info |= self._client.info(section)
        return server_facts(info)

    def transact(self, checks: Sequence[ks.Check], writes: Sequence[ks.Write], *, grows: bool = False) -> str:
        """Do all *writes* if all *checks* pass, else none (see Keyspace)."""
        keys, arguments = wire(checks, writes)
        script = self._growing if grows else self._script_that_lasts()
        with _told():
            try:
                reply = self._do("EVALSHA", script.id, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                # A server forgets scripts when it restarts; this teaches it again.
                reply = self._do("EVAL", script.source, len(keys), *keys, *arguments)
        match reply:
            case [b"ok", bytes(last)]:
                return _text(last)
            case [b"refused", int(index)]:
                raise ks.check_failed(checks[index - 1])
            case [b"corrupt", int(index), bytes(found)]:
                raise StoreCorrupt(keys[index - 1], _text(found))
        raise AssertionError(f"commit.lua answered {reply!r}")

    def now(self) -> datetime:
        """The store's time."""
        return self._read("", lambda: _time(self._do("TIME")))

    def epoch(self) -> str:
        """Which life of the store this is: of the process that answers, and of the data it serves."""
        server, replication = self._info("server", "replication")
        return f"{server.get('run_id', '')}:{replication.get('master_replid', '')}"

    def memory(self) -> tuple[int, int]:
        """Bytes that the server uses, and that it may use (0: all there are)."""
        (memory,) = self._info("memory")
        return int(memory["used_memory"]), int(memory.get("maxmemory", 0))

    def trim(self, key: str, bytes_max: int) -> None:
        """Drop the stream's oldest entries until it takes about *bytes_max* of memory or less.

        Redis drops whole nodes, and so many of them in one go; this asks until it is done.
        """
        dropped = 1
        while dropped:
            used, length = self._read(key, partial(self._size, key))
            if used <= bytes_max:
                return
            keep = max(1, length * bytes_max // used)
            # Repeating it does no harm.
            dropped = self._read(key, partial(self._do, "XTRIM", key, "MAXLEN", "~", keep))

    def hashes(self, keys: Sequence[str]) -> tuple[Sequence[Mapping[str, str]], datetime]:
        """All fields of each hash and the store's time, in one round trip."""

        def ask() -> tuple[Sequence[Mapping[str, str]], datetime]:
            *found, time = self._pipeline(*(("HGETALL", key) for key in keys), ("TIME",))
            for key, one in zip(keys, found, strict=True):
                _raise_if_error(one, key)
            _raise_if_error(time)
            return [{_text(name): _text(value) for name, value in one.items()} for one in found], _time(time)

        return self._read("", ask)

    def members(
        self, key: str, start: int, limit: int, newest: bool = False
    ) -> tuple[Sequence[tuple[str, int]], int]:
        """A page of the sorted set, and its size."""

        def ask() -> tuple[Sequence[tuple[str, int]], int]:
            command = "ZREVRANGE" if newest else "ZRANGE"
            # To an end of -1, which a limit of 0 would lead to, Redis gives everything.
            last = max(start + limit, 1) - 1
            page, size = self._pipeline((command, key, start, last, "WITHSCORES"), ("ZCARD", key))
            _raise_if_error(page, key)
            return _scored(page)[:limit], int(size)

        return self._read(key, ask)

    def members_of(
        self, keys: Sequence[str], limit: int, newest: bool = False
    ) -> Sequence[Sequence[tuple[str, int]]]:
        """At most *limit* members of each sorted set, in one round trip (see Keyspace)."""

        def ask() -> Sequence[Sequence[tuple[str, int]]]:
            command = "ZREVRANGE" if newest else "ZRANGE"
            found = self._pipeline(*((command, key, 0, limit - 1, "WITHSCORES") for key in keys))
            for key, one in zip(keys, found, strict=True):
                _raise_if_error(one, key)
            return [_scored(one) for one in found]

        return self._read("", ask) if keys else []

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""
        command = ("ZRANGEBYSCORE", key, "-inf", score, "WITHSCORES", "LIMIT", 0, limit)
        return self._read(key, lambda: _scored(self._do(*command)))

    def members_from(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score from *score* on, lowest first."""
        command = ("ZRANGEBYSCORE", key, score, "+inf", "WITHSCORES", "LIMIT", 0, limit)
        return self._read(key, lambda: _scored(self._do(*command)))

    def score(self, key: str, member: str) -> int | None:
        """The score of the sorted set's member, if it is one."""
        found = self._read(key, partial(self._do, "ZSCORE", key, member))
        return None if found is None else int(float(found))

    def text(self, key: str) -> str | None:
        """The text, if there is one."""
        found = self.blob(key)
        return None if found is None else _text(found)

    def blob(self, key: str) -> bytes | None:
        """The text as the bytes it is made of, if there is one."""
        found: bytes | None = self._read(key, partial(self._do, "GET", key))
        return found

    def blobs(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """The same of each key, in one round trip."""

        def ask() -> Sequence[bytes | None]:
            found = self._pipeline(*(("GET", key) for key in keys))
            for key, one in zip(keys, found, strict=True):
                _raise_if_error(one, key)
            return found

        return self._read("", ask) if keys else []

    def entries(self, key: str, after: str, limit: int, block: timedelta) -> Sequence[ks.Entry]:
        """At most *limit* entries after this id; waits up to *block* for the first."""
        while True:
            wait = min(block, BLOCK_MAX)
            block -= wait
            # Zero would mean for ever.
            waiting = ("BLOCK", max(1, wait // timedelta(milliseconds=1))) if wait > timedelta(0) else ()
            command = ("XREAD", "COUNT", limit, *waiting, "STREAMS", key, after)
            reply = self._read(key, partial(self._do, *command))
            if reply:
                return [_entry(raw) for raw in reply[0][1]]
            if block <= timedelta(0):
                return []

    def last_entry(self, key: str, until: str = "+") -> ks.Entry | None:
        """The newest entry up to and including this id."""
        command = ("XREVRANGE", key, until, "-", "COUNT", 1)
        found = self._read(key, partial(self._do, *command))
        return _entry(found[0]) if found else None

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()

    def _script_that_lasts(self) -> _Script:
        if self._lasting is None:
            (server,) = self._info("server")
            self._lasting = _Script.of(script_header(server) + self._growing.source)
        return self._lasting

    def _info(self, *sections: str) -> list[dict[str, Any]]:
        def ask() -> list[dict[str, Any]]:
            found = self._pipeline(*(("INFO", section) for section in sections))
            for one in found:
                _raise_if_error(one)
            return found

        return self._read("", ask)

    def _size(self, key: str) -> tuple[int, int]:
        """Bytes of memory that the stream takes, and how many entries it has."""
        # With 0 samples the server adds up all nodes: a millisecond for 50 MB.
        used, length = self._pipeline(("MEMORY", "USAGE", key, "SAMPLES", 0), ("XLEN", key))
        for one in (length, used):
            _raise_if_error(one, key)
        return int(used or 0), int(length)

    def _pipeline(self, *commands: tuple[str | int, ...]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        queue: Callable[..., Any] = pipeline.execute_command
        for command in commands:
            queue(*command)
        return pipeline.execute(raise_on_error=False)

    def _read(self, key: str, ask: Callable[[], _T]) -> _T:
        with _told(key):
            try:
                return ask()
            except redis.exceptions.TimeoutError:
                raise
            except redis.exceptions.ConnectionError:
                return ask()


@contextmanager
def _told(key: str = "") -> Iterator[None]:
    """Redis's errors as ours."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise StoreUnavailable(ks.MEMORY_FULL) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise StoreUnavailable(str(error)) from error
    except redis.exceptions.ResponseError as error:
        # The code comes first, but Redis 6 puts it behind the place in the script where it happened.
        text = str(error)
        if "WRONGTYPE" in text:
            raise StoreCorrupt(key, "another kind of value than was ever written there") from error
        if "OOM command not allowed" in text:
            raise StoreUnavailable(ks.MEMORY_FULL) from error
        if isinstance(error, _AWAY_ERRORS) or any(code in text for code in _AWAY):
            raise StoreUnavailable(text) from error
        raise


def _raise_if_error(reply: object, key: str = "") -> None:
    if isinstance(reply, Exception):
        with _told(key):
            raise reply


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _time(reply: tuple[int, int]) -> datetime:
    seconds, microseconds = reply
    return ks.from_ms(seconds * 1000 + microseconds // 1000)


def _scored(flat: Sequence[bytes]) -> list[tuple[str, int]]:
    return [(_text(member), int(float(score))) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def _entry(raw: tuple[bytes, Mapping[bytes, bytes]]) -> ks.Entry:
    id, fields = raw
    return ks.Entry(_text(id), {_text(name): value for name, value in fields.items()})
