"""Images that an engine fetches from real registries: once, as long as they are wanted, with a login."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.docker_engine import DockerBench, DockerImages, made_images
from tests.contracts.executors import order, run, text
from tests.contracts.registries import PASSWORD, USER, Publisher, Registry, configure, running
from titus_celery.core.model import Exit
from titus_celery.errors import EngineFault, ImageMissing
from titus_celery.ports import Executor

Place = tuple[Registry, Publisher]

NOWHERE = "sha256:" + "1" * 64
#: Seconds after which something that should have ended is taken to hang.
PATIENCE = 30


@pytest.fixture(scope="module")
def images() -> Iterator[DockerImages]:
    yield from made_images()


@pytest.fixture(scope="module")
def open_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry that is open to everybody."""
    with running(tmp_path_factory.mktemp("open")) as made:
        yield made


@pytest.fixture(scope="module")
def private_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry for one user."""
    with running(tmp_path_factory.mktemp("private"), is_private=True) as made:
        yield made


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of this host's Docker configuration, which is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def bench(images: DockerImages, config: Path) -> Iterator[DockerBench]:
    """An executor as an agent has it; it began with the configuration as it is before the test."""
    made = DockerBench(f"contract-{secrets.token_hex(4)}", images)
    yield made
    made.close()


def published(place: Place) -> str:
    """The id of an image that says its own name and is nowhere but in the registry."""
    registry, publisher = place
    name = f"app-{secrets.token_hex(4)}"
    return f"{registry.host}/{name}@{publisher.put(name, name)}"


def always() -> bool:
    """The image is wanted for as long as it takes."""
    return True


def asked_for(place: Place, id: str) -> int:
    """How often the registry was asked for the image's manifest."""
    registry, _ = place
    name, _, digest = id.removeprefix(f"{registry.host}/").partition("@")
    return registry.asked(f"GET /v2/{name}/manifests/{digest}")


class Wanting:
    """A thread that fetches an image; it can lose interest."""

    def __init__(self, executor: Executor, id: str) -> None:
        self._gave_up = False
        self._looks = 0
        self._waits = threading.Event()
        self.came: Exception | None = None
        self._thread = threading.Thread(target=self._fetch, args=(executor, id), daemon=True)
        self._thread.start()
        # It looks once before it begins; when it looks again, it waits for the pull.
        assert self._waits.wait(PATIENCE)

    def _fetch(self, executor: Executor, id: str) -> None:
        try:
            executor.fetch(id, self._keep_on)
        except Exception as error:
            self.came = error

    def _keep_on(self) -> bool:
        self._looks += 1
        if self._looks > 1:
            self._waits.set()
        return not self._gave_up

    def give_up(self) -> None:
        """Want it no more."""
        self._gave_up = True

    def join(self) -> None:
        """Wait until the fetch is over."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_what_was_fetched_by_its_digest_runs(bench: DockerBench, open_place: Place) -> None:
    id = published(open_place)
    assert id not in bench.executor.images()
    with pytest.raises(ImageMissing):
        bench.executor.create(order(bench, image_id=id))
    bench.executor.fetch(id, always)
    assert id in bench.executor.images()
    end, chunks = run(bench, order(bench, image_id=id))
    assert end == Exit(code=0)
    assert text(chunks).decode() == id.partition("/")[2].partition("@")[0]


def test_what_is_here_needs_no_registry(bench: DockerBench, tmp_path: Path) -> None:
    with running(tmp_path / "registry") as place:
        id = published(place)
        bench.executor.fetch(id, always)
        assert asked_for(place, id) > 0
        place[0].stop()
        bench.executor.fetch(id, always)


def test_an_image_that_is_in_no_registry_is_not_fetched(bench: DockerBench) -> None:
    for id in (bench.image_id, NOWHERE, "no-such-image:1"):
        bench.executor.fetch(id, always)


def test_what_nobody_wants_any_more_is_not_asked_for(bench: DockerBench, open_place: Place) -> None:
    id = published(open_place)
    bench.executor.fetch(id, lambda: False)
    assert asked_for(open_place, id) == 0


def test_what_a_registry_does_not_have_is_missing(bench: DockerBench, open_place: Place) -> None:
    known = published(open_place).partition("@")[0]
    for id in (f"{known}@{NOWHERE}", f"{open_place[0].host}/unknown@{NOWHERE}"):
        with pytest.raises(ImageMissing) as missing:
            bench.executor.fetch(id, always)
        assert missing.value.image == id
        assert "unknown" in missing.value.why


def test_a_registry_that_is_down_is_a_fault_that_may_pass(bench: DockerBench, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.stop()
    with pytest.raises(EngineFault, match="refused"):
        bench.executor.fetch(f"{registry.host}/app@{NOWHERE}", always)


def test_who_wants_the_same_image_at_once_shares_one_pull(bench: DockerBench, open_place: Place) -> None:
    registry, _ = open_place
    alone = published(open_place)
    bench.executor.fetch(alone, always)
    id = published(open_place)
    registry.freeze()
    try:
        both = [Wanting(bench.executor, id), Wanting(bench.executor, id)]
    finally:
        registry.thaw()
    for each in both:
        each.join()
        assert each.came is None
    assert id in bench.executor.images()
    assert asked_for(open_place, id) == asked_for(open_place, alone)


def test_who_shares_a_pull_shares_its_failure(bench: DockerBench, open_place: Place) -> None:
    registry, _ = open_place
    registry.freeze()
    try:
        both = [Wanting(bench.executor, f"{registry.host}/unknown@{NOWHERE}") for _ in range(2)]
    finally:
        registry.thaw()
    for each in both:
        each.join()
        assert isinstance(each.came, ImageMissing)


def test_a_fetch_is_given_up_while_the_registry_hangs_and_can_begin_anew(
    bench: DockerBench, open_place: Place
) -> None:
    registry, _ = open_place
    id = published(open_place)
    registry.freeze()
    try:
        wanting = Wanting(bench.executor, id)
        wanting.give_up()
        wanting.join()
        assert wanting.came is None
    finally:
        registry.thaw()
    bench.executor.fetch(id, always)
    assert id in bench.executor.images()


def test_one_who_gives_up_takes_the_image_from_nobody(bench: DockerBench, open_place: Place) -> None:
    registry, _ = open_place
    id = published(open_place)
    registry.freeze()
    try:
        first, second = Wanting(bench.executor, id), Wanting(bench.executor, id)
        first.give_up()
        first.join()
    finally:
        registry.thaw()
    second.join()
    assert second.came is None
    assert id in bench.executor.images()


# ---------------------------------------------------------------------------------------------------- logins


def test_a_private_image_is_fetched_with_the_login_as_it_is_then(
    bench: DockerBench, private_place: Place, config: Path
) -> None:
    """The same agent all the time: a login that is new or changed counts from the next fetch on."""
    registry, _ = private_place
    id = published(private_place)
    with pytest.raises(ImageMissing, match="no basic auth credentials"):
        bench.executor.fetch(id, always)
    configure(config, registry.host, "wrong")
    with pytest.raises(ImageMissing, match="unauthorized"):
        bench.executor.fetch(id, always)
    assert id not in bench.executor.images()
    configure(config, registry.host)
    bench.executor.fetch(id, always)
    assert id in bench.executor.images()
    assert run(bench, order(bench, image_id=id))[0] == Exit(code=0)


def test_a_credential_helper_of_the_agents_host_is_asked(
    bench: DockerBench, private_place: Place, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, _ = private_place
    id = published(private_place)
    helper = config / "docker-credential-own"
    helper.write_text("#!/bin/sh\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(config), prepend=":")
    (config / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "own"}}))
    with pytest.raises(EngineFault, match="the Docker configuration of this host"):
        bench.executor.fetch(id, always)
    helper.write_text(f"""#!/bin/sh\necho '{{"Username": "{USER}", "Secret": "{PASSWORD}"}}'\n""")
    bench.executor.fetch(id, always)
    assert id in bench.executor.images()


def test_an_engine_that_breaks_off_is_a_fault(bench: DockerBench, open_place: Place) -> None:
    registry, _ = open_place
    id = published(open_place)
    executor = bench.frail()
    registry.freeze()
    try:
        wanting = Wanting(executor, id)
        bench.cut()
        wanting.join()
    finally:
        registry.thaw()
    assert isinstance(wanting.came, EngineFault)
    # The engine may have gone on by itself; it is let come to an end here.
    bench.executor.fetch(id, always)
