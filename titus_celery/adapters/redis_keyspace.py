"""The keyspace in Redis 6.2 or later, or Valkey.

Writes go through one script (commit.lua) and are never repeated here: after a lost connection nobody
knows whether they took place, so the caller hears StoreUnavailable and looks. Reads are repeated once,
because a connection that was idle may have gone without either side having noticed.
"""

from __future__ import annotations

import hashlib
import json
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
from titus_celery.errors import SettingsError, StoreCorrupt, StoreUnavailable

__all__ = ["RedisKeyspace", "ServerFacts", "server_facts"]

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
#: Longer texts go beside the plan, so that they are neither escaped nor sent twice.
INLINE_MAX: Final = 64

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
_FULL: Final = "its memory is full: raise the server's maxmemory, or let finished jobs go"

_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself, for start-up and `titus doctor`."""

    version: str
    #: Whether every write is kept in an append-only file (P1).
    append_only: bool
    #: Bytes it may use; 0: all there are.
    memory_max: int


def server_facts(info: Mapping[str, Any]) -> ServerFacts:
    """What matters of a server's INFO; SettingsError if such a server cannot be the store."""
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
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
        self._script = files(__package__).joinpath("commit.lua").read_bytes()
        self._script_id = hashlib.sha1(self._script, usedforsecurity=False).hexdigest()

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

    def transact(self, checks: Sequence[ks.Check], writes: Sequence[ks.Write]) -> None:
        """Do all *writes* if all *checks* pass, else none (see Keyspace)."""
        keys, arguments = _wire(checks, writes)
        with _told():
            try:
                reply = self._do("EVALSHA", self._script_id, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                # A server forgets scripts when it restarts; this teaches it again.
                reply = self._do("EVAL", self._script, len(keys), *keys, *arguments)
        match reply:
            case [b"ok"]:
                return
            case [b"refused", int(index)]:
                raise ks.check_failed(checks[index - 1])
            case [b"corrupt", int(index), bytes(found)]:
                raise StoreCorrupt(keys[index - 1], _text(found))
        raise AssertionError(f"commit.lua answered {reply!r}")

    def now(self) -> datetime:
        """The store's time."""
        return self._read("", lambda: _time(self._do("TIME")))

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

    def members_until(self, key: str, score: int, limit: int) -> Sequence[tuple[str, int]]:
        """At most *limit* members with a score up to *score*, lowest first."""
        command = ("ZRANGEBYSCORE", key, "-inf", score, "WITHSCORES", "LIMIT", 0, limit)
        return self._read(key, lambda: _scored(self._do(*command)))

    def text(self, key: str) -> str | None:
        """The text, if there is one."""
        found = self._read(key, partial(self._do, "GET", key))
        return None if found is None else _text(found)

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
        raise StoreUnavailable(_FULL) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise StoreUnavailable(str(error)) from error
    except redis.exceptions.ResponseError as error:
        # The code comes first, but Redis 6 puts it behind the place in the script where it happened.
        text = str(error)
        if "WRONGTYPE" in text:
            raise StoreCorrupt(key, "another kind of value than was ever written there") from error
        if "OOM command not allowed" in text:
            raise StoreUnavailable(_FULL) from error
        if isinstance(error, _AWAY_ERRORS) or any(code in text for code in _AWAY):
            raise StoreUnavailable(text) from error
        raise


def _raise_if_error(reply: object, key: str = "") -> None:
    if isinstance(reply, Exception):
        with _told(key):
            raise reply


# ------------------------------------------------------------------------------------ to and from the wire


class _Arguments:
    """What goes beside the plan: each text once, found by its index."""

    def __init__(self) -> None:
        # The plan itself is the first.
        self.texts: list[bytes] = [b""]
        self._index: dict[str | bytes, int] = {}

    def of(self, value: str | bytes | int) -> str | int:
        """The text itself if it is short and plain, else the index under which it is sent."""
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str) and len(value) <= INLINE_MAX and value.isascii():
            return value
        if value not in self._index:
            self.texts.append(value if isinstance(value, bytes) else value.encode("utf-8", "replace"))
            self._index[value] = len(self.texts)
        return self._index[value]


def _wire(checks: Sequence[ks.Check], writes: Sequence[ks.Write]) -> tuple[list[str], list[bytes]]:
    """KEYS and ARGV of commit.lua."""
    kinds = ks.kinds_of(checks, writes)
    index = {key: number for number, key in enumerate(kinds, start=1)}
    arguments = _Arguments()

    def step(part: ks.Check | ks.Write) -> list[str | int]:
        name, *rest = _parts(part, index)
        return [str(name), index[part.key], *map(arguments.of, rest)]

    plan = {
        "kinds": [kind.value for kind in kinds.values()],
        "checks": [step(check) for check in checks],
        "writes": [step(write) for write in writes],
    }
    arguments.texts[0] = json.dumps(plan, separators=(",", ":")).encode()
    return list(kinds), arguments.texts


def _parts(part: ks.Check | ks.Write, index: Mapping[str, int]) -> tuple[str | bytes | int, ...]:
    """The name and arguments by which commit.lua knows a check or write."""
    match part:
        case ks.FieldIs():
            return "field-is", part.field, part.value
        case ks.Absent():
            return ("absent",)
        case ks.SizeIs():
            return "size-is", part.size
        case ks.ScoreIs():
            return "score-is", part.member, part.score
        case ks.AtMost():
            return "at-most", part.field, part.delta, part.maximum
        case ks.EndsAt():
            return "ends-at", part.id
        case ks.TextIs():
            return "text-is", part.value, int(part.or_absent)
        case ks.HashSet():
            return "set", *_flat(part.fields)
        case ks.HashSetNew():
            return "set-new", part.field, part.value
        case ks.HashAdd():
            return "add", part.field, part.delta
        case ks.HashRaise():
            return "raise", part.field, part.level, *_flat(dict(sorted(part.times.items())))
        case ks.SetAdd():
            return "put-member", part.member, part.score
        case ks.SetRemove():
            return "drop-member", part.member
        case ks.SetRemoveIf():
            return "drop-member-if", part.member, part.score
        case ks.SetAddIfEmpty():
            return "put-member-if-empty", index[part.empty], part.member, part.score
        case ks.Append():
            return "append", _ms(part.keep), *_flat(part.fields)
        case ks.Put():
            return "put-entry", part.id, part.first, part.count, *_flat(part.fields)
        case ks.TextSet():
            return ("set-text", part.value) if part.span is None else ("set-text", part.value, _ms(part.span))
        case ks.Expire():
            return "expire", _ms(part.span), int(part.unless_set)
        case ks.Delete():
            return ("delete",)


def _flat(fields: Mapping[_T, _U]) -> Iterator[_T | _U]:
    return (text for pair in fields.items() for text in pair)


def _ms(span: timedelta) -> int:
    return max(1, span // timedelta(milliseconds=1))


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
