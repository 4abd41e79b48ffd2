"""What a Mantis job must look like, and its defaults (docs/semantics.md B2, B6.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.clusters import described, seconds
from tests.unit.descriptors import LIMITS, NOBODY, found
from titus_celery.core.descriptor import Container, Image, JobDescriptor, MantisAgreement, MantisSpec, Stage
from titus_celery.core.stages import STAGES_MAX, WORKERS_MAX
from titus_celery.core.validation import check, effective
from titus_celery.errors import Unsupported, Violation


def with_spec(*workers: int, **parts: Any) -> JobDescriptor:
    plain = described(*workers)
    return replace(plain, spec=replace(plain.spec, **parts))


def with_stage(**parts: Any) -> JobDescriptor:
    """A job of two stages, the second of which is so."""
    plain = described(1, 2)
    assert isinstance(plain.spec, MantisSpec)
    first, second = plain.spec.stages
    return replace(plain, spec=replace(plain.spec, stages=(first, replace(second, **parts))))


def spec_of(job: JobDescriptor) -> MantisSpec:
    spec = effective(job, NOBODY, LIMITS).spec
    assert isinstance(spec, MantisSpec)
    return spec


@pytest.mark.parametrize("workers", [(1,), (1, 2, 3), (WORKERS_MAX,), (1,) * STAGES_MAX])
def test_these_are_valid(workers: tuple[int, ...]) -> None:
    assert found(described(*workers)) == []


@pytest.mark.parametrize(
    ("job", "path", "text"),
    [
        (with_spec(name=" "), "mantis.name", "a Mantis job needs a name"),
        (with_spec(stages=()), "mantis.stages", "has 0 stages; there must be 1 to 32"),
        (described(*(1,) * 33), "mantis.stages", "has 33 stages; there must be 1 to 32"),
        (
            with_spec(parameters={"titus.x": "1"}),
            "mantis.parameters[titus.x]",
            "names that start with 'titus.' are reserved",
        ),
        (
            with_stage(desired=0),
            "mantis.stages[1].instances.desired",
            "a stage begins with one worker at least",
        ),
        (
            with_stage(desired=1_501),
            "mantis.stages[1].instances.desired",
            "1501 is more than a stage may have, 1500",
        ),
        (with_stage(max=1_501), "mantis.stages[1].instances.max", "1501 is more than a stage may have, 1500"),
        (with_stage(min=4, max=3), "mantis.stages[1].instances.min", "4 is more than max, 3"),
        (
            with_stage(min=3),
            "mantis.stages[1].instances.desired",
            "2 is not within min and max, 3 and no bound",
        ),
        (
            with_stage(min=0, max=1),
            "mantis.stages[1].instances.desired",
            "2 is not within min and max, 0 and 1",
        ),
        (with_stage(container_id=""), "mantis.stages[1].containerId", "must name the stage's container"),
        (with_stage(container_id="x"), "mantis.stages[1].containerId", "there is no container 'x'"),
        (with_stage(container_id="c0"), "mantis.stages[1].containerId", "'c0' is the container of stage 0"),
    ],
)
def test_a_violation_names_its_place(job: JobDescriptor, path: str, text: str) -> None:
    assert found(job) == [Violation(path, text)]


@pytest.mark.parametrize(
    ("job", "path"),
    [
        (with_spec(name="n" * 10_000), "mantis.name"),
        (with_spec(agreement=MantisAgreement(user_type="\0")), "mantis.jobSLA.userProvidedType"),
        (with_spec(parameters={"k\0": "v"}), "mantis.parameters"),
    ],
)
def test_texts_are_such_as_can_be_shown_and_kept(job: JobDescriptor, path: str) -> None:
    (violation,) = found(job)
    assert violation.field.startswith(path)


def test_each_stage_has_a_container_of_its_own() -> None:
    plain = described(1, 1)
    more = {**plain.containers, "spare": Container(image=Image(name="app:1"))}
    assert found(replace(plain, containers=more)) == [
        Violation("containers", "there are 3 for 2 stages; each has one of its own")
    ]


def test_all_violations_are_told_at_once() -> None:
    both = (Stage(desired=0, container_id=""), Stage(desired=1, container_id="x"))
    fields = [each.field for each in found(with_spec(1, 1, name="", stages=both))]
    assert fields == [
        "mantis.name",
        "mantis.stages[0].instances.desired",
        "mantis.stages[0].containerId",
        "mantis.stages[1].containerId",
    ]


def test_texts_are_trimmed() -> None:
    spec = spec_of(with_spec(name=" m ", agreement=MantisAgreement(user_type=" mine ")))
    assert (spec.name, spec.agreement.user_type) == ("m", "mine")


@pytest.mark.parametrize(
    ("transient", "given", "held"),
    [(True, 0, 300), (True, 20, 20), (False, 0, 0), (False, 20, 0)],
)
def test_only_a_transient_job_has_a_subscription_timeout(transient: bool, given: int, held: int) -> None:
    agreement = MantisAgreement(is_transient=transient)
    job = with_spec(agreement=agreement, subscription_timeout=seconds(given))
    assert spec_of(job).subscription_timeout == seconds(held)


def test_a_stage_keeps_what_it_says_of_retries() -> None:
    assert [stage.retry for stage in spec_of(described(1, 1)).stages] == [None, None]


def test_what_would_not_be_acted_on_is_refused_unless_something_is_wrong() -> None:
    with pytest.raises(Unsupported, match=r"mantis\.stages\.autoScalingPolicy"):
        found(with_stage(is_scaled=True))
    assert check(effective(with_stage(is_scaled=True, container_id=""), NOBODY, LIMITS), LIMITS)
