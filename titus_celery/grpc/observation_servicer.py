"""Observing with a place for each event: our own addition beside the Titus API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import grpc.aio

from titus_celery.core.model import JobId
from titus_celery.grpc.framing import field, part
from titus_celery.grpc.hub import Told
from titus_celery.grpc.ids import job_id_from
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto.titus_celery_v1_pb2_grpc import ObservationServiceServicer
from titus_celery.grpc.streams import Beginning, Progress, Streams

__all__ = ["Observations"]

_POSITION: Final = part(v1.JobEvent, "position")
_NOTIFICATION: Final = part(v1.JobEvent, "notification")

Context = grpc.aio.ServicerContext[Any, Any]


class Observations(ObservationServiceServicer):
    """The streams of the Titus API, each event with its place."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def ObserveJob(self, request: v1.ObserveJobRequest, context: Context) -> AsyncGenerator[Any]:
        """A job and what happens to it, to its end."""
        return self._observe(job_id_from(request.job_id, "job_id"), request.resume)

    def ObserveJobs(self, request: v1.ObserveJobsRequest, context: Context) -> AsyncGenerator[Any]:
        """All live jobs and what happens to any."""
        return self._observe(None, request.resume)

    async def _observe(self, job_id: JobId | None, resume: str) -> AsyncGenerator[Any]:
        beginnings: list[Beginning] = []

        async def begin(beginning: Beginning) -> None:
            beginnings.append(beginning)

        events = self._streams.observe(job_id, resume, begin, Progress())
        async with aclosing(events):
            async for told in events:
                while beginnings:
                    yield _event_of(beginnings.pop())
                yield _framed(told)


def _event_of(beginning: Beginning) -> v1.JobEvent:
    first = v1.Beginning(resumed=beginning.is_resumed, why_not=beginning.why_not)
    return v1.JobEvent(position=beginning.position if beginning.is_resumed else "", beginning=first)


def _framed(told: Told) -> bytes:
    return field(_POSITION, told.position.encode()) + field(_NOTIFICATION, told.message)
