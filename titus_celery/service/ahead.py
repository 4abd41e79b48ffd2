"""Control's look ahead: images of the jobs that schedules are about to make are looked up before their time.

Without it every time of a schedule would be late by what a registry takes, and many that come in one second
would wait for it one after another. Nothing here decides anything: what it misses is looked up when due.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from titus_celery.core.descriptor import Image
from titus_celery.core.model import ClusterId, Deadline, DeadlineKind
from titus_celery.errors import NotFound, StoreCorrupt, Unavailable
from titus_celery.ports import Records
from titus_celery.service.foresight import AHEAD, Foresight
from titus_celery.service.keeper import Keeper

__all__ = ["LOOK_PERIOD", "Ahead"]

#: How often it looks, which shortens AHEAD by as much.
LOOK_PERIOD: Final = timedelta(seconds=1)
#: Deadlines of all kinds that it looks through for those of schedules: takes some 10 ms.
SEEN_MAX: Final = 5_000

_log = logging.getLogger(__name__)


class Ahead:
    """Foresees images for the schedules that are due soon. Threads may share it."""

    def __init__(self, records: Records, keeper: Keeper, foresight: Foresight) -> None:
        self._records = records
        self._keeper = keeper
        self._foresight = foresight
        #: Of the deadlines that were seen last. What an update changes meanwhile is looked up when it is due.
        self._images: Mapping[Deadline, frozenset[Image]] = {}

    def run(self, stop: threading.Event) -> None:
        """Look every second until *stop* is set; survives a store that is away."""
        while not stop.wait(LOOK_PERIOD.total_seconds()):
            try:
                self.look()
            except Unavailable as error:
                _log.warning("schedules are not looked ahead for: %s", error)
            except Exception:
                # A thread that ended here would silently make every schedule late.
                _log.exception("looking ahead failed; trying again")

    def look(self) -> None:
        """Begin to look up what jobs need that are due within AHEAD."""
        coming = self._records.due(self._records.now() + AHEAD, SEEN_MAX)
        self._images = self._foreseen(coming)

    def foresee(self, due: Iterable[Deadline]) -> None:
        """Begin to look up, all at once, what these need and nobody looked ahead for."""
        self._foreseen(due)

    def _foreseen(self, deadlines: Iterable[Deadline]) -> Mapping[Deadline, frozenset[Image]]:
        seen, images = self._images, {}
        for deadline in deadlines:
            if deadline.kind is DeadlineKind.CRON:
                images[deadline] = seen[deadline] if deadline in seen else self._needed(deadline)
                for image in images[deadline]:
                    self._foresight.foresee(image)
        return images

    def _needed(self, deadline: Deadline) -> frozenset[Image]:
        try:
            return self._keeper.images(ClusterId(deadline.entity))
        except (NotFound, StoreCorrupt):
            # Who acts on the deadline tells of it.
            return frozenset()
