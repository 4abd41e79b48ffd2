"""What is asked of every new job: that it is valid, that its images are known, that the store has room."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Final

from titus_celery.core.descriptor import Image, JobDescriptor
from titus_celery.core.model import Caller
from titus_celery.core.validation import Limits, check, effective
from titus_celery.errors import AnswerPending, ImageMissing, InvalidRequest, StoreFull, Unavailable, Violation
from titus_celery.ports import Clock, ImageResolver, Memory, Records

__all__ = ["INTAKE_PERCENT", "MEMORY_FRESH", "Creation", "Intake"]

#: Of the store's memory (%): beyond it nothing new is taken in. The rest is for what is there to run,
#: end and be killed: a task's transitions, its log entries and its output take more than its creation.
INTAKE_PERCENT: Final = 80
#: How long what a process knows of the store's memory is good for: what is created meanwhile is far
#: less than the fifth that is left, and asking costs a round trip.
MEMORY_FRESH: Final = timedelta(seconds=1)


class Creation:
    """Makes of a description one that can be carried out."""

    def __init__(self, resolver: ImageResolver, limits: Limits) -> None:
        self._resolver = resolver
        self._limits = limits

    def prepared(self, descriptor: JobDescriptor, caller: Caller) -> JobDescriptor:
        """With defaults filled in and each image resolved (docs/semantics.md A20).

        InvalidRequest with every violation, an unknown image among them; Unsupported for what this release
        lacks; Unavailable if an image cannot be looked up now.
        """
        job = effective(descriptor, caller, self._limits)
        found = check(job, self._limits)
        try:
            job, missing = self._pinned(job, {violation.field for violation in found})
        except Unavailable:
            # What is wrong already stays wrong: nobody should try again because of the image.
            if found:
                raise InvalidRequest(found) from None
            raise
        if found or missing:
            raise InvalidRequest([*found, *missing])
        return job

    def images(self, descriptor: JobDescriptor, caller: Caller) -> frozenset[Image]:
        """Those that `prepared` may resolve."""
        job = effective(descriptor, caller, self._limits)
        return frozenset(container.image for container in job.containers.values())

    def _pinned(self, job: JobDescriptor, faulty: set[str]) -> tuple[JobDescriptor, list[Violation]]:
        """*job* with each image resolved, and a violation for each that nobody knows (A20)."""
        containers, missing, pending = {}, [], []
        for key, container in job.containers.items():
            path = f"containers[{key}].image"
            if faulty.isdisjoint({path, f"{path}.name"}):
                try:
                    container = replace(container, image=self._resolver.resolve(container.image))
                except ImageMissing as error:
                    why = str(error) if error.why else f"no engine has the image {error.image!r}"
                    missing.append(Violation(path, why))
                except AnswerPending as error:
                    # Meanwhile the others are asked for, too.
                    pending.append(error)
            containers[key] = container
        if pending:
            raise pending[0]
        return replace(job, containers=containers), missing


class Intake:
    """Whether the store has room for new jobs (docs/semantics.md A17)."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[Memory, timedelta] | None = None

    def check(self) -> None:
        """StoreFull if it has none."""
        memory = self._memory()
        if memory.maximum and memory.used * 100 >= memory.maximum * INTAKE_PERCENT:
            raise StoreFull(memory.used, memory.maximum)

    def _memory(self) -> Memory:
        with self._lock:
            now = self._clock.monotonic()
            if self._known is None or now - self._known[1] >= MEMORY_FRESH:
                self._known = self._records.memory(), now
            return self._known[0]
