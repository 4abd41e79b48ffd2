"""What `AsyncResult` shows is the record, on every store and after every step, whatever Celery does."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import pytest
from celery import chord
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.exceptions import WorkerLostError
from celery.result import GroupResult

from tests.builders import (
    at,
    commit,
    dispatched,
    ended,
    finished,
    job,
    killed,
    moved,
    replacement,
    saved,
    to_be_retried,
)
from tests.contracts.stores import Bench, at_once
from titus_celery.adapters.celery_app import App, make_app
from titus_celery.adapters.celery_results import RunFailed
from titus_celery.core.model import Capacity, Exit, Job, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import NotFound, StoreUnavailable
from titus_celery.settings import Settings

ROOM: Final = Capacity(cpu_millis=1_000, memory_bytes=2**30, slots=8)
#: Nobody listens on this port; a broker that were asked would answer as little as a store.
NOWHERE: Final = "redis://:sesame@127.0.0.1:1/0"
#: What a result tells of a task that has not ended.
NO_END: Final[dict[str, Any]] = {"exitCode": None, "signal": None}


@pytest.fixture
def app(bench: Bench) -> Iterator[App]:
    """The application over this store; its broker is nowhere."""
    with closing(make_app(Settings(redis_url=NOWHERE), lambda: bench.records)) as made:
        yield made


def started(bench: Bench, of: Job, one: Task) -> Task:
    """The queued task, brought to RUNNING."""
    (one,) = commit(bench.records, of, [one], to=[dispatched(one)], room=ROOM)
    (one,) = commit(bench.records, of, [one], to=[moved(one, State.STARTING, 2)])
    (one,) = commit(bench.records, of, [one], to=[moved(one, State.RUNNING, 3)])
    return one


def stored(bench: Bench, of: Job, known: Task, then: Task) -> Task:
    """The task as it is stored in its next state."""
    room = ROOM if then.state is State.DISPATCHED else None
    (one,) = commit(bench.records, of, [known], to=[then], room=room)
    return one


def waits(known: Task) -> Task:
    """The queued task, which is told why it is one."""
    return replace(known, reason=Reason(Code.WAITING, "no agent"))


def failure(known: Task) -> Task:
    """The running task, ended by a signal."""
    return ended(known, State.FAILED, Code.OOM, exit=Exit(code=137, signal=9, oom=True))


def test_a_result_shows_every_state_that_the_record_goes_through(bench: Bench, app: App) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    kept = app.AsyncResult(one.id)
    steps: list[Callable[[Task], Task]] = [
        waits,
        lambda task: replace(dispatched(task), reason=None),
        lambda task: moved(task, State.STARTING, 2),
        lambda task: moved(task, State.RUNNING, 3),
    ]
    shows(app, kept, one, "QUEUED", "")
    for step, state in zip(steps, ["QUEUED", "DISPATCHED", "STARTING", "RUNNING"], strict=True):
        one = stored(bench, new, one, step(one))
        shows(app, kept, one, state, "waiting: no agent" if step is waits else "")


def shows(app: App, kept: Any, one: Task, state: str, reason: str) -> None:
    """Assert that *kept*, and a new result, show that the task is in *state* and has not ended."""
    assert one.state is State[state]
    for result in (kept, app.AsyncResult(one.id)):
        assert result.status == result.state == state
        assert result.info == {"state": state, "reason": reason, **NO_END}
        assert (result.ready(), result.successful(), result.failed()) == (False, False, False)
        assert (result.exists(), result.date_done, result.traceback) == (True, None, None)
        with pytest.raises(CeleryTimeout):
            result.get(timeout=0)


def test_a_run_that_ended_well_is_a_success_with_its_exit(bench: Bench, app: App) -> None:
    new = job()
    one = started(bench, new, saved(bench.records, new)[0])
    stored(bench, new, one, replace(finished(one), exit=Exit(code=0)))
    result = app.AsyncResult(one.id)
    told = {"state": "FINISHED", "reason": "normal: as told", "exitCode": 0, "signal": 0}
    assert (result.status, result.ready(), result.successful(), result.failed()) == (
        "SUCCESS",
        True,
        True,
        False,
    )
    assert result.result == result.info == result.get(timeout=0) == app.AsyncResult(one.id).get() == told
    assert json.loads(json.dumps(result.info)) == told
    assert result.date_done == at(9)


def test_a_failed_run_raises_its_reason_where_it_is_waited_for(bench: Bench, app: App) -> None:
    new = job()
    one = started(bench, new, saved(bench.records, new)[0])
    stored(bench, new, one, failure(one))
    result = app.AsyncResult(one.id)
    assert (result.status, result.ready(), result.successful(), result.failed()) == (
        "FAILURE",
        True,
        False,
        True,
    )
    assert result.date_done == at(9)
    with pytest.raises(RunFailed, match="oomKilled: as told") as raised:
        result.get(timeout=0)
    error = raised.value
    assert (error.task_id, error.reason) == (one.id, "oomKilled: as told")
    assert error.facts == {"state": "FAILED", "reason": "oomKilled: as told", "exitCode": 137, "signal": 9}
    assert result.result is error
    assert isinstance(app.AsyncResult(one.id).get(propagate=False), RunFailed)


def test_a_failure_survives_pickling() -> None:
    error = RunFailed("1", {"state": "FAILED", "reason": "lost: gone", **NO_END})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.facts) == (RunFailed, str(error), error.facts)


def test_a_task_killed_before_it_ran_is_a_failure_without_exit(bench: Bench, app: App) -> None:
    new = job()
    (one,) = saved(bench.records, new)
    commit(bench.records, new, [one], to=[ended(one, State.FAILED, Code.KILLED)], job=killed(new))
    with pytest.raises(RunFailed) as raised:
        app.AsyncResult(one.id).get(timeout=0)
    assert raised.value.facts == {"state": "FAILED", "reason": "killed: as told", **NO_END}


def test_each_attempt_of_a_slot_has_an_end_of_its_own(bench: Bench, app: App) -> None:
    new = job()
    one = started(bench, new, saved(bench.records, new)[0])
    one = stored(bench, new, one, to_be_retried(one, due=10))
    first, second = app.AsyncResult(one.id), app.AsyncResult(f"{new.id}-0-2")
    assert (first.status, second.status) == ("FAILURE", "PENDING")
    _, two = commit(bench.records, new, [one], to=replacement(one, 10))
    assert (first.status, second.status) == ("FAILURE", "QUEUED")
    two = started(bench, new, two)
    stored(bench, new, two, finished(two))
    assert (app.AsyncResult(one.id).status, second.status) == ("FAILURE", "SUCCESS")


def test_who_waits_gets_the_end_that_comes_meanwhile(bench: Bench, app: App) -> None:
    new = job(desired=2)
    running = [started(bench, new, one) for one in saved(bench.records, new, 2)]
    well, badly = (app.AsyncResult(one.id) for one in running)

    def end_first() -> None:
        stored(bench, new, running[0], finished(running[0]))

    def end_second() -> None:
        stored(bench, new, running[1], failure(running[1]))

    assert well.get(timeout=60, interval=0, on_interval=end_first)["state"] == "FINISHED"
    with pytest.raises(RunFailed, match="oomKilled"):
        badly.get(timeout=60, interval=0, on_interval=end_second)


@pytest.mark.parametrize("wrong", ["", "x", "celery-task-meta-1", str(uuid.UUID(int=1)), "0-0-1", "*"])
def test_an_id_that_is_not_on_record_is_pending_and_not_waited_for(
    bench: Bench, app: App, wrong: str
) -> None:
    new = job()
    saved(bench.records, new)
    for id in (wrong, new.id, f"{new.id}-1-1"):
        result = app.AsyncResult(id)
        assert (result.status, result.exists(), result.ready(), result.info) == (
            "PENDING",
            False,
            False,
            None,
        )
        with pytest.raises(NotFound):
            result.get(timeout=0)


def test_nothing_that_celery_does_with_results_touches_the_record(bench: Bench, app: App) -> None:
    new = job(desired=2)
    one, two = saved(bench.records, new, 2)
    one = started(bench, new, one)
    two = started(bench, new, two)
    two = stored(bench, new, two, finished(two))
    before = bench.world.dump()
    backend = app.backend
    for task, status in ((one, "RUNNING"), (two, "SUCCESS")):
        result = app.AsyncResult(task.id)
        assert backend.store_result(task.id, {"mine": 1}, "FAILURE") == {"mine": 1}
        backend.mark_as_started(task.id, pid=1)
        backend.mark_as_done(task.id, "done")
        backend.mark_as_failure(task.id, WorkerLostError("gone"))
        backend.mark_as_retry(task.id, ValueError("again"))
        backend.mark_as_revoked(task.id, "revoked")
        backend.cleanup()
        backend.process_cleanup()
        result.forget()
        assert (result.status, app.AsyncResult(task.id).status) == (status, status)
    assert bench.world.dump() == before


def test_what_one_reader_does_to_a_result_no_other_sees(bench: Bench, app: App) -> None:
    new = job()
    one = started(bench, new, saved(bench.records, new)[0])
    stored(bench, new, one, finished(one))
    app.AsyncResult(one.id).get()["state"] = "mine"
    assert app.AsyncResult(one.id).get()["state"] == "FINISHED"


def test_the_results_of_a_job_can_be_joined_but_not_kept_as_a_group(bench: Bench, app: App) -> None:
    new = job(desired=2)
    for one in saved(bench.records, new, 2):
        run = started(bench, new, one)
        stored(bench, new, run, finished(run))
    results = [app.AsyncResult(f"{new.id}-{slot}-1") for slot in range(2)]
    together = app.ResultSet(results)
    assert together.successful()
    assert [end["state"] for end in together.get(timeout=0)] == ["FINISHED", "FINISHED"]
    group = app.GroupResult("g", results)
    for refused in (
        group.save,
        group.delete,
        lambda: GroupResult.restore("g", app=app),
        lambda: chord([app.signature("x")], app=app)(app.signature("y")),
        lambda: app.backend.add_to_chord("g", results[0]),
    ):
        with pytest.raises(NotImplementedError, match="one job of several tasks"):
            refused()


def test_a_store_that_is_away_is_an_error_and_no_endless_wait() -> None:
    with closing(make_app(Settings(redis_url=NOWHERE))) as app:
        result = app.AsyncResult("00000000-0000-4000-8000-000000000001-0-1")
        for ask in (lambda: result.status, result.ready, result.exists, result.get):
            with pytest.raises(StoreUnavailable):
                ask()


def test_a_store_that_goes_while_somebody_waits_is_an_error(bench: Bench) -> None:
    new = job()
    (one,) = saved(bench.records, new)

    class Leaving:
        """Records that are there for two looks."""

        looks = 2

        def task(self, id: Any) -> Any:
            self.looks -= 1
            if self.looks < 0:
                raise StoreUnavailable("it left")
            return bench.records.task(id)

    leaving: Any = Leaving()
    with (
        closing(make_app(Settings(redis_url=NOWHERE), lambda: leaving)) as app,
        pytest.raises(StoreUnavailable),
    ):
        app.AsyncResult(one.id).get(interval=0)


def test_the_password_of_the_store_is_not_to_be_seen() -> None:
    with closing(make_app(Settings(redis_url=NOWHERE))) as app:
        assert app.backend.as_uri() == "titus://records"
        told = [
            app.bugreport(),
            app.conf.table(with_defaults=True, censored=True),
            app.conf.humanize(with_defaults=True),
            app.backend.as_uri(include_password=True),
            app,
            app.backend,
            app.open_records,
            vars(app.backend),
            app.AsyncResult("1"),
        ]
        assert [each for each in map(repr, told) if "sesame" in each] == []
        assert "127.0.0.1" in told[0]


def test_all_threads_of_a_process_share_one_way_to_the_store(bench: Bench) -> None:
    opened: list[Bench] = []

    def open_records() -> Any:
        opened.append(bench)
        return bench.records

    with closing(make_app(Settings(redis_url=NOWHERE), open_records)) as app:
        assert opened == []
        mine = app.AsyncResult("1").backend
        assert at_once(2, lambda _: app.backend) == [mine, mine]
    assert len(opened) == 1
