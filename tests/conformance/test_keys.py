"""Idempotency keys: a creation that may be repeated (docs/semantics.md A19)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import grpc

from tests.conformance.installation import Titus, batch, service
from tests.grpc_api.world import PATIENCE
from titus_celery.core.fingerprint import fingerprint
from titus_celery.core.model import JobId
from titus_celery.grpc.convert import descriptor_from_pb
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

DAY = 24 * 3_600
KEY = "x-titus-idempotency-key"


def send(titus: Titus, job: pb.JobDescriptor | None = None, *, key: str = "k", caller: str = "") -> JobId:
    """CreateJob under a key; the job's id."""
    metadata = ((KEY, key), *((("x-titus-callerid", caller),) if caller else ()))
    return JobId(titus.jobs.CreateJob(job or batch(), metadata=metadata, timeout=PATIENCE).id)


def test_the_same_key_and_body_are_one_job(titus: Titus) -> None:
    id = send(titus)
    before = titus.hand.dump()
    assert [send(titus) for _ in range(3)] == [id] * 3
    assert titus.hand.dump() == before


def test_the_order_of_maps_makes_no_other_body(titus: Titus) -> None:
    id = send(titus, batch(labels={"a": "1", "b": "2"}))
    assert send(titus, batch(labels={"b": "2", "a": "1"})) == id
    # Whatever order a client's library brings them in.
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    job = descriptor_from_pb(batch())
    assert fingerprint(replace(job, labels=one)) == fingerprint(replace(job, labels=other))


def test_the_same_key_and_another_body_are_refused_naming_the_first_job(titus: Titus) -> None:
    id = send(titus)
    for wrong in (service(), batch(2), batch(labels={"a": "b"})):
        error = titus.refused(titus.jobs.CreateJob, wrong, ((KEY, "k"),))
        assert error.code is grpc.StatusCode.ALREADY_EXISTS
        assert id in error.details


def test_a_key_is_its_callers(titus: Titus) -> None:
    ids = {send(titus, caller=who) for who in ("", "her", "him")}
    assert len(ids) == 3
    assert send(titus, caller="her") in ids
    assert send(titus, key="other") not in ids


def test_of_many_that_send_one_key_at_once_one_makes_the_job(titus: Titus) -> None:
    together = Barrier(8)

    def sent(key: str) -> str:
        together.wait(PATIENCE)
        return send(titus, key=key)

    with ThreadPoolExecutor(8) as pool:
        # Often, since those of one time may still come one after another.
        for number in range(10):
            assert len(set(pool.map(sent, [f"key-{number}"] * 8))) == 1
    assert titus.find().pagination.totalItems == 10


def test_a_key_is_kept_for_a_day_after_its_jobs_creation(titus: Titus) -> None:
    id = send(titus)
    titus.over(id)
    titus.wait(DAY - 3_600)
    assert send(titus) == id
    titus.wait(3_600)
    assert send(titus) != id


def test_a_key_is_kept_for_as_long_as_its_job_lives(titus: Titus) -> None:
    id = send(titus)
    titus.wait(30 * DAY)
    assert send(titus) == id
    titus.over(id)
    titus.wait(1)
    assert send(titus) != id


def test_what_was_refused_used_no_key(titus: Titus) -> None:
    titus.refused(titus.jobs.CreateJob, batch(0), ((KEY, "k"),))
    assert titus.job(send(titus, service())).id


def test_a_key_that_is_absurdly_long_is_refused(titus: Titus) -> None:
    error = titus.refused(titus.jobs.CreateJob, batch(), ((KEY, "x" * 321),))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert KEY in error.details
