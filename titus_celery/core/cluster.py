"""Job clusters: what owners describe, what is kept of them, and the three that are always there.

A cluster is a template that jobs are made of, and of the Mantis kind also a promise about how many of them
run, and when (docs/semantics.md A2, A11, A12, B6).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from titus_celery.core.descriptor import JobDescriptor, JobSpec, JobType, MantisSpec, Owner, type_of
from titus_celery.core.model import ClusterId, JobId, Sent

__all__ = [
    "BUILT_IN",
    "CATCH_UP",
    "TIME_ZONE",
    "Cluster",
    "ClusterDescriptor",
    "CronPolicy",
    "Firing",
    "MantisRules",
    "Outcome",
    "built_in",
]

#: Parameters of a Mantis cluster's template that speak of its schedule: the zone its times are meant in,
#: and whether the newest one that was missed is made up for ("once") or not ("none").
TIME_ZONE: Final = "cron.timeZone"
CATCH_UP: Final = "cron.catchUp"


class CronPolicy(enum.Enum):
    """What happens at a time of the schedule while a job of the cluster lives."""

    #: The time is passed over.
    KEEP_EXISTING = "KEEP_EXISTING"
    #: A new job is made; the old one goes once the new one runs.
    KEEP_NEW = "KEEP_NEW"


@dataclass(frozen=True, slots=True, kw_only=True)
class MantisRules:
    """How many jobs of a Mantis cluster run, and when new ones are made."""

    #: Zero: no floor.
    min: int = 0
    #: Zero: no ceiling.
    max: int = 0
    cron: str = ""
    #: As it was written, until it is checked; then the name of a CronPolicy, or empty without a schedule.
    policy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescriptor:
    """A cluster as its owner describes it."""

    name: str
    kind: JobType
    owner: Owner = field(default_factory=Owner)
    template: JobDescriptor | None = None
    #: Of a Mantis cluster, and of no other.
    rules: MantisRules | None = None
    #: The others are described without it, and begin enabled.
    enabled: bool = True

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters of its template's Mantis job."""
        spec = self.template.spec if self.template else None
        return spec.parameters if isinstance(spec, MantisSpec) else {}

    @property
    def time_zone(self) -> str:
        """The zone in which its schedule is meant."""
        return self.parameters.get(TIME_ZONE, "").strip() or "UTC"

    @property
    def catches_up(self) -> bool:
        """Whether the newest time that was missed is made up for."""
        return self.parameters.get(CATCH_UP, "").strip() == "once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster's record."""

    id: ClusterId
    descriptor: ClusterDescriptor
    created_by: str
    created_at: datetime
    #: None: without an idempotency key.
    sent: Sent | None = None
    #: The next time of its schedule, which is to be decided then; None: there is none.
    next_firing: datetime | None = None
    #: The last time of any of its schedules that was decided: no earlier one ever is.
    decided: datetime | None = None
    #: Why no job could be made yet for the next time, which has come; and since when that is tried.
    held_up: str = ""
    held_since: datetime | None = None
    #: Moves only with its definition; every creation of a job in it names the one it saw.
    gate: int = 1
    #: Counts the writes of this record, from 1.
    version: int = 1

    @property
    def is_enabled(self) -> bool:
        """Whether jobs may be made in it."""
        return self.descriptor.enabled

    @property
    def rules(self) -> MantisRules:
        """How many of its jobs run, and when; empty for all but Mantis clusters."""
        return self.descriptor.rules or MantisRules()

    def described(self, descriptor: ClusterDescriptor) -> Cluster:
        """This cluster with another definition, under a new gate."""
        return replace(self, descriptor=descriptor, gate=self.gate + 1)


class Outcome(enum.Enum):
    """What became of a time of a schedule."""

    FIRED = "fired"
    SKIPPED = "skipped"
    MISSED = "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One time of a schedule, or several in a row that nobody could decide, and what became of it."""

    at: datetime
    #: The last of them, and how many they are.
    until: datetime
    count: int = 1
    outcome: Outcome
    why: str = ""
    #: The job that was made.
    job_id: JobId | None = None
    decided_at: datetime


def _made_of(kind: JobType, id: str) -> Cluster:
    rules = MantisRules() if kind is JobType.MANTIS else None
    return Cluster(
        id=ClusterId(id),
        descriptor=ClusterDescriptor(name=f"default {kind.value} cluster", kind=kind, rules=rules),
        created_by="titus",
        created_at=_EPOCH,
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The clusters of jobs that name none, by type (A2). They are no records, and never change.
BUILT_IN: Final[Mapping[JobType, Cluster]] = MappingProxyType(
    {
        JobType.BATCH: _made_of(JobType.BATCH, "00000000-0000-4000-8000-000000000001"),
        JobType.SERVICE: _made_of(JobType.SERVICE, "00000000-0000-4000-8000-000000000002"),
        JobType.MANTIS: _made_of(JobType.MANTIS, "00000000-0000-4000-8000-000000000003"),
    }
)


def built_in(spec: JobSpec) -> Cluster:
    """The cluster of a job that names none."""
    return BUILT_IN[type_of(spec)]
