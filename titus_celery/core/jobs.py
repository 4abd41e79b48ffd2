"""The decisions about a whole job: created, killed, its kill carried on, settled.

A kill is one record. Carrying it to the tasks, and ending the job when all slots are over, are
steps of their own that may be repeated.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from titus_celery.core.cluster import built_in
from titus_celery.core.decision import Decision, Wake
from titus_celery.core.descriptor import BatchSpec, JobDescriptor, MantisSpec, ServiceSpec
from titus_celery.core.mantis import TOO_MANY, ends_by_itself, keep_of
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
from titus_celery.core.sizing import first_slots, is_spent
from titus_celery.core.states import State

__all__ = ["ARCHIVE_AFTER", "created", "kill_requested", "settled"]

#: What may stand for a job when it ends: of one without stages, the first of them.
_DEADLINES: Final = (
    DeadlineKind.SETTLE,
    DeadlineKind.PROGRESS,
    DeadlineKind.EXPIRE,
    DeadlineKind.IDLE,
    DeadlineKind.ABANDON,
)

#: How long after its end a job and its tasks stay records of their own, because people look most at
#: what just ended: as long as the output of its last task can be read.
ARCHIVE_AFTER: Final = timedelta(minutes=10)


def created(
    job_id: JobId, descriptor: JobDescriptor, by: str, now: datetime, sent: Sent | None = None
) -> Decision:
    """A new job with its tasks, queued; of a very large one with the first of them."""
    job = Job(
        id=job_id,
        cluster_id=ClusterId(descriptor.cluster_id) or built_in(descriptor.spec).id,
        descriptor=descriptor,
        created_by=by,
        sent=sent,
        history=(StateChange(state=State.QUEUED, at=now),),
    )
    first = first_slots(job, now)
    return replace(first, arm=(*first.arm, *ends_by_itself(job, now)))


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
    if job.state.is_final or has_open or not (job.kill is not None or is_spent(job)):
        return Decision(why="it is not to be settled")
    end = StateChange(
        state=State.FINISHED if _is_success(job) else State.FAILED, at=max(now, job.history[-1].at)
    )
    return Decision(
        job=replace(job, history=(*job.history, end), reason=_reason(job)),
        arm=(
            Deadline(kind=DeadlineKind.ARCHIVE, entity=job.id, due=end.at + ARCHIVE_AFTER),
            *keep_of(job, now),
        ),
        disarm=tuple((kind, job.id) for kind in (_DEADLINES if job.is_staged else _DEADLINES[:1])),
        commands=(Wake(),) if job.is_staged else (),
    )


def _is_success(job: Job) -> bool:
    spec = job.descriptor.spec
    match spec:
        case BatchSpec():
            return job.slots_ok == spec.desired
        case MantisSpec():
            # Ended by a rule of its own that is no failure, or by its workers.
            return job.kill.is_success if job.kill else not job.slots_failed
        case ServiceSpec():
            return False


def _reason(job: Job) -> Reason:
    if job.kill is not None and job.kill.reason is not None:
        return job.kill.reason
    if _is_success(job):
        return Reason(Code.NORMAL)
    if job.kill is not None:
        at = job.kill.at.isoformat(timespec="seconds")
        return Reason(Code.KILLED, f"by {job.kill.by} at {at}")
    slots = job.slots_ok + job.slots_failed
    if isinstance(job.descriptor.spec, ServiceSpec):
        why = f"no slot may be restarted any more ({slots} used up their retries)"
    elif job.is_staged:
        # All of its workers were over before it was abandoned.
        why = TOO_MANY
    else:
        why = f"{job.slots_failed} of {slots} slots failed"
    return Reason(Code.FAILED, f"{why}; first: {job.first_failure}" if job.first_failure else why)
