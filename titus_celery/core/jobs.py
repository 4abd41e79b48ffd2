"""The decisions about a whole job: created, killed, its kill carried on, settled.

A kill is one record. Carrying it to the tasks, and ending the job when all slots are over, are
steps of their own that may be repeated.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.decision import Decision, Wake
from titus_celery.core.descriptor import BatchSpec, JobDescriptor
from titus_celery.core.model import (
    ClusterId,
    Deadline,
    DeadlineKind,
    Job,
    JobId,
    KillIntent,
    Sent,
    StateChange,
)
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.sizing import exhausted, first_slots
from titus_celery.core.states import State

__all__ = ["ARCHIVE_AFTER", "BATCH_CLUSTER", "SERVICE_CLUSTER", "created", "kill_requested", "settled"]

#: The built-in clusters of batch and of service jobs that name none (A2).
BATCH_CLUSTER: Final = ClusterId("00000000-0000-4000-8000-000000000001")
SERVICE_CLUSTER: Final = ClusterId("00000000-0000-4000-8000-000000000002")

#: How long after its end a job and its tasks stay records of their own, because people look most at
#: what just ended: as long as the output of its last task can be read.
ARCHIVE_AFTER: Final = timedelta(minutes=10)


def created(
    job_id: JobId, descriptor: JobDescriptor, by: str, now: datetime, sent: Sent | None = None
) -> Decision:
    """A new job with its tasks, queued; of a very large one with the first of them."""
    is_batch = isinstance(descriptor.spec, BatchSpec)
    job = Job(
        id=job_id,
        cluster_id=BATCH_CLUSTER if is_batch else SERVICE_CLUSTER,
        descriptor=descriptor,
        created_by=by,
        sent=sent,
        history=(StateChange(state=State.QUEUED, at=now),),
    )
    return first_slots(job, now)


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
    """The job's end, once no slot is open and none is to be made; some time later it is archived."""
    if job.state.is_final or has_open or not (job.kill is not None or _is_spent(job)):
        return Decision(why="it is not to be settled")
    end = StateChange(
        state=State.FINISHED if _is_success(job) else State.FAILED, at=max(now, job.history[-1].at)
    )
    return Decision(
        job=replace(job, history=(*job.history, end), reason=_reason(job)),
        arm=(Deadline(kind=DeadlineKind.ARCHIVE, entity=job.id, due=end.at + ARCHIVE_AFTER),),
        disarm=((DeadlineKind.SETTLE, job.id),),
    )


def _is_spent(job: Job) -> bool:
    """Whether a job without open slots has none to come: of a service, which its owner may make larger
    at any time, only if all that it is to have were over for good (B3.3)."""
    spec = job.descriptor.spec
    if isinstance(spec, BatchSpec):
        return job.slots_made >= spec.desired
    return 0 < spec.desired <= exhausted(job)


def _is_success(job: Job) -> bool:
    spec = job.descriptor.spec
    return isinstance(spec, BatchSpec) and job.slots_ok == spec.desired


def _reason(job: Job) -> Reason:
    if _is_success(job):
        return Reason(Code.NORMAL)
    if job.kill is not None:
        at = job.kill.at.isoformat(timespec="seconds")
        return Reason(Code.KILLED, f"by {job.kill.by} at {at}")
    slots = job.slots_ok + job.slots_failed
    if isinstance(job.descriptor.spec, BatchSpec):
        why = f"{job.slots_failed} of {slots} slots failed"
    else:
        why = f"no slot may be restarted any more ({slots} used up their retries)"
    return Reason(Code.FAILED, f"{why}; first: {job.first_failure}" if job.first_failure else why)
