"""Orders that are lost, doubled or cut off in the middle: the task still ends right, once.

What the engine itself says happened is checked besides, at the end of every test (witness.py).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import job, shell, states
from tests.e2e.processes import until
from tests.repetition import again
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: Until control has sent an order again that nobody took (s).
SENT_AGAIN = 4.0
LIFE = ["QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FAILED"]
#: Says whether it ran to its own end: no other code ends a task as this one does.
ENDS_WITH_3 = shell("sleep 0.5; exit 3")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation, whose programs run again after each test."""
    with installed(tmp_path_factory.mktemp("orders")) as running:
        yield running


def queue_of(installation: Installation) -> tuple[redis.Redis, str]:
    """The list in which messages to the agent wait."""
    key = f"{installation.settings['TITUS_NAMESPACE']}-mq:titus.agent.{installation.agent_id}"
    return redis.Redis.from_url(installation.store.url), key


def ended_once(installation: Installation, task_id: str) -> None:
    """The task ran once, to its own end, and is told so."""
    ended = installation.reached(task_id, "FAILED")
    assert ended.state.reason == "failed: exit code 3"
    assert states(ended.stateChanges) == LIFE
    witness = installation.witness
    assert (witness.creates(task_id), witness.starts(task_id)) == (1, 1), witness.story(task_id)
    until(lambda: installation.engine.container(task_id) is None, "its container is gone")


@again(5)
def test_of_an_order_that_came_many_times_one_container_is_made(installation: Installation) -> None:
    installation.freeze("agent")
    job_id = installation.client.submit(job(*ENDS_WITH_3, instances=3))
    ids = [f"{job_id}-{slot}-1" for slot in range(3)]
    for task_id in ids:
        installation.reached(task_id, "DISPATCHED")
    client, key = queue_of(installation)
    with client:
        # One order may be on its way to the frozen agent already.
        until(lambda: client.llen(key) >= len(ids) - 1, "the orders wait")
        messages = client.lrange(key, 0, -1)
        assert isinstance(messages, list)
        # Four times over, besides those that control sends again meanwhile.
        for _ in range(3):
            client.rpush(key, *messages)
        time.sleep(SENT_AGAIN)
        assert client.llen(key) > 4 * len(messages)
    installation.thaw("agent")
    for task_id in ids:
        ended_once(installation, task_id)


@again(5)
def test_orders_that_somebody_threw_away_are_carried_out_all_the_same(installation: Installation) -> None:
    installation.freeze("agent")
    job_id = installation.client.submit(job(*ENDS_WITH_3, instances=5))
    ids = [f"{job_id}-{slot}-1" for slot in range(5)]
    for task_id in ids:
        installation.reached(task_id, "DISPATCHED")
    client, key = queue_of(installation)
    with client:
        until(lambda: client.llen(key), "the orders wait")
    assert installation.purge_queue(f"titus.agent.{installation.agent_id}") > 0
    installation.purge_queue("titus.control")
    installation.thaw("agent")
    for task_id in ids:
        ended_once(installation, task_id)


def test_an_order_that_is_a_copy_of_an_old_one_does_nothing(installation: Installation) -> None:
    """It comes back long after its task was over."""
    installation.freeze("agent")
    job_id = installation.client.submit(job(*ENDS_WITH_3))
    task_id = f"{job_id}-0-1"
    client, key = queue_of(installation)
    with client:
        [message, *_] = until(lambda: client.lrange(key, 0, -1), "the order waits")
        installation.thaw("agent")
        ended_once(installation, task_id)
        client.rpush(key, message)
        until(lambda: not client.llen(key), "it was taken")
    follower = installation.client.submit(job(*ENDS_WITH_3))
    ended_once(installation, f"{follower}-0-1")
    ended_once(installation, task_id)


@again(3)
@pytest.mark.parametrize("point", ["committed", "claimed", "created", "started", "ended", "reported"])
def test_an_agent_that_dies_at_any_point_of_a_run_changes_nothing_about_it(
    installation: Installation, point: str
) -> None:
    installation.kill("agent")
    installation.start("agent", TITUS_CRASH_AT=point)
    task_id = f"{installation.client.submit(job(*ENDS_WITH_3))}-0-1"
    assert installation.processes.pop("agent").wait() == -signal.SIGKILL
    installation.start("agent")
    ended_once(installation, task_id)


@again(5)
def test_control_that_dies_between_its_commit_and_its_message_loses_no_order(
    installation: Installation,
) -> None:
    installation.kill("control")
    installation.start("control", TITUS_CRASH_AT="committed")
    task_id = f"{installation.client.submit(job(*ENDS_WITH_3))}-0-1"
    assert installation.processes.pop("control").wait() == -signal.SIGKILL
    assert states(installation.client.find_task(task_id).stateChanges) == ["QUEUED", "DISPATCHED"]
    installation.start("control")
    ended_once(installation, task_id)


def test_a_gateway_that_dies_before_its_reply_has_stored_the_whole_job(installation: Installation) -> None:
    before = {each.id for each in installation.client.ls()}
    installation.kill("gateway")
    installation.start("gateway", TITUS_CRASH_AT="committed")
    until(installation.client.serving, "the gateway serves")
    with ThreadPoolExecutor(1) as pool:
        # The first answer never comes, and nobody tells control of the job. The client asks again.
        asked = job(*shell("sleep 5; exit 3"), instances=2)
        submitting = pool.submit(installation.client.submit, asked)
        assert installation.processes.pop("gateway").wait() == -signal.SIGKILL
        installation.start("gateway")
        job_id = submitting.result()
    [made] = [each for each in installation.client.ls() if each.id not in before]
    assert made.id == job_id
    assert len(made.tasks) == 2
    for task in made.tasks:
        ended_once(installation, task.id)
    assert installation.over(made.id).jobState.state == pb.FAILED
