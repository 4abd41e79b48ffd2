"""Which image a name or an id means, by what engines have."""

from __future__ import annotations

import pytest

from tests.builders import START
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.memory_keyspace import MemoryKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.core.descriptor import Image
from titus_celery.core.model import (
    EngineId,
)
from titus_celery.errors import ImageMissing, Unavailable

ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")


def resolver(*inventories: dict[str, str]) -> InventoryResolver:
    """A resolver that knows engines with these inventories."""
    registry = AgentStore(MemoryKeyspace(now=lambda: START))
    for number, images in enumerate(inventories):
        registry.report_images(EngineId(f"E{number}"), images)
    return InventoryResolver(registry)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:latest", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("localhost:5000/app:2", "localhost:5000/app:2"),
        ("team/app", "team/app:latest"),
        (f"team/app@{THREE}", f"team/app@{THREE}"),
    ],
)
def test_a_name_without_a_tag_means_latest(name: str, full: str) -> None:
    images = {"busybox:latest": ONE, "busybox:1": TWO, "localhost:5000/app:latest": ONE}
    images |= {"localhost:5000/app:2": TWO, "team/app:latest": THREE, f"team/app@{THREE}": THREE}
    assert resolver(images).resolve(Image(name=name)) == Image(name=full, id=images[full])


def test_an_id_is_found_with_or_without_its_prefix_and_gets_a_name() -> None:
    known = resolver({ONE: ONE, "b:1": ONE, "a:1": ONE, TWO: TWO})
    assert known.resolve(Image(id=ONE)) == Image(name="a:1", id=ONE)
    assert known.resolve(Image(id=ONE.removeprefix("sha256:"))) == Image(name="a:1", id=ONE)
    assert known.resolve(Image(id=TWO)) == Image(name="", id=TWO)


@pytest.mark.parametrize(
    "image",
    [Image(name="busybox:2"), Image(name="busy"), Image(id=ONE[:-1]), Image(id="busybox:latest"), Image()],
)
def test_an_image_that_no_engine_has_is_missing(image: Image) -> None:
    with pytest.raises(ImageMissing):
        resolver({"busybox:latest": ONE, ONE: ONE}, {}).resolve(image)


def test_where_engines_disagree_most_of_them_are_meant() -> None:
    old, new = {"app:latest": TWO}, {"app:latest": ONE}
    assert resolver(old, new, old).resolve(Image(name="app")).id == TWO
    assert resolver(new, old, new).resolve(Image(name="app")).id == ONE
    assert resolver(old, new).resolve(Image(name="app")).id == ONE


def test_while_no_agent_has_reported_nobody_can_be_asked() -> None:
    with pytest.raises(Unavailable, match="no agent has reported"):
        resolver().resolve(Image(name="busybox"))


def test_engines_without_images_are_an_answer() -> None:
    with pytest.raises(ImageMissing):
        resolver({}).resolve(Image(name="busybox"))
