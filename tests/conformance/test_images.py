"""Which image a job runs (docs/semantics.md A20, A22, B8.4)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.conformance.installation import Hand, Loop, Titus, batch, container, serving
from tests.contracts.registries import PASSWORD, USER, configure
from tests.contracts.scripted_registry import Answer, Asked, ScriptedRegistry, scripted
from tests.grpc_api.world import AGENT
from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.image_resolver import RoutedResolver
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.registry_resolver import RegistryResolver
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

DIGEST = "sha256:" + "1" * 64
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def running(name: str = "", id: str = "") -> pb.JobDescriptor:
    """A job that runs this image."""
    return container(image=pb.Image(name=name, imageId=id))


def image(titus: Titus, job: pb.JobDescriptor) -> tuple[str, str]:
    """Name and id of the image that a new job is shown to run."""
    shown = titus.job(titus.create(job)).jobDescriptor.containers["main"].image
    return shown.name, shown.imageId


def report(titus: Titus, **images: str) -> None:
    """Let an engine have these images, with _1 for :1."""
    named = {name.replace("_", ":"): id for name, id in images.items()}
    titus.inside.registry.report_images(AGENT.engine_id, {**named, **{id: id for id in named.values()}})


def test_exactly_one_of_name_and_id_is_given(titus: Titus) -> None:
    for wrong in (running(), running("busybox:1", "sha256:1"), container(image=None)):
        titus.wrong(wrong, "containers[main].image: exactly one of name and imageId")


def test_a_job_has_both_whichever_was_given(titus: Titus) -> None:
    assert image(titus, running("busybox:1")) == ("busybox:1", "sha256:1")
    assert image(titus, running(id="sha256:1"))[1] == "sha256:1"
    assert image(titus, running(id="1"))[1] == "sha256:1"


def test_a_name_without_a_tag_means_latest(titus: Titus) -> None:
    report(titus, app_1="sha256:1", app_latest="sha256:2")
    assert image(titus, running("app")) == ("app:latest", "sha256:2")


@pytest.mark.parametrize("name", ["app:1 2", "k\u00e4se", "a" * 513, "a\nb", "$(x)"])
def test_what_is_no_name_of_an_image_is_refused(titus: Titus, name: str) -> None:
    fault = "is longer than 512" if len(name) > 512 else "is not an image name"
    titus.wrong(running(name), "containers[main].image", fault)


def test_an_image_is_resolved_once_and_retries_run_the_same(titus: Titus) -> None:
    host = titus.host()
    job = batch()
    job.batch.retryPolicy.immediate.retries = 1
    id = titus.create(job)
    # From now on the name means something else.
    for engine in (AGENT.engine_id, host.engine.facts().id):
        titus.inside.registry.report_images(engine, {"busybox:1": "sha256:2", "sha256:1": "sha256:1"})
    (run,) = titus.carry()
    titus.inside.release(run, TaskId(f"{id}-0-1"), None)
    assert titus.job(id).jobDescriptor.containers["main"].image.imageId == "sha256:1"
    assert {order.image_id for order in host.engine.orders} == {"sha256:1"}


def test_an_image_that_nobody_has_is_a_wrong_one(titus: Titus) -> None:
    titus.wrong(running("nothing:1"), "containers[main].image", "nothing:1")
    titus.wrong(running(id="sha256:9"), "containers[main].image", "sha256:9")


def test_while_nobody_knows_about_images_a_good_job_may_be_tried_again(hand: Hand, loop: Loop) -> None:
    nobody = InventoryResolver(AgentStore(MemoryKeyspace(lambda: hand.now)))
    with serving(hand, loop, resolver=nobody) as titus:
        assert titus.refused(titus.jobs.CreateJob, batch()).code is grpc.StatusCode.UNAVAILABLE
        # What is wrong stays wrong.
        titus.wrong(batch(0), "batch.instances.desired")


def test_an_image_that_some_engines_have_runs_there_alone(titus: Titus) -> None:
    titus.host("host-1")
    there = titus.host("host-2")
    titus.inside.registry.report_images(
        there.engine.facts().id, {"rare:1": "sha256:7", "sha256:7": "sha256:7"}
    )
    id = titus.create(running("rare:1"))
    titus.inside.sweep()
    assert titus.task(f"{id}-0-1").taskContext["agent.host"] == "host-2"
    del titus.inside.hosts[there.id]
    titus.wait(30)
    late = titus.create(running("rare:1"))
    titus.inside.sweep()
    waiting = titus.task(f"{late}-0-1").state
    assert waiting.state == pb.QUEUED
    assert "1 lacks the image" in waiting.reason


# ---------------------------------------------------------------------------------------- registries


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of the gateway's Docker configuration, which is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def registry(config: Path) -> Iterator[ScriptedRegistry]:
    """A registry that has `team/app` for everybody and `team/secret` for who has its password."""

    def answer(asked: Asked) -> Answer:
        if "/down/" in asked.path:
            return Answer(503)
        if "/secret/" in asked.path and asked.headers.get("Authorization") != BASIC:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(200, {"Docker-Content-Digest": DIGEST}) if "/team/" in asked.path else Answer(404)

    with scripted(answer) as made:
        yield made


@pytest.fixture
def with_registry(hand: Hand, loop: Loop, registry: ScriptedRegistry) -> Iterator[Titus]:
    """An installation that asks registries as the gateway does."""
    inventories = InventoryResolver(AgentStore(hand.keyspace))
    resolver = RoutedResolver(RegistryResolver(DockerCredentials()), inventories)
    with serving(hand, loop, resolver=resolver) as titus:
        yield titus


def test_a_name_that_names_a_registry_is_pinned_to_the_digest_that_it_has_there(
    with_registry: Titus, registry: ScriptedRegistry
) -> None:
    name = f"{registry.host}/team/app"
    assert image(with_registry, running(f"{name}:1")) == (f"{name}:1", f"{name}@{DIGEST}")
    assert image(with_registry, running(name)) == (f"{name}:latest", f"{name}@{DIGEST}")
    # And runs anywhere.
    with_registry.host("host-1")
    id = with_registry.create(running(name))
    with_registry.inside.sweep()
    assert with_registry.task(f"{id}-0-1").state.state == pb.DISPATCHED


def test_what_a_registry_does_not_have_is_wrong_and_one_that_fails_is_away(
    with_registry: Titus, registry: ScriptedRegistry
) -> None:
    with_registry.wrong(running(f"{registry.host}/other/app:1"), "containers[main].image", "does not have it")
    error = with_registry.refused(with_registry.jobs.CreateJob, running(f"{registry.host}/down/app:1"))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert registry.host in error.details


def test_a_registry_is_not_asked_for_other_images(with_registry: Titus, registry: ScriptedRegistry) -> None:
    assert image(with_registry, running("busybox:1")) == ("busybox:1", "sha256:1")
    assert registry.asked == []


def test_the_logins_are_the_gateways_and_no_part_of_a_job(
    with_registry: Titus, registry: ScriptedRegistry, config: Path
) -> None:
    secret = running(f"{registry.host}/team/secret/app:1")
    with_registry.wrong(secret, "containers[main].image", "only for a login")
    configure(config, registry.host)
    id = with_registry.create(secret)
    with_registry.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    stored = repr(with_registry.hand.dump()) + str(with_registry.job(id))
    assert DIGEST in stored
    for text in (USER + ":", PASSWORD, BASIC.removeprefix("Basic ")):
        assert text not in stored
