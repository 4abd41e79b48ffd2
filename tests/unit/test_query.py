"""Criteria: what each means, and what is refused (docs/semantics.md B4.1, B4.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import job
from titus_celery.core.descriptor import Container, Image, JobDescriptor, JobGroup, Owner, ServiceSpec
from titus_celery.core.model import Job
from titus_celery.core.query import criteria, image_parts, terms_of
from titus_celery.core.states import State
from titus_celery.errors import InvalidRequest

IMAGE = Image(name="registry.example.com:5000/team/app:1.2", id="sha256:1")


def a_job(labels: dict[str, str] | None = None, **parts: Any) -> Job:
    """A job of which everything that can be asked for is set."""
    described = JobDescriptor(
        spec=ServiceSpec(desired=1, container_id="main"),
        owner=Owner(owner_email="ann@example.com", team_email="team@example.com"),
        app_name="web",
        group=JobGroup(stack="s", detail="d", sequence="v001"),
        labels={"name": "X", "tier": "front", "empty": ""} if labels is None else labels,
        containers={"main": Container(image=IMAGE)},
    )
    return replace(job(7), descriptor=replace(described, **parts))


def found(wanted: dict[str, str], of: Job | None = None) -> bool:
    return criteria(wanted).fits(terms_of(of or a_job()))


@pytest.mark.parametrize(
    ("name", "hit", "miss"),
    [
        ("owner", "ann@example.com", "ann"),
        ("owner", "team@example.com", "TEAM@example.com"),
        ("appName", "web", "we"),
        ("applicationName", "web", "Web"),
        ("jobType", "SERVICE", "batch"),
        ("imageName", "registry.example.com:5000/team/app", "app"),
        ("imageName", "registry.example.com:5000/team/app:1.2", "registry.example.com:5000/team/app:1.3"),
        ("imageTag", "1.2", "1"),
        ("imageId", "sha256:1", "sha256:2"),
        ("jobGroupStack", "s", "S"),
        ("jobGroupDetail", "d", "s"),
        ("jobGroupSequence", "v001", "v002"),
        ("jobClusterId", "x, batch", "x"),
        ("labels", "name=X", "name=Y"),
        ("labels", "name:X", "name:Y"),
        ("labels", "name", "names"),
        ("labels", "empty=", "missing="),
        ("labels", " name = X , tier : front ", "name=X,tier=back"),
        ("labels", "name=Y,name=X", "name=Y,name=Z"),
        ("labels.name", "X", "Y"),
        ("labels.tier", "", " "),
        ("attributes", "name:X", "name:Y"),
        ("attributes.name", "X", "Y"),
    ],
)
def test_a_criterion_finds_what_it_names_and_nothing_else(name: str, hit: str, miss: str) -> None:
    assert found({name: hit})
    if miss.strip():
        assert not found({name: miss})


def test_all_criteria_must_hold() -> None:
    assert found({"appName": "web", "jobType": "service", "labels": "name=X"})
    assert not found({"appName": "web", "jobType": "service", "labels": "name=Y"})


@pytest.mark.parametrize("name", ["labels.op", "attributes.op"])
def test_labels_are_joined_as_asked_for(name: str) -> None:
    either = "name=Y,tier=front"
    assert not found({"labels": either})
    assert not found({"labels": either, name: "AND"})
    assert found({"labels": either, name: "Or"})
    assert not found({"labels": "name=Y,tier=back", name: "or"})


def test_a_value_may_hold_the_other_separator() -> None:
    of = a_job({"url": "http://x", "pair": "a=b"})
    assert found({"labels": "url=http://x"}, of)
    assert found({"labels": "pair:a=b"}, of)


def test_without_labels_nothing_is_found_by_them() -> None:
    assert not found({"labels": "name"}, a_job({}))


@pytest.mark.parametrize(
    "name", ["owner", "appName", "jobIds", "taskIds", "jobState", "taskStates", "labels"]
)
def test_what_is_blank_asks_for_nothing(name: str) -> None:
    assert criteria({name: "  "}) == criteria({})
    assert found({name: ""})


def test_ids_are_listed_with_commas() -> None:
    wanted = criteria({"jobIds": " a, b,,", "taskIds": "a-0-1"})
    assert (wanted.job_ids, wanted.task_ids) == (frozenset("ab"), frozenset({"a-0-1"}))


@pytest.mark.parametrize(("text", "state"), [("running", State.RUNNING), ("FAILED", State.FAILED)])
def test_a_state_is_known_in_any_case(text: str, state: State) -> None:
    assert criteria({"jobState": text}).job_state is state
    assert criteria({"taskStates": f"{text}, queued"}).task_states == frozenset({state, State.QUEUED})


def test_any_state_of_a_task_is_all_of_them() -> None:
    assert criteria({"taskStates": "Any"}).task_states == frozenset(State)


def test_jobs_that_are_over_are_meant_only_by_an_end() -> None:
    assert [criteria({"jobState": each.name}).wants_over for each in State] == [False] * 4 + [True] * 2
    assert not criteria({"taskStates": "FINISHED"}).wants_over
    assert criteria({"taskStates": "RUNNING,FAILED"}).wants_ended_tasks
    assert not criteria({"taskStates": "RUNNING"}).wants_ended_tasks


def test_more_criteria_than_anybody_means_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="has 101 criteria; the most is 100"):
        criteria({f"labels.{number}": "" for number in range(101)})


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({"colour": "red", "size": "1"}, ["colour", "size"]),
        ({"AppName": "web"}, ["AppName"]),
        ({"labels.": "x"}, ["labels."]),
        ({"jobType": "daemon"}, ["jobType"]),
        ({"jobState": "DONE"}, ["jobState"]),
        ({"taskStates": "RUNNING,DONE"}, ["taskStates"]),
        ({"labels.op": "xor"}, ["labels.op"]),
        ({"jobType": "x", "jobState": "y"}, ["jobType", "jobState"]),
        ({"appName": "a", "applicationName": "b"}, ["applicationName"]),
        ({"jobIds": ",".join(map(str, range(1_001)))}, ["jobIds"]),
        ({"labels": ",".join(map(str, range(1_001)))}, ["labels"]),
        ({"appName": "x" * 65_530}, ["appName"]),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(wanted: dict[str, str], fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        criteria(wanted)
    assert [each.field for each in refusal.value.violations] == [
        f"fiterlingCriteria[{name}]" for name in fields
    ]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("app", ("app", "")),
        ("app:1", ("app", "1")),
        ("r:5000/app", ("r:5000/app", "")),
        ("r:5000/a/b:1@sha256:0f", ("r:5000/a/b", "1")),
        ("", ("", "")),
    ],
)
def test_the_parts_of_an_images_name(name: str, parts: tuple[str, str]) -> None:
    assert image_parts(name) == parts
