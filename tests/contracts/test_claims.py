"""Names that one job has at a time, and how many jobs there may be, on every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import change, commit, failed, job, saved
from tests.contracts.over import settled
from tests.contracts.stores import Bench, at_once
from titus_celery.core.claims import KEY_KEPT, ClaimKind, claims_of, key_name
from titus_celery.core.descriptor import JobGroup
from titus_celery.core.model import Job, JobId, Sent
from titus_celery.errors import LimitReached, Taken

SENT = Sent(caller="ann", key="k-1", body="b")
GROUP = JobGroup(stack="s", detail="d", sequence="v001")


def with_sequence(group: JobGroup = GROUP, app: str = "app") -> Job:
    """A new job of this group."""
    plain = job()
    return replace(plain, descriptor=replace(plain.descriptor, group=group, app_name=app))


def end(bench: Bench, one: Job) -> None:
    """End a job of one task."""
    (task,) = bench.records.open_tasks(one.id)
    commit(bench.records, bench.records.job(one.id)[0], [task], to=[failed(task)])
    settled(bench, one)


def test_two_live_jobs_never_have_one_sequence(bench: Bench) -> None:
    first, second = with_sequence(), with_sequence()
    saved(bench.records, first)
    before = bench.world.dump()
    with pytest.raises(Taken, match="this jobGroupInfo"):
        saved(bench.records, second)
    assert bench.world.dump() == before
    end(bench, first)
    saved(bench.records, second)


@pytest.mark.parametrize(
    "other",
    [
        with_sequence(replace(GROUP, sequence="v002")),
        with_sequence(replace(GROUP, stack="t")),
        with_sequence(replace(GROUP, detail="")),
        with_sequence(app="other"),
        with_sequence(replace(GROUP, sequence="")),
    ],
)
def test_another_group_or_none_is_free(bench: Bench, other: Job) -> None:
    saved(bench.records, with_sequence())
    saved(bench.records, replace(other, id=job().id))


def test_jobs_without_a_sequence_have_no_name(bench: Bench) -> None:
    for _ in range(2):
        saved(bench.records, with_sequence(replace(GROUP, sequence="")))


def test_a_key_is_one_jobs_and_tells_which_and_for_what(bench: Bench) -> None:
    first = replace(job(), sent=SENT)
    saved(bench.records, first)
    (claim,) = claims_of(first)
    assert bench.records.claimed(ClaimKind.KEY, key_name(SENT)) == claim
    assert (claim.id, claim.body) == (first.id, "b")
    with pytest.raises(Taken, match="idempotency key"):
        saved(bench.records, replace(job(), sent=SENT))
    saved(bench.records, replace(job(), sent=replace(SENT, caller="bob")))
    assert bench.records.claimed(ClaimKind.KEY, key_name(replace(SENT, key="k-2"))) is None


def test_of_many_that_claim_one_key_at_once_one_gets_it(bench: Bench) -> None:
    jobs = [replace(job(), sent=SENT) for _ in range(8)]

    def claim(number: int) -> bool:
        try:
            saved(bench.records, jobs[number])
        except Taken:
            return False
        return True

    assert sorted(at_once(8, claim)) == [False] * 7 + [True]


def test_a_key_is_kept_a_day_from_the_creation_on_and_while_the_job_lives(bench: Bench) -> None:
    first = replace(job(), sent=SENT)
    saved(bench.records, first)
    key = bench.keys.claim(ClaimKind.KEY, key_name(SENT))
    assert bench.world.time_left(key) is None
    # It ends 500 s after it was made.
    end(bench, first)
    left = bench.world.time_left(key)
    assert left is not None
    assert KEY_KEPT - timedelta(seconds=510) < left <= KEY_KEPT - timedelta(seconds=500)


def test_a_repeated_key_is_told_before_a_taken_sequence(bench: Bench) -> None:
    first = replace(with_sequence(), sent=SENT)
    saved(bench.records, first)
    with pytest.raises(Taken, match="idempotency key"):
        saved(bench.records, replace(first, id=JobId(f"{first.id}x")))


def test_there_are_never_more_live_jobs_than_allowed(bench: Bench) -> None:
    def create(number: int) -> bool:
        made = change(None, job=job())
        try:
            bench.records.commit(replace(made, jobs_max=3))
        except LimitReached as error:
            assert (error.what, error.limit) == ("jobs", 3)
            return False
        return True

    assert sorted(at_once(8, create)) == [False] * 5 + [True] * 3
    ended = bench.records.live_jobs(0, 1)[0][0]
    settled(bench, replace(ended, slots_made=0))
    assert create(8)
    assert not create(9)


def test_a_commit_tells_how_far_the_log_reaches(bench: Bench) -> None:
    new = job()
    position = bench.records.commit(change(None, job=new))
    assert position == bench.records.end()
    # Nothing that observers hear of.
    assert bench.records.commit(change(new, job=new.with_spec(new.descriptor.spec))) is None
