"""Whom a question for an image goes to."""

from __future__ import annotations

import pytest

from titus_celery.adapters.image_resolver import RoutedResolver
from titus_celery.core.descriptor import Image

DIGEST = "sha256:" + "1" * 64


class Says:
    """A resolver that only says who was asked."""

    def __init__(self, who: str) -> None:
        self._who = who

    def resolve(self, image: Image) -> Image:
        return Image(name=image.name, id=self._who)


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        (Image(name="app"), "agents"),
        (Image(name="team/app:1"), "agents"),
        (Image(id=DIGEST), "agents"),
        (Image(id=DIGEST.removeprefix("sha256:")), "agents"),
        (Image(name="example.com/app:1", id=DIGEST), "agents"),
        (Image(name="example.com/app:1"), "registry"),
        (Image(name="localhost/app"), "registry"),
        (Image(id=f"example.com/app@{DIGEST}"), "registry"),
    ],
)
def test_a_registry_is_asked_for_what_names_it_and_the_agents_for_all_else(image: Image, asked: str) -> None:
    assert RoutedResolver(Says("registry"), Says("agents")).resolve(image).id == asked
