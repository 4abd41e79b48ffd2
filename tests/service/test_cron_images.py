"""What becomes of a time of a schedule whose job cannot be made (docs/semantics.md A11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.control import sweep
from tests.service.mantis import mantis_job
from tests.service.schedules import (
    AWAY,
    HOUR,
    fails,
    go,
    outcomes,
    ready,
    record,
    scheduled,
    told,
)
from tests.service.world import ANN, LIMITS, LOST_AFTER, SPANS, World
from titus_celery.core.cluster import CATCH_UP
from titus_celery.core.descriptor import JobGroup
from titus_celery.errors import ImageMissing
from titus_celery.service.sweep import Sweep

# ------------------------------------------------------------------------------------------ no job


def test_a_registry_that_is_away_is_asked_again_for_a_minute() -> None:
    world, registry = ready()
    id = scheduled(world, "0 0/10 * * * ?")
    registry.before = AWAY
    go(world, 640)
    assert told(world, id) == []
    assert record(world, id).held_up == "imageUnresolved: the registry is unavailable: no answer"
    registry.before = lambda: None
    go(world, 4)
    assert outcomes(world, id) == [(600, "fired")]
    assert record(world, id).held_up == ""


@pytest.mark.parametrize("step", [1, 7, 13])
def test_then_the_time_is_missed_and_the_next_one_is_tried(step: float) -> None:
    world, registry = ready()
    id = scheduled(world, "0 0/10 * * * ?")
    world.sleep(599)
    registry.before = AWAY
    go(world, 91, step)
    why = "imageUnresolved: the registry is unavailable: no answer"
    assert told(world, id) == [(600, 1, "missed", why)]
    registry.before = lambda: None
    go(world, 700, 10)
    assert outcomes(world, id) == [(600, "missed"), (1_200, "fired")]


def test_while_the_registry_is_away_older_times_are_not_left_open() -> None:
    world, registry = ready()
    id = scheduled(world)
    registry.before = AWAY
    go(world, 330)
    why = "imageUnresolved: the registry is unavailable: no answer"
    assert told(world, id) == [(60 * each, 1, "missed", why) for each in range(1, 5)]
    registry.before = lambda: None
    go(world, 30)
    assert outcomes(world, id)[4:] == [(300, "fired"), (360, "skipped")]


def test_what_is_made_up_for_is_tried_for_a_minute_too() -> None:
    world, registry = ready()
    id = scheduled(world, "0 0 * * * ?", parameters={CATCH_UP: "once"})
    world.now += timedelta(minutes=90)
    registry.before = AWAY
    go(world, 30)
    assert told(world, id) == []
    registry.before = lambda: None
    go(world, 4)
    assert outcomes(world, id) == [(HOUR, "fired")]


def test_an_unknown_image_is_missed_at_once() -> None:
    world, registry = ready()
    id = scheduled(world)
    registry.before = fails(ImageMissing("app:1", "its registry does not have it"))
    go(world, 60)
    ((until, _, outcome, why),) = told(world, id)
    assert (until, outcome) == (60, "missed")
    assert why.startswith("imageUnresolved: ")
    assert "its registry does not have it" in why


def test_a_full_installation_is_told_as_the_reason() -> None:
    world, _ = ready()
    world.control = with_jobs_max(world, 1)
    id = scheduled(world, "0 0/10 * * * ?")
    mine = world.create()
    go(world, 620, 5)
    assert told(world, id) == []
    go(world, 60, 5)
    why = "1 jobs are alive, which is the most that may be"
    assert told(world, id) == [(600, 1, "missed", why)]
    assert world.job(mine).kill is None


def with_jobs_max(world: World, most: int) -> Sweep:
    limits = replace(LIMITS, jobs_max=most)
    parts = (world.keyspace, world.records, world.registry, world.writes, world.resolver)
    control = sweep(*parts, (limits, SPANS, LOST_AFTER), world)
    control.look()
    return control


def test_a_name_that_another_job_has_is_told_as_the_reason() -> None:
    world, _ = ready()
    named = replace(mantis_job(), group=JobGroup(sequence="v1"))
    world.jobs.create(named, ANN)
    id = scheduled(world, template=named)
    go(world, 60)
    ((_, _, outcome, why),) = told(world, id)
    assert outcome == "skipped"
    assert "jobGroupInfo.sequence" in why
