"""Which times of a schedule are decided, and how; none is twice (docs/semantics.md A11, B6.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import at
from tests.unit.clusters import ID, a_cluster, described, live_job, seconds
from titus_celery.core import timetable
from titus_celery.core.cluster import CATCH_UP, Cluster, Firing, Outcome
from titus_celery.core.model import Deadline, DeadlineKind
from titus_celery.core.timetable import TIMES_PER_COMMIT, Due

#: Of a schedule that fires each ten seconds from START on.
STEP: Final = 10
CRON: Final = "0/10 * * * * ?"


def each_ten(moment: datetime) -> datetime:
    passed = (moment - at(0)).total_seconds()
    return at((passed // STEP + 1) * STEP)


def never(moment: datetime) -> None:
    return None


def until_20(moment: datetime) -> datetime | None:
    return found if (found := each_ten(moment)) <= at(20) else None


def scheduled(next_firing: float | None = 10, **parts: Any) -> Cluster:
    when = None if next_firing is None else at(next_firing)
    return a_cluster(cron=CRON, max=1, policy=parts.pop("policy", "KEEP_EXISTING"), next_firing=when, **parts)


def cron_at(when: datetime) -> tuple[Deadline, ...]:
    return (Deadline(kind=DeadlineKind.CRON, entity=ID, due=when),)


def missed(first: float, last: float, count: int, why: str, now: float) -> Firing:
    return Firing(
        at=at(first), until=at(last), count=count, outcome=Outcome.MISSED, why=why, decided_at=at(now)
    )


OVERTAKEN: Final = "a later time had come before it could be decided"


# ------------------------------------------------------------------------------------------ due


@pytest.mark.parametrize("now", [0, 9.999])
def test_a_time_is_not_due_before_it_comes(now: float) -> None:
    assert timetable.due(scheduled(10), each_ten, at(now)) is None


def test_a_time_is_due_at_its_moment() -> None:
    assert timetable.due(scheduled(10), each_ten, at(10)) == Due((), at(10), at(20))


def test_of_several_that_came_the_newest_is_decided_for_itself() -> None:
    found = timetable.due(scheduled(10), each_ten, at(45))
    assert found == Due((at(10), at(20), at(30)), at(40), at(50))


def test_a_schedule_that_ends_has_no_following_time() -> None:
    assert timetable.due(scheduled(20), until_20, at(500)) == Due((), at(20), None)


def test_a_cluster_without_a_next_time_has_nothing_due() -> None:
    assert timetable.due(scheduled(None), each_ten, at(500)) is None


def test_one_decision_covers_a_bounded_number_of_times() -> None:
    found = timetable.due(scheduled(10), each_ten, at(1_000_000))
    assert found is not None
    assert len(found.overtaken) + 1 == TIMES_PER_COMMIT
    assert found.following == at((TIMES_PER_COMMIT + 1) * STEP)


# ------------------------------------------------------------------------------------------ why not


def why(cluster: Cluster, now: float, looks: str = "", following: float | None = 10_000) -> object:
    live = [live_job(number, look) for number, look in enumerate(looks, 1)]
    times = Due((), at(10), None if following is None else at(following))
    found = timetable.why_not(cluster, times, live, at(now))
    return None if found is None else (found[0].value, found[1])


def test_a_job_is_made_up_to_a_minute_late() -> None:
    assert why(scheduled(), 10) is None
    assert why(scheduled(), 70) is None
    assert why(scheduled(), 71) == ("missed", "decided 0:01:01 late")


def test_what_was_held_up_until_it_was_too_late_is_missed_for_that() -> None:
    held = scheduled(held_up="imageUnresolved: no answer", held_since=at(10))
    assert why(held, 71) == ("missed", "imageUnresolved: no answer")
    assert why(held, 70) is None


def with_catch_up(word: str) -> Cluster:
    return scheduled(template=described(parameters={CATCH_UP: word}))


def test_the_newest_is_made_up_for_if_the_template_says_so() -> None:
    assert why(with_catch_up("once"), 5_000) is None
    assert why(with_catch_up("none"), 5_000) == ("missed", "decided 1:23:10 late")
    # Only the newest of all: after this one a later one has come already.
    assert why(with_catch_up("once"), 5_000, following=5_000) == ("missed", "decided 1:23:10 late")
    assert why(with_catch_up("once"), 5_000, following=None) is None
    assert why(with_catch_up("once"), 5_000, looks="A") == ("skipped", f"job {live_job(1, 'A').id} lives")


@pytest.mark.parametrize("look", ["A", "R", "K"])
def test_keep_existing_passes_a_time_over_while_a_job_lives(look: str) -> None:
    assert why(scheduled(), 10, look) == ("skipped", f"job {live_job(1, look).id} lives")


def test_keep_new_makes_one_more_job_and_never_a_third() -> None:
    keep_new = scheduled(policy="KEEP_NEW")
    assert why(keep_new, 10, "R") is None
    one, two = live_job(1, "R").id, live_job(2, "A").id
    assert why(keep_new, 10, "RA") == ("skipped", f"job {two} is still taking over from {one}")
    assert why(keep_new, 10, "XR") == ("skipped", f"job {two} is still taking over from {one}")


# ------------------------------------------------------------------------------------------ settled


def test_what_was_decided_is_noted_and_the_following_time_armed() -> None:
    times = Due((at(10), at(20)), at(30), at(40))
    newest = timetable.noted(at(30), Outcome.SKIPPED, "so", at(31))
    cluster = scheduled(held_up="x", held_since=at(10))
    after, firings, arm = timetable.settled(cluster, times, newest, at(31))
    assert (after.next_firing, after.decided, after.held_up, after.held_since) == (at(40), at(30), "", None)
    assert firings == (missed(10, 20, 2, "x", 31), newest)
    assert arm == cron_at(at(40))
    _, firings, _ = timetable.settled(scheduled(), times, newest, at(31))
    assert firings[0].why == OVERTAKEN


def test_one_time_alone_leaves_one_note_and_the_last_no_deadline() -> None:
    newest = timetable.noted(at(30), Outcome.FIRED, "", at(31), live_job(1, "A").id)
    after, firings, arm = timetable.settled(scheduled(), Due((), at(30), None), newest, at(31))
    assert (after.next_firing, firings, arm) == (None, (newest,), ())


# ------------------------------------------------------------------------------------------ held up


def test_a_time_whose_job_cannot_be_made_yet_waits_with_the_reason() -> None:
    times = Due((), at(10), at(20))
    after, firings, arm = timetable.held_up(scheduled(), times, "no answer", at(11), at(13))
    assert (after.next_firing, after.decided) == (at(10), None)
    assert (after.held_up, after.held_since, firings, arm) == ("no answer", at(11), (), cron_at(at(13)))
    later, _, _ = timetable.held_up(after, times, "still none", at(13), at(15))
    assert (later.held_up, later.held_since) == ("still none", at(11))


def test_those_before_it_are_missed_at_once_and_it_counts_anew() -> None:
    before = scheduled(held_up="no answer", held_since=at(11))
    after, firings, _ = timetable.held_up(before, Due((at(10),), at(20), at(30)), "none", at(21), at(23))
    assert (after.next_firing, after.decided, after.held_since) == (at(20), at(10), at(21))
    assert firings == (missed(10, 10, 1, "no answer", 21),)


@pytest.mark.parametrize(("now", "may"), [(10, True), (70, True), (70.001, False)])
def test_it_waits_a_minute_from_its_moment_on(now: float, may: bool) -> None:
    assert timetable.may_wait(scheduled(held_since=at(10)), Due((), at(10), None), at(now)) is may


def test_what_is_made_up_for_waits_a_minute_from_the_first_try_on() -> None:
    times = Due((), at(10), None)
    assert timetable.may_wait(scheduled(), times, at(900))
    assert timetable.may_wait(scheduled(held_since=at(900)), times, at(960))
    assert not timetable.may_wait(scheduled(held_since=at(900)), times, at(961))
    assert timetable.may_wait(scheduled(held_since=at(900)), replace(times, overtaken=(at(5),)), at(961))


# ------------------------------------------------------------------------------------------ armed, given up


def test_a_new_schedule_begins_with_its_next_time() -> None:
    cluster, arm = timetable.armed(scheduled(None), each_ten, at(10))
    assert (cluster.next_firing, arm) == (at(20), cron_at(at(20)))


def test_without_a_schedule_times_or_leave_nothing_is_armed() -> None:
    for cluster, times in (
        (scheduled(10), None),
        (scheduled(10), never),
        (scheduled(10, enabled=False), each_ten),
    ):
        after, arm = timetable.armed(cluster, times, at(3))
        assert (after.next_firing, arm) == (None, ())


def test_no_time_up_to_the_last_that_was_decided_is_armed_whatever_the_clock_shows() -> None:
    cluster, _ = timetable.armed(scheduled(None, decided=at(100), held_up="x"), each_ten, at(3))
    assert (cluster.next_firing, cluster.held_up) == (at(110), "")


def test_what_had_come_when_a_schedule_ends_is_missed() -> None:
    after, firings = timetable.given_up(scheduled(10), each_ten, at(35))
    assert (after.decided, after.next_firing) == (at(30), at(40))
    assert firings == (missed(10, 30, 3, "its schedule was changed before it could be decided", 35),)
    _, firings = timetable.given_up(scheduled(10, held_up="no answer"), each_ten, at(11))
    assert firings == (missed(10, 10, 1, "no answer", 11),)


def test_nothing_is_missed_if_nothing_had_come() -> None:
    assert timetable.given_up(scheduled(10, decided=at(0)), each_ten, at(9))[1] == ()
    assert timetable.given_up(scheduled(None), each_ten, at(9))[1] == ()


@given(st.lists(st.tuples(st.sampled_from(["go", "settle", "rearm", "give up"]), st.integers(-7_200, 7_200))))
def test_times_are_decided_in_order_and_once_whatever_the_clock_does(steps: list[tuple[str, int]]) -> None:
    now = 0
    seen: list[Firing] = []
    cluster, _ = timetable.armed(scheduled(None), each_ten, at(now))
    for step, span in steps:
        now += span
        if step == "rearm":
            cluster, _ = timetable.armed(cluster, each_ten, at(now))
        elif step == "give up":
            cluster, firings = timetable.given_up(cluster, each_ten, at(now))
            seen += firings
        elif step == "settle" and (found := timetable.due(cluster, each_ten, at(now))):
            note = timetable.noted(found.newest, Outcome.FIRED, "", at(now))
            cluster, firings, _ = timetable.settled(cluster, found, note, at(now))
            seen += firings
    places = [each for firing in seen for each in (firing.at, firing.until)]
    assert places == sorted(places)
    assert all(one.until < other.at for one, other in pairwise(seen))
    assert all((one.until - one.at) / seconds(STEP) + 1 == one.count for one in seen)
