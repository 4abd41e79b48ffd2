"""When it is not known what happened: answers that got lost, outages, ends that cross orders to end."""

from __future__ import annotations

import threading
from datetime import timedelta

from tests.service.world import ANN, APP, Run, World, a_job
from titus_celery.adapters.background_queue import BackgroundQueue
from titus_celery.adapters.memory_executor import MemoryExecutor
from titus_celery.adapters.memory_queue import MemoryQueue
from titus_celery.core.decision import Change, Command, Wake
from titus_celery.core.lifecycle import task_id
from titus_celery.core.model import TaskId
from titus_celery.core.reasons import Code, Reason
from titus_celery.core.states import State
from titus_celery.errors import StoreCorrupt, StoreUnavailable
from titus_celery.service.watch import Watch

#: Longer than a lease and the patience with agents that are silent.
OUTAGE = timedelta(seconds=75)


class LosesOneAnswer:
    """Commits, and then has the answer get lost, the first time that a task enters a state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.has_lost = False

    def __call__(self, change: Change) -> None:
        if not self.has_lost and any(each.after.state is self._state for each in change.tasks):
            self.has_lost = True
            raise StoreUnavailable("the answer got lost")


def test_a_run_goes_on_whose_claim_was_stored_but_not_answered() -> None:
    went_on_after_losing(State.STARTING)


def test_a_healthy_container_survives_that_the_answer_to_running_got_lost() -> None:
    went_on_after_losing(State.RUNNING)


def went_on_after_losing(state: State) -> None:
    world = World()
    host = world.host()
    host.records.after_commit = answer = LosesOneAnswer(state)
    id, [run] = world.started()
    assert answer.has_lost
    assert world.release(run, task_id(id, 0, 1)).state is State.FINISHED


def test_an_end_is_reported_once_whose_answer_got_lost() -> None:
    world = World()
    host = world.host()
    host.records.after_commit = answer = LosesOneAnswer(State.FINISHED)
    id, [run] = world.started()
    assert world.release(run, task_id(id, 0, 1)).state is State.FINISHED
    assert answer.has_lost


def test_the_silence_of_an_outage_is_not_held_against_the_agents() -> None:
    world = World()
    world.host()
    id, _ = world.started()
    world.sweep()
    # Nobody reached the store all this time, control neither.
    world.now += OUTAGE
    world.passed += OUTAGE
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(59, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "RUNNING"}
    world.sleep(1, beating=False)
    world.sweep()
    assert world.states(id) == {"0-1": "FAILED"}


def test_what_comes_after_the_end_of_a_container_did_not_end_it() -> None:
    world = World()
    watch = Watch(TaskId("t"), MemoryExecutor(images=[APP]), world.outputs, timedelta(seconds=1))
    assert watch.over() is None
    watch.end_for(Reason(Code.KILLED, "too late"))
    assert watch.cause is None


def test_a_record_that_cannot_be_read_keeps_no_other_task_from_its_kill() -> None:
    world = World()
    host = world.host()
    id, runs = world.started(a_job(2))
    world.jobs.kill(id, ANN)
    faults = [StoreCorrupt("a key", "what nobody wrote")]

    def fail_once() -> None:
        if faults:
            raise faults.pop()

    host.records.before_read = fail_once
    host.life.poll()
    host.records.before_read = None
    ended = threading.Event()

    def wait_for(run: Run) -> None:
        # The other one never ends.
        run.thread.join()
        ended.set()

    for run in runs:
        threading.Thread(target=wait_for, args=(run,), daemon=True).start()
    assert ended.wait(20)
    assert sorted(world.states(id).values()) == ["FAILED", "RUNNING"]


def test_a_sender_with_a_reply_to_give_does_not_wait_for_the_broker() -> None:
    let_go = threading.Event()
    heard: list[Command] = []

    def slow(command: Command) -> None:
        assert let_go.wait(20)
        heard.append(command)

    queue = BackgroundQueue(MemoryQueue(slow))
    queue.send(Wake())
    queue.send(Wake())
    assert heard == []
    let_go.set()
    assert queue.flush(20)
    assert heard == [Wake(), Wake()]


def test_a_broker_that_is_away_loses_commands_and_nothing_else() -> None:
    inner = MemoryQueue()
    inner.is_away = True
    queue = BackgroundQueue(inner)
    queue.send(Wake())
    assert queue.flush(20)
    inner.is_away = False
    queue.send(Wake())
    assert queue.flush(20)
    assert inner.take() == [Wake()]
