"""Results of Celery: what a plain Python process learns of a run is what the API says of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.e2e.installation import CORE, Installation, installed
from tests.e2e.jobs import delayed, job, shell
from tests.e2e.processes import PATIENCE, clean_environment, until
from titus_celery.adapters.celery_app import App, make_app
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.settings import Settings

pytestmark = pytest.mark.e2e

#: Runs until the test lets it go, with the exit code that the test wrote.
HELD: Final = "while ! [ -e /tmp/go ]; do sleep 0.05; done; exit $((TITUS_TASK_INDEX * 3))"
#: What a user writes, and how it ends as JSON.
WAIT: Final = """
import json, sys
from celery.exceptions import TimeoutError
from titus_celery.adapters.celery_results import RunFailed
from titus_celery.celery import app

try:
    print(json.dumps(app.AsyncResult(sys.argv[1]).get(timeout=float(sys.argv[2]))))
except RunFailed as error:
    print(json.dumps({"raised": str(error), **error.facts}))
except TimeoutError:
    print(json.dumps("timeout"))
"""
#: Celery's words for the ends; the other states have their own names.
ENDS: Final = {"FINISHED": "SUCCESS", "FAILED": "FAILURE"}


@pytest.fixture(scope="module")
def titus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of this file's own: one test kills its agent."""
    with installed(tmp_path_factory.mktemp("results"), *CORE, "flower") as installation:
        yield installation


@pytest.fixture(scope="module")
def app(titus: Installation) -> Iterator[App]:
    """Celery's application, as a process of this installation has it."""
    env = {name: value for name, value in titus.settings.items() if name.startswith("TITUS_")}
    with closing(make_app(Settings.from_env(env))) as made:
        yield made


def told(titus: Installation, task_id: str, seconds: float = PATIENCE.total_seconds()) -> Any:
    """What a plain Python process gets that waits for the task."""
    done = subprocess.run(
        [sys.executable, "-c", WAIT, task_id, str(seconds)],
        cwd=titus.directory,
        env=clean_environment(titus.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def agreed(titus: Installation, app: App, task_id: str) -> str:
    """The task's state, in which FindTask and the result agree."""
    while True:
        before, result = titus.client.find_task(task_id), app.AsyncResult(task_id)
        status, info = result.status, result.info
        if titus.client.find_task(task_id) == before:
            name = pb.State.Name(before.state.state)
            assert status == ENDS.get(name, name)
            facts = getattr(info, "facts", info)
            assert facts["state"] == name
            assert facts["reason"] == before.state.reason
            return name


def test_a_process_that_waits_gets_the_ends_of_good_and_failed_runs(titus: Installation, app: App) -> None:
    job_id = titus.client.submit(job(*shell(HELD), instances=2))
    ids = [f"{job_id}-{slot}-1" for slot in range(2)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(told, titus, id) for id in ids]
        for id in ids:
            until(lambda id=id: agreed(titus, app, id) == "RUNNING", f"{id} runs")  # type: ignore[misc]
            titus.engine.touch(id, "/tmp/go")
        good, bad = (each.result() for each in waiting)
    assert good == {"state": "FINISHED", "reason": "normal", "exitCode": 0, "signal": 0}
    assert bad["raised"] == f"task {ids[1]} ended FAILED (failed: exit code 3)"
    assert (bad["state"], bad["exitCode"], bad["signal"]) == ("FAILED", 3, 0)
    assert [agreed(titus, app, id) for id in ids] == ["FINISHED", "FAILED"]


def test_who_waits_too_shortly_times_out_and_a_revoke_or_forget_ends_nothing(
    titus: Installation, app: App
) -> None:
    job_id = titus.client.submit(job(*shell(HELD)))
    task_id = f"{job_id}-0-1"
    titus.reached(task_id, "RUNNING")
    assert told(titus, task_id, 0) == "timeout"
    result = app.AsyncResult(task_id)
    # With an answer, so that the worker has acted on it.
    assert result.revoke(wait=True, timeout=10) is None
    result.forget()
    assert agreed(titus, app, task_id) == "RUNNING"
    titus.engine.touch(task_id, "/tmp/go")
    assert result.get(timeout=PATIENCE.total_seconds())["exitCode"] == 0


def test_each_attempt_shows_its_own_end(titus: Installation, app: App) -> None:
    script = "[ $TITUS_TASK_ATTEMPT = 2 ]"
    job_id = titus.client.submit(job(*shell(script), retry=delayed(1, PATIENCE * 0)))
    titus.over(job_id)
    ids = [f"{job_id}-0-{attempt}" for attempt in (1, 2)]
    assert [agreed(titus, app, id) for id in ids] == ["FAILED", "FINISHED"]


def test_a_run_that_ended_while_its_agent_was_dead_and_one_that_was_adopted_tell_their_ends(
    titus: Installation, app: App
) -> None:
    job_id = titus.client.submit(job(*shell(HELD), instances=2))
    ids = [f"{job_id}-{slot}-1" for slot in range(2)]
    for id in ids:
        titus.reached(id, "RUNNING")
    titus.processes.pop("agent").kill()
    titus.engine.touch(ids[1], "/tmp/go")
    until(lambda: not running(titus, ids[1]), "the container ended")
    assert [app.AsyncResult(id).status for id in ids] == ["RUNNING", "RUNNING"]
    titus.start("agent")
    assert told(titus, ids[1])["raised"] == f"task {ids[1]} ended FAILED (failed: exit code 3)"
    titus.engine.touch(ids[0], "/tmp/go")
    assert told(titus, ids[0])["exitCode"] == 0
    assert [agreed(titus, app, id) for id in ids] == ["FINISHED", "FAILED"]


def running(titus: Installation, name: str) -> bool:
    """Whether the container runs."""
    found = titus.engine.container(name)
    return found is not None and bool(found["State"]["Running"])


def test_nobody_writes_results_of_celery_into_the_store(titus: Installation, app: App) -> None:
    job_id = titus.client.submit(job(*shell("exit $TITUS_TASK_INDEX"), instances=2))
    titus.over(job_id)
    prefix = titus.settings["TITUS_NAMESPACE"]
    with closing(redis.Redis.from_url(titus.store.url)) as store:
        keys = [key.decode() for key in store.scan_iter(count=1_000)]
    assert f"{{{prefix}}}:job:{job_id}" in keys
    assert [key for key in keys if "celery-task" in key or "unacked" in key] == []
    assert [key for key in keys if not key.startswith((f"{{{prefix}}}:", f"{prefix}-mq:"))] == []


def test_celery_result_prints_the_end(titus: Installation) -> None:
    job_id = titus.client.submit(job("true"))
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "titus_celery", "result", f"{job_id}-0-1"],
        cwd=titus.directory,
        env=clean_environment(titus.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'state': 'FINISHED'" in done.stdout


def test_neither_workers_nor_flower_tell_the_password_of_the_store(titus: Installation, app: App) -> None:
    password = app.connection_for_read().password
    assert password
    assert password in titus.store.url
    conf = app.control.inspect(timeout=5).conf(with_defaults=True)
    assert {name.split("@")[0] for name in conf} == {"control", f"agent-{titus.agent_id}"}
    assert "task_ignore_result" in str(conf)
    assert password not in str(conf)
    worker = f"agent-{titus.agent_id}@titus"
    page = until(
        lambda: from_flower(titus, f"/worker/{worker}", "worker_disable_prefetch"), "Flower knows it"
    )
    assert password not in page
    for log in Path(titus.directory).glob("*.log"):
        assert password not in log.read_text(errors="replace"), log.name


def test_flower_tells_a_result_as_it_is_on_record(titus: Installation) -> None:
    job_id = titus.client.submit(job(*shell("exit $TITUS_TASK_INDEX"), instances=2))
    titus.over(job_id)
    shown = []
    for slot in range(2):
        path = f"/api/task/result/{job_id}-{slot}-1"
        page = until(lambda path=path: from_flower(titus, path, "state"), "Flower answers")  # type: ignore[misc]
        shown.append(json.loads(page))
    assert [each["state"] for each in shown] == ["SUCCESS", "FAILURE"]
    assert shown[0]["result"]["exitCode"] == 0
    assert "failed: exit code 1" in shown[1]["result"]


def from_flower(titus: Installation, path: str, text: str) -> str:
    """What Flower answers, once *text* is in it; "" before."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{titus.flower_port}{path}", timeout=10) as answer:
            page: str = answer.read().decode()
    except OSError:
        return ""
    return page if text in page else ""
