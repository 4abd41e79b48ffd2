"""Resolves images by the inventories that agents report of their engines (docs/semantics.md A20)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from titus_celery.core.descriptor import Image
from titus_celery.errors import ImageMissing, Unavailable
from titus_celery.ports import AgentRegistry

__all__ = ["InventoryResolver"]

_DIGEST: Final = "sha256:"


class InventoryResolver:
    """The ImageResolver for images that are on the engines already."""

    def __init__(self, registry: AgentRegistry) -> None:
        self._registry = registry

    def resolve(self, image: Image) -> Image:
        """Both name and id of what *image* means now.

        A name without a tag means `:latest`; an id is taken whole, with or without `sha256:`. Where
        engines disagree about a name, the id that most of them have is meant. ImageMissing if no engine
        has it, Unavailable while no engine is known.
        """
        inventories = list(self._registry.images().values())
        if not inventories:
            raise Unavailable(
                "the image inventory", "no agent has reported one yet; start an agent with `titus agent`"
            )
        if image.id:
            return self._by_id(image, inventories)
        name = _tagged(image.name)
        found = Counter(inventory[name] for inventory in inventories if name in inventory)
        if not found:
            raise ImageMissing(image.name)
        # Of ids that equally many engines have, always the same one.
        id = min(found, key=lambda id: (-found[id], id))
        return Image(name=name, id=id)

    def _by_id(self, image: Image, inventories: Iterable[Mapping[str, str]]) -> Image:
        wanted = image.id if image.id.startswith(_DIGEST) else _DIGEST + image.id
        names = {name for inventory in inventories for name, id in inventory.items() if id == wanted}
        if not names:
            raise ImageMissing(image.id)
        tagged = sorted(name for name in names if name != wanted)
        return Image(name=image.name or (tagged[0] if tagged else ""), id=wanted)


def _tagged(name: str) -> str:
    """The name with its tag; a colon before the last slash is a registry's port."""
    if "@" in name or name.startswith(_DIGEST):
        return name
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
