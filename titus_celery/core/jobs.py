"""The decisions about a whole job: created, killed, its kill carried on, settled.

A kill is one record. Carrying it to the tasks, and ending the job when all slots are over, are
steps of their own that may be repeated.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Decision, Wake
from titus_celery.core.lifecycle import first_task
from titus_celery.core.model import (
    ClusterId,
    Deadline,
    DeadlineKind,
    Job,
    JobDescriptor,
    JobId,
    KillIntent,
    StateChange,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State

__all__ = ["ARCHIVE_AFTER", "BATCH_CLUSTER", "created", "kill_requested", "settled"]

#: The built-in cluster of batch jobs that name none (A2).
BATCH_CLUSTER = ClusterId("00000000-0000-4000-8000-000000000001")

#: How long after its end a job and its tasks stay records of their own, because people look most at
#: what just ended: as long as the output of its last task can be read.
ARCHIVE_AFTER: Final = timedelta(minutes=10)


def created(job_id: JobId, descriptor: JobDescriptor, by: str, now: datetime) -> Decision:
    """A new batch job with all of its tasks, queued."""
    job = Job(
        id=job_id,
        cluster_id=BATCH_CLUSTER,
        descriptor=descriptor,
        created_by=by,
        history=(StateChange(state=State.QUEUED, at=now),),
    )
    tasks = tuple(first_task(job_id, slot, now) for slot in range(descriptor.batch.desired))
    return Decision(job=job, tasks=tasks, commands=(Wake(),))


def kill_requested(job: Job, intent: KillIntent) -> Decision:
    """The intent on record, and a deadline that carries it to the tasks; once is enough."""
    if job.kill is not None or job.state.is_final:
        return Decision(why="it is being killed or over")
    return Decision(
        job=job.with_intent(intent),
        arm=(Deadline(kind=DeadlineKind.FANOUT, entity=job.id, due=intent.at),),
        commands=(Wake(),),
    )


def settled(job: Job, has_open: bool, now: datetime) -> Decision:
    """The job's end, once no slot is open; some time later it is archived."""
    if job.state.is_final or has_open:
        return Decision(why="it is not to be settled")
    end = StateChange(
        state=State.FINISHED if job.slots_failed == 0 else State.FAILED,
        at=max(now, job.history[-1].at),
    )
    return Decision(
        job=replace(job, history=(*job.history, end), reason=_reason(job)),
        arm=(Deadline(kind=DeadlineKind.ARCHIVE, entity=job.id, due=end.at + ARCHIVE_AFTER),),
        disarm=((DeadlineKind.SETTLE, job.id),),
    )


def _reason(job: Job) -> Reason:
    if job.slots_failed == 0:
        return Reason(Code.NORMAL)
    if job.kill is not None:
        at = job.kill.at.isoformat(timespec="seconds")
        return Reason(Code.KILLED, f"by {job.kill.by} at {at}")
    slots = job.slots_ok + job.slots_failed
    return Reason(Code.FAILED, f"{job.slots_failed} of {slots} slots failed; first: {job.first_failure}")
