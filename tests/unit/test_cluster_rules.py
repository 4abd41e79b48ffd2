"""What a cluster must look like, and what its jobs get of it (docs/semantics.md B1.1, B6.1, B6.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import at
from tests.unit.clusters import a_cluster, described
from tests.unit.descriptors import ANN, LIMITS, NOBODY, VALID
from titus_celery.adapters.cron_times import schedule
from titus_celery.core.cluster import (
    CATCH_UP,
    TIME_ZONE,
    ClusterDescriptor,
    MantisRules,
    built_in,
)
from titus_celery.core.cluster_rules import check, effective, inherited
from titus_celery.core.descriptor import Container, Image, JobDescriptor, JobType, MantisSpec, Owner
from titus_celery.core.model import Caller
from titus_celery.errors import Unsupported, Violation

DAILY = "0 0 3 * * ?"


def cluster(template: JobDescriptor | None = None, **rules: Any) -> ClusterDescriptor:
    """A valid Mantis cluster with these rules."""
    plain = a_cluster(template=template or described()).descriptor
    return replace(plain, rules=MantisRules(**rules))


def bare(**rules: Any) -> ClusterDescriptor:
    """The same without a template."""
    return replace(cluster(**rules), template=None)


def found(one: ClusterDescriptor, caller: Caller = NOBODY) -> list[Violation]:
    return check(effective(one, caller, LIMITS), LIMITS, schedule, at(0))


def with_parameters(**parameters: str) -> JobDescriptor:
    names = {"zone": TIME_ZONE, "catch_up": CATCH_UP}
    return described(parameters={names[key]: value for key, value in parameters.items()})


# ------------------------------------------------------------------------------------------ violations


@pytest.mark.parametrize(
    "one",
    [
        bare(),
        bare(max=100),
        cluster(min=5, max=5),
        cluster(min=1, max=100),
        cluster(cron=DAILY),
        cluster(cron="*/5 * * * *", policy=" keep_new "),
        # With a schedule floor and ceiling are given.
        cluster(cron=DAILY, min=99, max=3),
        # Without one the policy means nothing.
        cluster(policy="whatever"),
        cluster(with_parameters(zone="Europe/Berlin", catch_up="once"), cron=DAILY),
        cluster(with_parameters(catch_up=" none "), cron=DAILY),
        ClusterDescriptor(name="b", kind=JobType.BATCH, owner=VALID.owner, template=VALID),
        ClusterDescriptor(name="b", kind=JobType.SERVICE, owner=VALID.owner),
    ],
)
def test_these_are_valid(one: ClusterDescriptor) -> None:
    assert found(one) == []


@pytest.mark.parametrize(
    ("one", "path", "text"),
    [
        (replace(bare(), name="  "), "name", "a cluster needs a name"),
        (cluster(min=6, max=7), "mantis.min", "6 is more than a cluster may have, 5"),
        (bare(max=101), "mantis.max", "101 is more than a cluster may have, 100"),
        (cluster(min=3, max=2), "mantis.max", "2 is less than min, 3"),
        # A floor needs a ceiling that is said.
        (cluster(min=1), "mantis.max", "0 is less than min, 1"),
        (
            bare(min=1, max=1),
            "jobDescriptor",
            "a cluster that makes jobs below its min needs a template to make them of",
        ),
        (
            bare(cron=DAILY),
            "jobDescriptor",
            "a cluster that makes jobs by its schedule needs a template to make them of",
        ),
        (
            cluster(cron=DAILY, policy="KEEP_ALL"),
            "mantis.cronPolicy",
            "'KEEP_ALL' is none of KEEP_EXISTING, KEEP_NEW",
        ),
        (cluster(cron="0 0 3 * * ? 2020"), "mantis.cronSpec", "all of its times are past"),
        (
            cluster(with_parameters(catch_up="twice"), cron=DAILY),
            "jobDescriptor.mantis.parameters[cron.catchUp]",
            "'twice' is neither none nor once",
        ),
        (
            cluster(with_parameters(catch_up="twice")),
            "jobDescriptor.mantis.parameters[cron.catchUp]",
            "'twice' is neither none nor once",
        ),
        (cluster(VALID), "jobDescriptor", "is a batch job; the cluster is of mantis jobs"),
        (
            ClusterDescriptor(name="b", kind=JobType.SERVICE, owner=VALID.owner, template=VALID),
            "jobDescriptor",
            "is a batch job; the cluster is of service jobs",
        ),
    ],
)
def test_a_violation_names_its_place(one: ClusterDescriptor, path: str, text: str) -> None:
    assert found(one) == [Violation(path, text)]


@pytest.mark.parametrize(
    ("one", "path"),
    [
        (cluster(cron="every day"), "mantis.cronSpec"),
        (cluster(cron="61 * * * * ?"), "mantis.cronSpec"),
        (
            cluster(with_parameters(zone="Mars/Olympus"), cron=DAILY),
            "jobDescriptor.mantis.parameters[cron.timeZone]",
        ),
        (replace(cluster(), owner=Owner(owner_email="o", team_email="t@x")), "owner.ownerEmail"),
        (cluster(described(0)), "jobDescriptor.mantis.stages[0].instances.desired"),
        (cluster(replace(described(), containers={})), "jobDescriptor.containers"),
    ],
)
def test_a_violation_is_found_at(one: ClusterDescriptor, path: str) -> None:
    assert path in [each.field for each in found(one)]


def test_a_wrong_schedule_does_not_hide_a_wrong_zone() -> None:
    both = cluster(with_parameters(zone="Mars/Olympus"), cron="every day")
    assert [each.field for each in found(both)] == [
        "mantis.cronSpec",
        "jobDescriptor.mantis.parameters[cron.timeZone]",
    ]


def test_who_owns_it_must_be_known() -> None:
    nobodys = replace(bare(), owner=Owner())
    assert {each.field for each in found(nobodys)} == {"owner.ownerEmail", "owner.teamEmail"}
    assert found(nobodys, ANN) == []


def test_all_violations_are_told_at_once_before_what_is_not_offered() -> None:
    spec = described().spec
    assert isinstance(spec, MantisSpec)
    scaled = replace(spec, stages=(replace(spec.stages[0], is_scaled=True),))
    template = replace(described(), spec=scaled)
    with pytest.raises(Unsupported):
        found(cluster(template))
    wrong = replace(cluster(template, min=3, max=2), name="")
    assert [each.field for each in found(wrong)] == ["name", "mantis.max"]


# ------------------------------------------------------------------------------------------ effective


def filled(one: ClusterDescriptor, caller: Caller = NOBODY) -> ClusterDescriptor:
    return effective(one, caller, LIMITS)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (MantisRules(min=2, max=3), MantisRules(min=2, max=3)),
        (MantisRules(min=2, max=3, policy="KEEP_NEW"), MantisRules(min=2, max=3)),
        (
            MantisRules(min=2, max=3, cron=f" {DAILY} "),
            MantisRules(min=0, max=1, cron=DAILY, policy="KEEP_EXISTING"),
        ),
        (
            MantisRules(cron=DAILY, policy=" keep_New"),
            MantisRules(min=0, max=1, cron=DAILY, policy="KEEP_NEW"),
        ),
        (MantisRules(cron="  ", policy="x"), MantisRules()),
    ],
)
def test_a_schedule_sets_floor_ceiling_and_policy(given: MantisRules, kept: MantisRules) -> None:
    assert filled(replace(cluster(), rules=given)).rules == kept


def test_the_owner_is_the_caller_and_the_templates_is_the_clusters() -> None:
    nobodys = replace(cluster(replace(described(), owner=Owner())), owner=Owner(), name=" c ")
    one = filled(nobodys, ANN)
    assert (one.name, one.owner) == ("c", Owner(owner_email=ANN.email, team_email=ANN.email))
    assert one.template is not None
    assert one.template.owner == one.owner
    of_bob = replace(nobodys, owner=Owner(owner_email="bob@x", team_email="t@x"))
    template = filled(of_bob, ANN).template
    assert template is not None
    assert template.owner == Owner(owner_email="bob@x", team_email="bob@x")


def test_a_template_names_no_cluster_and_keeps_its_images_unresolved() -> None:
    named = Container(image=Image(name="app:1"), command=("true",))
    one = filled(cluster(replace(described(), cluster_id="other", containers={"c0": named})))
    assert one.template is not None
    assert one.template.cluster_id == ""
    assert one.template.containers["c0"].image == Image(name="app:1")


def test_the_zone_is_utc_unless_the_template_says_another() -> None:
    assert (cluster().time_zone, bare().time_zone) == ("UTC", "UTC")
    assert cluster(with_parameters(zone=" Europe/Berlin ")).time_zone == "Europe/Berlin"
    assert (cluster().catches_up, cluster(with_parameters(catch_up=" once ")).catches_up) == (False, True)


# ------------------------------------------------------------------------------------------ inherited


def test_a_job_inherits_labels_and_parameters_if_it_has_none() -> None:
    template = replace(described(parameters={"a": "1"}), labels={"l": "t"})
    parent = a_cluster(template=template)
    heir = inherited(described(2), parent)
    assert isinstance(heir.spec, MantisSpec)
    assert (heir.labels, heir.spec.parameters, heir.spec.stages[0].desired) == ({"l": "t"}, {"a": "1"}, 2)
    own = replace(described(parameters={"b": "2"}), labels={"m": "o"})
    assert inherited(own, parent) == own


def test_without_a_template_there_is_nothing_to_inherit() -> None:
    plain = described()
    assert inherited(plain, built_in(plain.spec)) == plain
    assert inherited(VALID, a_cluster(template=replace(VALID, labels={"x": "y"}))).labels == {"x": "y"}
