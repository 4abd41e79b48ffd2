"""Images resolved by real registries: which digest a name means, and what is told when there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.contracts.registries import PASSWORD, USER, Publisher, Registry, configure, running
from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.registry_resolver import RegistryResolver
from titus_celery.core.descriptor import Image
from titus_celery.errors import ImageMissing, Unavailable

Place = tuple[Registry, Publisher]

NOWHERE = "sha256:" + "1" * 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry that is open to everybody."""
    with running(tmp_path_factory.mktemp("open")) as made:
        yield made


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry for one user, with the image `app`."""
    with running(tmp_path_factory.mktemp("private"), is_private=True) as made:
        made[1].put("app", "private")
        yield made


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of this host's Docker configuration, which is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def resolve(name: str = "", id: str = "") -> Image:
    return RegistryResolver(DockerCredentials()).resolve(Image(name=name, id=id))


def why_missing(name: str = "", id: str = "") -> str:
    with pytest.raises(ImageMissing) as missing:
        resolve(name, id)
    assert missing.value.image == (id or name)
    return missing.value.why


def test_a_tag_is_resolved_to_the_digest_that_it_has_now(place: Place) -> None:
    registry, publisher = place
    first = publisher.put("moving/app", "first", tag="1")
    name, where = f"{registry.host}/moving/app:1", f"{registry.host}/moving/app"
    before = resolve(name)
    assert before == Image(name=name, id=f"{where}@{first}")
    second = publisher.put("moving/app", "second", tag="1")
    assert second != first
    assert resolve(name) == Image(name=name, id=f"{where}@{second}")
    # What was resolved before means what it meant.
    assert resolve(id=before.id) == Image(name=where, id=before.id)


def test_a_name_without_a_tag_means_latest(place: Place) -> None:
    registry, publisher = place
    digest = publisher.put("app", "latest")
    where = f"{registry.host}/app"
    assert resolve(where) == Image(name=f"{where}:latest", id=f"{where}@{digest}")


def test_a_name_with_a_digest_means_that_whatever_its_tag(place: Place) -> None:
    registry, publisher = place
    first, second = publisher.put("pinned", "first", tag="1"), publisher.put("pinned", "second", tag="2")
    where = f"{registry.host}/pinned"
    for name in (f"{where}@{first}", f"{where}:1@{first}", f"{where}:2@{first}"):
        assert resolve(name) == Image(name=name, id=f"{where}@{first}")
    assert resolve(f"{where}:1@{second}").id == f"{where}@{second}"


def test_what_a_registry_does_not_have_is_missing(place: Place) -> None:
    registry, publisher = place
    publisher.put("known", "known", tag="1")
    for what in ("known", "known:2", f"known@{NOWHERE}", "unknown:1", f"unknown@{NOWHERE}"):
        assert why_missing(f"{registry.host}/{what}") == "its registry does not have it"
    assert why_missing(id=f"{registry.host}/known@{NOWHERE}") == "its registry does not have it"


def test_what_no_registry_can_have_is_missing_without_asking(place: Place) -> None:
    registry, _ = place
    assert "lower-case" in why_missing(f"{registry.host}/Known")
    assert "lower-case" in why_missing(id=f"{registry.host}/../v2/known@{NOWHERE}")
    assert "ends in @sha256:" in why_missing(id=f"{registry.host}/known:1")
    assert "no address of a registry" in why_missing(f"{'a' * 64}.example.com/app")


def test_a_registry_that_is_down_is_unavailable(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.stop()
    with pytest.raises(Unavailable) as away:
        resolve(f"{registry.host}/app")
    assert away.value.what == f"the registry {registry.host}"
    assert "Connection refused" in away.value.why


def test_a_registry_that_does_not_answer_is_unavailable_after_a_while(place: Place) -> None:
    registry, _ = place
    hurried = RegistryResolver(DockerCredentials(), answer_within=timedelta(milliseconds=200))
    registry.freeze()
    try:
        with pytest.raises(Unavailable, match=r"it did not answer within 0\.2 s"):
            hurried.resolve(Image(name=f"{registry.host}/app"))
        with pytest.raises(Unavailable, match="it gives no answer within 4 s"):
            resolve(f"{registry.host}/app")
    finally:
        registry.thaw()


# ---------------------------------------------------------------------------------------------------- logins


def test_a_private_registry_answers_who_has_its_password(private: Place, config: Path) -> None:
    registry, _ = private
    configure(config, registry.host)
    assert resolve(f"{registry.host}/app").id.startswith(f"{registry.host}/app@sha256:")
    assert why_missing(f"{registry.host}/app:2") == "its registry does not have it"


def test_a_login_counts_from_the_next_question_on(private: Place, config: Path) -> None:
    registry, _ = private
    resolver, image = RegistryResolver(DockerCredentials()), Image(name=f"{registry.host}/app")
    with pytest.raises(ImageMissing, match="only for a login, and the host that asked has none"):
        resolver.resolve(image)
    configure(config, registry.host, "wrong")
    with pytest.raises(ImageMissing, match="not for the login of the host that asked"):
        resolver.resolve(image)
    configure(config, registry.host)
    assert "@sha256:" in resolver.resolve(image).id


def test_a_login_for_another_registry_is_not_shown(private: Place, place: Place, config: Path) -> None:
    registry, _ = private
    configure(config, place[0].host)
    assert "the host that asked has none" in why_missing(f"{registry.host}/app")


def test_a_credential_helper_can_have_the_password(
    private: Place, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, _ = private
    helper = config / "docker-credential-own"
    helper.write_text(f"""#!/bin/sh\necho '{{"Username": "{USER}", "Secret": "{PASSWORD}"}}'\n""")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(config), prepend=":")
    (config / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "own"}}))
    assert "@sha256:" in resolve(f"{registry.host}/app").id
    helper.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Unavailable, match="the Docker configuration of this host"):
        resolve(f"{registry.host}/app")


def test_an_identity_token_alone_is_not_enough(private: Place, config: Path) -> None:
    registry, _ = private
    (config / "config.json").write_text(json.dumps({"auths": {registry.host: {"identitytoken": "t"}}}))
    assert "a password is needed" in why_missing(f"{registry.host}/app")


def test_a_registry_that_is_open_is_asked_without_the_login(place: Place, config: Path) -> None:
    registry, publisher = place
    publisher.put("app", "latest")
    (config / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": "!"}}}))
    assert "@sha256:" in resolve(f"{registry.host}/app").id
