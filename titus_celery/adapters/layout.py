"""What a change does to the store: one transaction's checks and writes. Pure: nothing is touched here.

Records, indexes, counters, reservations, deadlines and change log all follow from the same Change, so
that none can disagree with another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from titus_celery.adapters import keyspace as ks
from titus_celery.adapters import layout_clusters as clusters
from titus_celery.adapters import ledger, records
from titus_celery.adapters.codec import to_text
from titus_celery.adapters.keys import Keys, deadline_member, queued_member
from titus_celery.core.claims import ClaimKind, claims_of, key_left
from titus_celery.core.decision import Change, TaskChange
from titus_celery.core.jobs import ARCHIVE_AFTER
from titus_celery.core.model import AgentId, DeadlineKind, Job, JobId, StateChange
from titus_celery.core.states import State

__all__ = ["AGENT_EPOCH", "LOG_KEPT", "OUTPUT_KEPT", "Plan", "plan"]

#: How long the change log reaches back at least; a reader away for longer starts from a snapshot.
LOG_KEPT: Final = timedelta(minutes=20)
#: How long a finished task's output can still be read: its job is archived without it.
OUTPUT_KEPT: Final = ARCHIVE_AFTER

#: Field of an agent's hash: which holding of its lease is the last.
AGENT_EPOCH: Final = "epoch"

#: When what is to be done at once is due (ms). The end of a task does not say: it takes the date of the state
#: before if the clock was set back meanwhile.
_AT_ONCE: Final = 0
#: How a name is called that another job has.
_TAKEN: Final = {
    ClaimKind.SEQUENCE: "this jobGroupInfo.sequence of the application, stack and detail",
    ClaimKind.KEY: "this idempotency key",
    ClaimKind.USER_TYPE: "this userProvidedType of the cluster",
}
#: The furthest state that is not final; a job beyond it is over.
_LAST_OPEN_STATE: Final = max(state for state in State if not state.is_final)

#: The checks and the writes of one transaction.
Plan = tuple[list[ks.Check], list[ks.Write]]


def plan(keys: Keys, change: Change) -> Plan:
    """The transaction that makes *change* true.

    ValueError for a change that no decision should make: nobody's job, or a reservation without room.
    """
    # The lease comes first: who has lost it must hear that, not that a record moved on.
    checks: list[ks.Check] = list(_lease(keys, change))
    writes: list[ks.Write] = []
    parts = [*clusters.plan(keys, change)]
    if change.job_id is not None:
        parts.append(_job(keys, change.job_id, change))
        parts += (_task(keys, task) for task in change.tasks)
        parts.append(_room(keys, change.job_id, change))
    for part in parts:
        checks += part[0]
        writes += part[1]
    if change.job_id is not None:
        writes += _progress(keys, change.job_id, change)
    writes += _deadlines(keys, change)
    if change.job_after and change.job_after.state.is_final:
        # Last: what the change itself gives back is counted there, too.
        writes.append(ks.Delete(keys.spread(change.job_after.id), ks.Kind.HASH))
    writes += (ks.Append(keys.log, records.entry_fields(heard), LOG_KEPT) for heard in change.notifications)
    return checks, writes


def _lease(keys: Keys, change: Change) -> Iterator[ks.Check]:
    if under := change.under:
        key, what = keys.agent(under.agent_id), f"agent {under.agent_id}"
        yield ks.FieldIs(key, AGENT_EPOCH, str(under.epoch), what, fence=under)


def _job(keys: Keys, id: JobId, change: Change) -> Plan:
    key, what = keys.job(id), f"job {id}"
    before, after = change.job_before, change.job_after
    checks: list[ks.Check] = []
    writes: list[ks.Write] = []
    if before is None:
        if after is None:
            raise ValueError(f"{what}: a change needs the job as it was, or as it will be")
        checks.append(ks.Absent(key, ks.Kind.HASH, what))
        writes.append(ks.HashSet(key, records.new_job_fields(after)))
        writes.append(ks.SetAdd(keys.live, after.id, ks.to_ms(after.created_at)))
        writes.append(ks.SetAdd(keys.cluster_jobs(after.cluster_id), after.id, ks.to_ms(after.created_at)))
        for claim in claims_of(after):
            name = keys.claim(claim.kind, claim.name)
            # Who comes second hears of the name, not of an id that can only be new.
            checks.insert(0, ks.Absent(name, ks.Kind.TEXT, _TAKEN[claim.kind], name=True))
            writes.append(ks.TextSet(name, to_text(claim)))
        if change.jobs_max:
            checks.append(ks.RoomFor(keys.live, change.jobs_max, "jobs"))
    else:
        checks.append(ks.FieldIs(key, records.INTENT, str(before.intent), what))
        if change.tasks or after:
            checks.append(ks.AtMost(key, records.STATE, 0, _LAST_OPEN_STATE, what))
        if after:
            checks.append(ks.FieldIs(key, records.VERSION, str(before.version), what))
            writes.append(ks.HashSet(key, records.job_fields(before, after)))
            writes.append(ks.HashRaise(key, records.STATE, after.state, _times(after.history)))
    if after and after.state.is_final:
        # Slots that this very change closes are open until it is made.
        closing = sum(task.before is not None and _closes(task) for task in change.tasks)
        checks.append(ks.SizeIs(keys.open(after.id), closing, what))
        writes.append(ks.SetRemove(keys.live, after.id))
        writes.append(ks.SetRemove(keys.cluster_jobs(after.cluster_id), after.id))
        writes.append(ks.Delete(keys.subscribers(after.id), ks.Kind.SORTED))
        writes.append(ks.SetAdd(keys.over, after.id, ks.to_ms(after.history[-1].at)))
        writes += _released(keys, after)
    return checks, writes


def _released(keys: Keys, job: Job) -> Iterator[ks.Write]:
    """A job that is over lets go of its names; a key is kept for who repeats the request late."""
    for claim in claims_of(job):
        name = keys.claim(claim.kind, claim.name)
        if claim.kind is ClaimKind.KEY:
            yield ks.Expire(name, ks.Kind.TEXT, key_left(job.created_at, job.history[-1].at))
        else:
            yield ks.Delete(name, ks.Kind.TEXT)


def _task(keys: Keys, change: TaskChange) -> Plan:
    before, after = change.before, change.after
    key, what = keys.task(after.id), f"task {after.id}"
    writes: list[ks.Write] = [ks.HashSet(key, records.task_fields(after))]
    if after.is_open and not (before and before.is_open):
        writes.append(ks.SetAdd(keys.open(after.job_id), after.id, after.rank))
    if _closes(change):
        writes.append(ks.SetRemove(keys.open(after.job_id), after.id))
        writes.append(ks.SetAdd(keys.done(after.job_id), after.id, ks.to_ms(after.history[-1].at)))
    was_queued, is_queued = before is not None and before.state is State.QUEUED, after.state is State.QUEUED
    if is_queued and not was_queued:
        writes.append(ks.SetAdd(keys.queued, queued_member(after), ks.to_ms(after.history[0].at)))
    if was_queued and not is_queued:
        writes.append(ks.SetRemove(keys.queued, queued_member(after)))
    if after.state.is_final and not (before and before.state.is_final):
        writes.append(ks.Expire(keys.output(after.id), ks.Kind.STREAM, OUTPUT_KEPT))
    if before is None:
        return [ks.Absent(key, ks.Kind.HASH, what)], writes
    return [ks.FieldIs(key, records.VERSION, str(before.version), what)], writes


def _room(keys: Keys, id: JobId, change: Change) -> Plan:
    """Reservations follow from which tasks hold room, so that each is made and released exactly once."""
    # By field alone: a task that moves between two agents of one engine changes nothing of the engine.
    deltas: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    takers: dict[str, AgentId] = {}
    writes: list[ks.Write] = []
    for task in change.tasks:
        old, new = task.before.holds if task.before else None, task.after.holds
        for dispatch, sign in ((old, -1), (new, 1)):
            if dispatch:
                spread[dispatch.engine_id] += sign
                for field, amount in ledger.taken(dispatch).items():
                    deltas[field] += sign * amount
                    if sign > 0:
                        takers[field] = dispatch.agent_id
        if old and not (new and new.agent_id == old.agent_id):
            writes.append(ks.SetRemove(keys.agent_tasks(old.agent_id), task.after.id))
        if new and not (old and new.agent_id == old.agent_id):
            since = ks.to_ms(task.after.history[-1].at)
            writes.append(ks.SetAdd(keys.agent_tasks(new.agent_id), task.after.id, since))
    checks = list(_company(keys, id, change))
    for field, delta in deltas.items():
        if delta > 0 and (most := _limit(change, field)) is not None:
            checks.append(ks.AtMost(keys.ledger, field, delta, most, f"agent {takers[field]}", room=True))
        if delta:
            writes.append(ks.HashAdd(keys.ledger, field, delta))
    writes += (ks.HashAdd(keys.spread(id), engine, delta) for engine, delta in spread.items() if delta)
    return checks, writes


def _company(keys: Keys, id: JobId, change: Change) -> Iterator[ks.Check]:
    """That the other tasks on the engine are still such as the dispatch of this one asks for."""
    if (company := change.company) is None:
        return
    for order in (task.after.holds for task in change.tasks):
        if order:
            engine, what = order.engine_id, f"agent {order.agent_id}"
            own_exclusive = company.own if company.is_exclusive else 0
            exclusive = ledger.exclusive_field(engine)
            yield ks.AtMost(keys.ledger, exclusive, 0, own_exclusive, what, room=True)
            if company.is_exclusive:
                yield ks.AtMost(keys.ledger, ledger.tasks_field(engine), 0, company.own, what, room=True)
            if company.is_unique:
                yield ks.AtMost(keys.spread(id), engine, 0, 0, what, room=True)


def _limit(change: Change, field: str) -> int | None:
    if change.room is None:
        raise ValueError(f"job {change.job_id}: who reserves must say how much room there is")
    return ledger.limit(change.room, field)


def _progress(keys: Keys, id: JobId, change: Change) -> Iterator[ks.Write]:
    """A job is where the furthest of its tasks is (docs/semantics.md A6), and counts its slots."""
    key = keys.job(id)
    reached: dict[int, int] = {}
    over: Counter[str] = Counter()
    for task in change.tasks:
        known = task.before.history if task.before else ()
        if task.after.history != known:
            for level, at in _times(task.after.history).items():
                # Only all of its workers together can say that a Mantis job is RUNNING.
                if task.after.stage is None or level < State.RUNNING:
                    reached[level] = min(at, reached.get(level, at))
        # A slot that a service no longer wants is not over: it is gone.
        if _closes(task) and not (task.after.replaced_by or task.after.is_surplus):
            ok = task.after.state is State.FINISHED
            over[records.SLOTS_OK if ok else records.SLOTS_FAILED] += 1
            if task.after.stage is not None:
                over[f"{records.STAGE_OVER}{task.after.stage}"] += 1
            if not ok:
                yield ks.HashSetNew(key, records.FIRST_FAILURE, f"{task.after.id}: {task.after.reason or ''}")
    # Queued is where every job begins, and a task's end is not yet the job's.
    reached = {level: at for level, at in reached.items() if State.QUEUED < level <= _LAST_OPEN_STATE}
    if reached:
        yield ks.HashRaise(key, records.STATE, max(reached), reached)
    for field, count in over.items():
        yield ks.HashAdd(key, field, count)


def _deadlines(keys: Keys, change: Change) -> Iterator[ks.Write]:
    for kind, entity in change.disarm:
        yield ks.SetRemove(keys.deadlines, deadline_member(kind, entity))
    for new in change.arm:
        yield ks.SetAdd(keys.deadlines, deadline_member(new.kind, new.entity), ks.to_ms(new.due))
    is_over = change.job_after is not None and change.job_after.state.is_final
    if change.job_id and not is_over and any(map(_closes, change.tasks)):
        settle = deadline_member(DeadlineKind.SETTLE, change.job_id)
        yield ks.SetAddIfEmpty(keys.deadlines, keys.open(change.job_id), settle, _AT_ONCE)


def _closes(change: TaskChange) -> bool:
    """Whether the slot stops waiting for this task."""
    return not change.after.is_open and (change.before is None or change.before.is_open)


def _times(history: Sequence[StateChange]) -> dict[int, int]:
    return {int(step.state): ks.to_ms(step.at) for step in history}
