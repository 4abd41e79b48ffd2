"""What CreateJob accepts, what it makes of it, and that a refusal leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.world import ANN, World, a_job
from titus_celery.core.decision import Wake
from titus_celery.core.descriptor import (
    BatchSpec,
    Container,
    Image,
    JobDescriptor,
    Owner,
    RetryPolicy,
    ScalingPolicy,
    ServiceSpec,
)
from titus_celery.core.model import (
    Caller,
)
from titus_celery.errors import ImageMissing, InvalidRequest, Unavailable, Unsupported, Violation


class Refusing:
    """A registry that has its reasons."""

    def resolve(self, image: Image) -> Image:
        """Nobody gets it."""
        raise ImageMissing(image.name, "its registry does not have it")


class NoAnswer:
    """A resolver that cannot ask anybody."""

    def resolve(self, image: Image) -> Image:
        """Nobody answers."""
        raise Unavailable("the image inventory", "no agent has reported one yet")


def refused(world: World, descriptor: JobDescriptor, caller: Caller = ANN) -> list[Violation]:
    """What is wrong with the job; the store is as before."""
    before = world.keyspace.dump()
    with pytest.raises(InvalidRequest) as refusal:
        world.jobs.create(descriptor, caller)
    assert world.keyspace.dump() == before
    assert world.queue.take() == []
    return list(refusal.value.violations)


def with_image(image: Image) -> JobDescriptor:
    job = a_job()
    return replace(job, containers={"main": replace(job.container_of(None), image=image)})


def ready() -> World:
    world = World()
    world.host()
    world.queue.take()
    return world


def test_a_job_is_stored_with_all_that_was_filled_in() -> None:
    world = ready()
    bare = JobDescriptor(
        spec=BatchSpec(desired=1, container_id="main"),
        containers={"main": Container(image=Image(name="app:1"))},
    )
    stored = world.job(world.create(bare)).descriptor
    assert stored == JobDescriptor(
        app_name="batchJob",
        owner=Owner(owner_email="ann@example.com", team_email="ann@example.com"),
        spec=BatchSpec(desired=1, runtime_limit=timedelta(days=5), retry=RetryPolicy(), container_id="main"),
        containers={
            "main": Container(
                image=Image(name="app:1", id="sha256:1"), resources={"cpu": "0.1", "memory": "128MB"}
            )
        },
    )


def test_once_a_job_is_stored_control_is_woken() -> None:
    world = ready()
    world.create()
    assert world.queue.take() == [Wake()]


def test_an_image_is_resolved_once_and_for_all() -> None:
    """The name moves to another image after the job was created; the job runs what it meant."""
    world = ready()
    host = world.hosts[next(iter(world.hosts))]
    id = world.create()
    world.registry.report_images(host.engine.facts().id, {"app:1": "sha256:new", "sha256:1": "sha256:1"})
    world.sweep()
    (order,) = world.orders()
    assert order.image == "sha256:1"
    assert world.job(id).descriptor.container_of(None).image == Image(name="app:1", id="sha256:1")


def test_an_image_by_id_gets_its_name() -> None:
    world = ready()
    stored = world.job(world.create(with_image(Image(id="sha256:1")))).descriptor
    assert stored.container_of(None).image == Image(name="app:1", id="sha256:1")


def test_an_unknown_image_is_refused() -> None:
    assert refused(ready(), a_job(image="nobody/knows:1")) == [
        Violation("containers[main].image", "no engine has the image 'nobody/knows:1'")
    ]


def test_an_image_that_a_registry_refuses_is_refused_with_its_reason() -> None:
    assert refused(World(resolver=Refusing()), a_job(image="example.com/app:1")) == [
        Violation(
            "containers[main].image",
            "the image 'example.com/app:1' cannot be had: its registry does not have it",
        )
    ]


def test_an_unknown_image_is_told_together_with_all_else() -> None:
    job = a_job(5_000, image="nobody/knows:1", cpu="lots")
    assert [violation.field for violation in refused(ready(), job, Caller())] == [
        "owner.ownerEmail",
        "owner.teamEmail",
        "batch.instances.desired",
        "containers[main].resources[cpu]",
        "containers[main].image",
    ]


@pytest.mark.parametrize(
    ("image", "field"),
    [(Image(), "containers[main].image"), (Image(name="no good"), "containers[main].image.name")],
)
def test_an_image_that_is_no_image_is_told_once(image: Image, field: str) -> None:
    assert [violation.field for violation in refused(ready(), with_image(image))] == [field]


def test_while_nobody_can_be_asked_about_images_a_good_job_may_be_tried_again() -> None:
    world = World(resolver=NoAnswer())
    with pytest.raises(Unavailable, match="no agent has reported one yet"):
        world.create()
    assert world.records.live_jobs(0, 10) == ([], 0)


def test_while_nobody_can_be_asked_about_images_a_bad_job_is_bad() -> None:
    assert [each.field for each in refused(World(resolver=NoAnswer()), a_job(0))] == [
        "batch.instances.desired"
    ]


def test_what_this_release_lacks_is_refused_and_stores_nothing() -> None:
    world = ready()
    before = world.keyspace.dump()
    scaling = (ScalingPolicy(condition="avg(CPUUtilization) > 80%", action="addInstances 1"),)
    fancy = replace(a_job(), spec=ServiceSpec(desired=1, scaling=scaling, container_id="main"))
    with pytest.raises(Unsupported, match=r"service\.scalingPolices"):
        world.create(fancy)
    assert world.keyspace.dump() == before


@pytest.mark.parametrize(
    ("caller", "name"), [(Caller(id="ann"), "ann"), (Caller(email="a@b"), "a@b"), (Caller(), "anonymous")]
)
def test_who_created_is_on_record(caller: Caller, name: str) -> None:
    world = ready()
    owned = replace(a_job(), owner=Owner(owner_email="o@example.com", team_email="t@example.com"))
    assert world.job(world.jobs.create(owned, caller)).created_by == name


def test_a_broker_that_is_away_does_not_undo_a_job() -> None:
    world = ready()
    world.queue.is_away = True
    id = world.create()
    world.sweep()
    assert world.states(id) == {"0-1": "DISPATCHED"}
