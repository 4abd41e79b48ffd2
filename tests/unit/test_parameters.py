"""Parameters of containers: variables of the environment, and volumes (docs/semantics.md A21)."""

from __future__ import annotations

import pytest

from titus_celery.core.descriptor import Container
from titus_celery.core.parameters import Volume, check, env_of, volumes


def found(parameters: dict[str, str], *allowed: str, env: dict[str, str] | None = None) -> list[str]:
    container = Container(parameters=parameters, env=env or {})
    return [str(violation) for violation in check("p", container, allowed)]


def test_parameters_become_variables() -> None:
    assert env_of(Container(parameters={"a.b-c": "1", "Tier": "x", "volumes": "a:/b"})) == {
        "TITUS_PARAM_A_B_C": "1",
        "TITUS_PARAM_TIER": "x",
    }


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"titus.x": "1"}, "p[titus.x]: names that start with 'titus.' are reserved"),
        ({" ": "1"}, "p: a parameter needs a name"),
        ({"a": "\0"}, "p[a]: holds a NUL character"),
        ({"a.b": "1", "a-b": "2"}, "p[a-b]: becomes the same variable as 'a.b'"),
    ],
)
def test_what_no_parameter_can_be_is_refused(parameters: dict[str, str], why: str) -> None:
    assert found(parameters) == [why]


def test_a_variable_that_env_sets_is_not_set_twice() -> None:
    env = {"TITUS_PARAM_A": "x"}
    assert found({"a": "1"}, env=env) == ["p[a]: becomes TITUS_PARAM_A, which env sets, too"]


def test_volumes_are_named_or_directories() -> None:
    assert volumes("data:/data, /srv/in:/in:ro ,x:/y:rw,") == [
        Volume(source="data", target="/data"),
        Volume(source="/srv/in", target="/in", read_only=True),
        Volume(source="x", target="/y"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "data:",
        ":/data",
        "data:relative",
        "data:/",
        "data:/x:rx",
        "data:/x:ro:z",
        "../etc:/x",
        "/srv/../etc:/x",
        "/srv/:/x",
        "//srv:/x",
        "/srv:/x/..",
        "a b:/x",
        "a:/x,b:/x",
        ",".join(f"v{number}:/{number}" for number in range(33)),
    ],
)
def test_what_is_no_volume_is_refused(text: str) -> None:
    assert len(found({"volumes": text}, "*", "/srv")) == 1


def test_nothing_may_be_mounted_that_is_not_allowed() -> None:
    assert found({"volumes": "data:/x"}) == [
        "p[volumes]: 'data' may not be mounted by jobs of this installation"
    ]
    for allowed in ("data", "*"):
        assert found({"volumes": "data:/x"}, allowed) == []
    assert len(found({"volumes": "/srv/a:/x"}, "*", "data", "srv")) == 1


def test_a_directory_that_is_allowed_allows_what_is_below_it_and_nothing_beside_it() -> None:
    for allowed in ("/srv/a", "/srv/a/", "/srv", "/"):
        assert found({"volumes": "/srv/a/b:/x"}, allowed) == []
    assert len(found({"volumes": "/srv/ab:/x"}, "/srv/a")) == 1
    assert len(found({"volumes": "/srv:/x"}, "/srv/a")) == 1
