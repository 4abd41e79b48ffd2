"""Criteria as clients write them: which there are, and what their texts say (docs/semantics.md B4.1, B4.2).

What is the same for jobs and for clusters is here; query.py and cluster_query.py know the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from titus_celery.core.descriptor import JobType
from titus_celery.errors import InvalidRequest, Violation

__all__ = ["LABELS", "OPERATOR", "Reader", "job_type", "label_terms", "listed", "texts_of"]

#: Criteria of one query: far more than there are that differ, but for labels.
CRITERIA_MAX: Final = 100
#: Ids in one criterion, and labels in one: each is looked up.
VALUES_MAX: Final = 1_000
#: Characters of one criterion and its name: as many as VALUES_MAX ids of tasks take.
TEXT_MAX: Final = 64 * 1024

LABELS: Final = "labels"
OPERATOR: Final = "labels.op"
_LABEL_PREFIX: Final = "labels."
#: The names that later clients use for the same.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType({"attributes": LABELS, "attributes.op": OPERATOR})

_T = TypeVar("_T")


def texts_of(
    given: Mapping[str, str], names: Sequence[str], aliases: Mapping[str, str] = MappingProxyType({})
) -> Mapping[str, str]:
    """What is given of *names*, by these names; InvalidRequest names every criterion that is unknown.

    *aliases*: other names for some of them.
    """
    if len(given) > CRITERIA_MAX:
        most = f"has {len(given)} criteria; the most is {CRITERIA_MAX}"
        raise InvalidRequest([Violation("fiterlingCriteria", most)])
    found: list[Violation] = []
    texts: dict[str, str] = {}
    for name, text in given.items():
        known = aliases.get(name) or _ALIASES.get(name, name)
        if known.startswith("attributes."):
            known = _LABEL_PREFIX + known.partition(".")[2]
        if not _is_known(known, names):
            found.append(Violation(_path(name), f"is unknown; there are {', '.join(names)}"))
        elif (size := len(name) + len(text)) > TEXT_MAX:
            found.append(Violation(_path(name), f"has {size} characters; the most is {TEXT_MAX}"))
        elif known in texts:
            found.append(Violation(_path(name), f"means the same as {known}, which is there, too"))
        elif text.strip() or known.startswith(_LABEL_PREFIX):
            # What is blank asks for nothing; of a label it asks whether it is there.
            texts[known] = text.strip()
    if found:
        raise InvalidRequest(found)
    return texts


class Reader:
    """Reads criteria one after the other, and says in the end what was wrong with any."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._found: list[Violation] = []

    def read(self, name: str, how: Callable[[str], _T]) -> _T | None:
        """What *how* makes of the text; None if it was not given, or if *how* raised ValueError."""
        try:
            return how(self._texts[name]) if name in self._texts else None
        except ValueError as error:
            self._found.append(Violation(_path(name), str(error)))
            return None

    def labels(self) -> list[frozenset[str]]:
        """The terms that labels ask for."""
        self.read(LABELS, listed)
        return label_terms(self._texts, self.read(OPERATOR, _operator) or "and")

    def check(self) -> None:
        """InvalidRequest names every criterion that could not be read."""
        if self._found:
            raise InvalidRequest(self._found)


def label_terms(texts: Mapping[str, str], operator: str) -> list[frozenset[str]]:
    """Of one label any of its values; of several labels all, or with *operator* `or` any."""
    wanted: dict[str, set[str]] = {}
    for name, value in _pairs(texts):
        wanted.setdefault(name, set()).add(f"label:{name}={value}" if value else f"label:{name}")
    if operator == "or" and wanted:
        return [frozenset().union(*wanted.values())]
    return [frozenset(values) for values in wanted.values()]


def listed(text: str) -> Sequence[str]:
    """The values of a list."""
    values = [each.strip() for each in text.split(",") if each.strip()]
    if len(values) > VALUES_MAX:
        raise ValueError(f"lists {len(values)} values; the most is {VALUES_MAX}")
    return values


def job_type(text: str) -> JobType:
    """The kind of jobs of this name, in any case."""
    try:
        return JobType(text.lower())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(each.value for each in JobType)}") from None


def _pairs(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The labels that are asked for, each with a value or with none."""
    for part in filter(None, (each.strip() for each in texts.get("labels", "").split(","))):
        # Clients of different ages put one or the other between name and value: the first of them counts.
        at = min((place for place in (part.find("="), part.find(":")) if place >= 0), default=len(part))
        yield part[:at].strip(), part[at + 1 :].strip()
    for key, value in texts.items():
        if key.startswith(_LABEL_PREFIX) and key != OPERATOR:
            yield key.removeprefix(_LABEL_PREFIX), value


def _operator(text: str) -> str:
    if text.lower() not in ("and", "or"):
        raise ValueError(f"{text[:40]!r} is neither and nor or")
    return text.lower()


def _is_known(name: str, names: Sequence[str]) -> bool:
    return name in names or (name.startswith(_LABEL_PREFIX) and len(name) > len(_LABEL_PREFIX))


def _path(name: str) -> str:
    return f"fiterlingCriteria[{name}]"
