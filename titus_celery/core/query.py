"""What jobs and tasks can be found by (docs/semantics.md B4.1, B4.2).

Each job has *terms*, short texts such as `appName=web`; a criterion is a set of terms of which a job must
have one. So finding is set arithmetic, and an index needs to know nothing of what the terms mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from titus_celery.core.criteria import LABELS, OPERATOR, Reader, job_type, listed, texts_of
from titus_celery.core.descriptor import Image, JobGroup, type_of
from titus_celery.core.model import Job, JobId, TaskId
from titus_celery.core.states import State

__all__ = ["Criteria", "cluster_term", "criteria", "image_parts", "terms_of"]

_ANY: Final = "any"
#: The name that later clients use for the same.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType({"applicationName": "appName"})
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
    texts = texts_of(given, _NAMES, _ALIASES)
    reader = Reader(texts)
    job_ids, task_ids = reader.read("jobIds", listed), reader.read("taskIds", listed)
    clusters = reader.read("jobClusterId", listed)
    kind, state = reader.read("jobType", job_type), reader.read("jobState", _state)
    states = reader.read("taskStates", _states)
    terms = [frozenset({f"{name}={texts[name]}"}) for name in _EXACT if name in texts]
    if clusters:
        terms.append(frozenset(map(cluster_term, clusters)))
    if kind is not None:
        terms.append(frozenset({f"jobType={kind.value}"}))
    if "capacityGroup" in texts:
        # Nobody has one, unless as a label of that name.
        terms.append(frozenset({f"label:capacityGroup={texts['capacityGroup']}"}))
    terms += reader.labels()
    reader.check()
    return Criteria(
        job_ids=None if not job_ids else frozenset(map(JobId, job_ids)),
        task_ids=None if not task_ids else frozenset(map(TaskId, task_ids)),
        terms=tuple(terms),
        job_state=state,
        task_states=states or None,
    )


def cluster_term(id: str) -> str:
    """What jobs of this cluster can be found by."""
    return f"jobClusterId={id}"


def _terms(job: Job) -> Iterator[str]:
    descriptor = job.descriptor
    group = descriptor.group or JobGroup()
    yield f"jobType={type_of(descriptor.spec).value}"
    yield cluster_term(job.cluster_id)
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


def _state(text: str) -> State:
    try:
        return State[text.upper()]
    except KeyError:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(each.name for each in State)}") from None


def _states(text: str) -> frozenset[State]:
    if text.lower() == _ANY:
        return frozenset(State)
    return frozenset(_state(each.strip()) for each in text.split(",") if each.strip())


_NAMES: Final = (
    "jobIds",
    "taskIds",
    "jobType",
    "jobState",
    "taskStates",
    "jobClusterId",
    LABELS,
    OPERATOR,
    "capacityGroup",
    *_EXACT,
)
