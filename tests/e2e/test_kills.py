"""Kills under load: prompt on a full agent, and nothing starts behind their back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.installation import installed
from tests.e2e.jobs import at, job, shell
from tests.e2e.processes import until
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.core.lifecycle import job_of
from titus_celery.core.model import TaskId
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

SLOTS = 3
KILLS = 500
#: Calls at once: more than control and agent can keep up with.
CALLERS = 8


def test_on_a_full_agent_a_kill_is_done_within_a_second(tmp_path: Path) -> None:
    """By Celery's control command: the agent's own poll comes only every ten minutes here."""
    with installed(tmp_path, TITUS_SLOTS=str(SLOTS), TITUS_POLL_PERIOD="600") as installation:
        trapping = shell("trap 'exit 0' TERM; while :; do sleep 0.05; done")
        jobs = [installation.client.submit(job(*trapping)) for _ in range(SLOTS)]
        for job_id in jobs:
            installation.reached(f"{job_id}-0-1", "RUNNING")
        waiting = installation.client.submit(job("true"))
        for job_id in jobs:
            asked = time.monotonic()
            installation.client.kill(job_id)
            ended = installation.reached(f"{job_id}-0-1", "FAILED")
            assert time.monotonic() - asked < 1
            assert ended.state.reason.startswith("killed: by ")
        assert installation.over(waiting).jobState.state == pb.FINISHED


def test_a_kill_that_no_message_tells_of_is_found_by_the_agent(tmp_path: Path) -> None:
    """Control is frozen right after the kill was accepted, so that nobody sends anything."""
    with installed(tmp_path) as installation:
        job_id = installation.client.submit(job("sleep", "600"))
        task_id = f"{job_id}-0-1"
        installation.reached(task_id, "RUNNING")
        installation.freeze("control")
        installation.client.kill(job_id)
        until(lambda: installation.engine.container(task_id) is None, "its container is gone")
        installation.thaw("control")
        assert installation.over(job_id).jobState.reason.startswith("killed: by ")


def test_five_hundred_kills_that_race_with_placement_start_nothing_afterwards(tmp_path: Path) -> None:
    with installed(tmp_path, TITUS_SLOTS="24") as installation:
        clock = RedisKeyspace(installation.store.url, installation.settings["TITUS_NAMESPACE"])

        def submit_and_kill(number: int) -> tuple[str, datetime]:
            job_id = installation.client.submit(job("sleep", "600"))
            # Some are queued yet, some placed, some claimed, some started.
            time.sleep(number % 7 / 20)
            installation.client.kill(job_id)
            return job_id, clock.now()

        with ThreadPoolExecutor(CALLERS) as callers:
            killed = dict(callers.map(submit_and_kill, range(KILLS)))
        clock.close()
        for job_id in killed:
            assert installation.over(job_id).jobState.reason.startswith("killed: by ")
        until(lambda: not installation.engine.containers(installation.label), "no container is left")
        tasks = [task for job_id in killed for task in installation.client.find(job_id).tasks]
        reached = {change.state for task in tasks for change in task.stateChanges}
        # The race was one: kills met tasks in every state.
        assert reached >= {"QUEUED", "DISPATCHED", "STARTING", "RUNNING"}
        assert [task.id for task in tasks if late(task, killed[job_of(TaskId(task.id))])] == []


def late(task: pb.Task, answered: datetime) -> bool:
    """Whether an agent took the task after the kill of its job was answered."""
    taken = [change for change in task.stateChanges if change.state in ("DISPATCHED", "STARTING")]
    return any(at([change], change.state) > answered for change in taken)
