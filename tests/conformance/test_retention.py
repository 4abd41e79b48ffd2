"""How long what is over is kept (docs/semantics.md A17)."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from tests.conformance.installation import Titus, batch
from titus_celery.adapters.archive import Archive
from titus_celery.adapters.leases import LeaseStore
from titus_celery.core.model import JobId, TaskId
from titus_celery.core.retention import Keep
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.ports import Chunk, Source
from titus_celery.service.retention import Retention
from titus_celery.settings import Settings

DAY = 24 * 3_600
DEFAULT = Keep(
    age=timedelta(days=Settings().keep_days), jobs=Settings().keep_jobs, bytes=Settings().keep_bytes
)


def keep(titus: Titus, most: Keep = DEFAULT) -> None:
    """What control does every ten seconds, with these bounds."""
    Retention(
        retained=Archive(titus.hand.keyspace),
        leases=LeaseStore(titus.hand.keyspace),
        keep=most,
        log_bytes_max=2**40,
    ).run()


def is_found(titus: Titus, id: JobId) -> bool:
    """Whether the job, its task and its place in lists are there; all of it or nothing."""
    found = [
        not isinstance(answer(titus.jobs.FindJob, pb.JobId(id=id)), grpc.RpcError),
        not isinstance(answer(titus.jobs.FindTask, pb.TaskId(id=f"{id}-0-1")), grpc.RpcError),
        id in {job.id for job in titus.find(jobState="FINISHED").items},
    ]
    assert len(set(found)) == 1, found
    return found[0]


def answer(method: object, request: object) -> object:
    """The reply or the error."""
    try:
        return method(request)  # type: ignore[operator]
    except grpc.RpcError as error:
        return error


def over(titus: Titus, desired: int = 1) -> JobId:
    """A job that ended well a moment ago, and whose successors end later."""
    id = titus.create(batch(desired))
    titus.over(id)
    titus.wait(1)
    return id


def test_what_is_over_is_found_for_fifteen_days_and_then_gone_with_all_of_it(titus: Titus) -> None:
    id = titus.create()
    titus.store.advance(TaskId(f"{id}-0-1"), State.RUNNING)
    titus.store.outputs.append(TaskId(f"{id}-0-1"), [Chunk(0, Source.STDOUT, b"x")])
    titus.over(id)
    titus.wait(15 * DAY - 1)
    keep(titus)
    assert is_found(titus, id)
    titus.wait(1)
    keep(titus)
    titus.until(lambda: not titus.find(jobState="FINISHED").items)
    assert not is_found(titus, id)
    kept = titus.hand.dump()
    assert isinstance(kept, dict)
    assert not [key for key in kept if id in str(key)]


def test_beyond_so_many_jobs_the_oldest_by_end_go(titus: Titus) -> None:
    first, *rest = (over(titus) for _ in range(3))
    titus.wait(3_600)
    keep(titus, Keep(age=timedelta(days=15), jobs=2, bytes=2**30))
    titus.until(lambda: titus.find(jobState="FINISHED").pagination.totalItems == 2)
    assert not is_found(titus, first)
    assert all(is_found(titus, id) for id in rest)


def test_beyond_so_many_bytes_the_oldest_by_end_go(titus: Titus) -> None:
    first, last = over(titus, 50), over(titus)
    titus.wait(3_600)
    most = Archive(titus.hand.keyspace).kept(0).bytes - 1
    keep(titus, Keep(age=timedelta(days=15), jobs=100, bytes=most))
    titus.until(lambda: titus.find(jobState="FINISHED").pagination.totalItems == 1)
    assert not is_found(titus, first)
    assert is_found(titus, last)


def test_a_job_that_lives_is_never_too_old(titus: Titus) -> None:
    id = titus.create()
    titus.wait(100 * DAY)
    keep(titus, Keep(age=timedelta(0), jobs=1, bytes=1))
    assert titus.job(id).jobState.state == pb.QUEUED


@pytest.mark.parametrize(
    ("name", "value"), [("keep_days", 15), ("keep_jobs", 100_000), ("keep_bytes", 2**30)]
)
def test_these_are_the_bounds_unless_an_operator_says_otherwise(name: str, value: int) -> None:
    assert getattr(Settings(), name) == value
