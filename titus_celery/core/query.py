"""What jobs and tasks can be found by (docs/semantics.md B4.1, B4.2).

Each job has *terms*, short texts such as `appName=web`; a criterion is a set of terms of which a job must
have one. So finding is set arithmetic, and an index needs to know nothing of what the terms mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeVar

from titus_celery.core.descriptor import Image, JobGroup, JobType, type_of
from titus_celery.core.model import Job, JobId, TaskId
from titus_celery.core.states import State
from titus_celery.errors import InvalidRequest, Violation

__all__ = ["Criteria", "criteria", "image_parts", "terms_of"]

#: Criteria of one query: far more than there are that differ, but for labels.
CRITERIA_MAX: Final = 100
#: Ids in one criterion, and labels in one: each is looked up.
VALUES_MAX: Final = 1_000
#: Characters of one criterion and its name: as many as VALUES_MAX ids of tasks take.
TEXT_MAX: Final = 64 * 1024

_T = TypeVar("_T")

_ANY: Final = "any"
_LABEL_PREFIX: Final = "labels."
_OPERATOR: Final = "labels.op"
#: The names that later clients use for the same.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "applicationName": "appName",
        "attributes": "labels",
        "attributes.op": _OPERATOR,
    }
)
#: Criteria with one value that is compared as it is.
_EXACT: Final = (
    "owner",
    "appName",
    "imageName",
    "imageTag",
    "imageId",
    "jobGroupStack",
    "jobGroupDetail",
    "jobGroupSequence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What was asked for; whatever is empty or None asks for nothing."""

    job_ids: frozenset[JobId] | None = None
    task_ids: frozenset[TaskId] | None = None
    #: A job must have one term of each.
    terms: tuple[frozenset[str], ...] = ()
    job_state: State | None = None
    #: None: not asked for. For tasks that means the active ones.
    task_states: frozenset[State] | None = None

    @property
    def wants_over(self) -> bool:
        """Whether it asks for jobs that are over; without it only live ones are meant."""
        return self.job_state is not None and self.job_state.is_final

    @property
    def wants_ended_tasks(self) -> bool:
        """Whether it asks for tasks that are over."""
        return self.task_states is not None and any(state.is_final for state in self.task_states)

    def with_tasks(self, ids: Iterable[TaskId]) -> Criteria:
        """The same, with these tasks in place of the ones asked for."""
        return replace(self, task_ids=frozenset(ids))

    def fits(self, terms: Collection[str]) -> bool:
        """Whether a job with these terms has one of each."""
        return all(any(term in wanted for term in terms) for wanted in self.terms)


def terms_of(job: Job) -> tuple[str, ...]:
    """Everything that the job can be found by, besides its state and its tasks."""
    return tuple(dict.fromkeys(_terms(job)))


def image_parts(name: str) -> tuple[str, str]:
    """The name of an image without tag and digest, and the tag; "" if it has none."""
    plain = name.partition("@")[0]
    path, _, last = plain.rpartition("/")
    repository, _, tag = last.partition(":")
    return (f"{path}/{repository}" if path else repository), tag


def criteria(given: Mapping[str, str]) -> Criteria:
    """What *given* asks for; InvalidRequest names every criterion that is unknown or cannot be read."""
    if len(given) > CRITERIA_MAX:
        most = f"has {len(given)} criteria; the most is {CRITERIA_MAX}"
        raise InvalidRequest([Violation("fiterlingCriteria", most)])
    found: list[Violation] = []
    texts: dict[str, str] = {}
    for name, text in given.items():
        known = _ALIASES.get(name, name)
        if known.startswith("attributes."):
            known = _LABEL_PREFIX + known.partition(".")[2]
        if not _is_known(known):
            found.append(Violation(_path(name), f"is unknown; there are {', '.join(_NAMES)}"))
        elif (size := len(name) + len(text)) > TEXT_MAX:
            found.append(Violation(_path(name), f"has {size} characters; the most is {TEXT_MAX}"))
        elif known in texts:
            found.append(Violation(_path(name), f"means the same as {known}, which is there, too"))
        elif text.strip() or known.startswith(_LABEL_PREFIX):
            # What is blank asks for nothing; of a label it asks whether it is there.
            texts[known] = text.strip()
    if found:
        raise InvalidRequest(found)
    return _read(texts)


def _terms(job: Job) -> Iterator[str]:
    descriptor = job.descriptor
    group = descriptor.group or JobGroup()
    yield f"jobType={type_of(descriptor.spec).value}"
    yield f"jobClusterId={job.cluster_id}"
    yield f"owner={descriptor.owner.owner_email}"
    yield f"owner={descriptor.owner.team_email}"
    yield f"appName={descriptor.app_name}"
    yield f"jobGroupStack={group.stack}"
    yield f"jobGroupDetail={group.detail}"
    yield f"jobGroupSequence={group.sequence}"
    for name, value in descriptor.labels.items():
        yield f"label:{name}"
        yield f"label:{name}={value}"
    for container in descriptor.containers.values():
        yield from _image_terms(container.image)


def _image_terms(image: Image) -> Iterator[str]:
    repository, tag = image_parts(image.name)
    yield f"imageId={image.id}"
    # Either the whole name, or the part of it that has no tag.
    yield f"imageName={image.name}"
    yield f"imageName={repository}"
    yield f"imageTag={tag}"


def _is_known(name: str) -> bool:
    return name in _NAMES or (name.startswith(_LABEL_PREFIX) and len(name) > len(_LABEL_PREFIX))


def _read(texts: Mapping[str, str]) -> Criteria:
    found: list[Violation] = []

    def read(name: str, how: Callable[[str], _T]) -> _T | None:
        try:
            return how(texts[name]) if name in texts else None
        except ValueError as error:
            found.append(Violation(_path(name), str(error)))
            return None

    job_ids, task_ids = read("jobIds", _listed), read("taskIds", _listed)
    clusters = read("jobClusterId", _listed)
    kind, state = read("jobType", _job_type), read("jobState", _state)
    states = read("taskStates", _states)
    read("capacityGroup", str)
    read("labels", _listed)
    labels = read(_OPERATOR, _operator) or "and"
    terms = [frozenset({f"{name}={texts[name]}"}) for name in _EXACT if name in texts]
    if clusters:
        terms.append(frozenset(f"jobClusterId={id}" for id in clusters))
    if kind is not None:
        terms.append(frozenset({f"jobType={kind.value}"}))
    if "capacityGroup" in texts:
        # Nobody has one, unless as a label of that name.
        terms.append(frozenset({f"label:capacityGroup={texts['capacityGroup']}"}))
    terms += _label_terms(texts, labels)
    if found:
        raise InvalidRequest(found)
    return Criteria(
        job_ids=None if not job_ids else frozenset(map(JobId, job_ids)),
        task_ids=None if not task_ids else frozenset(map(TaskId, task_ids)),
        terms=tuple(terms),
        job_state=state,
        task_states=states or None,
    )


def _label_terms(texts: Mapping[str, str], operator: str) -> list[frozenset[str]]:
    """Of one label any of its values; of several labels all, or with *operator* `or` any."""
    wanted: dict[str, set[str]] = {}
    for name, value in _pairs(texts):
        wanted.setdefault(name, set()).add(f"label:{name}={value}" if value else f"label:{name}")
    if operator == "or" and wanted:
        return [frozenset().union(*wanted.values())]
    return [frozenset(values) for values in wanted.values()]


def _pairs(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The labels that are asked for, each with a value or with none."""
    for part in filter(None, (each.strip() for each in texts.get("labels", "").split(","))):
        # Clients of different ages put one or the other between name and value: the first of them counts.
        at = min((place for place in (part.find("="), part.find(":")) if place >= 0), default=len(part))
        yield part[:at].strip(), part[at + 1 :].strip()
    for key, value in texts.items():
        if key.startswith(_LABEL_PREFIX) and key != _OPERATOR:
            yield key.removeprefix(_LABEL_PREFIX), value


def _listed(text: str) -> Sequence[str]:
    values = [each.strip() for each in text.split(",") if each.strip()]
    if len(values) > VALUES_MAX:
        raise ValueError(f"lists {len(values)} values; the most is {VALUES_MAX}")
    return values


def _job_type(text: str) -> JobType:
    try:
        return JobType(text.lower())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(each.value for each in JobType)}") from None


def _state(text: str) -> State:
    try:
        return State[text.upper()]
    except KeyError:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(each.name for each in State)}") from None


def _states(text: str) -> frozenset[State]:
    if text.lower() == _ANY:
        return frozenset(State)
    return frozenset(_state(each.strip()) for each in text.split(",") if each.strip())


def _operator(text: str) -> str:
    if text.lower() not in ("and", "or"):
        raise ValueError(f"{text[:40]!r} is neither and nor or")
    return text.lower()


def _path(name: str) -> str:
    return f"fiterlingCriteria[{name}]"


_NAMES: Final = (
    "jobIds",
    "taskIds",
    "jobType",
    "jobState",
    "taskStates",
    "jobClusterId",
    "labels",
    _OPERATOR,
    "capacityGroup",
    *_EXACT,
)
