"""Schedules as tests of control see them: a registry at hand, and what the ledger says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.service.mantis import a_cluster, live
from tests.service.world import ANN, World
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.core.cluster import Cluster
from titus_celery.core.descriptor import Image
from titus_celery.core.model import ClusterId
from titus_celery.errors import Unavailable

#: Each minute, on the minute; stories begin on one.
MINUTELY = "0 * * * * ?"
HOUR = 3_600


class Registry:
    """Knows every image, unless a test says otherwise."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None

    def resolve(self, image: Image) -> Image:
        """The image, with an id."""
        self.before()
        return replace(image, id="sha256:1")


def fails(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


AWAY = fails(Unavailable("the registry", "no answer"))


def ready() -> tuple[World, Registry]:
    registry = Registry()
    return World(registry), registry


def scheduled(world: World, cron: str = MINUTELY, **parts: Any) -> ClusterId:
    return world.clusters.create(a_cluster(cron=cron, **parts), ANN)


def told(world: World, id: ClusterId) -> list[tuple[float | None, int, str, str]]:
    """What became of the times, the oldest first: the last of them, how many, the outcome, why."""
    firings, total = ClusterStore(world.keyspace).firings(id, 0, 10_000)
    assert len(firings) == total
    return [(world.elapsed(one.until), one.count, one.outcome.value, one.why) for one in reversed(firings)]


def outcomes(world: World, id: ClusterId) -> list[tuple[float | None, str]]:
    return [(until, outcome) for until, _, outcome, _ in told(world, id)]


def record(world: World, id: ClusterId) -> Cluster:
    return ClusterStore(world.keyspace).cluster(id)[0]


def go(world: World, seconds: int, step: float = 1) -> None:
    """Let time pass with a control at work."""
    for _ in range(int(seconds / step)):
        world.sleep(step)
        world.sweep()


def end_jobs(world: World, id: ClusterId) -> None:
    for job_id in live(world, id):
        world.jobs.kill(job_id, ANN)
    world.sweep()
    world.sweep()
    assert live(world, id) == []
