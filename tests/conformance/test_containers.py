"""What is run, where, and with what around it (docs/semantics.md A21, B8.2 to B8.6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.installation import Hand, Loop, Titus, container, serving
from titus_celery.core.engine import ContainerOrder
from titus_celery.core.model import Exit
from titus_celery.core.parameters import Volume
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def ordered(titus: Titus, **parts: Any) -> ContainerOrder:
    """What the engine is asked for when such a task runs."""
    host = titus.host()
    id, _ = titus.run(container(**parts))
    return next(order for order in host.engine.orders if order.job_id == id)


# ---------------------------------------------------------------------------------------- constraints


def wishing(
    hard: dict[str, str] | None = None, soft: dict[str, str] | None = None, desired: int = 1
) -> pb.JobDescriptor:
    """A job of tasks that wish this of their places."""
    job = container(
        hardConstraints=pb.Constraints(constraints=hard or {}),
        softConstraints=pb.Constraints(constraints=soft or {}),
    )
    job.batch.instances.desired = desired
    return job


def places(titus: Titus, job: pb.JobDescriptor) -> tuple[list[str], list[str]]:
    """The hosts of a new job's tasks, and why those that wait do so."""
    id = titus.create(job)
    titus.carry()
    tasks = titus.job(id).tasks
    hosts = [task.taskContext.get("agent.host", "") for task in tasks]
    return [host for host in hosts if host], [task.state.reason for task in tasks if task.state.reason]


@pytest.mark.parametrize("name", ["uniqueHost", "UNIQUEHOST", "uniquehost"])
@pytest.mark.parametrize("on", ["true", "", "TRUE"])
def test_a_unique_host_has_no_second_task_of_the_job(titus: Titus, name: str, on: str) -> None:
    titus.host("host-1")
    titus.host("host-2")
    hosts, why = places(titus, wishing({name: on}, desired=3))
    assert sorted(hosts) == ["host-1", "host-2"]
    assert why == ["waiting: 2 agents serve queue default: 2 have a task of this job"]


def test_a_wish_that_is_switched_off_is_none(titus: Titus) -> None:
    titus.host()
    assert places(titus, wishing({"uniqueHost": "false"}, desired=2)) == (["host-1"] * 2, [])


def test_an_exclusive_host_has_no_task_of_another_job(titus: Titus) -> None:
    titus.host()
    titus.run()
    hosts, why = places(titus, wishing({"exclusiveHost": "true"}))
    assert hosts == []
    assert why == ["waiting: 1 agent serves queue default: 1 has tasks of other jobs"]
    titus.host("host-2")
    titus.carry()
    assert places(titus, wishing({"host": "host-2"}))[0] == []


def test_the_host_of_a_name_is_the_only_one_that_will_do(titus: Titus) -> None:
    titus.host("host-1")
    titus.host("host-2")
    assert places(titus, wishing({"host": "host-2"}, desired=2))[0] == ["host-2"] * 2
    hosts, why = places(titus, wishing({"host": "host-3"}))
    assert (hosts, why) == ([], ["waiting: 2 agents serve queue default: 2 are not host host-3"])


def test_a_server_group_is_a_queue_of_agents(titus: Titus) -> None:
    titus.host()
    hosts, why = places(titus, wishing({"serverGroup": "gpu"}))
    assert (hosts, why) == ([], ["waiting: no agent serves queue gpu"])


def test_a_hard_wish_that_cannot_be_met_keeps_a_task_queued_without_failing_it(titus: Titus) -> None:
    titus.host()
    id = titus.create(wishing({"host": "nowhere"}))
    titus.wait(600)
    assert titus.task(f"{id}-0-1").state.state == pb.QUEUED


def test_a_soft_wish_is_met_as_far_as_that_goes(titus: Titus) -> None:
    titus.host("host-1")
    titus.host("host-2")
    assert places(titus, wishing(soft={"host": "host-2"}))[0] == ["host-2"]
    assert len(places(titus, wishing(soft={"host": "nowhere"}))[0]) == 1
    hosts, why = places(titus, wishing(soft={"uniqueHost": "true"}, desired=4))
    assert (len(hosts), set(hosts), why) == (4, {"host-1", "host-2"}, [])


def test_zones_are_filled_evenly(titus: Titus) -> None:
    for name, zone in (("host-1", "a"), ("host-2", "a"), ("host-3", "b")):
        titus.host(name, zone=zone)
    hosts, _ = places(titus, wishing({"zoneBalance": "true"}, desired=4))
    assert sorted(host == "host-3" for host in hosts) == [False, False, True, True]


@pytest.mark.parametrize("field", ["hardConstraints", "softConstraints"])
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"colour": "red"}, "is unknown"),
        ({"uniqueHost": "maybe"}, "neither true nor false"),
        ({"host": ""}, "must be a name"),
        ({"serverGroup": "x" * 256}, "must be a name"),
        ({f"c{number}": "" for number in range(33)}, "the most is 32"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(
    titus: Titus, field: str, given: dict[str, str], fault: str
) -> None:
    wrong = container(**{field: pb.Constraints(constraints=given)})
    titus.wrong(wrong, f"containers[main].{field}.constraints", fault)


def test_a_wish_is_either_hard_or_soft(titus: Titus) -> None:
    titus.wrong(wishing({"uniqueHost": ""}, {"UniqueHost": ""}), "hardConstraints.constraints[uniqueHost]")


def test_expressions_are_refused(titus: Titus) -> None:
    for field in ("hardConstraints", "softConstraints"):
        wrong = container(**{field: pb.Constraints(expression="zoneBalance")})
        titus.wrong(wrong, f"containers[main].{field}.expression")


# ---------------------------------------------------------------------------------------- surroundings


def test_a_security_profile_is_kept_and_told_to_the_container(titus: Titus) -> None:
    profile = {"securityGroups": "sg-1, sg-2", "iamProfile": "role", "other": "x"}
    job = container(securityProfile=profile)
    assert titus.job(titus.create(job)).jobDescriptor.containers["main"].securityProfile == profile
    order = ordered(titus, securityProfile=profile)
    assert order.env["TITUS_SECURITY_GROUPS"] == "sg-1, sg-2"
    assert order.env["TITUS_IAM_PROFILE"] == "role"
    assert order.labels["titus.security.other"] == "x"


@pytest.mark.parametrize(
    ("profile", "field"),
    [
        ({"securityGroups": "group"}, "securityGroups"),
        ({"securityGroups": "sg-1,sg 2"}, "securityGroups"),
        ({"iamProfile": "a b"}, "iamProfile"),
        ({"iamRole": "a\tb"}, "iamRole"),
        ({"iamRole": "a\0b"}, "iamRole"),
    ],
    ids=str,
)
def test_a_security_profile_that_cannot_be_is_refused(
    titus: Titus, profile: dict[str, str], field: str
) -> None:
    titus.wrong(container(securityProfile=profile), f"containers[main].securityProfile[{field}]")


def test_a_container_without_a_profile_gets_the_installations(hand: Hand, loop: Loop) -> None:
    with serving(hand, loop, security_groups=("sg-9",), iam_profile="ours") as titus:
        made = titus.job(titus.create()).jobDescriptor.containers["main"].securityProfile
        assert made == {"securityGroups": "sg-9", "iamProfile": "ours"}
        named = container(securityProfile={"securityGroups": "sg-1", "iamRole": "mine"})
        made = titus.job(titus.create(named)).jobDescriptor.containers["main"].securityProfile
        assert made == {"securityGroups": "sg-1", "iamRole": "mine"}


def test_a_single_entry_point_with_blanks_is_split_as_a_shell_would(titus: Titus) -> None:
    order = ordered(titus, entryPoint=["sh -c 'echo  a'"], command=["b c"])
    assert (order.entry_point, order.command) == (("sh", "-c", "echo  a"), ("b c",))


def test_several_elements_are_taken_as_they_are(titus: Titus) -> None:
    order = ordered(titus, entryPoint=["sh -c", "a b"], command=[])
    assert (order.entry_point, order.command) == (("sh -c", "a b"), ())


def test_what_is_left_out_is_the_images(titus: Titus) -> None:
    order = ordered(titus, entryPoint=[], command=["x"])
    assert (order.entry_point, order.command) == ((), ("x",))


def test_an_entry_point_that_cannot_be_split_is_refused(titus: Titus) -> None:
    titus.wrong(container(entryPoint=["sh -c 'a"]), "containers[main].entryPoint", "split")


def test_a_container_learns_who_it_is_and_nobody_can_tell_it_otherwise(titus: Titus) -> None:
    job = container(env={"A": "1", "TITUS_JOB_ID": "mine", "titus_task_id": "other"})
    job.batch.retryPolicy.immediate.retries = 1
    host = titus.host()
    id, (run,) = titus.run(job)
    ours = {
        "TITUS_JOB_ID": id,
        "TITUS_TASK_ID": f"{id}-0-1",
        "TITUS_TASK_INDEX": "0",
        "TITUS_TASK_ORIGINAL_ID": f"{id}-0-1",
        "TITUS_TASK_ATTEMPT": "1",
    }
    assert host.engine.orders[-1].env == {"A": "1", "titus_task_id": "other", **ours}
    titus.end(run, f"{id}-0-1", Exit(code=3))
    titus.carry()
    again = host.engine.orders[-1].env
    assert (again["TITUS_TASK_ID"], again["TITUS_TASK_ORIGINAL_ID"]) == (f"{id}-0-2", f"{id}-0-1")
    assert again["TITUS_TASK_ATTEMPT"] == "2"


# ---------------------------------------------------------------------------------------- parameters


def test_parameters_become_variables(titus: Titus) -> None:
    env = ordered(titus, parameters={"log.level": "debug", "X": ""}).env
    assert (env["TITUS_PARAM_LOG_LEVEL"], env["TITUS_PARAM_X"]) == ("debug", "")


def test_parameters_that_begin_with_titus_and_a_dot_are_reserved(titus: Titus) -> None:
    titus.wrong(container(parameters={"titus.x": "1"}), "containers[main].parameters[titus.x]", "reserved")
    titus.create(container(parameters={"titusx": "1"}))


def test_parameters_that_would_be_one_variable_are_refused(titus: Titus) -> None:
    titus.wrong(container(parameters={"a.b": "1", "A-B": "2"}), "containers[main].parameters[")
    both = container(parameters={"a": "1"}, env={"TITUS_PARAM_A": "2"})
    titus.wrong(both, "containers[main].parameters[a]")


def test_a_parameter_has_a_name_and_no_nul(titus: Titus) -> None:
    for wrong in ({"": "x"}, {" ": "x"}, {"x": "\0"}, {"x\0": ""}):
        titus.wrong(container(parameters=wrong), "containers[main].parameters")


def test_volumes_are_mounted_only_where_the_installation_allows(hand: Hand, loop: Loop) -> None:
    with serving(hand, loop, volumes_allowed=("data", "/srv/shared")) as titus:
        for fine in ("data:/d", "/srv/shared/x:/d:ro", "data:/a,/srv/shared:/b:rw"):
            titus.create(container(parameters={"volumes": fine}))
        for wrong in ("other:/d", "/etc:/d", "/srv/shared/../../etc:/d", "/srv/sharedx:/d", "data:/"):
            titus.wrong(container(parameters={"volumes": wrong}), "containers[main].parameters[volumes]")
        order = ordered(titus, parameters={"volumes": "data:/d:ro"})
        assert order.volumes == (Volume(source="data", target="/d", read_only=True),)
        assert "TITUS_PARAM_VOLUMES" not in order.env


def test_by_default_nothing_of_the_host_is_mounted(titus: Titus) -> None:
    titus.wrong(container(parameters={"volumes": "data:/d"}), "may not be mounted")
