"""The harness itself: the witness sees what must not be, and a second engine can fail and come back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.e2e.engines import SecondEngine, second_engine
from tests.e2e.installation import Engine, Installation, installed
from tests.e2e.jobs import HELLO, job, shell
from tests.e2e.listener import Listener
from tests.e2e.processes import until
from tests.e2e.witness import Witness
from titus_celery.adapters.docker_records import INSTALLATION, TASK
from titus_celery.cli.processes import agent_command

pytestmark = pytest.mark.e2e

ENDLESS = ("sleep", "600")


class Hand:
    """Makes containers that are labelled as a job's, without any agent."""

    def __init__(self, engine: Engine, installation: str = "") -> None:
        self.engine = engine
        self.installation = installation or f"by-hand-{secrets.token_hex(4)}"
        self.label = f"{INSTALLATION}={self.installation}"
        self.job = f"job-{secrets.token_hex(4)}"

    def create(self, attempt: int, *command: str, name: str = "") -> str:
        """Make a container for an attempt of slot 0; the task's id."""
        task_id = f"{self.job}-0-{attempt}"
        labels = {INSTALLATION: self.installation, TASK: task_id}
        self.engine.client.create_container(
            HELLO, list(command or ENDLESS), name=name or task_id, labels=labels
        )
        return task_id

    def run(self, attempt: int, *command: str, name: str = "") -> str:
        """Make one and start it."""
        task_id = self.create(attempt, *command, name=name)
        self.engine.client.start(name or task_id)
        return task_id

    def remove(self, name: str) -> None:
        """Force one away."""
        self.engine.client.remove_container(name, force=True)


@pytest.fixture
def hand() -> Iterator[Hand]:
    """A hand on the first engine."""
    made = Hand(Engine())
    yield made
    made.engine.clear(made.label)
    made.engine.close()


@pytest.fixture
def witness(hand: Hand) -> Iterator[Witness]:
    """Watches what the hand does."""
    made = Witness(lambda: hand.label)
    made.watch()
    yield made
    made.close()


@pytest.fixture(scope="module")
def other() -> Iterator[SecondEngine]:
    """An engine that each test leaves running."""
    with second_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation on an engine of its own, that may have containers on the first one too."""
    directory = tmp_path_factory.mktemp("spread")
    with second_engine() as engine, installed(directory, engine_url=engine.url) as installation:
        installation.also_on("")
        yield installation


# ---------------------------------------------------------------------------------------------- the witness


def test_two_attempts_of_one_slot_that_live_at_once_are_seen(hand: Hand, witness: Witness) -> None:
    first, second = hand.run(1), hand.run(2)
    [overlap] = witness.alive_at_once()
    assert (overlap.first.task_id, overlap.second.task_id) == (first, second)
    assert overlap.first.ended is None
    hand.remove(first)
    # That one of them has ended meanwhile does not undo it.
    [overlap] = witness.alive_at_once()
    assert overlap.first.ended is not None
    [told] = witness.problems()
    assert f"slot {hand.job}-0 had two: {first} " in told


def test_attempts_one_after_another_are_no_overlap_and_are_counted(hand: Hand, witness: Witness) -> None:
    first = hand.run(1, "sh", "-c", "exit 3")
    hand.engine.client.wait(first)
    second = hand.run(2)
    hand.remove(second)
    third = hand.create(3)
    assert witness.problems() == []
    assert witness.runs(f"{hand.job}-0") == 2
    assert [witness.creates(task_id) for task_id in (first, second, third)] == [1, 1, 1]
    assert [witness.starts(task_id) for task_id in (first, second, third)] == [1, 1, 0]
    heard = [event for event in witness.events(first) if event.action in ("create", "start", "die")]
    assert [event.action for event in heard] == ["create", "start", "die"]
    assert heard[-1].exit_code == 3
    assert f"{first} [{heard[0].container_id[:12]}] die with 3" in witness.story(first)


def test_a_second_container_of_one_task_is_a_problem_also_when_the_first_is_gone(
    hand: Hand, witness: Witness
) -> None:
    task_id = hand.run(1)
    hand.remove(task_id)
    hand.run(1)
    assert (witness.creates(task_id), witness.starts(task_id)) == (2, 2)
    told = witness.problems()
    assert [each.partition(":")[0] for each in told] == [
        f"{task_id} has more than one create",
        f"{task_id} has more than one start",
    ]


def test_a_container_that_is_started_again_is_a_problem(hand: Hand, witness: Witness) -> None:
    task_id = hand.run(1, "true")
    hand.engine.client.wait(task_id)
    hand.engine.client.start(task_id)
    [told] = witness.problems()
    assert told.startswith(f"{task_id} has more than one start:\n")


def test_what_is_made_after_a_moment_is_told_and_what_ends_is_not(hand: Hand, witness: Witness) -> None:
    first = hand.run(1)
    moment = witness.moment()
    hand.remove(first)
    witness.nothing_after(moment)
    second = hand.create(2)
    with pytest.raises(AssertionError, match=f"{second} .* create"):
        witness.nothing_after(moment)
    witness.nothing_after(moment, first)


def test_containers_of_others_are_not_looked_at(hand: Hand, witness: Witness) -> None:
    foreign = Hand(hand.engine)
    try:
        foreign.run(1)
        foreign.run(2)
        assert witness.events() == []
        assert witness.problems() == []
    finally:
        hand.engine.clear(foreign.label)


def test_what_the_engine_itself_has_forgotten_is_still_known(hand: Hand, witness: Witness) -> None:
    """It remembers its last 256 events."""
    task_id = hand.run(1, "true")
    hand.engine.client.wait(task_id)
    for _ in range(130):
        witness.moment()
    now = witness.moment() // 10**9
    told = hand.engine.client.events(since=now - 3600, until=now, decode=True, filters={"label": hand.label})
    assert list(told) == []
    assert (witness.creates(task_id), witness.starts(task_id)) == (1, 1)
    assert witness.problems() == []


class Deaf:
    """A client whose events end in a fault that nobody foresaw."""

    def create_volume(self, name: str) -> None:
        """Take it for made."""

    def remove_volume(self, name: str) -> None:
        """Take it for removed."""

    def events(self, **_: Any) -> NoReturn:
        raise RuntimeError("deaf")


def test_a_witness_whose_reader_died_answers_nothing() -> None:
    with pytest.raises(AssertionError, match="stopped listening: RuntimeError"):
        Listener(Deaf())


def test_an_installation_whose_slot_had_two_containers_cannot_be_closed_in_peace(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    hand = Hand(installation.engine, installation.id)
    tasks = [hand.run(1), hand.run(2)]
    for task_id in tasks:
        hand.remove(task_id)
    with pytest.raises(AssertionError, match=f"slot {hand.job}-0 had two"):
        installation.close()


# ---------------------------------------------------------------------------------------- the second engine


def test_an_engine_that_is_gone_leaves_nothing_and_the_first_one_its_bridge() -> None:
    bridge = Path("/sys/class/net/docker0/ifindex").read_text()
    with second_engine() as engine:
        hand = Hand(Engine(engine.url))
        hand.run(1)
        hand.engine.close()
        inside = engine.processes()
        names = [Path(command.split()[0]).name for command in inside.values()]
        assert sorted(names) == ["containerd", "containerd-shim-runc-v2", "dockerd", "sleep"]
        directory = engine.directory
    assert not directory.exists()
    assert [command for pid, command in inside.items() if _runs(pid, command)] == []
    assert str(directory) not in Path("/proc/mounts").read_text()
    assert Path("/sys/class/net/docker0/ifindex").read_text() == bridge


def _runs(pid: int, command: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") == command
    except OSError:
        return False


def _has(engine: SecondEngine, part: str) -> bool:
    return any(part in command for command in engine.processes().values())


def test_killing_an_engine_leaves_its_containers_alone_and_starting_it_ends_them(
    other: SecondEngine,
) -> None:
    hand = Hand(Engine(other.url))
    witness = Witness(lambda: hand.label)
    witness.watch(other.url)
    polite = hand.run(1, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    brief = hand.create(2, "sh", "-c", "sleep 0.5; exit 3")
    hand.engine.client.start(brief)
    other.kill()
    until(lambda: not _has(other, "exit 3"), "the brief one has ended")
    assert _has(other, "exit 7")
    assert not other.answers()
    other.start()
    assert witness.starts(polite) == 1
    # The engine tells of no end that came while it was away; the witness has asked.
    ends = {event.task_id: event for event in witness.events() if event.action == "die"}
    assert {task_id: event.exit_code for task_id, event in ends.items()} == {polite: 7, brief: 3}
    assert (ends[polite].filled_in, ends[brief].filled_in) == (False, True)
    assert ends[brief].at < ends[polite].at
    [gap] = [told for told in witness.problems() if "was away" in told]
    assert witness.gaps == [gap]
    witness.may_have_gaps = True
    assert [told for told in witness.problems() if "was away" in told] == []
    witness.close()
    hand.engine.close()


def test_a_slot_that_ran_elsewhere_after_a_power_loss_did_not_run_twice_at_once(
    hand: Hand, witness: Witness, other: SecondEngine
) -> None:
    there = Hand(Engine(other.url), hand.installation)
    there.job = hand.job
    witness.watch(other.url)
    witness.may_have_gaps = True
    first = there.run(1)
    dark = other.lose_power()
    assert other.processes() == {}
    second = hand.run(2)
    # Nobody knows yet that the first one has ended.
    witness.all_died(other.url, dark)
    other.start()
    ends = [event for event in witness.events(first) if event.action == "die"]
    assert ends[0].at == dark
    assert witness.problems() == []
    assert witness.runs(f"{hand.job}-0") == 2
    third = there.run(3)
    assert [(each.first.task_id, each.second.task_id) for each in witness.alive_at_once()] == [
        (second, third)
    ]
    there.engine.clear(there.label)
    there.engine.close()


def test_stopping_an_engine_stops_its_containers(other: SecondEngine) -> None:
    hand = Hand(Engine(other.url))
    polite = hand.run(1, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    other.terminate()
    assert other.processes() == {}
    other.start()
    found = hand.engine.container(polite)
    assert found is not None
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 7)
    hand.engine.close()


def test_a_frozen_engine_answers_nobody_until_it_is_thawed(other: SecondEngine) -> None:
    other.freeze()
    assert not other.answers()
    other.thaw()
    until(other.answers, "a thawed engine answers")
    # One that is frozen can be killed, too.
    other.freeze()
    other.kill()
    other.start()


# ------------------------------------------------------------------------------------------ an installation


def test_a_job_runs_on_the_second_engine_alone(spread: Installation) -> None:
    job_id = spread.client.submit(job(*shell("echo there; sleep 600")))
    task_id = f"{job_id}-0-1"
    spread.reached(task_id, "RUNNING")
    assert spread.engine.container(task_id) is not None
    assert spread.engines[""].container(task_id) is None
    spread.client.kill(job_id)
    spread.over(job_id)
    assert spread.output(task_id) == "there\n"
    assert (spread.witness.creates(task_id), spread.witness.starts(task_id)) == (1, 1)


def test_a_further_agent_runs_jobs_on_another_engine(spread: Installation) -> None:
    far = f"{spread.agent_id}-far"
    spread.start_command("far", agent_command(far), TITUS_AGENT_ID=far, TITUS_ENGINE_URL="")
    until(lambda: {agent.id for agent in spread.agents()} == {spread.agent_id, far}, "both agents are known")
    spread.stop("agent")
    job_id = spread.client.submit(job("sleep", "600"))
    task = spread.reached(f"{job_id}-0-1", "RUNNING")
    assert task.taskContext["agent.instanceId"] == far
    assert spread.engines[""].container(task.id) is not None
    assert spread.witness.starts(task.id) == 1
    spread.client.kill(job_id)
    spread.over(job_id)
    spread.start("agent")
    spread.stop("far")
    spread.ready()


def test_a_purged_queue_gives_its_messages_to_nobody(spread: Installation) -> None:
    spread.freeze("agent")
    job_id = spread.client.submit(job("true"))
    spread.reached(f"{job_id}-0-1", "DISPATCHED")
    queue = f"titus.agent.{spread.agent_id}"
    until(lambda: spread.purge_queue(queue) > 0, "an order was in the queue")
    assert spread.purge_queue(queue) == 0
    spread.thaw("agent")
    # The order is sent again, because nobody took it.
    assert spread.over(job_id).jobState.reason == "normal"
