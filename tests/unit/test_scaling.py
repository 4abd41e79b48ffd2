"""The language of scaling policies (docs/semantics.md B7.1)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from titus_celery.core.descriptor import ScalingPolicy
from titus_celery.core.scaling import Action, Comparison, action, check, condition


def compared(function: str, metric: str, operator: str, number: str, percent: bool = False) -> Comparison:
    return Comparison(
        function=function, metric=metric, operator=operator, number=Decimal(number), is_percent=percent
    )


def test_a_condition_compares_a_metric_with_a_number() -> None:
    assert condition("avg(CPUUtilization) > 80%") == [[compared("avg", "CPUUtilization", ">", "80", True)]]
    assert condition(" max( queue.depth )>=2.5 ") == [[compared("max", "queue.depth", ">=", "2.5")]]


def test_and_binds_closer_than_or() -> None:
    one, two, three = (compared("sum", name, "<", "1") for name in ("a", "b", "c"))
    assert condition("sum(a) < 1 OR sum(b) < 1 AND sum(c) < 1") == [[one], [two, three]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CPUUtilization > 80%",
        "avg(CPUUtilization) > ",
        "avg(CPUUtilization) => 80",
        "avg(CPUUtilization) > 80 %%",
        "avg(CPUUtilization) > -1",
        "avg(CPUUtilization) > 1e3",
        "avg(CPUUtilization) > 80% AND",
        "avg(CPUUtilization) > 80% and max(x) > 1",
        "last(CPUUtilization) > 80%",
        "avg(1) > 1",
        "avg(a) > 1; drop",
        "x" * 1_025,
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a condition|the most is"):
        condition(text)


@pytest.mark.parametrize("verb", ["addInstances", "removeInstances", "setInstances"])
def test_an_action_changes_the_number(verb: str) -> None:
    assert action(f"{verb} 3") == Action(verb=verb, count=3, is_percent=False)
    assert action(f" {verb}  10% ") == Action(verb=verb, count=10, is_percent=True)


@pytest.mark.parametrize(
    "text", ["", "addInstances", "add 1", "addInstances -1", "addInstances 1.5", "addInstances1"]
)
def test_what_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an action"):
        action(text)


def test_everything_wrong_with_policies_is_found_at_its_place() -> None:
    good = ScalingPolicy(condition="avg(a) > 1", action="addInstances 1")
    bad = ScalingPolicy(condition="x", action="y", duration=timedelta(days=8))
    assert [each.field for each in check("p", [good, bad])] == [
        "p[1].condition",
        "p[1].action",
        "p[1].durationSecs",
    ]
    assert [each.field for each in check("p", [good] * 21)] == ["p"]
