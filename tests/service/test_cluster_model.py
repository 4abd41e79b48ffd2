"""Whatever happens to Mantis clusters, their jobs, control and the clock: what they promise holds.

A model of a few lines says which times of a schedule there are to decide; the ledger must say so too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.service.cluster_story import (
    AGENT,
    CATCH_UPS,
    CLUSTERS_MAX,
    CRONS,
    JUMP,
    NEED,
    ROOMY,
    RULES,
    STARTS,
    ZONE,
    Known,
    Registry,
    template,
)
from tests.service.mantis import a_cluster, mantis_job
from tests.service.world import ANN, SPANS, World
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.cron_times import schedule
from titus_celery.core import lifecycle
from titus_celery.core.cluster import ClusterDescriptor, Outcome
from titus_celery.core.decision import Change
from titus_celery.core.model import NO_ADDRESS, ClusterId, Job, Task
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import FailedPrecondition, LimitReached, Unavailable


class Stories(RuleBasedStateMachine):
    """One story."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.world = World(self.registry)
        self.store = ClusterStore(self.world.keyspace)
        self.known: dict[ClusterId, Known] = {}

    @initialize(start=st.sampled_from(STARTS))
    def begin(self, start: datetime) -> None:
        self.world.now = self.latest = start
        self.world.control = self.world.new_control()
        self.other = self.world.new_control()

    def pick(self, number: int) -> ClusterId:
        return list(self.known)[number % len(self.known)]

    # ------------------------------------------------------------------------------------- clusters

    @precondition(lambda self: len(self.known) < CLUSTERS_MAX)
    @rule(
        rules=RULES, enabled=st.sampled_from([True, True, False]), catch_up=st.sampled_from(["none", "once"])
    )
    def create(self, rules: dict[str, Any], enabled: bool, catch_up: str) -> None:
        descriptor = a_cluster(enabled=enabled, template=template(catch_up), **rules)
        id = self.world.clusters.create(descriptor, ANN)
        self.described(id, Known(descriptor))

    def described(self, id: ClusterId, known: Known) -> None:
        self.known[id] = known
        known.begin(self.world.now)
        known.bound = max(known.most, len(self.store.live_jobs(id)))

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), rules=RULES, catch_up=CATCH_UPS)
    def update(self, number: int, rules: dict[str, Any], catch_up: str) -> None:
        id = self.pick(number)
        known = self.known[id]
        enabled = known.descriptor.enabled
        new = a_cluster(enabled=enabled, template=template(catch_up), **rules)
        self.world.clusters.update(id, new, ANN)
        self.redefined(id, new)

    def redefined(self, id: ClusterId, new: ClusterDescriptor) -> None:
        known = self.known[id]
        crons = [each.rules.cron if each.rules else "" for each in (known.descriptor, new)]
        is_same = crons[0] == crons[1] and known.descriptor.enabled == new.enabled
        if not is_same:
            # What came of the old one is missed.
            known.look(self.world.now)
        known.descriptor = new
        if not is_same:
            known.begin(self.world.now)
        known.bound = max(known.most, len(self.store.live_jobs(id)))

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9))
    def switch(self, number: int) -> None:
        id = self.pick(number)
        new = replace(self.known[id].descriptor, enabled=not self.known[id].descriptor.enabled)
        self.world.clusters.enable(id, new.enabled)
        self.redefined(id, new)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9))
    def remove(self, number: int) -> None:
        id = self.pick(number)
        has_jobs = bool(self.store.live_jobs(id))
        try:
            self.world.clusters.remove(id)
        except FailedPrecondition:
            assert has_jobs
            return
        assert not has_jobs
        del self.known[id]

    # ------------------------------------------------------------------------------------- jobs

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9))
    def submit(self, number: int) -> None:
        id = self.pick(number)
        before, known = len(self.store.live_jobs(id)), self.known[id]
        rules = known.descriptor.rules
        assert rules is not None
        most = 1 if rules.cron else rules.max
        try:
            self.world.jobs.create(mantis_job(cluster_id=id), ANN)
        except LimitReached:
            assert before >= most > 0
        except FailedPrecondition:
            assert not known.descriptor.enabled
        except Unavailable:
            assert self.registry.is_away
        else:
            assert known.descriptor.enabled
            assert not most or before < most

    def jobs(self) -> list[Job]:
        return [job for id in self.known for job in self.store.live_jobs(id)]

    @precondition(lambda self: self.jobs())
    @rule(number=st.integers(0, 99), steps=st.integers(1, 6))
    def work(self, number: int, steps: int) -> None:
        """Workers of a job come up."""
        jobs = self.jobs()
        for _ in range(steps):
            for task in self.world.records.open_tasks(jobs[number % len(jobs)].id):
                self.step(task)

    @precondition(lambda self: self.jobs())
    @rule(number=st.integers(0, 99), code=st.sampled_from([Code.NORMAL, Code.FAILED, Code.LOST]))
    def end(self, number: int, code: Code) -> None:
        """A worker ends."""
        jobs = self.jobs()
        tasks = self.world.records.open_tasks(jobs[number % len(jobs)].id)
        for task in tasks[:1]:
            self.finish(task, code)

    @precondition(lambda self: self.jobs())
    @rule(number=st.integers(0, 99))
    def kill(self, number: int) -> None:
        jobs = self.jobs()
        self.world.jobs.kill(jobs[number % len(jobs)].id, ANN)

    def step(self, task: Task) -> None:
        steps: dict[State, Callable[[Job, Task, datetime], Any]] = {
            State.QUEUED: lambda job, one, now: lifecycle.dispatched(job, one, ROOMY, NEED, now, SPANS),
            State.DISPATCHED: lambda job, one, now: lifecycle.claimed(job, one, AGENT.id, 1, now, SPANS),
            State.STARTING: lambda job, one, now: lifecycle.running(job, one, 1, NO_ADDRESS, now),
        }
        if (decide := steps.get(task.state)) is not None and task.kill is None:
            self.world.writes.on_task(task.id, decide)

    def finish(self, task: Task, code: Code) -> None:
        if task.state in (State.STARTING, State.RUNNING):
            self.world.writes.on_task(
                task.id, lambda job, one, now: lifecycle.ended(job, one, Reason(code), now)
            )

    def obey(self) -> None:
        """Agents end what is to end."""
        for job in self.jobs():
            for task in self.world.records.open_tasks(job.id):
                if task.kill is not None or task.stop_for is not None:
                    self.finish(task, Code.KILLED)

    # ------------------------------------------------------------------------------------- control, time

    @rule(seconds=st.sampled_from([1, 5, 20, 60, 300]), who=st.sampled_from(["none", "one", "other", "both"]))
    def go_on(self, seconds: int, who: str) -> None:
        """Time passes, in which agents do as they are told and some controls are at work."""
        left = seconds
        while left > 0:
            step = min(left, 20)
            self.world.sleep(step)
            left -= step
            self.obey()
            if who in ("one", "both"):
                self.sweep(self.world.control)
            if who in ("other", "both"):
                self.other.look()
                self.sweep(self.other)

    def sweep(self, control: Any) -> None:
        for known in self.known.values():
            known.look(self.world.now)
        control.run()

    @rule(minutes=st.integers(1, 200))
    def nobody_is_there(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)
        self.world.passed += timedelta(minutes=minutes)

    @rule(boundary=st.integers(1, 5), seconds=st.sampled_from([0, 5, 90, 900]), then=st.integers(0, 3))
    def freeze(self, boundary: int, seconds: int, then: int) -> None:
        """A control freezes before one of its commits; others go on; it thaws."""
        commits = 0

        def frozen(change: Change) -> None:
            nonlocal commits
            commits += 1
            if commits != boundary:
                return
            self.world.now += timedelta(seconds=seconds)
            self.world.passed += timedelta(seconds=seconds)
            if then == 1 and self.known:
                self.switch(0)
            elif then == 2 and self.known:
                self.submit(0)
            elif then == 3:
                self.obey()
            self.sweep(self.other)

        for known in self.known.values():
            known.look(self.world.now)
        self.world.records.before_commit = frozen
        try:
            self.world.control.run()
        finally:
            self.world.records.before_commit = None
        self.sweep(self.other)

    @rule(by=st.sampled_from([JUMP, -JUMP]))
    def set_clock(self, by: int) -> None:
        self.latest = max(self.latest, self.world.now)
        self.world.jump(by)
        # Whoever runs looks each second.
        self.world.control.look()
        self.other.look()

    @rule()
    def switch_registry(self) -> None:
        self.registry.is_away = not self.registry.is_away

    @rule()
    def settle(self) -> None:
        """Everything comes to rest, and is as it should be."""
        self.registry.is_away = False
        if (behind := self.latest - self.world.now) > timedelta(0):
            # What the records date in the future, because the clock was set back, is not over before that.
            self.world.now += behind
            self.world.passed += behind
        for _ in range(6):
            self.world.sleep(6)
            self.obey()
            self.sweep(self.world.control)
        self.is_at_rest()

    def is_at_rest(self) -> None:
        for id, known in self.known.items():
            live = self.store.live_jobs(id)
            staying = [job for job in live if job.kill is None]
            rules = known.descriptor.rules
            assert rules is not None
            if not known.descriptor.enabled:
                assert live == []
                continue
            least, most = (0, 1) if rules.cron else (rules.min, rules.max)
            assert len(staying) >= least
            running = [job for job in staying if job.state is State.RUNNING]
            assert not most or len(running) <= most
            assert self.told(id) == known.times, "each time that came is decided"

    # ------------------------------------------------------------------------------------- always

    def told(self, id: ClusterId) -> list[datetime]:
        """The times that the ledger speaks of."""
        firings, _ = self.store.firings(id, 0, 10_000)
        found: list[datetime] = []
        for one in reversed(firings):
            if one.count == 1:
                assert one.at == one.until
                found.append(one.at)
                continue
            assert one.outcome is Outcome.MISSED
            times = next(
                times
                for cron in CRONS
                if (times := schedule(cron, ZONE).upcoming(one.at - timedelta(seconds=1), one.count))[-1]
                == one.until
                and times[0] == one.at
            )
            found += times
        return found

    @invariant()
    def no_time_is_decided_twice(self) -> None:
        for id, known in self.known.items():
            told = self.told(id)
            assert all(one < other for one, other in pairwise(told))
            assert told == known.times[: len(told)], "none is left out"

    @invariant()
    def there_are_never_more_jobs_than_may_be(self) -> None:
        for id, known in self.known.items():
            live = len(self.store.live_jobs(id))
            assert live <= known.bound
            known.bound = max(known.most, live)

    def teardown(self) -> None:
        if hasattr(self, "other"):
            self.settle()


def test_whatever_happens_clusters_keep_what_they_promise() -> None:
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
