"""What a job asks of its place and gets there: rules, wishes, GPUs, ports, a bounded disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.service.test_services import until_over
from tests.service.world import World, a_job
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import Constraints, JobDescriptor
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import JobId
from titus_celery.core.states import State


def wanting(
    desired: int = 1,
    *,
    hard: Mapping[str, str] | None = None,
    soft: Mapping[str, str] | None = None,
    **resources: str,
) -> JobDescriptor:
    """A batch job with these constraints and resources beside one core."""
    plain = a_job(desired)
    container = replace(
        plain.container_of(None),
        resources={**plain.container_of(None).resources, **resources},
        hard_constraints=Constraints(constraints=hard or {}),
        soft_constraints=Constraints(constraints=soft or {}),
    )
    return replace(plain, containers={"main": container})


def hosts_of(world: World, id: JobId) -> list[str]:
    """Where the job's tasks are, by slot; "" where they wait."""
    tasks = sorted(world.jobs.find(id).tasks, key=lambda one: one.slot)
    return [one.dispatch.host if one.dispatch else "" for one in tasks]


def two_hosts() -> World:
    world = World()
    world.host("host-1")
    world.host("host-2")
    return world


def test_tasks_that_must_be_apart_are_one_a_host_and_the_others_say_why_they_wait() -> None:
    world = two_hosts()
    id = world.create(wanting(3, hard={"uniqueHost": "true"}))
    world.sweep()
    assert sorted(hosts_of(world, id)) == ["", "host-1", "host-2"]
    assert world.why(task_id(id, 2, 1)) == "waiting: 2 agents serve queue default: 2 have a task of this job"


def test_tasks_that_would_rather_be_apart_share_a_host_when_they_have_to() -> None:
    world = two_hosts()
    id = world.create(wanting(3, soft={"uniqueHost": ""}))
    world.sweep()
    assert {*hosts_of(world, id)} == {"host-1", "host-2"}


def test_a_job_that_wants_a_host_for_itself_keeps_it_until_it_is_over() -> None:
    world = two_hosts()
    alone = world.create(wanting(2, hard={"exclusiveHost": "true"}))
    world.sweep()
    others = world.create(a_job(5))
    world.sweep()
    (mine,) = {*hosts_of(world, alone)}
    assert {*hosts_of(world, others)} == {"", "host-1", "host-2"} - {mine}
    runs = world.deliver()
    for run in runs:
        run.until(State.RUNNING)
    for slot, run in enumerate(runs[:2]):
        world.release(run, task_id(alone, slot, 1))
    world.sweep()
    assert {*hosts_of(world, others)} == {"host-1", "host-2"}


def test_two_controls_never_put_two_tasks_that_must_be_apart_on_one_host() -> None:
    """The other places the second task between our look at the host and our commit of the first."""
    world = World()
    world.host("host-1")
    id = world.create(wanting(2, hard={"uniqueHost": "true"}))
    other = world.new_control()
    world.sleep(5)

    def other_is_first(change: Change) -> None:
        other.run()

    world.records.before_commit = other_is_first
    world.sweep()
    world.records.before_commit = None
    assert len(world.orders()) == 1
    assert sorted(hosts_of(world, id)) == ["", "host-1"]


def test_a_host_that_is_insisted_on_is_waited_for() -> None:
    world = two_hosts()
    id = world.create(wanting(hard={"host": "host-3"}))
    world.sweep()
    assert world.why(task_id(id, 0, 1)) == "waiting: 2 agents serve queue default: 2 are not host host-3"
    world.host("host-3")
    world.sweep()
    assert hosts_of(world, id) == ["host-3"]


def test_an_image_that_only_one_engine_has_binds_its_tasks_to_it() -> None:
    world = World()
    world.host("with-it")
    world.host("without", engine=MemoryExecutor(images=[], engine_id="ENGINE:other"))
    id = world.create(a_job(6))
    world.sweep()
    assert {*hosts_of(world, id)} == {"with-it", ""}


def test_each_gpu_is_one_tasks_and_named_in_its_order() -> None:
    world = World()
    world.host(room={"gpus": ("gpu-a", "gpu-b", "gpu-c")})
    id = world.create(wanting(2, gpu="2"))
    world.sweep()
    (order,) = world.orders()
    assert order.dispatch.gpus == ("gpu-a", "gpu-b")
    assert "lacks GPUs (needs 2)" in world.why(task_id(id, 1, 1))


def test_ports_are_told_once_the_container_has_them_and_forgotten_by_its_replacement() -> None:
    world = World()
    world.host()
    id, _ = world.started(wanting(ports="8080, 9090"))
    running = world.task(task_id(id, 0, 1))
    assert [port.inside for port in running.address.ports] == [8080, 9090]
    assert len({port.outside for port in running.address.ports}) == 2
    assert running.address.ip


def test_a_container_that_writes_more_than_its_disk_is_ended_and_one_that_does_not_goes_on() -> None:
    world = World()
    place = world.host()
    limited, _ = world.started(wanting(2, disk="100MB"))
    free, _ = world.started(wanting())
    over, within, unbounded = task_id(limited, 0, 1), task_id(limited, 1, 1), task_id(free, 0, 1)
    place.engine.disks.update({over: 100_000_001, within: 100_000_000, unbounded: 10**12})
    place.runs.check_disks()
    until_over(world, over)
    assert world.why(over) == "failed: wrote 100 MB to its disk; its limit is 100 MB"
    assert [world.task(one).state for one in (within, unbounded)] == [State.RUNNING, State.RUNNING]


def test_a_disk_that_cannot_be_measured_now_ends_nothing() -> None:
    world = World()
    place = world.host()
    id, _ = world.started(wanting(2, disk="100MB"))
    place.engine.disks.update({task_id(id, 1, 1): 10**9})
    place.engine.fail_next("disk_used", "busy")
    place.runs.check_disks()
    until_over(world, task_id(id, 1, 1))
    assert world.task(task_id(id, 0, 1)).state is State.RUNNING


@pytest.mark.parametrize("kind", ["disk", "network"])
def test_what_an_operator_gave_a_host_is_not_overbooked(kind: str) -> None:
    world = World()
    world.host(room={"disk_bytes": 10**9, "network_mbps": 1_000})
    asked = {"disk": wanting(2, disk="600MB"), "network": wanting(2, network="600Mbps")}
    id = world.create(asked[kind])
    world.sweep()
    assert hosts_of(world, id) == ["host-1", ""]
    assert f"lacks {kind}" in world.why(task_id(id, 1, 1))
