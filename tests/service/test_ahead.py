"""Schedules whose images are in a registry: looked up before the time comes, and never waited for."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.service.control import ahead, sweep
from tests.service.mantis import a_cluster, live, mantis_job
from tests.service.schedules import AWAY, Registry, fails, go, outcomes, record, scheduled, told
from tests.service.world import ANN, LIMITS, LOST_AFTER, SPANS, World
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.steps import Delete, HashSet, Kind
from titus_celery.core.descriptor import Image, JobDescriptor
from titus_celery.core.model import Deadline, DeadlineKind
from titus_celery.errors import ImageMissing, StoreUnavailable, Unavailable
from titus_celery.service.ahead import LOOK_PERIOD, Ahead
from titus_celery.service.foresight import AHEAD, Foresight

#: Each ten minutes, on the minute; stories begin on one.
TEN_MINUTELY = "0 0/10 * * * ?"
TEN_MINUTES = 600


class Far(Registry):
    """A registry whose answers are carried by hand, unless it answers at once."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        #: What it was asked for and did not answer yet.
        self.begun: dict[str, Callable[[], None]] = {}
        self._next = ""
        self.is_prompt = True
        #: How many questions were open each time somebody began to wait.
        self.waits: list[int] = []
        self.first: Callable[[], None] = lambda: None

    def resolve(self, image: Image) -> Image:
        """The image, with an id."""
        self.asked.append(image.name)
        return super().resolve(image)

    def of(self, image: Image) -> str:
        """All images are here."""
        self.first()
        self._next = image.name
        return "registry.test"

    def begin(self, registry: str, call: Callable[[], None]) -> None:
        """Take a question."""
        self.begun[self._next] = call
        if self.is_prompt:
            self.answer(self._next)

    def answer(self, *names: str) -> None:
        """Answer what was asked, or only that about these."""
        for name in names or list(self.begun):
            self.begun.pop(name)()

    def wait(self, answer: Future[Image], span: timedelta) -> None:
        """Somebody waits in vain."""
        self.waits.append(len(self.begun))
        self.world.passed += span
        assert not answer.done()


def ready() -> tuple[World, Far, Ahead]:
    """An installation whose control looks ahead, a far registry, and that look."""
    registry = Far()
    world = registry.world = World(registry)
    seen = Foresight(registry, world, registry.of, registry.begin, registry.wait)
    parts = (world.keyspace, world.records, world.registry, world.writes, seen)
    world.control = sweep(*parts, (LIMITS, SPANS, LOST_AFTER), world)
    world.control.look()
    return world, registry, ahead(world.keyspace, world.writes, seen, LIMITS, world)


def of_image(name: str) -> JobDescriptor:
    """A Mantis job of this image."""
    plain = mantis_job()
    container = replace(plain.containers["stage0"], image=Image(name=name))
    return replace(plain, containers={"stage0": container})


def test_images_are_looked_up_shortly_before_their_time() -> None:
    world, registry, look = ready()
    id = scheduled(world, TEN_MINUTELY)
    world.sleep(TEN_MINUTES - AHEAD.total_seconds() - 0.001)
    look.look()
    assert registry.asked == []
    world.sleep(0.001)
    look.look()
    look.look()
    assert registry.asked == ["app:1"]
    # What becomes of the registry meanwhile does not matter any more.
    registry.before = AWAY
    world.sleep(AHEAD.total_seconds())
    world.sweep()
    assert outcomes(world, id) == [(TEN_MINUTES, "fired")]
    assert registry.asked == ["app:1"]


def test_of_many_that_are_due_at_once_each_image_is_asked_for_once_and_all_are_at_once() -> None:
    world, registry, _ = ready()
    registry.is_prompt = False
    ids = [scheduled(world, TEN_MINUTELY, template=of_image(f"app:{number % 3}")) for number in range(12)]
    world.sleep(TEN_MINUTES)
    world.sweep()
    assert registry.waits == [3]
    registry.answer()
    go(world, 2)
    assert sorted(registry.asked) == ["app:0", "app:1", "app:2"]
    assert {tuple(outcomes(world, id)) for id in ids} == {((TEN_MINUTES, "fired"),)}


def test_a_registry_that_does_not_answer_holds_up_its_own_clusters_alone() -> None:
    world, registry, _ = ready()
    mine = scheduled(world, TEN_MINUTELY)
    other = scheduled(world, TEN_MINUTELY, template=of_image("other:1"))
    world.sleep(TEN_MINUTES - 1)
    registry.is_prompt = False
    world.sleep(1)
    world.sweep()
    registry.answer("other:1")
    go(world, 2)
    assert outcomes(world, other) == [(TEN_MINUTES, "fired")]
    why = "imageUnresolved: the registry of app:1 is unavailable: it has not answered yet"
    assert record(world, mine).held_up == why
    go(world, 10)
    registry.answer()
    go(world, 2)
    assert outcomes(world, mine) == [(TEN_MINUTES, "fired")]


def test_a_registry_that_never_answers_is_the_reason_why_a_time_was_missed() -> None:
    world, registry, _ = ready()
    registry.is_prompt = False
    id = scheduled(world, TEN_MINUTELY)
    world.sleep(TEN_MINUTES)
    go(world, 62)
    why = "imageUnresolved: the registry of app:1 is unavailable: it has not answered yet"
    assert told(world, id) == [(TEN_MINUTES, 1, "missed", why)]


def after_a_while(world: World, registry: Far, seconds: int) -> None:
    """Let time pass in which each question is answered after 0.7 s, which is longer than anybody waits."""
    registry.is_prompt = False
    asked: dict[str, float] = {}
    for _ in range(seconds * 10):
        world.sleep(0.1)
        world.sweep()
        now = world.passed.total_seconds()
        for name in list(registry.begun):
            if now - asked.setdefault(name, now) >= 0.7:
                del asked[name]
                registry.answer(name)


def test_why_a_slow_registry_has_no_image_is_known_in_time() -> None:
    world, registry, _ = ready()
    id = scheduled(world, TEN_MINUTELY)
    registry.before = fails(ImageMissing("app:1", "its registry does not have it"))
    world.sleep(TEN_MINUTES - 1)
    after_a_while(world, registry, 5)
    ((_, _, outcome, why),) = told(world, id)
    assert (outcome, "its registry does not have it" in why) == ("missed", True)


@pytest.mark.parametrize(
    "error", [ImageMissing("app:1", "it has it not"), Unavailable("the registry", "it answers 503")]
)
def test_why_a_floor_is_not_made_up_is_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world, registry, _ = ready()
    world.clusters.create(a_cluster(min=1, max=1), ANN)
    registry.before = fails(error)
    after_a_while(world, registry, 30)
    warnings = caplog.text.count("lacks a job that cannot be made for now")
    assert warnings >= 3
    assert caplog.text.count(str(error)) >= warnings
    # It is not asked more often than that.
    assert len(registry.asked) <= 6


def test_a_floor_is_made_up_as_soon_as_its_image_is_known() -> None:
    world, registry, _ = ready()
    registry.is_prompt = False
    id = world.clusters.create(a_cluster(min=2, max=2), ANN)
    world.sweep()
    assert live(world, id) == []
    registry.answer()
    go(world, 2)
    assert len(live(world, id)) == 2
    assert registry.asked == ["app:1"]


def test_all_images_of_a_job_are_asked_for_at_once() -> None:
    world, registry, _ = ready()
    registry.is_prompt = False
    one, two = of_image("app:1"), of_image("app:2")
    spec = mantis_job(1, 1).spec
    containers = {"stage0": one.containers["stage0"], "stage1": two.containers["stage0"]}
    template = replace(one, spec=spec, containers=containers)
    id = world.clusters.create(a_cluster(min=1, max=1, template=template), ANN)
    world.sweep()
    assert sorted(registry.begun) == ["app:1", "app:2"]
    registry.answer()
    go(world, 2)
    assert len(live(world, id)) == 1


def test_what_was_due_is_not_remembered() -> None:
    world, _, look = ready()
    ids = [scheduled(world, "0/10 * * * * ?") for _ in range(3)]
    for _ in range(100):
        world.sleep(1)
        look.look()
        world.sweep()
    assert all(outcomes(world, id) for id in ids)
    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, Deadline) and one.kind is DeadlineKind.CRON]
    assert len([one for one in kept if one.entity in ids]) <= 2 * len(ids)


def test_a_new_template_is_looked_up_in_the_place_of_the_old_one() -> None:
    world, _, look = ready()
    id = scheduled(world, TEN_MINUTELY)
    world.sleep(TEN_MINUTES - 4)
    look.look()
    world.clusters.update(id, a_cluster(cron=TEN_MINUTELY, template=of_image("app:2")), ANN)
    world.sleep(4)
    world.sweep()
    (job_id,) = live(world, id)
    assert world.job(job_id).descriptor.containers["stage0"].image.name == "app:2"


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_broken_or_missing_cluster_does_not_keep_others_from_being_looked_ahead_for(is_gone: bool) -> None:
    world, registry, look = ready()
    broken = scheduled(world, TEN_MINUTELY)
    scheduled(world, TEN_MINUTELY, template=of_image("other:1"))
    key = Keys(world.keyspace.namespace).cluster(broken)
    world.keyspace.transact([], [Delete(key, Kind.HASH) if is_gone else HashSet(key, {"record": "rubbish"})])
    world.sleep(TEN_MINUTES - 1)
    look.look()
    assert registry.asked == ["other:1"]


class Ticks(threading.Event):
    """Set once it was waited for so often."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def wait(self, timeout: float | None = None) -> bool:
        """Whether there is no tick left."""
        assert timeout == LOOK_PERIOD.total_seconds()
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("fault", [StoreUnavailable("connection refused"), ZeroDivisionError("ours")])
def test_looking_goes_on_whatever_went_wrong(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world, registry, look = ready()
    scheduled(world, TEN_MINUTELY)
    world.sleep(TEN_MINUTES - 1)
    faults = [fault]
    registry.first = lambda: fails(faults.pop())() if faults else None
    look.run(Ticks(1))
    assert registry.asked == []
    assert str(fault) in caplog.text
    look.run(Ticks(1))
    assert registry.asked == ["app:1"]
