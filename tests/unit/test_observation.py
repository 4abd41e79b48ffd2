"""What an observer hears, whatever the snapshot and the log have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.core.decision import JobAdded, JobEnded, Notification, TaskUpdated
from titus_celery.core.descriptor import (
    BatchSpec,
    Demand,
    JobDescriptor,
)
from titus_celery.core.model import (
    Address,
    AgentId,
    ClusterId,
    Dispatch,
    EngineId,
    Job,
    JobId,
    JobSummary,
    KillIntent,
    StateChange,
    Task,
    TaskId,
)
from titus_celery.core.observation import Event, Observation, Snapshot, SnapshotEnd
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.grpc.convert import task_to_pb

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B = JobId("a"), JobId("b")
LIFE = (State.QUEUED, State.DISPATCHED, State.STARTING, State.RUNNING)


def job(id: JobId = A, *, version: int = 1, end: State | None = None, app: str = "") -> Job:
    states = (State.QUEUED, *([] if end is None else [end]))
    return Job(
        id=id,
        cluster_id=ClusterId("c"),
        descriptor=JobDescriptor(spec=BatchSpec(desired=1), app_name=app),
        created_by="me",
        history=tuple(StateChange(state=each, at=NOON) for each in states),
        version=version,
    )


def task(job_id: JobId, slot: int, state: State, *, attempt: int = 1, version: int = 0) -> Task:
    """A task that went through every state to *state*; one write of its record each, if not said."""
    states = LIFE[: state + 1] if not state.is_final else (*LIFE, state)
    return Task(
        id=TaskId(f"{job_id}-{slot}-{attempt}"),
        job_id=job_id,
        slot=slot,
        attempt=attempt,
        original_id=TaskId(f"{job_id}-{slot}-1"),
        history=tuple(StateChange(state=each, at=NOON + timedelta(seconds=each)) for each in states),
        version=version or len(states),
    )


def heard(
    observation: Observation, snapshot: Sequence[JobSummary], log: Sequence[Notification]
) -> list[Event]:
    events = list(observation.begin(snapshot))
    return events + [event for each in log if (event := observation.hear(each)) is not None]


def summary(job: Job, *tasks: Task) -> JobSummary:
    return JobSummary(job=job, tasks=tasks)


def test_a_live_job_is_told_with_its_active_tasks_then_the_marker() -> None:
    running, over = task(A, 0, State.RUNNING), task(A, 1, State.FINISHED)
    assert heard(Observation(A), [summary(job(), running, over)], []) == [
        Snapshot(summary(job(), running)),
        SnapshotEnd(),
    ]


def test_a_finished_job_is_told_whole_and_ends_the_stream() -> None:
    """docs/semantics.md A14."""
    whole = summary(job(end=State.FINISHED), task(A, 0, State.FINISHED))
    observation = Observation(A)
    assert heard(observation, [whole], []) == [Snapshot(whole), SnapshotEnd(), JobEnded(whole.job)]
    assert observation.over


def test_all_jobs_are_told_one_snapshot_each_and_one_marker() -> None:
    snapshot = [summary(job(A), task(A, 0, State.QUEUED)), summary(job(B))]
    observation = Observation()
    assert heard(observation, snapshot, []) == [*(Snapshot(each) for each in snapshot), SnapshotEnd()]
    assert not observation.over


def test_the_marker_comes_once_even_if_there_is_no_job() -> None:
    assert heard(Observation(), [], []) == [SnapshotEnd()]


def test_what_the_snapshot_held_is_not_told_again() -> None:
    held = task(A, 0, State.STARTING)
    log: list[Notification] = [JobAdded(job()), *(TaskUpdated(task(A, 0, state)) for state in LIFE)]
    assert heard(Observation(A), [summary(job(), held)], log)[2:] == [TaskUpdated(task(A, 0, State.RUNNING))]


@pytest.mark.parametrize("listed", [True, False], ids=["in-the-snapshot", "not-even-in-it"])
def test_a_task_that_was_over_by_the_snapshot_is_not_told_again(listed: bool) -> None:
    over = task(A, 0, State.FAILED)
    log: list[Notification] = [TaskUpdated(task(A, 0, State.RUNNING)), TaskUpdated(over)]
    snapshot = summary(job(), *([over] if listed else []))
    assert heard(Observation(A), [snapshot], log)[2:] == []


def test_the_first_entry_of_a_task_in_the_snapshot_as_over_is_not_told() -> None:
    over = task(A, 0, State.FAILED)
    log: list[Notification] = [TaskUpdated(task(A, 0, state)) for state in (*LIFE, State.FAILED)]
    assert heard(Observation(A), [summary(job(), over)], log)[2:] == []


def test_among_all_a_job_that_ended_while_they_were_read_is_told_by_the_log_alone() -> None:
    over = job(version=2, end=State.FAILED)
    log: list[Notification] = [JobAdded(job()), TaskUpdated(task(A, 0, State.QUEUED)), JobEnded(over)]
    assert heard(Observation(), [summary(over)], log) == [SnapshotEnd(), *log]


def test_a_new_job_is_told_before_its_tasks_and_its_end_after_them() -> None:
    log: list[Notification] = [
        JobAdded(job()),
        *(TaskUpdated(task(A, 0, state)) for state in (*LIFE, State.FINISHED)),
        JobEnded(job(version=2, end=State.FINISHED)),
    ]
    assert heard(Observation(), [], log)[1:] == log


def test_nothing_follows_the_end_of_a_job() -> None:
    ended = JobEnded(job(version=2, end=State.FAILED))
    late: list[Notification] = [
        TaskUpdated(task(A, 0, State.FAILED, version=9)),
        JobAdded(job(version=3)),
        ended,
    ]
    observation = Observation(A)
    events = heard(observation, [summary(job(), task(A, 0, State.RUNNING))], [ended, *late])
    assert events[2:] == [ended]
    assert observation.over


def test_all_jobs_are_observed_on_after_one_of_them_ended() -> None:
    ended = JobEnded(job(A, version=2, end=State.FAILED))
    observation = Observation()
    events = heard(
        observation, [summary(job(A)), summary(job(B))], [ended, TaskUpdated(task(B, 0, State.QUEUED))]
    )
    assert events[3:] == [ended, TaskUpdated(task(B, 0, State.QUEUED))]
    assert not observation.over


def test_what_belongs_to_another_job_is_not_told() -> None:
    other: list[Notification] = [
        JobAdded(job(B)),
        TaskUpdated(task(B, 0, State.QUEUED)),
        JobEnded(job(B, end=State.FAILED)),
    ]
    observation = Observation(A)
    assert heard(observation, [summary(job())], other)[2:] == []
    assert not any(observation.concerns(each) for each in other)
    assert not observation.over


def test_a_job_that_was_over_before_the_snapshot_is_not_told() -> None:
    log: list[Notification] = [
        TaskUpdated(task(A, 0, State.RUNNING)),
        JobAdded(job(version=2, app="new")),
        JobEnded(job(version=3, end=State.FAILED)),
    ]
    assert heard(Observation(), [], log) == [SnapshotEnd()]


def test_a_changed_definition_is_told_and_an_old_one_is_not() -> None:
    newer = JobAdded(job(version=3, app="new"))
    log: list[Notification] = [JobAdded(job(version=1)), JobAdded(job(version=2)), newer, newer]
    assert heard(Observation(A), [summary(job(version=2))], log)[2:] == [newer]


def test_a_task_keeps_its_place_in_a_job_whose_definition_changed() -> None:
    running = task(A, 0, State.RUNNING)
    log: list[Notification] = [
        JobAdded(job(version=2, app="new")),
        TaskUpdated(task(A, 0, State.STARTING)),
        TaskUpdated(running),
    ]
    assert heard(Observation(A), [summary(job(), running)], log)[2:] == log[:1]


def test_a_write_that_shows_nothing_is_not_told() -> None:
    """A kill that is only intended changes no field of the wire: updates are distinct."""
    running = task(A, 0, State.RUNNING)
    marked = replace(running, kill=KillIntent(by="me", at=NOON), version=running.version + 1)
    over = replace(marked, history=task(A, 0, State.FAILED).history, version=marked.version + 1)
    log: list[Notification] = [TaskUpdated(marked), TaskUpdated(over)]
    assert heard(Observation(A), [summary(job(), running)], log)[2:] == [TaskUpdated(over)]


def test_what_is_written_of_a_task_after_its_end_is_not_told() -> None:
    """That its replacement was made shows in the replacement; final states never change (P4)."""
    over = task(A, 0, State.FAILED)
    written = replace(over, replaced_by=TaskId("a-0-2"), version=over.version + 1)
    again = task(A, 0, State.QUEUED, attempt=2)
    log: list[Notification] = [TaskUpdated(over), TaskUpdated(written), TaskUpdated(again)]
    assert heard(Observation(A), [summary(job(), task(A, 0, State.RUNNING))], log)[2:] == [log[0], log[2]]


DISPATCH = Dispatch(
    number=1,
    agent_id=AgentId("agent"),
    engine_id=EngineId("engine"),
    host="host",
    zone="zone",
    region="region",
    demand=Demand(cpu_millis=1, memory_bytes=1),
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: replace(t, reason=Reason(Code.WAITING, "no room")), id="reason"),
        pytest.param(lambda t: replace(t, address=Address(ip="10.0.0.2")), id="ip"),
        pytest.param(lambda t: replace(t, dispatch=DISPATCH), id="agent"),
        pytest.param(lambda t: replace(t, infra_retries=1), id="system-resubmits"),
        pytest.param(lambda t: replace(t, history=task(A, 0, State.DISPATCHED).history), id="state"),
    ],
)
def test_a_write_that_shows_on_the_wire_is_told(change: Callable[[Task], Task]) -> None:
    queued = task(A, 0, State.QUEUED)
    changed = replace(change(queued), version=queued.version + 1)
    assert task_to_pb(changed) != task_to_pb(queued)
    log: list[Notification] = [TaskUpdated(changed)]
    assert heard(Observation(A), [summary(job(), queued)], log)[2:] == log


# --------------------------------------------------------- any store, any snapshot, any place in the log


def lives(order: Sequence[int]) -> tuple[list[Notification], list[list[JobSummary]]]:
    """A store's whole log, and all jobs with all their tasks after each entry (from before the first).

    Two jobs of two slots; *order* says which slot takes its next step. The second slot of each is
    tried twice.
    """
    steps: dict[tuple[JobId, int], list[Task]] = {}
    for id in (A, B):
        once = [task(id, 0, state) for state in (*LIFE, State.FINISHED)]
        failed = [task(id, 1, state) for state in (*LIFE, State.FAILED)]
        again = [task(id, 1, state, attempt=2) for state in (*LIFE, State.FINISHED)]
        steps[id, 0], steps[id, 1] = once, failed + again
    jobs: dict[JobId, Job] = {}
    tasks: dict[TaskId, Task] = {}
    log: list[Notification] = []
    states: list[list[JobSummary]] = [[]]

    def commit(notification: Notification) -> None:
        log.append(notification)
        match notification:
            case JobAdded(each) | JobEnded(each):
                jobs[each.id] = each
            case TaskUpdated(each):
                tasks[each.id] = each
        states.append(
            [summary(each, *(t for t in tasks.values() if t.job_id == each.id)) for each in jobs.values()]
        )

    places = list(steps)
    # Whatever *order* leaves out is done at the end, so that every life is whole.
    for place in [places[number] for number in order] + places * 10:
        if not steps[place]:
            continue
        if place[0] not in jobs:
            commit(JobAdded(job(place[0])))
        commit(TaskUpdated(steps[place].pop(0)))
        if not any(left for (id, _), left in steps.items() if id == place[0]):
            commit(JobEnded(job(place[0], version=2, end=State.FINISHED)))
    return log, states


@given(order=st.lists(st.integers(0, 3), max_size=40), data=st.data())
def test_every_observer_of_all_jobs_hears_one_consistent_story(order: list[int], data: st.DataObject) -> None:
    log, states = lives(order)
    at = data.draw(st.integers(0, len(log)), label="snapshot after")
    subscribed = data.draw(st.integers(0, at), label="log from")
    live = [
        summary(each.job, *(t for t in each.tasks if not t.state.is_final))
        for each in states[at]
        if not each.job.state.is_final
    ]
    events = heard(Observation(), live, log[subscribed:])

    assert events.count(SnapshotEnd()) == 1
    latest = {t.id: t for each in live for t in each.tasks}
    jobs = {each.job.id for each in live}
    ended: set[JobId] = set()
    for event in events[events.index(SnapshotEnd()) + 1 :]:
        match event:
            case JobAdded(each):
                assert each.id not in jobs | ended
                jobs.add(each.id)
            case TaskUpdated(each):
                assert each.job_id in jobs
                assert each.id not in latest or each.version == latest[each.id].version + 1
                latest[each.id] = each
            case JobEnded(each):
                jobs.remove(each.id)
                ended.add(each.id)
            case Snapshot() | SnapshotEnd():
                raise AssertionError("a snapshot after its end")
    assert not jobs
    assert all(each.state.is_final for each in latest.values())
    # Nothing committed after the snapshot is missing.
    assert [event for event in events if event in log[at:]] == log[at:]


@given(order=st.lists(st.integers(0, 3), max_size=40), data=st.data())
def test_every_observer_of_one_job_hears_all_that_followed_its_snapshot(
    order: list[int], data: st.DataObject
) -> None:
    log, states = lives(order)
    first = next(at for at, state in enumerate(states) if any(each.job.id == A for each in state))
    at = data.draw(st.integers(first, len(log)), label="snapshot after")
    subscribed = data.draw(st.integers(0, at), label="log from")
    whole = next(each for each in states[at] if each.job.id == A)
    observation = Observation(A)
    events = heard(observation, [whole], log[subscribed:])

    after = [each for each in log[at:] if observation.concerns(each)]
    if whole.job.state.is_final:
        assert events == [Snapshot(whole), SnapshotEnd(), JobEnded(whole.job)]
    else:
        assert events[2:] == after
    assert observation.over
