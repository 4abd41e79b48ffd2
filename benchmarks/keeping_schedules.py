"""How late the times of many clusters' schedules are decided, and what schedules cost that are not due.

    python benchmarks/keeping_schedules.py [--due N ...] [--far N ...] [--idle N ...] [--passes N]

It fills a store of its own with Mantis clusters whose schedules have a time in one and the same second, lets
one control's timer keep them, and reads from the ledgers how long after that second each was decided, by the
store's clock; its job is on record some 2 ms later. Its reference is the bare creation of as many such jobs,
one after another by one thread, through the same write path. Wanted: of 200 clusters 99 in 100 are
decided within a second, and 1,000 take as much more as they are more.

The same once more for clusters whose images are in a registry that takes a tenth of a second for a question
(time that passes, no processor's time): one image of all, and one for each.

Then it compares a pass of control, and a look ahead, over a store with 10 clusters of which none is due with
one over 10,000. The bounds are told, not asserted: the exit code is 0 if everything could be measured.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from comparison import ninety_ninth, verdict
from stage import store
from stock import described

from titus_celery.adapters.background_calls import BackgroundCalls
from titus_celery.adapters.cluster_store import ClusterStore
from titus_celery.adapters.cron_times import schedule
from titus_celery.adapters.image_resolver import RoutedResolver, who_is_asked
from titus_celery.adapters.inventory_resolver import InventoryResolver
from titus_celery.adapters.leases import LeaseStore
from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.store import RecordStore
from titus_celery.adapters.subscribers import SubscriberStore
from titus_celery.adapters.system import SystemClock, SystemIds
from titus_celery.bootstrap import LOOKUPS_MAX, LOOKUPS_OF_EACH
from titus_celery.core.cluster import ClusterDescriptor, MantisRules, Outcome
from titus_celery.core.descriptor import Image, JobDescriptor, JobType, MantisSpec, Stage
from titus_celery.core.jobs import created
from titus_celery.core.model import Caller, ClusterId, EngineId, JobId
from titus_celery.service.ahead import Ahead
from titus_celery.service.change import WritePath
from titus_celery.service.clusters import JobClusters
from titus_celery.service.creation import Creation, Intake
from titus_celery.service.foresight import AHEAD, Begin, Foresight
from titus_celery.service.keeper import Keeper
from titus_celery.service.sweep import Sweep
from titus_celery.service.timer import Timer
from titus_celery.settings import Settings

#: The image of `described`, by its name.
AGENTS_HAVE: Final = "team/worker:1.42"
ANN: Final = Caller(id="ann", email="ann@example.com")
#: What of 200 clusters 99 in 100 may be late by, in seconds.
LATENESS_BOUND: Final = 1.0
#: A pass over so many more schedules that are not due, in passes over few.
IDLE_BOUND: Final = 1.2
#: From when the clusters are made until their time comes, at least.
LEAD: Final = AHEAD + timedelta(seconds=2)
#: Seconds until a registry has answered a question.
REGISTRY_TAKES: Final = 0.1
#: Between two looks whether all were decided, in seconds.
_LOOK: Final = 0.2
#: Clusters made in a second, at least: so long the making may take.
PACE: Final = 150


class Registry:
    """Knows every image, and takes its time to say so."""

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self, image: Image) -> Image:
        """The image, with an id."""
        self.asked += 1
        time.sleep(REGISTRY_TAKES)
        return replace(image, id="sha256:1")


class Installation:
    """Control and the use cases over one store."""

    def __init__(self, url: str, begin: Begin) -> None:
        settings, clock, ids = Settings(), SystemClock(), SystemIds()
        keyspace = RedisKeyspace(url, settings.namespace)
        self.records, limits = RecordStore(keyspace), settings.limits()
        self.writes = WritePath(self.records, MemoryQueue())
        self.stored = ClusterStore(keyspace)
        registry = AgentStore(keyspace)
        image = template().container_of(0).image
        registry.report_images(EngineId("engine-1"), {image.name: image.id})
        self.clusters = JobClusters(
            records=self.records,
            clusters=self.stored,
            writes=self.writes,
            calendar=schedule,
            ids=ids,
            limits=limits,
            clock=clock,
        )
        self.far = Registry()
        images = RoutedResolver(self.far, InventoryResolver(registry))
        foresight = Foresight(images, clock, who_is_asked, begin)
        keeper = Keeper(
            clusters=self.stored,
            writes=self.writes,
            creation=Creation(foresight, limits),
            intake=Intake(self.records, clock),
            calendar=schedule,
            ids=ids,
            limits=limits,
            firings_kept=timedelta(days=settings.keep_days),
        )
        self.ahead = Ahead(self.records, keeper, foresight)
        self.sweep = Sweep(
            records=self.records,
            registry=registry,
            leases=LeaseStore(keyspace),
            writes=self.writes,
            spans=settings.spans(),
            lost_after=settings.agent_lost_after,
            clock=clock,
            subscribers=SubscriberStore(keyspace),
            keeper=keeper,
            ahead=self.ahead,
        )

    def make(self, images: Sequence[str], cron: str) -> Sequence[ClusterId]:
        """A cluster with this schedule for each of these images."""
        rules = MantisRules(cron=cron)
        plain = ClusterDescriptor(name="bench", kind=JobType.MANTIS, rules=rules)
        return [
            self.clusters.create(replace(plain, template=named(template(), image)), ANN) for image in images
        ]


def template() -> JobDescriptor:
    """A Mantis job of one worker."""
    plain = described(0)
    container = replace(plain.containers["main"], image=plain.containers["main"].image)
    stages = (Stage(desired=1, container_id="main"),)
    spec = MantisSpec(name="bench", stages=stages)
    return replace(plain, spec=spec, containers={"main": container})


def named(job: JobDescriptor, image: str) -> JobDescriptor:
    """*job* with an image by name alone, as people write it."""
    return replace(job, containers={"main": replace(job.containers["main"], image=Image(name=image))})


def lateness(url: str, images: Sequence[str], begin: Begin) -> tuple[list[float], int]:
    """How late, in seconds, each of the clusters of these images that are due at once was decided, and how
    often the registry was asked."""
    here, count = Installation(url, begin), len(images)
    at = (here.records.now() + LEAD + timedelta(seconds=count / PACE)).replace(microsecond=0)
    ids = here.make(images, f"{at.second} {at.minute} {at.hour} {at.day} {at.month} ? {at.year}")
    if here.records.now() >= at:
        raise SystemExit(f"benchmark: {count} clusters could not be made in time")
    stop = threading.Event()
    duties = [Timer(here.records, here.sweep).run, here.ahead.run]
    threads = [threading.Thread(target=duty, args=(stop,), daemon=True) for duty in duties]
    for thread in threads:
        thread.start()
    # Looked at seldom, and read only afterwards: whoever reads meanwhile slows what is measured.
    while here.records.live_jobs(0, 1)[1] < count:
        time.sleep(_LOOK)
    stop.set()
    for thread in threads:
        thread.join()
    return [(decided(here, id, at) - at).total_seconds() for id in ids], here.far.asked


def decided(here: Installation, id: ClusterId, at: datetime) -> datetime:
    """When the cluster's time was decided."""
    [one], _ = here.stored.firings(id, 0, 10)
    if (one.at, one.outcome) != (at, Outcome.FIRED):
        raise SystemExit(f"benchmark: cluster {id}: {one}")
    return one.decided_at


def bare(url: str, count: int) -> float:
    """Seconds that the creation of so many such jobs takes, one after another."""
    here, ids = Installation(url, nothing), SystemIds()
    began = time.perf_counter()
    for _ in range(count):
        id = JobId(ids.new())
        here.writes.create(lambda now, id=id: created(id, template(), "bench", now))  # type: ignore[misc]
    return time.perf_counter() - began


def idle_passes(url: str, counts: Sequence[int], passes: int) -> list[list[float]]:
    """Seconds of each of so many passes over a store with so many clusters, none of them due."""
    here, made, times = Installation(url, nothing), 0, []
    for count in counts:
        here.make([AGENTS_HAVE] * (count - made), "0 0 0 1 1 ? 2098")
        made = count
        here.sweep.run()
        here.ahead.look()
        spans = []
        for _ in range(passes):
            began = time.perf_counter()
            here.sweep.run()
            here.ahead.look()
            spans.append(time.perf_counter() - began)
        times.append(spans)
    return times


def nothing(whose: str, call: Callable[[], None]) -> None:
    """What begins nothing, for who has nothing to look up."""


def tell_late(what: str, images: Sequence[str], begin: Begin) -> None:
    """Measure the lateness of clusters of these images, and print it."""
    count = len(images)
    with store() as url:
        alone = bare(url, count)
    with store() as url:
        late, asked = lateness(url, images, begin)
    print(f"{count:,} clusters due in the same second, {what}: decided after")
    middle, slow, last = statistics.median(late), ninety_ninth(late), max(late)
    print(f"  median {middle:.3f} s   p99 {slow:.3f} s   last {last:.3f} s")
    print(f"  as many jobs made one after another take {alone:.3f} s")
    if asked:
        alone = count * REGISTRY_TAKES
        print(f"  the registry was asked {asked:,} times; once for each of them would take {alone:.0f} s")
    print(f"  {verdict('p99 in seconds', slow, most=LATENESS_BOUND * count / 200)}")


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--due", type=int, nargs="*", default=[200, 1_000])
    parser.add_argument("--far", type=int, nargs="*", default=[200, 1_000])
    parser.add_argument("--idle", type=int, nargs="*", default=[10, 10_000])
    parser.add_argument("--passes", type=int, default=200)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    begin = BackgroundCalls("look up image", at_once=LOOKUPS_MAX, of_each=LOOKUPS_OF_EACH).begin
    for count in arguments.due:
        tell_late("images that agents have", [AGENTS_HAVE] * count, begin)
    for count in arguments.far:
        tell_late("one image of a registry", ["registry.test/app:1"] * count, begin)
        tell_late("each an image of a registry", [f"registry.test/app-{n}:1" for n in range(count)], begin)
    if arguments.idle:
        with store() as url:
            times = idle_passes(url, arguments.idle, arguments.passes)
        for count, spans in zip(arguments.idle, times, strict=True):
            middle = statistics.median(spans)
            print(f"a pass over {count:,} clusters of which none is due: median {middle * 1e3:.2f} ms")
        ratio = statistics.median(times[-1]) / statistics.median(times[0])
        print(f"  {verdict('the last in the first', ratio, most=IDLE_BOUND)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
