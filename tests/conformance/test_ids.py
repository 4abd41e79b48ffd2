"""What tasks are called, and what is told with them (docs/semantics.md A9, A10, B3.6)."""

from __future__ import annotations

import logging
import uuid

import pytest

from tests.conformance.installation import Titus, batch
from tests.grpc_api.world import PATIENCE
from titus_celery.adapters.celery_app import make_app
from titus_celery.adapters.celery_queue import CeleryQueue
from titus_celery.adapters.leases import LeaseStore
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.settings import Settings

PLACE = {"agent.region", "agent.zone", "agent.host", "agent.instance", "agent.instanceId"}


def retried(retries: int) -> pb.JobDescriptor:
    job = batch()
    job.batch.retryPolicy.immediate.retries = retries
    return job


def test_a_job_id_is_a_uuid_and_no_two_jobs_have_one(titus: Titus) -> None:
    ids = {titus.create() for _ in range(3)}
    assert len(ids) == 3
    assert all(str(uuid.UUID(id)) == id for id in ids)


def test_a_task_id_is_that_of_its_job_its_slot_from_0_and_its_attempt_from_1(titus: Titus) -> None:
    id = titus.create(batch(2))
    assert [task.id for task in titus.job(id).tasks] == [f"{id}-0-1", f"{id}-1-1"]
    other = titus.create(retried(1))
    titus.store.advance(TaskId(f"{other}-0-1"), State.FAILED)
    titus.inside.sweep()
    assert [task.id for task in titus.job(other).tasks] == [f"{other}-0-1", f"{other}-0-2"]


def test_a_task_id_names_the_container_and_the_order_for_it(titus: Titus) -> None:
    host = titus.host()
    id = titus.create()
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    assert order.task_id == f"{id}-0-1"
    host.carry(order).until(State.RUNNING)
    assert host.engine.look(task_id(id, 0, 1)) is not None


def test_a_task_id_is_the_id_of_its_celery_message(titus: Titus, redis_url: str) -> None:
    titus.host()
    id = titus.create()
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    app = make_app(Settings(redis_url=redis_url))
    CeleryQueue(app, LeaseStore(titus.hand.keyspace), "wake").send(order)
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("titus.agent.host-1").get(timeout=PATIENCE)
        message.ack()
    assert message.headers["id"] == f"{id}-0-1"
    app.close()


def test_lines_of_the_log_about_a_task_hold_its_id(titus: Titus, caplog: pytest.LogCaptureFixture) -> None:
    host = titus.host()
    id = titus.create()
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    host.carry(order).until(State.RUNNING)
    # Another process of the agent gets the same order once more.
    host.restart()
    with caplog.at_level(logging.INFO, "titus_celery.service"):
        host.carry(order).end()
    assert [f"task {id}-0-1: " in line for line in caplog.messages] == [True]


def test_each_task_tells_its_slot_its_original_and_which_attempt_it_is(titus: Titus) -> None:
    id = titus.create(batch(2))
    for slot, task in enumerate(titus.job(id).tasks):
        assert dict(task.taskContext) == {
            "task.index": str(slot),
            "task.originalId": task.id,
            "task.resubmitNumber": "0",
            "task.systemResubmitNumber": "0",
        }


def test_a_replacement_tells_what_it_replaces_and_what_came_first(titus: Titus) -> None:
    id = titus.create(retried(2))
    first, second, third = (f"{id}-0-{attempt}" for attempt in (1, 2, 3))
    for one in (first, second):
        titus.store.advance(TaskId(one), State.FAILED)
        titus.inside.sweep()
    told = [titus.task(one).taskContext for one in (first, second, third)]
    assert [each["task.originalId"] for each in told] == [first] * 3
    assert [each.get("task.resubmitOf") for each in told] == [None, first, second]
    assert [each["task.resubmitNumber"] for each in told] == ["0", "1", "2"]
    assert [each["task.index"] for each in told] == ["0"] * 3


def test_a_task_tells_where_it_is_from_dispatched_on_and_still_when_it_is_over(titus: Titus) -> None:
    id = titus.create()
    one = TaskId(f"{id}-0-1")
    assert not PLACE & set(titus.task(one).taskContext)
    for state in (State.DISPATCHED, State.RUNNING, State.FINISHED):
        titus.store.advance(one, state)
        context = titus.task(one).taskContext
        assert {key: context[key] for key in PLACE} == {
            "agent.region": "region-1",
            "agent.zone": "zone-1",
            "agent.host": "host-1",
            "agent.instance": "agent-1",
            "agent.instanceId": "agent-1",
        }


def test_a_running_task_tells_its_address_and_its_ports(titus: Titus) -> None:
    titus.host()
    job = batch()
    job.containers["main"].resources["ports"] = "8080"
    id, _ = titus.run(job)
    context = titus.task(f"{id}-0-1").taskContext
    assert (context["task.ip"], context["task.ports"]) == ("10.0.0.1", "8080=host-1:38080")


def test_a_failed_task_tells_how_long_its_replacement_waits_and_until_then_alone(titus: Titus) -> None:
    id = titus.create()
    one = TaskId(f"{id}-0-1")
    titus.store.advance(one, State.FAILED, Reason(Code.LOST, "as told"))
    assert titus.task(one).taskContext["task.retryDelay"] == "1000"
    titus.wait(1)
    assert "task.retryDelay" not in titus.task(one).taskContext
