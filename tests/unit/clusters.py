"""Mantis jobs and clusters as the tests of decisions about them are given them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from tests.builders import START, at, dispatched, job, moved, task
from titus_celery.core.cluster import Cluster, ClusterDescriptor, MantisRules
from titus_celery.core.descriptor import (
    Container,
    Image,
    JobDescriptor,
    JobType,
    MantisAgreement,
    MantisSpec,
    Owner,
    Stage,
)
from titus_celery.core.model import ClusterId, Job, KillIntent, StageSlots, StateChange, Task
from titus_celery.core.states import State

__all__ = ["ID", "TITUS_ENDS", "a_cluster", "described", "live_job", "mantis", "seconds", "up", "worker"]

ID: Final = ClusterId("00000000-0000-4000-8000-0000000000c1")
OWNER: Final = Owner(owner_email="o@example.com", team_email="t@example.com")
TITUS_ENDS: Final = KillIntent(by="titus", at=at(50))


def described(*workers: int, **parts: Any) -> JobDescriptor:
    """A valid description of a Mantis job with so many workers in each stage."""
    agreement = MantisAgreement(**parts.pop("agreement", {}))
    stages = tuple(
        Stage(desired=count, container_id=f"c{number}") for number, count in enumerate(workers or (1,))
    )
    spec = MantisSpec(name="m", stages=stages, agreement=agreement, **parts)
    containers = {
        stage.container_id: Container(image=Image(name="app:1"), command=("true",)) for stage in stages
    }
    return JobDescriptor(spec=spec, owner=OWNER, app_name="app", containers=containers)


def a_cluster(*, kind: JobType = JobType.MANTIS, enabled: bool = True, **parts: Any) -> Cluster:
    """A cluster with a template; what is no part of its record is one of its rules."""
    record = {
        name: parts.pop(name) for name in ("next_firing", "decided", "held_up", "held_since") if name in parts
    }
    template = parts.pop("template", described())
    rules = MantisRules(**parts) if kind is JobType.MANTIS else None
    descriptor = ClusterDescriptor(
        name="c", kind=kind, owner=OWNER, template=template, rules=rules, enabled=enabled
    )
    return Cluster(id=ID, descriptor=descriptor, created_by="ann", created_at=START, **record)


def live_job(number: int, look: str) -> Job:
    """Job *number* of the cluster: A accepted, R running, K being killed, X running and being killed."""
    plain = job(number, created=number, cluster_id=ID)
    steps = [*plain.history]
    if look in "RX":
        steps.append(StateChange(state=State.RUNNING, at=at(number + 1)))
    return replace(plain, history=tuple(steps), kill=TITUS_ENDS if look in "KX" else None)


def mantis(*workers: int, made: tuple[int, ...] | None = None, over: Any = None, **parts: Any) -> Job:
    """A Mantis job with so many workers in each stage, all of them made unless *made* says otherwise."""
    descriptor = parts.pop("descriptor", None) or described(*workers, **parts.pop("spec", {}))
    counts = workers if made is None else made
    plain = job(descriptor=descriptor, slots_made=sum(counts), cluster_id=ID)
    stages = parts.pop("stages", tuple(StageSlots(made=count) for count in counts))
    return replace(plain, stages=stages, stages_over=over or {}, **parts)


def worker(of: Job, stage: int, slot: int) -> Task:
    """A queued worker."""
    plain = task(of, slot)
    id = type(plain.id)(f"{of.id}-{stage}.{slot}-1")
    return replace(plain, id=id, original_id=id, stage=stage)


def up(one: Task, since: float = 5) -> Task:
    """The task, RUNNING."""
    return moved(moved(dispatched(one), State.STARTING, 2), State.RUNNING, since)


def seconds(count: float) -> timedelta:
    """A span."""
    return timedelta(seconds=count)
