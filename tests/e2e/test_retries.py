"""Failed runs are tried again as the retry policy says, each under an id of its own."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from tests.e2e.installation import Installation
from tests.e2e.jobs import WORKLOADS, at, delayed, job, shell
from tests.e2e.processes import until
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e


def test_a_failed_run_is_replaced_under_a_new_id_until_it_succeeds(shared: Installation) -> None:
    policy = pb.RetryPolicy(immediate=pb.RetryPolicy.Immediate(retries=3))
    job_id = shared.client.submit(job("flaky.sh", "2", image=WORKLOADS, retry=policy))
    found = shared.over(job_id)
    ids = [f"{job_id}-0-{attempt}" for attempt in (1, 2, 3)]
    assert found.jobState.state == pb.FINISHED
    assert [task.id for task in found.tasks] == ids
    assert [pb.State.Name(task.state.state) for task in found.tasks] == ["FAILED", "FAILED", "FINISHED"]
    assert [task.state.reason for task in found.tasks] == [
        "failed: exit code 3",
        "failed: exit code 3",
        "normal",
    ]
    assert [task.taskContext["task.originalId"] for task in found.tasks] == [ids[0]] * 3
    assert [task.taskContext.get("task.resubmitOf") for task in found.tasks] == [None, ids[0], ids[1]]
    assert [task.taskContext["task.resubmitNumber"] for task in found.tasks] == ["0", "1", "2"]
    assert [task.taskContext["task.systemResubmitNumber"] for task in found.tasks] == ["0"] * 3
    assert [shared.output(id) for id in ids] == [
        "attempt 1 fails\n",
        "attempt 2 fails\n",
        "attempt 3 succeeds\n",
    ]


def test_a_delayed_retry_is_queued_once_its_delay_has_passed_and_not_before(shared: Installation) -> None:
    first, later = timedelta(milliseconds=1_500), timedelta(milliseconds=700)
    job_id = shared.client.submit(job("false", retry=delayed(2, first, later)))
    waiting = until(
        lambda: [task for task in shared.client.find(job_id).tasks if "task.retryDelay" in task.taskContext],
        "a replacement is due",
    )
    assert waiting[0].taskContext["task.retryDelay"] == "1500"
    assert waiting[0].state.state == pb.FAILED
    found = shared.over(job_id)
    assert found.jobState.state == pb.FAILED
    last = f"{job_id}-0-3"
    assert found.jobState.reason == f"failed: 1 of 1 slots failed; first: {last}: failed: exit code 1"
    assert [task.id for task in found.tasks] == [f"{job_id}-0-1", f"{job_id}-0-2", last]
    for delay, (failed, replacement) in zip((first, later), pairwise(found.tasks), strict=True):
        due = at(failed.stateChanges, "FAILED") + delay
        assert at(replacement.stateChanges, "QUEUED") >= due


def test_every_attempt_runs_the_image_that_the_job_was_created_with(shared: Installation) -> None:
    """The name means another image by the time of the second attempt."""
    engine, name = shared.engine, f"titus-e2e/moving-{shared.store.port}"
    before, after = engine.image_id("titus/hello"), engine.image_id("titus/workloads")
    engine.client.tag(before, name, "v1")
    try:
        until(lambda: shared.knows_image(f"{name}:v1"), "the agent told of the image")
        script = "[ $TITUS_TASK_ATTEMPT = 2 ] || exit 1; sleep 600"
        retry = delayed(1, timedelta(seconds=1))
        job_id = shared.client.submit(job(*shell(script), image=f"{name}:v1", retry=retry))
        shared.reached(f"{job_id}-0-1", "FAILED")
        engine.client.tag(after, name, "v1", force=True)
        assert engine.image_id(f"{name}:v1") == after
        second = f"{job_id}-0-2"
        shared.reached(second, "RUNNING")
        container = engine.container(second)
        assert container is not None
        assert container["Image"] == before
        image = shared.client.find(job_id).jobDescriptor.containers["main"].image
        assert (image.name, image.imageId) == (f"{name}:v1", before)
        shared.client.kill(job_id)
        shared.over(job_id)
    finally:
        engine.client.remove_image(f"{name}:v1", force=True)
