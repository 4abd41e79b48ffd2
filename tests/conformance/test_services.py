"""How many tasks a service has, and whether policies may change that (docs/semantics.md B1.10, B1.11)."""

from __future__ import annotations

from dataclasses import replace

import grpc

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.world import AGENT
from titus_celery.core.model import Agent, AgentId, EngineId, TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

UNBOUNDED = 2**31 - 1


def resize(titus: Titus, id: str, desired: int, min: int = 0, max: int = 0) -> None:
    """UpdateJobInstances, and what control makes of it."""
    titus.jobs.UpdateJobInstances(update(id, desired, min, max))
    titus.inside.sweep()


def update(id: str, desired: int, min: int = 0, max: int = 0) -> pb.JobInstancesUpdate:
    return pb.JobInstancesUpdate(jobId=id, instances=pb.TaskInstances(desired=desired, min=min, max=max))


def enable(id: str, status: bool) -> pb.JobStatusUpdate:
    return pb.JobStatusUpdate(id=id, enableStatus=status)


def numbers(titus: Titus, id: str) -> tuple[int, int, int]:
    """min, desired and max as the job is shown to have them."""
    given = titus.job(id).jobDescriptor.service.instances
    return given.min, given.desired, given.max


def slots(titus: Titus, id: str) -> list[int]:
    """The slots that have an active task."""
    return sorted(int(task.taskContext["task.index"]) for task in titus.tasks(id).items)


def test_a_service_has_as_many_tasks_as_are_desired(titus: Titus) -> None:
    id = titus.create(service(3))
    assert slots(titus, id) == [0, 1, 2]
    assert numbers(titus, id) == (0, 3, UNBOUNDED)


def test_all_three_numbers_are_replaced(titus: Titus) -> None:
    id = titus.create(service(2, min=1, max=5))
    resize(titus, id, 3, min=2, max=4)
    assert numbers(titus, id) == (2, 3, 4)
    resize(titus, id, 3)
    # What is left out is not kept.
    assert numbers(titus, id) == (0, 3, UNBOUNDED)


def test_a_service_that_grows_gets_new_slots(titus: Titus) -> None:
    id = titus.create(service(1))
    resize(titus, id, 3)
    assert slots(titus, id) == [0, 1, 2]


def test_a_number_out_of_its_bounds_is_refused_and_the_job_is_as_before(titus: Titus) -> None:
    id = titus.create(service(2, min=1, max=5))
    for wrong in (
        update(id, 0, min=1, max=5),
        update(id, 6, min=1, max=5),
        update(id, 3, min=4, max=2),
        update(id, 2_001),
        update(id, 5, max=2_001),
        update(id, 2**32 - 1, max=2**32 - 1),
    ):
        titus.invalid(titus.jobs.UpdateJobInstances, wrong, "instances")
    assert numbers(titus, id) == (1, 2, 5)


def test_a_batch_job_keeps_its_number_of_tasks(titus: Titus) -> None:
    id = titus.create(batch(2))
    for method, request in (
        (titus.jobs.UpdateJobInstances, update(id, 3)),
        (titus.jobs.UpdateJobStatus, enable(id, True)),
    ):
        error = titus.refused(method, request)
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "batch" in error.details


def test_what_is_not_there_cannot_be_updated(titus: Titus) -> None:
    for method, request in (
        (titus.jobs.UpdateJobInstances, update("nobody", 3)),
        (titus.jobs.UpdateJobStatus, enable("nobody", True)),
    ):
        assert titus.refused(method, request).code is grpc.StatusCode.NOT_FOUND


def test_an_update_that_names_no_job_is_a_wrong_one(titus: Titus) -> None:
    titus.invalid(titus.jobs.UpdateJobInstances, update("", 3), "jobId")
    titus.invalid(titus.jobs.UpdateJobStatus, enable("", True), "id")


def test_a_service_that_is_being_killed_or_is_over_cannot_be_updated(titus: Titus) -> None:
    id = titus.create(service(1))
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    titus.jobs.KillJob(pb.JobId(id=id))
    for _ in range(2):
        for method, request in (
            (titus.jobs.UpdateJobInstances, update(id, 3)),
            (titus.jobs.UpdateJobStatus, enable(id, True)),
        ):
            assert titus.refused(method, request).code is grpc.StatusCode.FAILED_PRECONDITION
        titus.over(id, State.FAILED)


def test_the_same_again_is_fine_and_changes_nothing(titus: Titus) -> None:
    id = titus.create(service(2, min=1, max=5, enabled=True))
    before = titus.hand.dump()
    titus.jobs.UpdateJobInstances(update(id, 2, min=1, max=5))
    titus.jobs.UpdateJobStatus(enable(id, True))
    assert titus.hand.dump() == before


def test_a_service_that_shrinks_ends_tasks_for_good(titus: Titus) -> None:
    id = titus.create(service(3))
    resize(titus, id, 1)
    assert len(slots(titus, id)) == 1
    gone = [task for task in titus.job(id).tasks if task.state.state == pb.FAILED]
    assert {task.state.reason for task in gone} == {"scaledDown: 1 task is wanted"}
    titus.wait(60)
    assert len(titus.job(id).tasks) == 3


def test_what_runs_is_stopped_by_its_agent_when_its_service_shrinks(titus: Titus) -> None:
    titus.host()
    id, (run,) = titus.run(service(1))
    resize(titus, id, 0)
    assert titus.task(f"{id}-0-1").state.state == pb.RUNNING
    titus.inside.deliver()
    run.end()
    assert titus.task(f"{id}-0-1").state.reason.startswith("scaledDown: ")
    titus.wait(60)
    assert len(titus.job(id).tasks) == 1
    assert not State(titus.job(id).jobState.state).is_final


def test_what_is_least_missed_goes_first(titus: Titus) -> None:
    """Stopping already, then queued, then on its way, then running."""
    id = titus.create(service(5))
    for slot, state in enumerate((State.RUNNING, State.STARTING, State.QUEUED, State.DISPATCHED)):
        titus.store.advance(TaskId(f"{id}-{slot}-1"), state)
    titus.store.advance(TaskId(f"{id}-4-1"), State.RUNNING)
    titus.jobs.KillTask(pb.TaskId(id=f"{id}-4-1"))
    gone: list[int] = []
    for desired in (4, 3, 2, 1, 0):
        resize(titus, id, desired)
        gone += [slot for slot in range(5) if slot not in gone and is_going(titus, f"{id}-{slot}-1")]
    assert gone[:2] == [4, 2]
    # Both of these are on their way; the one that was there first goes first.
    assert set(gone[2:4]) == {1, 3}
    assert gone[4] == 0


def is_going(titus: Titus, id: str) -> bool:
    """Whether its slot was taken away."""
    return titus.store.task(TaskId(id)).is_surplus


def test_of_those_that_run_the_fullest_host_loses_one_then_the_fullest_zone_and_the_oldest(
    titus: Titus,
) -> None:
    def agent(name: str, zone: str) -> Agent:
        return replace(AGENT, id=AgentId(name), engine_id=EngineId(name), host=name, zone=zone)

    id = titus.create(service(6))
    homes = [("h1", "a"), ("h2", "a"), ("h3", "b"), ("h3", "b"), ("h3", "b"), ("h4", "c")]
    for slot, (name, zone) in enumerate(homes):
        titus.store.advance(TaskId(f"{id}-{slot}-1"), State.RUNNING, on=agent(name, zone))
    gone: list[int] = []
    for desired in range(5, -1, -1):
        resize(titus, id, desired)
        gone += [slot for slot in range(6) if slot not in gone and is_going(titus, f"{id}-{slot}-1")]
    # Two of h3, the oldest first; then of zone a, which has two; then by age.
    assert gone == [2, 3, 0, 1, 4, 5]


def test_scaling_can_be_switched_on_and_off(titus: Titus) -> None:
    id = titus.create(service(2))
    assert not titus.job(id).jobDescriptor.service.enabled
    for status in (True, False):
        titus.jobs.UpdateJobStatus(enable(id, status))
        assert titus.job(id).jobDescriptor.service.enabled is status


def test_a_service_that_is_not_scaled_goes_on_and_may_be_resized_by_hand(titus: Titus) -> None:
    id = titus.create(service(2, retries=1, enabled=True))
    titus.jobs.UpdateJobStatus(enable(id, False))
    titus.store.advance(TaskId(f"{id}-0-1"), State.FAILED)
    titus.inside.sweep()
    assert slots(titus, id) == [0, 1]
    resize(titus, id, 3)
    assert slots(titus, id) == [0, 1, 2]
