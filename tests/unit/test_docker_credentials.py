"""What is read from a Docker client configuration, in every form that `docker login` leaves."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from titus_celery.adapters.docker_credentials import DockerCredentials, Login
from titus_celery.errors import Unavailable

HOST = "a.example.com:5000"
ANN = Login("ann", "a:b")
#: ann:a:b
AUTH = "YW5uOmE6Yg=="


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    (tmp_path / ".docker").mkdir()
    return tmp_path


def configured(home: Path, config: object) -> None:
    (home / ".docker" / "config.json").write_text(json.dumps(config))


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper named `own`."""
    program = home / "docker-credential-own"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")


def test_without_a_configuration_there_is_no_login() -> None:
    assert DockerCredentials().of(HOST) is None


@pytest.mark.parametrize(
    ("config", "login"),
    [
        ({}, None),
        ({"auths": {HOST: {"auth": AUTH}}}, ANN),
        ({"auths": {f"https://{HOST}/v1/": {"auth": AUTH}}}, ANN),
        ({"auths": {HOST: {}}}, None),
        ({"auths": {"a.example.com": {"auth": AUTH}, "b.example.com:5000": {"auth": AUTH}}}, None),
        ({"auths": {HOST: {"identitytoken": "t"}}}, Login(identity_token="t")),
    ],
)
def test_a_login_is_found_by_its_registry(home: Path, config: object, login: Login | None) -> None:
    configured(home, config)
    assert DockerCredentials().of(HOST) == login


def test_the_directory_can_be_another(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": AUTH}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert DockerCredentials().of(HOST) == ANN


def test_a_new_login_counts_at_once(home: Path) -> None:
    credentials = DockerCredentials()
    configured(home, {"auths": {HOST: {"auth": "Ym9iOng="}}})
    assert credentials.of(HOST) == Login("bob", "x")
    configured(home, {"auths": {HOST: {"auth": AUTH}}})
    assert credentials.of(HOST) == ANN


@pytest.mark.parametrize("config", [{"credsStore": "own"}, {"credHelpers": {HOST: "own"}}])
def test_a_helper_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch, config: object) -> None:
    helper(home, monkeypatch, f"""grep -q {HOST} && echo '{{"Username": "ann", "Secret": "a:b"}}'""")
    configured(home, config)
    assert DockerCredentials().of(HOST) == ANN


def test_a_token_of_a_helper_is_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, """echo '{"Username": "<token>", "Secret": "t"}'""")
    configured(home, {"credsStore": "own"})
    assert DockerCredentials().of(HOST) == Login(identity_token="t")


def test_a_helper_that_has_none_leaves_it_to_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    configured(home, {"credsStore": "own", "auths": {HOST: {"auth": AUTH}}})
    assert DockerCredentials().of(HOST) == ANN


@pytest.mark.parametrize("script", ["echo 'the secret is locked'; exit 1", "echo no JSON", "echo '{}'"])
def test_a_helper_that_fails_is_told_without_its_words(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    helper(home, monkeypatch, script)
    configured(home, {"credsStore": "own"})
    with pytest.raises(Unavailable) as failure:
        DockerCredentials().of(HOST)
    assert str(failure.value) == (
        "the Docker configuration of this host is unavailable: "
        f"no login for {HOST} can be read from it; the log says why"
    )
    assert HOST in caplog.text


def test_a_helper_that_waits_for_somebody_is_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    helper(home, monkeypatch, f"echo $$ > {home}/pid; exec sleep 20")
    configured(home, {"credsStore": "own"})
    with pytest.raises(Unavailable):
        DockerCredentials(timedelta(seconds=1)).of(HOST)
    assert "docker-credential-own did not answer within 1 s" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int((home / "pid").read_text()), 0)


def test_a_helper_that_is_not_there_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    configured(home, {"credsStore": "no-such"})
    with pytest.raises(Unavailable), pytest.warns(UserWarning, match="not installed"):
        DockerCredentials().of(HOST)
    assert "docker-credential-no-such is not installed" in caplog.text


@pytest.mark.parametrize(
    "config",
    [[1], {"auths": [1]}, {"auths": {HOST: 1}}, {"auths": {HOST: {"auth": "!"}}}, {"credHelpers": [1]}],
)
def test_a_configuration_that_is_none_is_told(home: Path, config: object) -> None:
    configured(home, config)
    with pytest.raises(Unavailable, match="the Docker configuration of this host"):
        DockerCredentials().of(HOST)


def test_a_login_hides_its_secrets_where_it_is_printed() -> None:
    assert str(Login("ann", "secret", "token")) == "Login(username='ann')"
