"""Sends each question for an image to who can know: its registry, or the agents (docs/semantics.md A20)."""

from __future__ import annotations

from titus_celery.adapters.image_names import registry_of
from titus_celery.core.descriptor import Image
from titus_celery.ports import ImageResolver

__all__ = ["RoutedResolver", "who_is_asked"]


def who_is_asked(image: Image) -> str:
    """The registry that is asked for it; empty: agents told already."""
    return registry_of(image.id or image.name)


class RoutedResolver:
    """The ImageResolver for every image."""

    def __init__(self, registries: ImageResolver, inventories: ImageResolver) -> None:
        """*registries* knows images whose name or id names a registry, *inventories* all others."""
        self._registries = registries
        self._inventories = inventories

    def resolve(self, image: Image) -> Image:
        """Both name and id of what *image* means now; ImageMissing and Unavailable as of who was asked."""
        asked = self._registries if who_is_asked(image) else self._inventories
        return asked.resolve(image)
