"""The server that we start ourselves: private, durable, one per directory; and what clients of it see."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.builders import job, saved
from tests.contracts.stores import RedisBench, server_binary
from titus_celery.adapters.keyspace import TextSet
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_server import RedisServer, find_server, start_server
from titus_celery.adapters.store import RecordStore
from titus_celery.errors import SettingsError, StoreUnavailable, Unavailable

Start = Callable[..., RedisServer]


@pytest.fixture(params=["bundled", "debian"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts servers of one kind, by default in one directory; they are stopped afterwards."""
    started: list[RedisServer] = []

    def begin(directory: Path = tmp_path, **how: object) -> RedisServer:
        server = start_server(directory, binary=server_binary(request.param), **how)  # type: ignore[arg-type]
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()


def test_what_was_committed_is_there_after_a_restart_for_the_same_client(start: Start) -> None:
    first = start()
    with closing(RedisKeyspace(first.url)) as keyspace:
        records = RecordStore(keyspace)
        new = job()
        saved(records, new)
        first.stop()
        assert not first.alive()
        with pytest.raises(StoreUnavailable):
            records.job(new.id)
        with pytest.raises(StoreUnavailable):
            saved(records, job())
        again = start(port=first.port)
        assert (again.url, again.password) == (first.url, first.password)
        # The first write finds a dropped connection, and a server that has forgotten the script.
        saved(records, job())
        assert records.job(new.id)[0] == new
        assert records.live_jobs(0, 10)[1] == 2


def test_a_read_survives_a_connection_that_was_cut(start: Start) -> None:
    with closing(RedisBench(start().url)) as world:
        records = RecordStore(world.keyspace)
        new = job()
        saved(records, new)
        world.raw.client_kill_filter(_type="normal", skipme=True)
        assert records.job(new.id)[0] == new


def test_the_password_is_on_no_command_line_and_in_private_files_alone(start: Start, tmp_path: Path) -> None:
    server = start()
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert server.password.encode() not in command
    holders = [
        file
        for file in tmp_path.rglob("*")
        if file.is_file() and server.password.encode() in file.read_bytes()
    ]
    assert holders
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in holders)
    stranger = RedisKeyspace(f"redis://127.0.0.1:{server.port}/0")
    with closing(stranger), pytest.raises(StoreUnavailable, match=r"(?i)auth"):
        stranger.now()


def test_it_listens_on_loopback_alone(start: Start) -> None:
    server = start()
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    hexport = f"{server.port:04X}"
    assert {one[1] for one in listening if one[1].endswith(f":{hexport}") and one[3] == "0A"} == {
        f"0100007F:{hexport}"
    }


def test_it_keeps_every_write_and_drops_no_key(start: Start, tmp_path: Path) -> None:
    with closing(RedisKeyspace(start().url)) as keyspace:
        facts = keyspace.check_server()
    assert facts.append_only and facts.memory_max == 0
    assert any(tmp_path.glob("appendonly*"))


def test_its_process_is_known_by_pid_file_and_handle(start: Start, tmp_path: Path) -> None:
    server = start()
    assert server.alive()
    assert int((tmp_path / "redis.pid").read_text()) == server.pid
    server.stop()
    assert not server.alive()


def test_two_servers_never_share_a_directory(start: Start) -> None:
    first = start()
    with pytest.raises(Unavailable, match=str(first.pid)):
        start()
    assert first.alive()
    first.stop()
    assert start().alive()


def test_a_port_that_is_taken_is_told(start: Start, tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match=r"(?i)address already in use"):
            start(port=taken.getsockname()[1])
    # The directory is free for another try.
    assert start().alive()


def test_a_port_of_somebody_elses_server_is_told(start: Start, tmp_path: Path) -> None:
    other = start(tmp_path / "other")
    with pytest.raises(Unavailable):
        start(tmp_path / "mine", port=other.port)
    assert other.alive()


@pytest.mark.parametrize("password", ['a"b', "a b", "a\nb", "ü", "a\\b"])
def test_a_password_that_would_break_the_configuration_is_refused(start: Start, password: str) -> None:
    with pytest.raises(SettingsError, match="password"):
        start(password=password)


def test_a_given_password_may_hold_what_urls_reserve(start: Start) -> None:
    with closing(RedisKeyspace(start(password="p@ss:w/rd?#%").url)) as keyspace:
        assert keyspace.check_server().version


def test_a_server_that_drops_keys_is_refused(start: Start) -> None:
    server = start()
    with closing(RedisBench(server.url)) as world:
        world.raw.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(SettingsError, match="noeviction"):
            world.keyspace.check_server()


def test_full_memory_is_told_and_nothing_is_half_written(start: Start) -> None:
    with closing(RedisBench(start().url)) as world:
        records = RecordStore(world.keyspace)
        saved(records, job())
        before = world.dump()
        world.raw.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            saved(records, job(), 3)
        assert world.dump() == before
        world.raw.config_set("maxmemory", "0")
        saved(records, job())


def test_a_replica_cannot_be_written_to(start: Start) -> None:
    with closing(RedisBench(start().url)) as world:
        saved(RecordStore(world.keyspace), job())
        world.raw.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            saved(RecordStore(world.keyspace), job())


def test_a_server_that_does_not_answer_is_away(tmp_path: Path) -> None:
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        keyspace = RedisKeyspace(f"redis://127.0.0.1:{port}/0")
        with closing(keyspace), pytest.raises(StoreUnavailable):
            keyspace.transact([], [TextSet("k", "v", timedelta(seconds=1))])


@pytest.mark.parametrize("url", ["", "http://x", "redis://h:port/0", "127.0.0.1:6379"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="TITUS_REDIS_URL"):
        RedisKeyspace(url)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a:b", "*"])
def test_a_namespace_that_cannot_be_in_a_key_is_a_wrong_setting(namespace: str) -> None:
    keyspace = RedisKeyspace("redis://127.0.0.1:1/0", namespace)
    with closing(keyspace), pytest.raises(SettingsError, match="TITUS_NAMESPACE"):
        RecordStore(keyspace)


def test_namespaces_do_not_see_each_other(start: Start) -> None:
    url = start().url
    with closing(RedisKeyspace(url, "one")) as one, closing(RedisKeyspace(url, "two")) as two:
        saved(RecordStore(one), job())
        assert RecordStore(two).live_jobs(0, 1) == ([], 0)
        assert RecordStore(one).installation() != RecordStore(two).installation()


def test_a_server_is_found_on_this_machine() -> None:
    assert os.access(find_server(), os.X_OK)
