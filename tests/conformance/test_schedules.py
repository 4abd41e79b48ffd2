"""Schedules of clusters: when they fire, and what becomes of each time (docs/semantics.md A11, B6.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.conformance.installation import Titus
from tests.conformance.test_cluster_methods import cluster, found, switch, update, within
from tests.grpc_api.clusters import mantis, mantis_cluster
from tests.service.control import ahead, foresight, keeper, sweep
from tests.service.mantis import live, run_all, settle
from tests.service.schedules import AWAY, Registry
from tests.service.world import LOST_AFTER, SPANS
from titus_celery.core.descriptor import Image
from titus_celery.core.model import ClusterId, Deadline, DeadlineKind, JobId
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

HOURLY: Final = "0 0 * * * ?"
HOUR: Final = 3_600


def coming(titus: Titus, id: str, count: int = 1) -> list[datetime]:
    """The next times of the cluster's schedule."""
    reply = titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id, count=count))
    return [datetime.fromisoformat(each) for each in reply.times]


def firings(titus: Titus, id: str, page: pb.Page | None = None) -> list[v1.Firing]:
    """What became of its times, the newest first."""
    return list(titus.schedules.FindFirings(v1.FindFiringsRequest(cluster_id=id, page=page)).items)


def outcomes(titus: Titus, id: str) -> list[str]:
    """The same in words, the oldest first."""
    return [v1.Firing.Outcome.Name(each.outcome) for each in reversed(firings(titus, id))]


def scheduled(titus: Titus, cron: str = HOURLY, **parts: str) -> str:
    """A cluster with such a schedule, and room for its jobs."""
    titus.host(cores=64, slots=64)
    policy = parts.pop("policy", "")
    template = mantis(parameters={f"cron.{name}": text for name, text in parts.items()})
    return cluster(titus, mantis_cluster(template, cronSpec=cron, cronPolicy=policy))


def to_next(titus: Titus, id: str) -> None:
    """Let time pass until the next time of its schedule, and a moment more."""
    (due,) = coming(titus, id)
    titus.wait((due - titus.hand.now).total_seconds() + 0.5)


def jobs_of(titus: Titus, id: str) -> list[JobId]:
    """The cluster's live jobs, the oldest first."""
    return live(titus.inside, ClusterId(id))


def test_a_schedule_means_one_job_at_most_and_has_a_policy(titus: Titus) -> None:
    id = cluster(titus, mantis_cluster(min=3, max=9, cronSpec=f" {HOURLY} "))
    wanted = pb.MantisClusterSpec(enabled=True, max=1, cronSpec=HOURLY, cronPolicy="KEEP_EXISTING")
    assert found(titus, id).mantis == wanted
    update(titus, id, mantis_cluster(min=1, max=2, cronPolicy="KEEP_NEW"))
    assert found(titus, id).mantis == pb.MantisClusterSpec(enabled=True, min=1, max=2)


@pytest.mark.parametrize(
    ("cron", "parts", "path"),
    [
        ("every day", {}, "mantis.cronSpec"),
        ("0 0 0 1 1 ? 1999", {}, "mantis.cronSpec"),
        (HOURLY, {"policy": "KEEP_BOTH"}, "mantis.cronPolicy"),
        (HOURLY, {"timeZone": "Nowhere"}, "jobDescriptor.mantis.parameters[cron.timeZone]"),
        (HOURLY, {"catchUp": "twice"}, "jobDescriptor.mantis.parameters[cron.catchUp]"),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_path_of_what_is_wrong(
    titus: Titus, cron: str, parts: dict[str, str], path: str
) -> None:
    policy = parts.get("policy", "")
    template = mantis(parameters={f"cron.{name}": text for name, text in parts.items()})
    wrong = mantis_cluster(template, cronSpec=cron, cronPolicy=policy)
    titus.invalid(titus.jobs.CreateJobCluster, wrong, f"{path}: ")
    without = mantis_cluster(cronSpec=cron)
    without.ClearField("jobDescriptor")
    titus.invalid(titus.jobs.CreateJobCluster, without, "jobDescriptor: ")


def test_a_job_is_made_at_each_time_unless_one_lives(titus: Titus) -> None:
    id = scheduled(titus, policy="keep_existing")
    to_next(titus, id)
    run_all(titus.inside)
    (job,) = jobs_of(titus, id)
    to_next(titus, id)
    assert jobs_of(titus, id) == [job]
    titus.jobs.KillJob(pb.JobId(id=job))
    settle(titus.inside)
    to_next(titus, id)
    assert outcomes(titus, id) == ["FIRED", "SKIPPED", "FIRED"]
    newest, skipped, first = firings(titus, id)
    assert (first.job_id, newest.job_id) == (job, jobs_of(titus, id)[0])
    assert job in skipped.why
    assert datetime.fromisoformat(first.at) == datetime(2026, 3, 1, 13, tzinfo=UTC)


def test_with_keep_new_the_old_job_goes_once_the_new_one_runs(titus: Titus) -> None:
    id = scheduled(titus, policy="KEEP_NEW")
    to_next(titus, id)
    run_all(titus.inside)
    (old,) = jobs_of(titus, id)
    to_next(titus, id)
    old_too, new = jobs_of(titus, id)
    assert old_too == old
    assert titus.job(old).jobState.state == pb.RUNNING
    run_all(titus.inside)
    settle(titus.inside)
    assert jobs_of(titus, id) == [new]
    assert titus.job(old).jobState.reason == "normal: SLA enforcement"
    assert outcomes(titus, id) == ["FIRED", "FIRED"]


def test_many_that_decide_a_time_decide_it_once(titus: Titus) -> None:
    id = scheduled(titus)
    (due,) = coming(titus, id)
    titus.wait((due - titus.hand.now).total_seconds() + 0.5)
    inside, limits = titus.inside, titus.store.settings.limits()
    for _ in range(3):
        # Controls that saw it come due, too.
        other = keeper(inside.keyspace, inside.writes, inside.resolver, limits, inside)
        other.fire(Deadline(kind=DeadlineKind.CRON, entity=id, due=due))
    assert outcomes(titus, id) == ["FIRED"]
    assert len(jobs_of(titus, id)) == 1


def test_times_while_nobody_decides_are_missed_but_the_newest_may_be_made_up_for(titus: Titus) -> None:
    plain, late = scheduled(titus), scheduled(titus, catchUp="once")
    titus.wait(3 * HOUR + 120)
    assert outcomes(titus, plain) == ["MISSED", "MISSED"]
    newest, overtaken = firings(titus, plain)
    assert (overtaken.count, newest.count) == (2, 1)
    assert "late" in newest.why
    assert jobs_of(titus, plain) == []
    assert outcomes(titus, late) == ["MISSED", "FIRED"]
    assert len(jobs_of(titus, late)) == 1


def test_a_time_that_is_a_little_late_is_kept(titus: Titus) -> None:
    id = scheduled(titus)
    (due,) = coming(titus, id)
    titus.wait((due - titus.hand.now).total_seconds() + 55)
    assert outcomes(titus, id) == ["FIRED"]


def test_what_an_image_meant_shortly_before_a_time_is_what_runs(titus: Titus) -> None:
    inside, registry, limits = titus.inside, Moving(), titus.store.settings.limits()
    seen = foresight(registry, inside, "registry.test")
    parts = (inside.keyspace, inside.records, inside.registry, inside.writes, seen)
    inside.control = sweep(*parts, (limits, SPANS, LOST_AFTER), inside)
    look = ahead(inside.keyspace, inside.writes, seen, limits, inside)
    id = scheduled(titus, policy="KEEP_NEW")
    (due,) = coming(titus, id)
    titus.wait((due - titus.hand.now).total_seconds() - 4)
    look.look()
    # The registry's time is not the schedule's.
    registry.before = AWAY
    titus.wait(4)
    assert outcomes(titus, id) == ["FIRED"]
    # What was known at that time is not what runs next time.
    registry.before = lambda: None
    to_next(titus, id)
    ran = [
        titus.job(job_id).jobDescriptor.containers["stage0"].image.imageId for job_id in jobs_of(titus, id)
    ]
    assert ran == ["sha256:1", "sha256:2"]


class Moving(Registry):
    """A registry in which all images get another meaning each time somebody asks."""

    asked = 0

    def resolve(self, image: Image) -> Image:
        """The image, with an id."""
        found = super().resolve(image)
        self.asked += 1
        return replace(found, id=f"sha256:{self.asked}")


def test_a_job_that_cannot_be_made_in_time_is_missed_with_the_cause(titus: Titus) -> None:
    template = mantis()
    template.containers["stage0"].image.name = "no-such:1"
    id = cluster(titus, mantis_cluster(template, cronSpec=HOURLY))
    titus.host(cores=64, slots=64)
    to_next(titus, id)
    (firing,) = firings(titus, id)
    assert (firing.outcome, firing.job_id) == (v1.Firing.MISSED, "")
    assert firing.why.startswith("imageUnresolved: ")


def test_a_disabled_cluster_has_no_times(titus: Titus) -> None:
    id = scheduled(titus)
    switch(titus, id, False)
    assert coming(titus, id) == []
    titus.wait(2 * HOUR)
    assert firings(titus, id) == []
    switch(titus, id, True)
    assert coming(titus, id) == [datetime(2026, 3, 1, 15, tzinfo=UTC)]


def test_a_schedule_begins_anew_only_if_it_is_another(titus: Titus) -> None:
    id = scheduled(titus)
    other = found(titus, id)
    other.name = "other"
    update(titus, id, other)
    assert coming(titus, id) == [datetime(2026, 3, 1, 13, tzinfo=UTC)]
    other.mantis.cronSpec = "30 12 * * *"
    update(titus, id, other)
    assert coming(titus, id) == [datetime(2026, 3, 1, 12, 30, tzinfo=UTC)]
    other.mantis.cronSpec = ""
    update(titus, id, other)
    assert coming(titus, id) == []


def test_coming_times_are_told_as_the_schedule_means_them(titus: Titus) -> None:
    id = scheduled(titus, "0 30 9 * * ?", timeZone="America/New_York")
    # On 8 March clocks there are put forward.
    assert [each.hour for each in coming(titus, id, 8)] == [14] * 7 + [13]
    reply = titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id, count=1))
    assert reply.time_zone == "America/New_York"
    for count in (0, 1_001):
        request = v1.ComingTimesRequest(cluster_id=id, count=count)
        titus.invalid(titus.schedules.ComingTimes, request, "count: ")
    titus.invalid(titus.schedules.ComingTimes, v1.ComingTimesRequest(count=1), "cluster_id: ")


def test_firings_are_told_in_pages(titus: Titus) -> None:
    id = scheduled(titus)
    for _ in range(3):
        to_next(titus, id)
    whole = firings(titus, id)
    assert [datetime.fromisoformat(each.at).hour for each in whole] == [15, 14, 13]
    assert [firings(titus, id, pb.Page(pageNumber=number, pageSize=2)) for number in range(3)] == [
        whole[:2],
        whole[2:],
        [],
    ]
    request = v1.FindFiringsRequest(cluster_id=id, page=pb.Page(pageNumber=-1))
    titus.invalid(titus.schedules.FindFirings, request, "page.pageNumber: ", "page.pageSize: ")
    titus.invalid(titus.schedules.FindFirings, v1.FindFiringsRequest(), "cluster_id: ")


def test_a_job_of_the_clusters_users_counts(titus: Titus) -> None:
    id = scheduled(titus)
    job = titus.create(within(mantis(), id))
    to_next(titus, id)
    (firing,) = firings(titus, id)
    assert firing.outcome == v1.Firing.SKIPPED
    assert job in firing.why
