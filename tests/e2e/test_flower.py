"""What Celery's event stream and Flower show of a run: the same id and the same states as the API."""

from __future__ import annotations

import json
import urllib.request
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.e2e.events import celery_events, told_of
from tests.e2e.installation import Installation
from tests.e2e.jobs import job, shell
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e

#: How long Flower may take to start.
FLOWER_START = timedelta(seconds=60)
#: What is told of a run that ends well.
OURS = ["task-dispatched", "task-starting", "task-running", "task-succeeded"]


def flower(shared: Installation, path: str) -> Any:
    """What Flower answers; None while it does not, or knows nothing of it."""
    url = f"http://127.0.0.1:{shared.flower_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except HTTPError as error:
        error.close()
        assert error.code == 404, error
        return None
    except OSError:
        return None


def shown(shared: Installation, task_id: str, state: str) -> dict[str, Any]:
    """Flower's view of a task once that is in *state*."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] | None = flower(shared, f"/api/task/info/{task_id}")
        return found if found and found["state"] == state else None

    found = until(look, f"Flower shows {task_id} as {state}", FLOWER_START)
    assert found is not None
    return found


def test_celery_tells_every_state_of_a_run_in_order_under_the_task_id(shared: Installation) -> None:
    with celery_events(shared) as heard:
        job_id = shared.client.submit(job(*shell("exit 0")))
        task_id = f"{job_id}-0-1"
        until(lambda: "task-succeeded" in told_of(heard, task_id), "Celery tells of the end")
    told = told_of(heard, task_id)
    # Celery's own come from other threads than ours, so only the order of ours is certain.
    assert set(told) == {"task-sent", "task-received", "task-started", *OURS}
    assert [type for type in told if type in OURS] == OURS
    from_agent = {e["hostname"] for e in heard if e.get("uuid") == task_id and e["type"] == "task-running"}
    assert from_agent == {f"agent-{shared.agent_id}@titus"}


def test_flower_shows_a_run_as_running_and_how_it_ended(shared: Installation) -> None:
    until(lambda: flower(shared, "/api/workers?status=1"), "Flower sees workers", FLOWER_START)
    script = "while ! [ -e /tmp/go ]; do sleep 0.05; done; exit $((TITUS_TASK_INDEX * 3))"
    job_id = shared.client.submit(job(*shell(script), instances=2))
    ids = [f"{job_id}-0-1", f"{job_id}-1-1"]
    for task_id in ids:
        shared.reached(task_id, "RUNNING")
        running = shown(shared, task_id, "RUNNING")
        assert running["name"] == "titus.run_container"
        assert job_id in running["kwargs"]
        assert running["worker"] == f"agent-{shared.agent_id}@titus"
        shared.engine.touch(task_id, "/tmp/go")
    shared.over(job_id)
    assert "FINISHED" in shown(shared, ids[0], "SUCCESS")["result"]
    failed = shown(shared, ids[1], "FAILURE")
    assert "failed: exit code 3" in failed["exception"]
    listed = flower(shared, "/api/tasks?taskname=titus.run_container")
    assert set(ids) <= listed.keys()


def test_flower_knows_our_workers_and_no_others(shared: Installation) -> None:
    job_id = shared.client.submit(job("true"))
    shared.over(job_id)
    shown(shared, f"{job_id}-0-1", "SUCCESS")
    workers = flower(shared, "/api/workers?status=1")
    assert {name.split("@")[0] for name in workers} == {f"agent-{shared.agent_id}", "control"}


def test_flower_shows_its_pages_and_refuses_to_touch_workers(shared: Installation) -> None:
    until(lambda: flower(shared, "/api/workers?status=1"), "Flower sees workers", FLOWER_START)
    base = f"http://127.0.0.1:{shared.flower_port}"
    for page in ("/workers", "/tasks"):
        with urllib.request.urlopen(base + page, timeout=10) as answer:
            assert answer.status == 200
    order = f"{base}/api/worker/shutdown/agent-{shared.agent_id}@titus"
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(order, data=b"", timeout=10)
    refused.value.close()
    assert refused.value.code == 403
    assert shared.processes["agent"].alive()
