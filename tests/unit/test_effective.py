"""What is filled in before a job is checked and stored, and what its command means."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.descriptors import (
    ANN,
    LIMITS,
    NOBODY,
    VALID,
    with_batch,
    with_container,
)
from titus_celery.core.containers import command_of
from titus_celery.core.descriptor import (
    BatchSpec,
    Constraints,
    Container,
    Image,
    JobDescriptor,
    Owner,
    RetryKind,
    RetryPolicy,
    ServiceSpec,
    container_ids,
)
from titus_celery.core.model import (
    Caller,
)
from titus_celery.core.resources import KINDS
from titus_celery.core.validation import check, effective
from titus_celery.errors import Unsupported

# ------------------------------------------------------------------------------------------ defaults


def test_what_is_left_out_is_filled_in() -> None:
    bare = JobDescriptor(
        spec=BatchSpec(desired=1, container_id="main"),
        containers={"main": Container(image=Image(name="app"))},
    )
    assert effective(bare, ANN, LIMITS) == JobDescriptor(
        spec=BatchSpec(
            desired=1,
            runtime_limit=timedelta(days=5),
            retry=RetryPolicy(kind=RetryKind.IMMEDIATE, retries=0),
            container_id="main",
        ),
        owner=Owner(owner_email="ann@example.com", team_email="ann@example.com"),
        app_name="batchJob",
        containers={"main": Container(image=Image(name="app"), resources={"cpu": "0.1", "memory": "128MB"})},
    )


def test_what_is_there_stays() -> None:
    assert effective(VALID, ANN, LIMITS) == VALID


def test_texts_are_trimmed_and_blank_ones_are_left_out() -> None:
    job = replace(
        with_container(image=Image(name=" app:1 "), resources={"cpu": " 2 ", "memory": "  ", "x": " y "}),
        owner=Owner(owner_email=" o@example.com ", team_email="\t"),
        app_name=" \n",
    )
    after = effective(job, Caller(email=" ann@example.com "), LIMITS)
    assert after.owner == Owner(owner_email="o@example.com", team_email="ann@example.com")
    assert after.app_name == "batchJob"
    assert after.container_of(None).image == Image(name="app:1")
    assert after.container_of(None).resources == {"cpu": "2", "memory": "128MB", "x": "y"}


def test_a_retry_policy_that_is_set_stays() -> None:
    policy = RetryPolicy(kind=RetryKind.DELAYED, retries=3, delay=timedelta(seconds=1))
    spec = effective(with_batch(retry=policy), ANN, LIMITS).spec
    assert isinstance(spec, BatchSpec)
    assert spec.retry == policy


def test_filling_in_twice_changes_nothing_more() -> None:
    once = effective(replace(VALID, containers={"main": Container()}), ANN, LIMITS)
    assert effective(once, NOBODY, LIMITS) == once


# ------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(
    ("entry_point", "expected"),
    [
        (("ls -la",), ("ls", "-la")),
        (("sh -c 'exit 3'",), ("sh", "-c", "exit 3")),
        (("a\tb\nc",), ("a", "b", "c")),
        (('say "two words" # three',), ("say", "two words", "#", "three")),
        (("/bin/true",), ("/bin/true",)),
        # Several elements are taken to the letter.
        (("sh", "-c", "exit 3"), ("sh", "-c", "exit 3")),
        (("ls -la", "x"), ("ls -la", "x")),
        ((), ()),
        (("",), ("",)),
    ],
)
def test_a_lone_entry_point_with_blanks_is_split_as_a_shell_would(
    entry_point: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert command_of(Container(entry_point=entry_point, command=("a b",))) == (expected, ("a b",))


# ------------------------------------------------------------------------------------------ anything

_texts: Final = st.text(max_size=20)
_maps: Final = st.dictionaries(_texts, _texts, max_size=3)
_containers: Final = st.builds(
    Container,
    image=st.builds(Image, name=_texts, id=_texts),
    resources=st.dictionaries(st.sampled_from([*KINDS, "x"]), _texts),
    security_profile=st.dictionaries(st.sampled_from(["securityGroups", "iamProfile"]), _texts),
    parameters=_maps,
    entry_point=st.lists(_texts, max_size=2).map(tuple),
    command=st.lists(_texts, max_size=2).map(tuple),
    env=_maps,
    soft_constraints=st.builds(Constraints, constraints=_maps, expression=_texts),
)


@given(
    st.builds(
        JobDescriptor,
        spec=st.builds(
            BatchSpec,
            desired=st.integers(0, 2**32 - 1),
            runtime_limit=st.timedeltas(timedelta(0)),
            container_id=_texts,
        )
        | st.builds(
            ServiceSpec,
            desired=st.integers(0, 2**32 - 1),
            min=st.integers(0, 2**32 - 1),
            max=st.integers(0, 2**32 - 1),
            container_id=_texts,
        ),
        owner=st.builds(Owner, owner_email=_texts, team_email=_texts),
        app_name=_texts,
        labels=_maps,
        containers=st.dictionaries(_texts, _containers, max_size=2),
    )
)
def test_any_job_is_valid_or_refused_and_nothing_else(job: JobDescriptor) -> None:
    filled = effective(job, ANN, LIMITS)
    try:
        violations = check(filled, LIMITS)
    except Unsupported:
        return
    assert all(each.text for each in violations)
    if not violations:
        assert tuple(filled.containers) == container_ids(filled.spec)
        assert isinstance(filled.spec, BatchSpec | ServiceSpec)
        assert 0 <= filled.spec.desired <= LIMITS.service_max
