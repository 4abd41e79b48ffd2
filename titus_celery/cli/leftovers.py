"""Containers that outlived their agent: which they are, and whether an agent has them again.

Only an agent may end a container, because it also tells why. So when an installation is to stop and
its agent was away at that moment, the agent is started once more, takes the containers over, and is
stopped as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.model import AgentId, TaskId
from titus_celery.ports import (
    AgentRegistry,
    Executor,
)

__all__ = ["Leftovers"]


class Leftovers:
    """What an agent that has ended left running. *lease*: how far each renewal of its lease reaches.

    Every method raises StoreUnavailable or EngineFault.
    """

    def __init__(
        self, executor: Executor, registry: AgentRegistry, installation: str, agent_id: str, lease: timedelta
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._installation = installation
        self._agent_id = AgentId(agent_id)
        self._lease = lease
        before = self._leased()
        #: Every end of the lease that was seen, from that of the agent that has ended on.
        self._leases = [before[0]] if before else []

    def running(self) -> Sequence[TaskId]:
        """The tasks whose containers run."""
        found = self._executor.seen(self._installation)
        mine = [each for each in found if each.agent_id == self._agent_id and each.phase is Phase.RUNNING]
        return sorted(each.task_id for each in mine)

    def are_adopted(self) -> bool:
        """Whether an agent that was started since has taken them over; to be asked again and again."""
        leased = self._leased()
        if leased is None:
            return False
        until, proved_at = leased
        if until not in self._leases:
            self._leases.append(until)
        # It orders the adoptions right after its first renewal. The proof that goes with the second
        # one comes through the same queue behind them.
        renewals = self._leases[1:]
        return len(renewals) > 1 and proved_at >= renewals[1] - self._lease

    def _leased(self) -> tuple[datetime, datetime] | None:
        agents, _ = self._registry.agents()
        return next(
            ((each.lease_until, each.proved_at) for each in agents if each.id == self._agent_id), None
        )
