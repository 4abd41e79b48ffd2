"""What clusters can be found by (docs/semantics.md B4.1): terms, as jobs have them (query.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from titus_celery.core.cluster import Cluster
from titus_celery.core.criteria import LABELS, OPERATOR, Reader, job_type, listed, texts_of
from titus_celery.core.model import ClusterId

__all__ = ["ClusterCriteria", "cluster_criteria", "terms_of"]

#: Criteria with one value that is compared as it is.
_EXACT: Final = ("name", "owner")
_NAMES: Final = ("clusterIds", "jobType", "enabled", LABELS, OPERATOR, *_EXACT)
_ENABLED: Final = {True: "enabled=true", False: "enabled=false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCriteria:
    """What was asked for; whatever is empty or None asks for nothing."""

    ids: frozenset[ClusterId] | None = None
    #: A cluster must have one term of each.
    terms: tuple[frozenset[str], ...] = ()


def cluster_criteria(given: Mapping[str, str]) -> ClusterCriteria:
    """What *given* asks for; InvalidRequest names every criterion that is unknown or cannot be read."""
    texts = texts_of(given, _NAMES)
    reader = Reader(texts)
    ids, kind = reader.read("clusterIds", listed), reader.read("jobType", job_type)
    enabled = reader.read("enabled", _truth)
    terms = [frozenset({f"{name}={texts[name]}"}) for name in _EXACT if name in texts]
    if kind is not None:
        terms.append(frozenset({f"jobType={kind.value}"}))
    if enabled is not None:
        terms.append(frozenset({_ENABLED[enabled]}))
    terms += reader.labels()
    reader.check()
    return ClusterCriteria(ids=frozenset(map(ClusterId, ids)) if ids else None, terms=tuple(terms))


def terms_of(cluster: Cluster) -> tuple[str, ...]:
    """Everything that the cluster can be found by."""
    return tuple(dict.fromkeys(_terms(cluster)))


def _terms(cluster: Cluster) -> Iterator[str]:
    descriptor = cluster.descriptor
    yield f"name={descriptor.name}"
    yield f"owner={descriptor.owner.owner_email}"
    yield f"owner={descriptor.owner.team_email}"
    yield f"jobType={descriptor.kind.value}"
    yield _ENABLED[cluster.is_enabled]
    for name, value in descriptor.template.labels.items() if descriptor.template else ():
        yield f"label:{name}"
        yield f"label:{name}={value}"


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return text.lower() == "true"
