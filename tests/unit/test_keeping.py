"""How many jobs of a Mantis cluster are started and ended (docs/semantics.md A12, B6.2, B6.3, B6.6)."""

from __future__ import annotations

import pytest

from tests.builders import at
from tests.unit.clusters import a_cluster, live_job
from titus_celery.core import keeping
from titus_celery.core.descriptor import JobType
from titus_celery.core.keeping import Kept, kept
from titus_celery.core.model import Job
from titus_celery.core.reasons import Code, Reason


def jobs(looks: str) -> list[Job]:
    """Jobs 1, 2, .. by creation, which look so (see live_job)."""
    return [live_job(number, look) for number, look in enumerate(looks, 1)]


def told(looks: str, *, min: int = 0, max: int = 0) -> tuple[int, list[int]]:
    """How many are started, and the numbers of those that are ended."""
    found = kept(a_cluster(min=min, max=max), jobs(looks))
    return found.start, [int(job.id[-3:]) for job in found.kill]


@pytest.mark.parametrize(
    ("looks", "most", "killed"),
    [
        # From B6.3, to the letter.
        ("ARAR", 2, [1]),
        ("ARRR", 2, [1, 2]),
        # Nobody goes before as many as may really run.
        ("AAAA", 2, []),
        ("RAAA", 2, []),
        ("RAR", 2, []),
        # The one that is newer than the point where enough run, goes on waiting.
        ("RRA", 1, [1]),
        ("RAA", 1, []),
        ("RR", 1, [1]),
        ("RR", 2, []),
        ("R", 1, []),
        # One that ends already is no longer among them.
        ("XRR", 2, []),
        ("RRX", 1, [1]),
        ("XR", 1, []),
        ("RX", 1, []),
    ],
)
def test_above_the_ceiling_old_jobs_go_once_newer_ones_run(looks: str, most: int, killed: list[int]) -> None:
    assert told(looks, max=most) == (0, killed)


@pytest.mark.parametrize(
    ("looks", "least", "most", "start"),
    [
        ("", 2, 3, 2),
        ("A", 2, 3, 1),
        ("AR", 2, 3, 0),
        ("", 0, 0, 0),
        # One that is being ended is none of those that are to be there, but has its place until it is over.
        ("K", 1, 1, 0),
        ("K", 1, 2, 1),
        ("KXA", 2, 3, 0),
        ("KA", 2, 3, 1),
        ("KK", 3, 3, 1),
        ("KKKK", 1, 3, 0),
    ],
)
def test_below_the_floor_jobs_are_started_as_far_as_there_is_room(
    looks: str, least: int, most: int, start: int
) -> None:
    assert told(looks, min=least, max=most) == (start, [])


def test_the_floor_comes_first() -> None:
    # Three live, of which two end: the ceiling is looked at once the floor is met.
    found = kept(a_cluster(min=2, max=2), jobs("XXR"))
    assert (found.kill, found.is_unsettled) == ((), True)


@pytest.mark.parametrize("looks", ["RRRR", "A", ""])
def test_without_floor_and_ceiling_nothing_is_done(looks: str) -> None:
    assert kept(a_cluster(), jobs(looks)) == Kept()


def test_what_is_not_yet_as_it_should_be_is_looked_at_again() -> None:
    assert kept(a_cluster(min=1, max=1), []).is_unsettled
    assert kept(a_cluster(min=1, max=1), jobs("K")).is_unsettled
    assert kept(a_cluster(max=1), jobs("AA")).is_unsettled
    assert kept(a_cluster(max=1), jobs("RRA")).is_unsettled
    assert not kept(a_cluster(max=1), jobs("RR")).is_unsettled
    assert not kept(a_cluster(min=1, max=1), jobs("A")).is_unsettled


def test_a_disabled_cluster_is_to_have_no_job_and_gets_none() -> None:
    live = jobs("ARX")
    found = kept(a_cluster(enabled=False, min=2, max=5), live)
    assert found == Kept(kill=tuple(live[:2]), why="job cluster disabled")


@pytest.mark.parametrize("kind", [JobType.BATCH, JobType.SERVICE])
@pytest.mark.parametrize("enabled", [True, False])
def test_clusters_of_other_kinds_keep_the_jobs_that_they_have(kind: JobType, enabled: bool) -> None:
    assert kept(a_cluster(kind=kind, enabled=enabled), jobs("AR")) == Kept()


def test_whom_its_cluster_ends_did_not_fail() -> None:
    found = keeping.intent("SLA enforcement", at(9))
    assert (found.by, found.reason, found.is_success) == (
        "titus",
        Reason(Code.NORMAL, "SLA enforcement"),
        True,
    )


def test_the_ceiling_of_a_new_job_is_max() -> None:
    assert keeping.ceiling(a_cluster(max=7)) == 7
