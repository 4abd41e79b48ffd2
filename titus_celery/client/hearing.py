"""What an observer hears of a stream of events that is opened again and again: each change once.

The stream is one of `titus_celery.v1.ObservationService`, whose events say their place. From a place the
server goes on with what its change log says, which may begin with what was told before and may hold what
concerns nobody outside; both are told apart here, by what was heard of the tasks that live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from titus_celery.client.streams import Disconnected, Reconnected
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["Heard", "Hearing"]

Heard = pb.JobChangeNotification | Disconnected | Reconnected

_FINAL: Final = frozenset({pb.FINISHED, pb.FAILED})
#: Bytes that stand for how a task looks: too many for two looks to have the same.
_DIGEST_SIZE: Final = 16


class Hearing:
    """How far an observer has heard, and what of a task was the last that it heard."""

    def __init__(self) -> None:
        #: From where a new connection is to go on; empty: from a snapshot.
        self.position = ""
        self._live: dict[str, bytes] = {}
        self._is_back = False

    def take(self, item: v1.JobEvent | Disconnected | Reconnected) -> Iterator[Heard]:
        """What the observer hears of what the connections bring."""
        match item:
            case Disconnected():
                yield item
            case Reconnected():
                # The event that it came with says whether the stream goes on.
                self._is_back = True
            case v1.JobEvent():
                yield from self._event(item)

    def _event(self, event: v1.JobEvent) -> Iterator[Heard]:
        if event.HasField("beginning"):
            yield from self._begin(event.beginning)
        elif self._is_news(event.notification):
            yield event.notification
        # A part of a snapshot has no place, and keeps none.
        self.position = event.position

    def _begin(self, beginning: v1.Beginning) -> Iterator[Heard]:
        if not beginning.resumed:
            self._live.clear()
        if self._is_back:
            self._is_back = False
            yield Reconnected(beginning.resumed, beginning.why_not)

    def _is_news(self, told: pb.JobChangeNotification) -> bool:
        match told.WhichOneof("notification"):
            case "jobSnapshot":
                for task in told.jobSnapshot.job.tasks:
                    self._is_news_of(task)
            case "taskUdate":
                return self._is_news_of(told.taskUdate.task)
            case "snapshotEnd":
                # A stream that goes on begins with one.
                return not self.position
        return True

    def _is_news_of(self, task: pb.Task) -> bool:
        if task.state.state in _FINAL:
            # Whoever did not hear of it while it lived, heard of its end, or was to hear of neither.
            return self._live.pop(task.id, None) is not None
        look = hashlib.blake2b(task.SerializeToString(deterministic=True), digest_size=_DIGEST_SIZE).digest()
        is_new = self._live.get(task.id) != look
        self._live[task.id] = look
        return is_new
