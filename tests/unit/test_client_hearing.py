"""What an observer hears when its stream is opened again: where it goes on, and what it knows already."""

from __future__ import annotations

from typing import Any

import pytest

from titus_celery.client import Disconnected, Reconnected
from titus_celery.client.hearing import Heard, Hearing
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def task(state: str, number: int = 1, **context: str) -> pb.Task:
    state_of = pb.TaskState(state=pb.State.Value(state))
    return pb.Task(id=f"j-0-{number}", taskContext=context, state=state_of)


def told(position: str, **notification: Any) -> v1.JobEvent:
    return v1.JobEvent(position=position, notification=pb.JobChangeNotification(**notification))


def update(position: str, state: str, number: int = 1, **context: Any) -> v1.JobEvent:
    changed = pb.JobChangeNotification.TaskUpdate(task=task(state, number, **context))
    return told(position, taskUdate=changed)


def snapshot(*tasks: pb.Task) -> v1.JobEvent:
    return told("", jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=pb.Job(id="j", tasks=tasks)))


def end(position: str) -> v1.JobEvent:
    return told(position, snapshotEnd=pb.JobChangeNotification.SnapshotEnd())


def begun(resumed: str = "", why_not: str = "") -> v1.JobEvent:
    return v1.JobEvent(position=resumed, beginning=v1.Beginning(resumed=bool(resumed), why_not=why_not))


def hear(hearing: Hearing, *items: v1.JobEvent | Disconnected | Reconnected) -> list[Heard]:
    return [heard for item in items for heard in hearing.take(item)]


AWAY = Disconnected("restart")
BACK = Reconnected()


@pytest.fixture
def hearing() -> Hearing:
    """Of an observer that heard a snapshot with one running task."""
    made = Hearing()
    hear(made, begun(), snapshot(task("RUNNING")), end("5"))
    return made


def test_a_stream_begins_with_a_snapshot_and_its_end() -> None:
    events = (snapshot(task("RUNNING")), end("5"), update("6", "FINISHED"))
    assert hear(Hearing(), begun(), *events) == [event.notification for event in events]


def test_with_a_part_of_a_snapshot_nobody_goes_on() -> None:
    hearing = Hearing()
    hear(hearing, begun(), snapshot())
    assert hearing.position == ""
    assert hear(hearing, AWAY, BACK, begun(), snapshot(), end("7")) == [
        AWAY,
        Reconnected(resumed=False),
        snapshot().notification,
        end("7").notification,
    ]
    assert hearing.position == "7"


def test_a_stream_that_goes_on_says_so_and_has_no_second_end_of_the_snapshot(hearing: Hearing) -> None:
    change = update("8", "FINISHED")
    assert hear(hearing, AWAY, BACK, begun("5"), end("5"), change) == [
        AWAY,
        Reconnected(resumed=True),
        change.notification,
    ]
    assert hearing.position == "8"


def test_a_stream_that_cannot_go_on_says_why_and_forgets_its_place(hearing: Hearing) -> None:
    heard = hear(hearing, AWAY, BACK, begun(why_not="too old"), snapshot(task("RUNNING")))
    assert heard == [AWAY, Reconnected(False, "too old"), snapshot(task("RUNNING")).notification]
    assert hearing.position == "", "half of the new snapshot is newer than the old place"


def test_what_was_told_is_not_told_again(hearing: Hearing) -> None:
    assert hear(hearing, update("6", "RUNNING")) == [], "nor what the snapshot held"
    different = update("7", "RUNNING", note="a")
    assert hear(hearing, different, different) == [different.notification]


def test_what_becomes_of_a_task_after_its_end_concerns_nobody(hearing: Hearing) -> None:
    first = update("6", "FAILED", delay="0")
    new = update("8", "QUEUED", 2)
    assert hear(hearing, first, update("7", "FAILED"), new, update("9", "FAILED")) == [
        first.notification,
        new.notification,
    ]


def test_a_task_that_had_ended_before_the_snapshot_is_not_news(hearing: Hearing) -> None:
    assert hear(hearing, update("6", "FAILED", 7)) == []


def test_a_snapshot_stands_for_all_that_was_heard_before(hearing: Hearing) -> None:
    hear(hearing, AWAY, BACK, begun(why_not="too old"), snapshot(), end("9"))
    assert not hearing._live, "what it does not hold is over"


def test_only_tasks_that_live_are_kept_in_mind(hearing: Hearing) -> None:
    for number in range(2, 50):
        hear(hearing, update("6", "QUEUED", number), update("7", "FAILED", number))
    hear(hearing, update("9", "FINISHED"))
    assert not hearing._live
