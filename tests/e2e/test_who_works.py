"""Celery does the work: what is frozen, stopped or away stops exactly what it is there for."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.events import celery_events, told_of
from tests.e2e.installation import CALLER, installed
from tests.e2e.jobs import delayed, job, shell, states
from tests.e2e.processes import until
from titus_celery.client import CallFailed, TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e


def test_without_its_agent_a_job_gets_as_far_as_the_order_and_no_further(tmp_path: Path) -> None:
    with installed(tmp_path) as installation, celery_events(installation) as heard:
        agent = installation.processes["agent"]
        agent.freeze()
        job_id = installation.client.submit(job("true", instances=2))
        ids = [f"{job_id}-0-1", f"{job_id}-1-1"]
        for task_id in ids:
            installation.reached(task_id, "DISPATCHED")
        # Longer than it takes until an order is sent again.
        time.sleep(4)
        for task_id in ids:
            assert states(installation.client.find_task(task_id).stateChanges) == ["QUEUED", "DISPATCHED"]
        assert installation.engine.containers(installation.label) == []
        agent.thaw()
        found = installation.over(job_id)
        assert found.jobState.state == pb.FINISHED
        # The order that was sent again did not make a second run.
        assert [task.id for task in found.tasks] == ids
        assert [states(task.stateChanges)[2:] for task in found.tasks] == [
            ["STARTING", "RUNNING", "FINISHED"]
        ] * 2
        # Celery got the copies too, and none of them ended the run whose id it shares.
        for task_id in ids:
            until(partial(told_twice, heard, task_id, "task-received"), "the copy has come")
            until(partial(told, heard, task_id, "task-succeeded"), "the end is told")
            assert told_of(heard, task_id).count("task-succeeded") == 1


def told(heard: list[dict[str, Any]], task_id: str, kind: str) -> bool:
    """Whether Celery told this of the task."""
    return kind in told_of(heard, task_id)


def told_twice(heard: list[dict[str, Any]], task_id: str, kind: str) -> bool:
    """Whether Celery told this of the task more than once."""
    return told_of(heard, task_id).count(kind) > 1


def test_a_run_that_its_agent_took_up_again_is_running_in_celery_too(tmp_path: Path) -> None:
    with installed(tmp_path) as installation, celery_events(installation) as heard:
        job_id = installation.client.submit(job(*shell("while ! [ -e /tmp/go ]; do sleep 0.1; done")))
        task_id = f"{job_id}-0-1"
        installation.reached(task_id, "RUNNING")
        installation.processes["agent"].kill()
        installation.start("agent")
        until(lambda: told_of(heard, task_id).count("task-running") == 2, "it is told to run again")
        installation.engine.touch(task_id, "/tmp/go")
        assert installation.over(job_id).jobState.state == pb.FINISHED
        until(lambda: "task-succeeded" in told_of(heard, task_id), "its end is told")
        # It was neither ordered nor started a second time.
        told = told_of(heard, task_id)
        assert told.count("task-dispatched") == told.count("task-starting") == 1


def test_without_control_a_job_stays_queued_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.stop("control")
        job_id = installation.client.submit(job("true"))
        time.sleep(3)
        assert states(installation.client.find(job_id).tasks[0].stateChanges) == ["QUEUED"]
        installation.start("control")
        assert installation.over(job_id).jobState.state == pb.FINISHED


def test_beat_alone_makes_control_act_when_control_keeps_no_time(tmp_path: Path) -> None:
    """A retry with a delay, and a run over its limit whose agent is gone."""
    with installed(
        tmp_path,
        TITUS_CONTROL_TIMER="off",
        TITUS_AGENT_LEASE="2",
        TITUS_AGENT_LOST_AFTER="2",
        TITUS_FENCE_AFTER="0",
    ) as installation:
        retried = installation.client.submit(
            job(*shell("[ $TITUS_TASK_ATTEMPT = 2 ]"), retry=delayed(1, timedelta(seconds=4)))
        )
        again = f"{retried}-0-2"
        limited = installation.client.submit(job("sleep", "600", limit=timedelta(seconds=8)))
        running = f"{limited}-0-1"
        installation.reached(running, "RUNNING")
        installation.reached(f"{retried}-0-1", "FAILED")
        installation.freeze("agent")
        installation.stop("beat")
        # Longer than the limit, than the delay, and than an agent is waited for.
        time.sleep(12)
        assert installation.client.find_task(running).state.state == pb.RUNNING
        assert installation.task(again) is None
        installation.start("beat")
        ended = installation.reached(running, "FAILED")
        assert ended.state.reason == "runtimeLimitExceeded: ran longer than 8 s"
        until(lambda: installation.task(again), "the retry came")
        installation.thaw("agent")
        assert installation.over(retried).jobState.state == pb.FINISHED


def test_while_the_store_is_away_calls_are_unavailable_and_no_end_is_lost(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        # They lose their broker, which Celery tells with tracebacks; we must not.
        installation.shaken |= {"agent", "control"}
        short = installation.client.submit(job(*shell("echo before; sleep 4; echo after; exit 3")))
        long = installation.client.submit(
            job(*shell("echo up; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo done"))
        )
        for job_id in (short, long):
            installation.reached(f"{job_id}-0-1", "RUNNING")
        installation.store.stop()
        with pytest.raises(CallFailed) as refused:
            installation.client.find(short)
        assert refused.value.status == "UNAVAILABLE"
        with (
            # It is sent again for as long, and the outage is to be a short one.
            TitusClient(installation.listen, CALLER, deadline=timedelta(seconds=5)) as client,
            pytest.raises(CallFailed) as refused,
        ):
            client.submit(job("true"))
        assert refused.value.status == "UNAVAILABLE"

        def has_ended() -> bool:
            container = installation.engine.container(f"{short}-0-1")
            return container is not None and not container["State"]["Running"]

        # It ends while nobody can be told, and stays until somebody was.
        until(has_ended, "the short one ended")
        installation.restart_store()

        def is_back() -> bool:
            try:
                return bool(installation.client.find(short).id)
            except CallFailed as error:
                assert error.status == "UNAVAILABLE", error
                return False

        until(is_back, "the gateway answers again")
        found = installation.over(short)
        assert [task.state.reason for task in found.tasks] == ["failed: exit code 3"]
        assert installation.output(f"{short}-0-1") == "before\nafter\n"
        installation.engine.touch(f"{long}-0-1", "/tmp/go")
        assert installation.over(long).jobState.state == pb.FINISHED
        assert installation.output(f"{long}-0-1") == "up\ndone\n"
        # And what comes next runs as before.
        installation.ready()
        assert installation.over(installation.client.submit(job("true"))).jobState.state == pb.FINISHED
