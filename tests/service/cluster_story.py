"""What stories about clusters are made of, and what is known of each cluster in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from hypothesis import strategies as st

from tests.builders import agent
from tests.service.mantis import mantis_job
from titus_celery.adapters.cron_times import schedule
from titus_celery.core.cluster import CATCH_UP, TIME_ZONE, ClusterDescriptor
from titus_celery.core.cron import Schedule
from titus_celery.core.descriptor import Demand, Image, JobDescriptor, MantisSpec, RetryPolicy
from titus_celery.core.placement import Need
from titus_celery.errors import Unavailable

AGENT: Final = agent(engine="ENGINE:1")
ROOMY: Final = replace(AGENT, capacity=replace(AGENT.capacity, cpu_millis=10**6, slots=10**4))
NEED: Final = Need(demand=Demand(cpu_millis=1, memory_bytes=1))
ZONE: Final = "Europe/Berlin"
#: Half an hour before that zone's clocks are set forward, half an hour before they are set back, and none.
STARTS: Final = (
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 6, 1, 12, 0, tzinfo=UTC),
)
CRONS: Final = ("0 30 2 * * ?", "0 0/30 * * * ?", "0 0/5 * * * ?", "0/40 * * * * ?")
JUMP: Final = 7_200
CLUSTERS_MAX: Final = 2
CATCH_UPS: Final = st.sampled_from(["none", "once"])

RULES: Final = st.one_of(
    st.fixed_dictionaries({"min": st.sampled_from([0, 1, 2]), "max": st.sampled_from([2, 3])}),
    st.just({"max": 1}),
    st.fixed_dictionaries(
        {"cron": st.sampled_from(CRONS), "policy": st.sampled_from(["KEEP_EXISTING", "KEEP_NEW"])}
    ),
)


@dataclass
class Known:
    """What is known of a cluster: its description, and which times of its schedules were to be decided."""

    descriptor: ClusterDescriptor
    #: Times that came while somebody looked, in order.
    times: list[datetime] = field(default_factory=list)
    next: datetime | None = None
    #: How many of its jobs may live: more than its max only if that was lowered, until they are fewer.
    bound: int = 10**9

    @property
    def plan(self) -> Schedule | None:
        cron = self.descriptor.rules.cron if self.descriptor.rules else ""
        return schedule(cron, self.descriptor.time_zone) if cron and self.descriptor.enabled else None

    @property
    def most(self) -> int:
        """How many may live but for a lowered max."""
        rules = self.descriptor.rules
        assert rules is not None
        if rules.cron:
            return 2 if rules.policy == "KEEP_NEW" else 1
        return rules.max or 10**9

    def begin(self, now: datetime) -> None:
        """The schedule begins anew."""
        plan = self.plan
        self.next = plan.after(max(now, self.times[-1]) if self.times else now) if plan else None

    def look(self, now: datetime) -> None:
        """Whoever looks now finds these times to decide."""
        plan = self.plan
        while plan and self.next and self.next <= now:
            self.times.append(self.next)
            self.next = plan.after(self.next)


class Registry:
    """Knows every image while it is there."""

    is_away = False

    def resolve(self, image: Image) -> Image:
        """The image, with an id."""
        if self.is_away:
            raise Unavailable("the registry", "no answer")
        return replace(image, id="sha256:1")


def template(catch_up: str) -> JobDescriptor:
    """A job of two workers, each of which may fail once."""
    plain = mantis_job(2, parameters={TIME_ZONE: ZONE, CATCH_UP: catch_up})
    assert isinstance(plain.spec, MantisSpec)
    stages = tuple(replace(stage, retry=RetryPolicy(retries=1)) for stage in plain.spec.stages)
    return replace(plain, spec=replace(plain.spec, stages=stages))
