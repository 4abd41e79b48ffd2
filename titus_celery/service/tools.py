"""What every run of an agent works with, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from titus_celery.core.lifecycle import Spans
from titus_celery.core.model import Agent
from titus_celery.core.states import State
from titus_celery.ports import Executor, Outputs, Records
from titus_celery.service.change import WritePath
from titus_celery.service.lease import Lease

__all__ = ["Announce", "Tools"]

#: Told of each state that a run enters, for whoever watches Celery.
Announce = Callable[[State], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every run of an agent works with."""

    agent: Agent
    installation: str
    records: Records
    #: Writes under this agent's lease.
    writes: WritePath
    executor: Executor
    outputs: Outputs
    lease: Lease
    spans: Spans
    grace: timedelta
