"""Of very many jobs the newest, without reading all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from titus_celery.client import TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["newest", "of_all"]

#: Jobs asked for at a time, at most: as many as a server answers with.
PAGE_MAX: Final = 1_000

Criteria = Mapping[str, str]


def newest(
    client: TitusClient, criteria: Criteria, fields: Sequence[str], limit: int
) -> tuple[list[pb.Job], int]:
    """The newest jobs that match, newest first, and how many match; *limit* 0: all of them."""
    if not limit:
        jobs = list(client.ls(criteria, fields))[::-1]
        return jobs, len(jobs)
    size = min(limit, PAGE_MAX)
    first = client.find_jobs(criteria, fields, page_size=size)
    found: dict[str, pb.Job] = {}
    for number in range(max(first.pagination.totalPages, 1) - 1, -1, -1):
        page = client.find_jobs(criteria, fields, page=number, page_size=size) if number else first
        # What came and went between two pages moves the others: some come twice.
        found |= {job.id: job for job in reversed(page.items) if job.id not in found}
        if len(found) >= limit:
            break
    return list(found.values())[:limit], first.pagination.totalItems


def of_all(
    client: TitusClient, several: Sequence[Criteria], fields: Sequence[str], limit: int
) -> tuple[list[pb.Job], int]:
    """The same for jobs that match any of *several* criteria, which exclude each other."""
    parts = [newest(client, criteria, fields, limit) for criteria in several]
    # One that ended in between is among the live ones and among those that are over: as it is now.
    jobs = {job.id: job for part, _ in parts for job in part}
    ordered = sorted(jobs.values(), key=_made, reverse=True)
    return ordered[: limit or None], sum(total for _, total in parts)


def _made(job: pb.Job) -> tuple[str, str]:
    # Timestamps of the API have one form, so that texts compare as times do.
    return (job.stateChanges[0].timestamp if job.stateChanges else "", job.id)
