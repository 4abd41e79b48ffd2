"""Every rule of a batch job with the place it names, and the defaults that are filled in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from tests.unit.descriptors import (
    BATCH,
    CONTAINER,
    VALID,
    found,
    with_batch,
    with_container,
    with_owner,
    with_resources,
)
from titus_celery.core.descriptor import (
    BatchSpec,
    Constraints,
    Container,
    Image,
    JobDescriptor,
    ScalingPolicy,
    ServiceSpec,
)
from titus_celery.errors import Unsupported, Violation

# ------------------------------------------------------------------------------------------ what is fine

FINE: Final = {
    "the plain one": VALID,
    "a thousand tasks": with_batch(desired=1_000),
    "a second to run": with_batch(runtime_limit=timedelta(seconds=1)),
    "ten days to run": with_batch(runtime_limit=timedelta(days=10)),
    "min and max as sent": with_batch(min=7, max=3),
    "the least cpu": with_resources(cpu="0.01"),
    "the most cpu": with_resources(cpu="96"),
    "the least memory": with_resources(memory="6MiB"),
    "the most memory": with_resources(memory="244000MB"),
    "a kind of resource nobody knows": with_resources(colour="red"),
    "an image with registry, tag and digest": with_container(
        image=Image(name="r.example.com:5000/a/b_c-d.e:v1.2@sha256:" + "0f" * 32)
    ),
    "an image by id": with_container(image=Image(id="sha256:" + "0f" * 32)),
    "an image name of 512 characters": with_container(image=Image(name="a" * 512)),
    "an entry point to be split": with_container(entry_point=("sh -c 'exit 3'",)),
    "no command at all": with_container(command=(), entry_point=()),
    # 16 * 1024 with the separator of each part.
    "a command of 16 KiB": with_container(command=("a" * 8_191, "b" * 8_191)),
    # 32 * 1024 with two bytes more for each.
    "an environment of 32 KiB": with_container(env={"A": "x" * 32_765}),
    "names of variables in small letters": with_container(env={"debug.it": ""}),
    "a label that only holds titus": replace(VALID, labels={"my.titus": "", "t": "titus"}),
    "soft and hard wishes that wish nothing": with_container(
        soft_constraints=Constraints(), hard_constraints=Constraints()
    ),
    "a security profile": with_container(
        security_profile={"securityGroups": "sg-1, sg-b2", "iamProfile": "p", "mine": "x y"}
    ),
    "what Spinnaker sends": with_resources(disk="2000MB", network="128Mbps", gpu="1", ports="80,443"),
    "an address of its own": with_resources(allocateIP="TRUE"),
    "a parameter": with_container(parameters={"mine": "1"}),
    "a wish": with_container(hard_constraints=Constraints(constraints={"UNIQUEHOST": ""})),
    "a service of nothing": replace(VALID, spec=ServiceSpec(desired=0, container_id="main")),
    "a service of the most": replace(VALID, spec=ServiceSpec(desired=2_000, container_id="main")),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_wrong_with(name: str) -> None:
    assert found(FINE[name]) == []


# ------------------------------------------------------------------------------------------ each rule

#: More entries than a map may have.
MANY: Final = {f"x{number}": "" for number in range(1_001)}
MANY_TEXT: Final = "has 1001 entries; the most is 1000"
LONG: Final = "x" * 257
LONG_TEXT: Final = "has 257 characters; the most is 256"

RULES: Final[list[tuple[JobDescriptor, str, str]]] = [
    (with_owner(owner_email=""), "owner.ownerEmail", "is empty and the caller's e-mail is not known"),
    (with_owner(team_email="  "), "owner.teamEmail", "is empty and the caller's e-mail is not known"),
    (with_owner(owner_email="ann"), "owner.ownerEmail", "'ann' is not an e-mail address"),
    (with_owner(team_email="us"), "owner.teamEmail", "'us' is not an e-mail address"),
    (replace(VALID, labels={"": "x"}), "labels", "a label needs a name"),
    (replace(VALID, labels={" ": "x"}), "labels", "a label needs a name"),
    (replace(VALID, labels={"titus": ""}), "labels[titus]", "names that start with 'titus' are reserved"),
    (replace(VALID, labels={"TiTus.x": ""}), "labels[TiTus.x]", "names that start with 'titus' are reserved"),
    (replace(VALID, labels=MANY), "labels", MANY_TEXT),
    (replace(VALID, labels={LONG: ""}), f"labels[{LONG}]", LONG_TEXT),
    (replace(VALID, labels={"x": "x" * 2**15}), "labels", "has 32769 bytes; the most is 32768"),
    (replace(VALID, labels={"a\nb": ""}), "labels[a\nb]", "holds characters that cannot be shown"),
    (with_container(env=MANY), "containers[main].env", MANY_TEXT),
    (with_container(parameters=MANY), "containers[main].parameters", MANY_TEXT),
    (
        with_container(resources={**CONTAINER.resources, **MANY}),
        "containers[main].resources",
        "has 1003 entries; the most is 1000",
    ),
    (with_container(security_profile=MANY), "containers[main].securityProfile", MANY_TEXT),
    (
        with_container(security_profile={"iamProfile": "a\0b"}),
        "containers[main].securityProfile[iamProfile]",
        "holds characters that cannot be shown",
    ),
    (
        with_resources(colour="re\nd"),
        "containers[main].resources[colour]",
        "holds characters that cannot be shown",
    ),
    (
        with_container(hard_constraints=Constraints(constraints=dict.fromkeys(list(MANY)[:33], ""))),
        "containers[main].hardConstraints.constraints",
        "has 33 entries; the most is 32",
    ),
    (
        replace(VALID, spec=replace(BATCH, container_id=LONG), containers={LONG: CONTAINER}),
        "containers",
        LONG_TEXT,
    ),
    (with_batch(desired=0), "batch.instances.desired", "0 is not within 1 and 1000"),
    (with_batch(desired=1_001), "batch.instances.desired", "1001 is not within 1 and 1000"),
    (
        with_batch(runtime_limit=timedelta(days=10, seconds=1)),
        "batch.runtimeLimitSecs",
        "864001 is more than the longest allowed, 864000",
    ),
    (with_batch(container_id=""), "batch.containerId", "must name the job's container"),
    (with_batch(container_id="other"), "batch.containerId", "there is no container 'other'"),
    (
        replace(VALID, containers={"main": CONTAINER, "side": CONTAINER}),
        "containers",
        "a batch job has exactly one container, not 2",
    ),
    (
        with_container(image=Image()),
        "containers[main].image",
        "exactly one of name and imageId must be set",
    ),
    (
        with_container(image=Image(name="a", id="b")),
        "containers[main].image",
        "exactly one of name and imageId must be set",
    ),
    (with_container(image=Image(name="a" * 513)), "containers[main].image", "is longer than 512 characters"),
    (with_container(image=Image(id="a" * 513)), "containers[main].image", "is longer than 512 characters"),
    (
        with_container(image=Image(name="app:1 2")),
        "containers[main].image.name",
        "'app:1 2' is not an image name such as app:1.2",
    ),
    (
        with_container(image=Image(name="käse")),
        "containers[main].image.name",
        "'käse' is not an image name such as app:1.2",
    ),
    (
        with_resources(cpu="0.009"),
        "containers[main].resources[cpu]",
        "0.009 is too little; the least is 0.01 cores",
    ),
    (with_resources(cpu="0"), "containers[main].resources[cpu]", "0 is too little; the least is 0.01 cores"),
    (
        with_resources(cpu="96.001"),
        "containers[main].resources[cpu]",
        "96.001 is too much; the most is 96 cores",
    ),
    (
        with_resources(cpu="lots"),
        "containers[main].resources[cpu]",
        "'lots' is not an amount such as 1, 0.5 or 128MB",
    ),
    (
        with_resources(memory="6291455b"),
        "containers[main].resources[memory]",
        "6291455b is too little; the least is 6MiB",
    ),
    (
        with_resources(memory="244000000001b"),
        "containers[main].resources[memory]",
        "244000000001b is too much; the most is 244000MB",
    ),
    (
        with_resources(memory="1 horse"),
        "containers[main].resources[memory]",
        "'1 horse' has the unknown unit 'horse'; use MB, GB, MiB or GiB",
    ),
    (
        with_resources(eni="1"),
        "containers[main].resources[eni]",
        "cannot be had on Docker hosts; leave it out",
    ),
    (
        with_resources(disk="640000.1MB"),
        "containers[main].resources[disk]",
        "640000.1MB is too much; the most is 640000MB",
    ),
    (
        with_resources(network="6001"),
        "containers[main].resources[network]",
        "6001 is too much; the most is 6000Mbps",
    ),
    (with_resources(gpu="17"), "containers[main].resources[gpu]", "17 is too much; the most is 16"),
    (with_resources(gpu="0.5"), "containers[main].resources[gpu]", "'0.5' is not a whole number of GPUs"),
    (
        with_resources(ports="80,x"),
        "containers[main].resources[ports]",
        "'x' is not a port from 1 to 65535",
    ),
    (
        with_resources(allocateIP="yes"),
        "containers[main].resources[allocateIP]",
        "'yes' is neither true nor false",
    ),
    (
        with_container(security_profile={"securityGroups": "sg-1,group"}),
        "containers[main].securityProfile[securityGroups]",
        "'group' is not a security group such as sg-1",
    ),
    (
        with_container(security_profile={"iamProfile": "a b"}),
        "containers[main].securityProfile[iamProfile]",
        "holds a blank",
    ),
    (
        # One part and its separator.
        with_container(command=("a" * 16_384,)),
        "containers[main].command",
        "has 16385 bytes; the most is 16384",
    ),
    (
        # Bytes are counted, not characters.
        with_container(entry_point=("ä" * 8_192,)),
        "containers[main].entryPoint",
        "has 16385 bytes; the most is 16384",
    ),
    (with_container(command=("a\0b",)), "containers[main].command", "holds a NUL character"),
    (with_container(entry_point=("a\0b",)), "containers[main].entryPoint", "holds a NUL character"),
    (
        with_container(entry_point=("sh -c 'exit",)),
        "containers[main].entryPoint",
        "cannot be split into words: No closing quotation",
    ),
    (
        with_container(env={"A": "x" * 32_766}),
        "containers[main].env",
        "has 32769 bytes; the most is 32768",
    ),
    (with_container(env={"": "x"}), "containers[main].env[]", "is not a name for an environment variable"),
    (
        with_container(env={"A=B": "x"}),
        "containers[main].env[A=B]",
        "is not a name for an environment variable",
    ),
    (
        with_container(env={"A\0": "x"}),
        "containers[main].env[A\0]",
        "holds characters that cannot be shown",
    ),
    (with_container(env={"A": "x\0"}), "containers[main].env[A]", "holds a NUL character"),
    (
        with_container(parameters={"titus.x": "1"}),
        "containers[main].parameters[titus.x]",
        "names that start with 'titus.' are reserved",
    ),
    (
        with_container(soft_constraints=Constraints(expression="a == b")),
        "containers[main].softConstraints.expression",
        "expressions are not supported; use constraints",
    ),
    (
        with_container(hard_constraints=Constraints(expression="a == b")),
        "containers[main].hardConstraints.expression",
        "expressions are not supported; use constraints",
    ),
]


@pytest.mark.parametrize(("job", "field", "text"), RULES, ids=lambda part: str(part)[:40])
def test_a_broken_rule_is_found_alone_at_its_place(job: JobDescriptor, field: str, text: str) -> None:
    assert found(job) == [Violation(field, text)]


def test_a_job_without_containers_breaks_two_rules() -> None:
    assert found(replace(VALID, containers={})) == [
        Violation("containers", "a batch job has exactly one container, not 0"),
        Violation("batch.containerId", "there is no container 'main'"),
    ]


def test_everything_wrong_is_found_at_once() -> None:
    bad = Container(
        image=Image(),
        resources={"cpu": "x", "memory": "1b", "disk": "z"},
        entry_point=("a\0", "b"),
        command=("c\0",),
        env={"=": "", "B": "\0"},
        parameters={"titus.": "1", "mine": "2"},
        soft_constraints=Constraints(expression="s"),
        hard_constraints=Constraints(expression="h"),
    )
    job = JobDescriptor(
        spec=BatchSpec(desired=5_000, runtime_limit=timedelta(days=11), container_id="z"),
        labels={"": "", "titus": ""},
        containers={"a": bad, "b": bad},
    )
    ours = (
        "image",
        "resources[cpu]",
        "resources[memory]",
        "resources[disk]",
        "entryPoint",
        "command",
        "env[=]",
        "env[B]",
        "parameters[titus.]",
        "softConstraints.expression",
        "hardConstraints.expression",
    )
    assert [violation.field for violation in found(job)] == [
        "owner.ownerEmail",
        "owner.teamEmail",
        "labels",
        "labels[titus]",
        "batch.instances.desired",
        "batch.runtimeLimitSecs",
        "containers",
        "batch.containerId",
        *(f"containers[{key}].{field}" for key in "ab" for field in ours),
    ]


# ------------------------------------------------------------------------------------------ unsupported


SCALING: Final = ScalingPolicy(condition="avg(CPUUtilization) > 80%", action="addInstances 1")


def test_what_this_release_lacks_is_refused_by_name() -> None:
    with pytest.raises(Unsupported) as refusal:
        found(replace(VALID, spec=ServiceSpec(desired=1, scaling=(SCALING,), container_id="main")))
    assert str(refusal.value) == (
        "service.scalingPolices (to have them acted on) is not supported by this release"
    )


def test_what_is_wrong_is_told_before_what_is_lacking() -> None:
    spec = ServiceSpec(desired=1, scaling=(SCALING,), container_id="other")
    assert [each.field for each in found(replace(VALID, spec=spec))] == ["service.containerId"]
