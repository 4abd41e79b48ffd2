"""Who observes a job, by what gateways say of themselves, on every store (docs/semantics.md A15)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.contracts.stores import Bench
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.core.decision import change_of
from titus_celery.core.descriptor import BatchSpec, JobDescriptor
from titus_celery.core.jobs import created, kill_requested, settled
from titus_celery.core.model import JobId, KillIntent
from titus_celery.core.reasons import Code, Reason

SPAN = timedelta(minutes=1)
JOB = JobId("00000000-0000-4000-8000-000000000001")


@pytest.fixture
def subscribers(bench: Bench) -> SubscriberStore:
    """Those of a job that lives."""
    now = bench.records.now()
    job = JobDescriptor(spec=BatchSpec(desired=0, container_id="main"))
    bench.records.commit(change_of(None, (), created(JOB, job, "me", now)))
    return SubscriberStore(bench.world.keyspace)


def end(bench: Bench) -> None:
    """End the job."""
    job, now = bench.records.job(JOB)
    intent = KillIntent(by="me", at=now, reason=Reason(Code.KILLED))
    bench.records.commit(change_of(job, (), kill_requested(job, intent)))
    job, now = bench.records.job(JOB)
    bench.records.commit(change_of(job, (), settled(job, False, now)))


def test_the_latest_of_what_all_gateways_say_counts(bench: Bench, subscribers: SubscriberStore) -> None:
    assert subscribers.until(JOB) is None
    subscribers.hold(JOB, "a", SPAN)
    first = subscribers.until(JOB)
    assert first is not None
    assert timedelta(0) < first - bench.records.now() <= SPAN
    subscribers.hold(JOB, "b", 2 * SPAN)
    second = subscribers.until(JOB)
    assert second is not None
    assert second > first
    # The end of one leaves the other.
    subscribers.hold(JOB, "b", timedelta(0))
    assert subscribers.until(JOB) == first
    subscribers.hold(JOB, "a", timedelta(0))
    last = subscribers.until(JOB)
    assert last is not None
    assert last <= bench.records.now()


def test_of_a_job_that_is_over_or_gone_nothing_is_kept(bench: Bench, subscribers: SubscriberStore) -> None:
    subscribers.hold(JOB, "a", SPAN)
    end(bench)
    subscribers.hold(JOB, "a", SPAN)
    assert subscribers.until(JOB) is None
    bench.records.archive(JOB)
    before = bench.world.dump()
    subscribers.hold(JOB, "a", SPAN)
    subscribers.hold(JobId("00000000-0000-4000-8000-000000000002"), "a", SPAN)
    assert bench.world.dump() == before
