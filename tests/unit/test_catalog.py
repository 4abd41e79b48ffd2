"""What is known of jobs, and what observers hear, whatever was read and the log have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stories import LIFE, A, B, PlainLooks, job, summary, task, told
from titus_celery.core.catalog import ENDED_TASKS_MAX, Catalog, progressed
from titus_celery.core.decision import JobAdded, JobEnded, JobGone, LogEntry, TaskUpdated
from titus_celery.core.model import Address, JobSummary, KillIntent, StateChange, Task
from titus_celery.core.query import criteria
from titus_celery.core.replay import Replay
from titus_celery.core.states import State

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def known(*summaries_or_entries: LogEntry | Task) -> Catalog:
    """A catalog that knows job A with these tasks, and heard these entries."""
    catalog = Catalog(PlainLooks())
    catalog.load(summary(job(), *(one for one in summaries_or_entries if isinstance(one, Task))))
    return catalog


def seats(catalog: Catalog) -> list[tuple[str, State]]:
    entry = catalog.get(A)
    assert entry is not None
    return [(id, seat.state) for id, seat in entry.seats(ended=True)]


# ------------------------------------------------------------------------------------------ news


def test_what_was_read_is_not_told_again() -> None:
    catalog = known(task(A, 0, State.STARTING))
    log: list[LogEntry] = [JobAdded(job()), *(TaskUpdated(task(A, 0, state)) for state in LIFE)]
    assert told(catalog, log) == [TaskUpdated(task(A, 0, State.RUNNING))]


def test_a_task_that_was_over_when_it_was_read_is_not_told_again() -> None:
    over = task(A, 0, State.FAILED)
    log: list[LogEntry] = [TaskUpdated(task(A, 0, State.RUNNING)), TaskUpdated(over)]
    assert told(known(over), log) == []
    # Nor if it was so long ago that it was not even read.
    assert told(known(), log) == []


def test_a_new_job_is_told_before_its_tasks_and_its_end_after_them() -> None:
    catalog = Catalog(PlainLooks())
    log: list[LogEntry] = [
        JobAdded(job(B)),
        TaskUpdated(task(B, 0, State.QUEUED)),
        TaskUpdated(task(B, 0, State.FAILED)),
        JobEnded(job(B, version=2, end=State.FAILED)),
    ]
    assert told(catalog, log) == log
    assert catalog.get(B) is None


def test_nothing_follows_the_end_of_a_job() -> None:
    catalog = known(task(A, 0, State.RUNNING))
    end = JobEnded(job(version=2, end=State.FAILED))
    late: list[LogEntry] = [
        TaskUpdated(task(A, 0, State.FAILED)),
        JobAdded(job(version=3)),
        JobEnded(job(version=4, end=State.FAILED)),
    ]
    assert told(catalog, [end, *late]) == [end]


def test_a_job_that_ended_before_it_was_read_is_not_told() -> None:
    log: list[LogEntry] = [JobAdded(job(version=2)), JobEnded(job(version=3, end=State.FINISHED))]
    assert told(Catalog(PlainLooks()), log) == []


def test_a_definition_is_told_once_for_each_version() -> None:
    catalog = known()
    second = JobAdded(job(version=2, app="b"))
    assert told(catalog, [second, second, JobAdded(job(version=1)), JobAdded(job(version=3))]) == [
        second,
        JobAdded(job(version=3)),
    ]


def test_a_job_is_found_by_its_new_definition() -> None:
    catalog = known()
    catalog.hear(JobAdded(job(version=2, app="b")))
    assert catalog.find(criteria({"appName": "b"}), 0, 9)[1] == 1
    assert catalog.find(criteria({"appName": "a"}), 0, 9)[1] == 0


def test_a_write_that_shows_nothing_is_not_told() -> None:
    running = task(A, 0, State.RUNNING)
    intended = replace(running, version=9, kill=KillIntent(by="me", at=NOON))
    assert told(known(running), [TaskUpdated(intended)]) == []


def test_a_write_that_shows_is_told() -> None:
    running = task(A, 0, State.RUNNING)
    moved = replace(running, version=9, address=Address(ip="10.0.0.1"))
    assert told(known(running), [TaskUpdated(moved)]) == [TaskUpdated(moved)]


def test_what_is_written_of_a_task_after_its_end_is_known_and_not_told() -> None:
    catalog = known(task(A, 0, State.RUNNING))
    over = task(A, 0, State.FAILED)
    replaced = replace(over, version=over.version + 1, address=Address(ip="10.0.0.1"))
    assert told(catalog, [TaskUpdated(over), TaskUpdated(replaced)]) == [TaskUpdated(over)]
    entry = catalog.get(A)
    assert entry is not None
    assert entry.tasks[over.id].look == PlainLooks().task(replaced)


# ------------------------------------------------------------------------------------------ what is known


def test_a_job_gets_as_far_as_the_furthest_of_its_tasks_and_never_back() -> None:
    catalog = known(task(A, 0, State.QUEUED), task(A, 1, State.QUEUED))
    entry = catalog.get(A)
    assert entry is not None
    states = []
    for one in (task(A, 0, State.STARTING), task(A, 1, State.DISPATCHED), task(A, 1, State.FAILED)):
        catalog.hear(TaskUpdated(one))
        states.append(entry.state)
    assert states == [State.STARTING, State.STARTING, State.RUNNING]


def test_times_of_a_job_never_decrease() -> None:
    history = (StateChange(state=State.QUEUED, at=NOON),)
    early = NOON - timedelta(hours=1)
    steps = progressed(history, [StateChange(state=State.RUNNING, at=early)])
    assert steps[-1] == StateChange(state=State.RUNNING, at=NOON)


def test_of_very_many_ended_tasks_the_newest_are_kept() -> None:
    catalog = known()
    for slot in range(ENDED_TASKS_MAX + 5):
        catalog.hear(TaskUpdated(task(A, slot, State.QUEUED)))
        catalog.hear(TaskUpdated(task(A, slot, State.FAILED, later=slot)))
    kept = seats(catalog)
    assert len(kept) == ENDED_TASKS_MAX
    assert kept[0][0] == f"{A}-5-1"


def test_what_was_made_of_a_job_goes_when_it_changes() -> None:
    catalog = known(task(A, 0, State.QUEUED))
    entry = catalog.get(A)
    assert entry is not None
    entry.made["reply"] = b"old"
    catalog.hear(TaskUpdated(task(A, 0, State.DISPATCHED)))
    assert entry.made == {}


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 1),
        ({"jobIds": str(A)}, 1),
        ({"jobIds": "other"}, 0),
        ({"jobState": "running"}, 1),
        ({"jobState": "QUEUED"}, 0),
        ({"taskStates": "QUEUED,running"}, 1),
        ({"taskStates": "FINISHED"}, 0),
        ({"taskIds": f"{A}-0-1"}, 1),
        ({"taskIds": f"{A}-7-1"}, 0),
        ({"taskIds": f"{A}-0-1", "jobIds": str(A)}, 1),
        ({"taskIds": f"{A}-0-1", "jobIds": "other"}, 0),
    ],
)
def test_live_jobs_are_found_by_ids_and_states(wanted: dict[str, str], count: int) -> None:
    catalog = known(task(A, 0, State.RUNNING))
    assert catalog.find(criteria(wanted), 0, 9)[1] == count


def test_a_job_is_found_by_the_states_that_it_and_its_tasks_are_in_now() -> None:
    catalog = known(task(A, 0, State.QUEUED), task(A, 1, State.QUEUED))

    def by(name: str) -> list[State]:
        """The states by which the job is found."""
        return [state for state in LIFE if catalog.find(criteria({name: state.name}), 0, 9)[1]]

    assert (by("jobState"), by("taskStates")) == ([State.QUEUED], [State.QUEUED])
    catalog.hear(TaskUpdated(task(A, 0, State.DISPATCHED)))
    assert (by("jobState"), by("taskStates")) == ([State.DISPATCHED], [State.QUEUED, State.DISPATCHED])
    catalog.hear(TaskUpdated(task(A, 0, State.RUNNING)))
    assert (by("jobState"), by("taskStates")) == ([State.RUNNING], [State.QUEUED, State.RUNNING])
    catalog.hear(JobAdded(job(version=2, app="b")))
    assert (by("jobState"), by("taskStates")) == ([State.RUNNING], [State.QUEUED, State.RUNNING])
    catalog.hear(TaskUpdated(task(A, 1, State.RUNNING)))
    assert (by("jobState"), by("taskStates")) == ([State.RUNNING], [State.RUNNING])


# -------------------------------------------------------------------------------- jobs that are over


def test_jobs_that_are_over_are_found_once_all_of_them_are_known() -> None:
    catalog = known()
    catalog.load_over([job(B, end=State.FINISHED)])
    assert not catalog.knows_over
    catalog.hear(JobEnded(job(version=2, end=State.FINISHED)))
    catalog.loaded_over()
    assert catalog.knows_over
    assert catalog.find_over(criteria({"jobState": "FINISHED"}), 0, 9) == ([A, B], 2)
    assert catalog.find_over(criteria({"jobState": "FAILED"}), 0, 9) == ([], 0)


def test_jobs_that_are_over_are_found_by_ids_and_by_how_their_tasks_ended() -> None:
    catalog = Catalog(PlainLooks())
    catalog.load_over(
        [
            replace(job(A, end=State.FAILED), slots_ok=1, slots_failed=1),
            replace(job(B, end=State.FAILED), slots_failed=2),
        ]
    )

    def found(**wanted: str) -> Sequence[str]:
        return catalog.find_over(criteria({"jobState": "FAILED", **wanted}), 0, 9)[0]

    assert (found(), found(taskStates="FINISHED"), found(taskStates="FAILED")) == ([A, B], [A], [A, B])
    assert (found(jobIds=B), found(jobIds="other"), found(taskIds=f"{A}-0-1")) == ([B], [], [A])


def test_a_job_that_is_let_go_of_is_not_found_even_if_it_is_read_afterwards() -> None:
    catalog = Catalog(PlainLooks())
    catalog.hear(JobGone(B))
    catalog.load_over([job(B, end=State.FINISHED)])
    catalog.loaded_over()
    catalog.load_over([job(A, end=State.FINISHED)])
    catalog.hear(JobGone(A))
    assert catalog.find_over(criteria({"jobState": "FINISHED"}), 0, 9) == ([], 0)


# ------------------------------------------------------------------------------------------ any moment


@given(cut=st.integers(1, 11), start=st.integers(0, 11))
def test_whenever_jobs_are_read_each_later_change_is_told_once_and_in_order(cut: int, start: int) -> None:
    """The log is followed from *start*, jobs are read when it is at *cut*: nothing is lost or doubled."""
    log: list[LogEntry] = [JobAdded(job()), TaskUpdated(task(A, 0, State.QUEUED))]
    log += [TaskUpdated(task(A, 0, state)) for state in LIFE[1:]]
    log += [TaskUpdated(task(A, 0, State.FAILED)), TaskUpdated(task(A, 0, State.QUEUED, attempt=2))]
    log += [TaskUpdated(task(A, 0, state, attempt=2)) for state in LIFE[1:]]
    log += [TaskUpdated(task(A, 0, State.FINISHED, attempt=2)), JobEnded(job(version=2, end=State.FINISHED))]
    catalog = Catalog(PlainLooks())
    catalog.load(at_that_time(log[:cut]))
    assert told(catalog, log[min(start, cut) :]) == log[cut:]


def at_that_time(log: Sequence[LogEntry]) -> JobSummary:
    """The job as it stands after these entries."""
    tasks: dict[str, Task] = {}
    for entry in log:
        if isinstance(entry, TaskUpdated):
            tasks[entry.task.id] = entry.task
    return summary(job(), *tasks.values())


# ------------------------------------------------------------------------------------------ replays


def test_a_replay_tells_what_happened_to_one_job_and_each_look_once() -> None:
    running = task(A, 0, State.RUNNING)
    over = task(A, 0, State.FAILED)
    log: list[LogEntry] = [
        TaskUpdated(running),
        TaskUpdated(replace(running, version=9, kill=KillIntent(by="me", at=NOON))),
        TaskUpdated(task(B, 0, State.RUNNING)),
        TaskUpdated(over),
        TaskUpdated(replace(over, version=10, address=Address(ip="1.1.1.1"))),
        JobGone(B),
        JobEnded(job(version=2, end=State.FAILED)),
    ]
    replay = Replay(PlainLooks(), A)
    heard = [news.notification for entry in log if (news := replay.hear(entry)) is not None]
    assert heard == [log[0], log[3], log[6]]
