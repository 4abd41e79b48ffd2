"""Mantis jobs and clusters as tests describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tests.service.process import Run
from tests.service.world import World, a_job
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.core.cluster import ClusterDescriptor, MantisRules
from titus_celery.core.descriptor import JobDescriptor, JobType, MantisAgreement, MantisSpec, Stage
from titus_celery.core.model import ClusterId, JobId
from titus_celery.core.states import State

#: Looks after which another thread must have come by.
LOOKS_MAX: Final = 100_000

__all__ = ["a_cluster", "live", "mantis_job", "run_all", "settle"]


def mantis_job(
    *workers: int, cluster_id: str = "", agreement: Mapping[str, Any] | None = None, **parts: Any
) -> JobDescriptor:
    """A Mantis job with so many workers in each stage, one of one if none are given."""
    plain = a_job()
    container = plain.container_of(None)
    stages = tuple(
        Stage(desired=count, container_id=f"stage{number}") for number, count in enumerate(workers or (1,))
    )
    spec = MantisSpec(name="m", stages=stages, agreement=MantisAgreement(**(agreement or {})), **parts)
    containers = {stage.container_id: container for stage in stages}
    return replace(plain, spec=spec, containers=containers, cluster_id=cluster_id)


def a_cluster(
    *, enabled: bool = True, template: JobDescriptor | None = None, parameters: Any = None, **rules: Any
) -> ClusterDescriptor:
    """A Mantis cluster with these rules."""
    made = template or replace(mantis_job(parameters=parameters or {}), labels={"from": "template"})
    return ClusterDescriptor(
        name="c", kind=JobType.MANTIS, template=made, rules=MantisRules(**rules), enabled=enabled
    )


def run_all(world: World) -> list[Run]:
    """Bring all that waits to RUNNING, jobs too."""
    world.sweep()
    runs = world.deliver()
    for run in runs:
        run.until(State.RUNNING)
    world.sweep()
    return runs


def settle(world: World) -> None:
    """Let everything happen that is under way: kills reach containers, jobs end, others begin."""
    for _ in range(4):
        world.sleep(0.1)
        world.sweep()
        for host in world.hosts.values():
            host.life.poll()
        world.deliver()
        _obeyed(world)


def _obeyed(world: World) -> None:
    """Wait until agents, whose runs are threads, have ended what is to end."""
    looks = 0
    while looks < LOOKS_MAX and any(
        task.state in (State.STARTING, State.RUNNING) and (task.kill or task.stop_for or job.kill)
        for job in world.records.live_jobs(0, 100)[0]
        for task in world.records.open_tasks(job.id)
    ):
        looks += 1
    assert looks < LOOKS_MAX, "an agent does not obey"


def live(world: World, cluster_id: ClusterId) -> list[JobId]:
    """The cluster's live jobs, the oldest first."""
    return [job.id for job in ClusterStore(world.keyspace).live_jobs(cluster_id)]
