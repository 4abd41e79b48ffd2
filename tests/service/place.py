"""An installation without agents, in which jobs end by being killed: for what happens afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.service.world import ANN, World, a_job
from titus_celery.adapters.archive import Archive
from titus_celery.adapters.keys import Keys
from titus_celery.adapters.leases import LeaseStore
from titus_celery.core.descriptor import Image
from titus_celery.core.model import (
    JobId,
)
from titus_celery.core.retention import Keep
from titus_celery.core.states import State
from titus_celery.errors import NotFound
from titus_celery.service.retention import Retention

__all__ = ["EVERYTHING", "KEYS", "Place", "Resolver"]

KEYS = Keys("titus")
EVERYTHING = Keep(age=timedelta(days=15), jobs=100_000, bytes=2**30)


class Resolver:
    """Every name is an image."""

    def resolve(self, image: Image) -> Image:
        return replace(image, id="sha256:1")


class Place(World):
    """A world without agents, in which jobs end by being killed."""

    def __init__(self) -> None:
        super().__init__(Resolver())
        self.archive = Archive(self.keyspace)

    def over(self, desired: int = 1) -> JobId:
        """A job that was created and killed a second later, and is over."""
        id = self.create(a_job(desired))
        self.sleep(1)
        self.jobs.kill(id, ANN)
        self.sweep()
        assert self.job(id).state is State.FAILED
        return id

    def later(self, seconds: float) -> None:
        """So much later, control looks for work."""
        self.sleep(seconds)
        self.sweep()

    def retention(self, log_bytes_max: int = 2**40, **keep: object) -> Retention:
        """Another control's retention."""
        return Retention(
            retained=self.archive,
            leases=LeaseStore(self.keyspace),
            keep=replace(EVERYTHING, **keep),  # type: ignore[arg-type]  # its fields, by name
            log_bytes_max=log_bytes_max,
        )

    def is_archived(self, id: JobId) -> bool:
        """Whether it is one record."""
        return self.keyspace.blob(KEYS.archive(id)) is not None

    def is_kept(self, id: JobId) -> bool:
        """Whether it can be found."""
        try:
            return self.jobs.find(id).job.id == id
        except NotFound:
            return False
