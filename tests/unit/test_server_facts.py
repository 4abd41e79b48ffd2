"""Which servers can be the store, by what they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from titus_celery.adapters.redis_keyspace import ServerFacts, server_facts
from titus_celery.errors import SettingsError

GOOD: dict[str, Any] = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": 2**30,
    "aof_enabled": 1,
}


def test_a_good_server_is_described() -> None:
    assert server_facts(GOOD) == ServerFacts(version="7.0.15", append_only=True, memory_max=2**30)
    assert not server_facts({**GOOD, "aof_enabled": 0}).append_only


@pytest.mark.parametrize("version", ["6.2", "6.2.0", "6.10.1", "7.2.4", "10.0.0", "255.255.255"])
def test_a_server_from_6_2_on_will_do(version: str) -> None:
    assert server_facts({**GOOD, "redis_version": version}).version == version


@pytest.mark.parametrize("version", ["6.1.9", "6.0.16", "5.0", "2.8.4"])
def test_an_older_server_is_refused(version: str) -> None:
    with pytest.raises(SettingsError, match=r"6\.2"):
        server_facts({**GOOD, "redis_version": version})


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_drops_keys_is_refused(policy: str) -> None:
    with pytest.raises(SettingsError, match=policy):
        server_facts({**GOOD, "maxmemory_policy": policy})


def test_a_server_that_hides_its_policy_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    hidden = {name: value for name, value in GOOD.items() if name != "maxmemory_policy"}
    assert server_facts(hidden).version == "7.0.15"
    assert "noeviction" in caplog.text
