"""Control keeps schedules: each time is decided once, and told (docs/semantics.md A11, B6.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.service.mantis import a_cluster, live, mantis_job, run_all, settle
from tests.service.schedules import (
    HOUR,
    MINUTELY,
    end_jobs,
    go,
    outcomes,
    ready,
    record,
    scheduled,
    told,
)
from tests.service.world import ANN, World
from titus_celery.core.cluster import CATCH_UP
from titus_celery.core.decision import Change
from titus_celery.core.model import DeadlineKind
from titus_celery.core.states import State

# ------------------------------------------------------------------------------------------ each once


def test_at_each_time_a_job_is_made_of_the_template() -> None:
    world, _ = ready()
    id = scheduled(world)
    go(world, 59)
    assert (told(world, id), live(world, id)) == ([], [])
    go(world, 1)
    (job_id,) = live(world, id)
    (firing,), _ = world.clusters.firings(id, 0, 10)
    assert (firing.job_id, firing.decided_at) == (job_id, world.now)
    made = world.job(job_id)
    assert (made.descriptor.labels, made.created_by, made.cluster_id) == ({"from": "template"}, "titus", id)
    end_jobs(world, id)
    go(world, 60)
    assert outcomes(world, id) == [(60, "fired"), (120, "fired")]


def test_while_a_job_lives_its_times_are_passed_over() -> None:
    world, _ = ready()
    id = scheduled(world)
    go(world, 180)
    (job_id,) = live(world, id)
    assert told(world, id) == [
        (60, 1, "fired", ""),
        (120, 1, "skipped", f"job {job_id} lives"),
        (180, 1, "skipped", f"job {job_id} lives"),
    ]


def test_a_job_of_a_user_stands_in_its_way_too_and_is_refused_while_one_lives() -> None:
    world, _ = ready()
    id = scheduled(world)
    mine = world.jobs.create(mantis_job(cluster_id=id), ANN)
    go(world, 60)
    assert (live(world, id), outcomes(world, id)) == ([mine], [(60, "skipped")])


@pytest.mark.parametrize("policy", ["KEEP_EXISTING", "KEEP_NEW"])
@pytest.mark.parametrize("boundary", range(1, 6))
def test_of_two_controls_one_decides_wherever_they_meet(boundary: int, policy: str) -> None:
    world, _ = ready()
    id = scheduled(world, policy=policy)
    other = world.new_control()
    commits = 0

    def overtaken(change: Change) -> None:
        nonlocal commits
        commits += 1
        if commits == boundary:
            other.run()

    for minute in range(1, 4):
        world.sleep(60)
        commits = 0
        world.records.before_commit = overtaken
        world.sweep()
        world.records.before_commit = None
        world.sweep()
        assert [until for until, _ in outcomes(world, id)] == [60 * each for each in range(1, minute + 1)]
        assert len(live(world, id)) == min(minute, 2 if policy == "KEEP_NEW" else 1)


def test_a_control_that_froze_in_its_decision_decides_nothing_once_it_thaws() -> None:
    world, _ = ready()
    id = scheduled(world)
    other = world.new_control()

    def freeze(change: Change) -> None:
        world.records.before_commit = None
        for _ in range(3):
            world.sleep(60)
            other.run()

    world.sleep(60)
    world.records.before_commit = freeze
    world.sweep()
    assert [until for until, _ in outcomes(world, id)] == [60, 120, 180, 240]
    assert len(live(world, id)) == 1


def test_an_update_in_the_middle_of_a_decision_does_not_end_the_schedule() -> None:
    world, registry = ready()
    id = scheduled(world)

    def updated() -> None:
        registry.before = lambda: None
        template = replace(mantis_job(), labels={"new": "label"})
        world.clusters.update(id, a_cluster(cron=MINUTELY, template=template), ANN)

    registry.before = updated
    go(world, 180)
    assert [until for until, _ in outcomes(world, id)] == [60, 120, 180]
    (job_id,) = live(world, id)
    assert world.job(job_id).descriptor.labels == {"new": "label"}


def test_a_job_that_comes_in_the_middle_of_a_decision_has_the_time_passed_over() -> None:
    world, registry = ready()
    id = scheduled(world)

    def created() -> None:
        registry.before = lambda: None
        world.jobs.create(mantis_job(cluster_id=id), ANN)

    registry.before = created
    go(world, 60)
    assert outcomes(world, id) == [(60, "skipped")]
    assert len(live(world, id)) == 1


# ------------------------------------------------------------------------------------------ control away


def test_times_that_nobody_could_decide_are_missed_with_a_word() -> None:
    world, _ = ready()
    id = scheduled(world)
    world.sleep(290)
    world.sweep()
    why = "a later time had come before it could be decided"
    assert told(world, id) == [(180, 3, "missed", why), (240, 1, "fired", "")]


def test_a_time_that_is_more_than_a_minute_past_is_missed() -> None:
    world, _ = ready()
    id = scheduled(world, "0 0 * * * ?")
    world.sleep(HOUR + 61)
    world.sweep()
    assert told(world, id) == [(HOUR, 1, "missed", "decided 0:01:01 late")]
    assert record(world, id).next_firing == world.now + timedelta(seconds=HOUR - 61)


@pytest.mark.parametrize(("word", "newest"), [("once", "fired"), ("none", "missed"), ("", "missed")])
def test_the_newest_that_was_missed_is_made_up_for_if_that_is_wanted(word: str, newest: str) -> None:
    world, _ = ready()
    id = scheduled(world, "0 0 * * * ?", parameters={CATCH_UP: word} if word else {})
    world.now += timedelta(hours=3, minutes=30)
    world.sweep()
    assert outcomes(world, id) == [(2 * HOUR, "missed"), (3 * HOUR, newest)]
    assert len(live(world, id)) == (newest == "fired")
    world.sweep()
    assert len(told(world, id)) == 2


def test_after_a_long_absence_all_times_are_told_of() -> None:
    world, _ = ready()
    id = scheduled(world, "0/5 * * * * ?", parameters={CATCH_UP: "once"})
    world.now += timedelta(seconds=2_500 * 5 + 2)
    for _ in range(4):
        world.sweep()
    found = told(world, id)
    assert sum(count for _, count, _, _ in found) == 2_500
    assert [outcome for _, _, outcome, _ in found if outcome != "missed"] == ["fired"]
    assert found[-1][:3] == (12_500, 1, "fired")


# ------------------------------------------------------------------------------------------ hand-over


def test_keep_new_ends_the_old_job_only_once_the_new_one_runs() -> None:
    world = World()
    world.host(cores=64, slots=64)
    id = scheduled(world, policy="KEEP_NEW")
    go(world, 60)
    (old,) = live(world, id)
    run_all(world)
    go(world, 60)
    first, new = live(world, id)
    assert first == old
    assert world.job(old).kill is None
    assert world.job(old).state is State.RUNNING
    run_all(world)
    settle(world)
    assert live(world, id) == [new]
    assert (world.job(old).state, world.why(old)) == (State.FINISHED, "normal: SLA enforcement")


def test_keep_new_never_makes_a_third_job() -> None:
    world, _ = ready()
    id = scheduled(world, policy="KEEP_NEW")
    go(world, 240)
    old, new = live(world, id)
    why = f"job {new} is still taking over from {old}"
    assert told(world, id)[2:] == [(180, 1, "skipped", why), (240, 1, "skipped", why)]


# ------------------------------------------------------------------------------------------ changes


def test_an_update_holds_at_once_and_the_old_times_are_gone() -> None:
    world, _ = ready()
    id = scheduled(world, "0 0 * * * ?")
    go(world, 10)
    world.clusters.update(id, a_cluster(cron=MINUTELY), ANN)
    go(world, 50)
    assert outcomes(world, id) == [(60, "fired")]
    world.clusters.update(id, a_cluster(), ANN)
    go(world, 120)
    assert len(told(world, id)) == 1
    assert record(world, id).next_firing is None


def test_times_that_came_before_an_update_and_were_not_decided_are_missed() -> None:
    world, _ = ready()
    id = scheduled(world)
    world.sleep(150)
    world.clusters.update(id, a_cluster(cron="0 0 * * * ?"), ANN)
    world.sweep()
    assert told(world, id) == [(120, 2, "missed", "its schedule was changed before it could be decided")]


def test_a_change_of_other_things_does_not_put_the_next_time_off() -> None:
    world, _ = ready()
    id = scheduled(world)
    world.sleep(61)
    world.clusters.update(id, a_cluster(cron=MINUTELY, template=mantis_job(2)), ANN)
    world.sweep()
    assert outcomes(world, id) == [(60, "fired")]


def test_while_it_is_disabled_no_time_comes() -> None:
    world, _ = ready()
    id = scheduled(world)
    go(world, 30)
    world.clusters.enable(id, False)
    go(world, 120)
    assert told(world, id) == []
    world.clusters.enable(id, True)
    go(world, 60)
    assert outcomes(world, id) == [(180, "fired")]


def test_a_removed_cluster_has_no_times_any_more() -> None:
    world, _ = ready()
    id = scheduled(world)
    world.clusters.remove(id)
    go(world, 120, 10)
    assert all(id not in str(each) for each in world.records.due(world.now + timedelta(days=9), 100))


# ------------------------------------------------------------------------------------------ clocks


@pytest.mark.parametrize("by", [2 * HOUR, -2 * HOUR, 90, -90])
def test_whatever_the_stores_clock_does_no_time_is_decided_twice(by: float) -> None:
    world, _ = ready()
    id = scheduled(world)
    go(world, 130)
    world.jump(by)
    go(world, 130)
    world.jump(-by)
    go(world, 200)
    world.jump(abs(by))
    go(world, 130)
    firings, _ = world.clusters.firings(id, 0, 1_000)
    times = [(each.at, each.until) for each in reversed(firings)]
    assert all(one[1] < other[0] for one, other in pairwise(times))
    schedule = record(world, id)
    assert schedule.next_firing is not None
    covered = sum(each.count for each in firings)
    assert times[0][0] + timedelta(minutes=covered) == schedule.next_firing


def test_a_deadline_that_comes_too_early_is_set_again() -> None:
    world, _ = ready()
    id = scheduled(world)
    world.jump(-30)
    go(world, 30)
    assert told(world, id) == []
    go(world, 70)
    assert outcomes(world, id) == [(60, "fired")]
    kinds = [each.kind for each in world.records.due(world.now + timedelta(days=9), 100)]
    assert kinds.count(DeadlineKind.CRON) == 1


def test_after_its_last_time_nothing_stands_for_a_schedule() -> None:
    world, _ = ready()
    at = world.now + timedelta(minutes=1)
    id = scheduled(world, f"{at.second} {at.minute} {at.hour} {at.day} {at.month} ? {at.year}")
    # One pass alone: what it leaves would be looked at again and again.
    world.sleep(60)
    world.sweep()
    assert outcomes(world, id) == [(60, "fired")]
    assert record(world, id).next_firing is None
    left = world.records.due(world.now + timedelta(days=9), 100)
    assert DeadlineKind.CRON not in [each.kind for each in left]
