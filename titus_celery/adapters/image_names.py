"""Names of images that say where they are: registry[:port]/repository[:tag][@digest] (pure)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_TAG", "DIGEST", "Reference", "is_plain", "reference", "registry_of"]

#: What a name without a tag means.
DEFAULT_TAG: Final = "latest"

#: What pins an image; the only kind that registries make.
DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*"
_REGISTRY: Final = re.compile(rf"({_HOST})(?::([0-9]{{1,5}}))?", re.ASCII)

#: Ports are 16 bits.
_PORT_MAX: Final = 65_535
#: Characters of a host's name, by the rules of DNS.
_HOST_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class Reference:
    """What a name says: where the image is, and which one of those there."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def place(self) -> str:
        """The registry and the repository, as engines take them."""
        return f"{self.registry}/{self.repository}"

    @property
    def alias(self) -> str:
        """What to ask the registry for: the digest before the tag, and the default if there is neither."""
        return self.digest or self.tag or DEFAULT_TAG


def registry_of(name: str) -> str:
    """The registry that *name* begins with, by Docker's rule; empty if it names none.

    It is what stands before the first slash, if that holds a dot or a colon or is `localhost`.
    """
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def reference(name: str) -> Reference:
    """What a *name* that names a registry says. ValueError tells what is wrong with it."""
    registry = registry_of(name)
    where, at, digest = name.removeprefix(f"{registry}/").partition("@")
    repository, colon, tag = where.partition(":")
    found = _REGISTRY.fullmatch(registry)
    if not found or len(found[1]) > _HOST_MAX or int(found[2] or 0) > _PORT_MAX:
        raise ValueError(f"{registry!r} is no address of a registry")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError("a repository is named in lower-case letters and digits, with . _ - / between them")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is no tag")
    if at and not DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no digest, which is sha256: and 64 hexadecimal digits")
    return Reference(registry, repository, tag, digest)


def is_plain(registry: str, insecure: Collection[str]) -> bool:
    """Whether a registry is spoken to without TLS: one on loopback by its address, or one of *insecure*."""
    if registry in insecure:
        return True
    found = _REGISTRY.fullmatch(registry)
    host = found[1].strip("[]") if found else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
