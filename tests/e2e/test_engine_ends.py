"""Who ended a container when its engine crashes, stops, loses power, and is there again; or a person did.

An exit code tells nothing of that: engines end containers that then exit with 0 or 7. What an engine
spoiled is told as lost and tried again at nobody's expense; what ended by itself is told as it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.engines import SecondEngine, second_engine
from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import HELLO, WORKLOADS, job, shell
from tests.e2e.processes import until
from tests.repetition import again
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

#: The second run of a slot ends well at once.
ONCE = '[ "$TITUS_TASK_ATTEMPT" = 1 ] || exit 0; '
#: Ends when the test makes the file.
WAITS = "while ! [ -e /tmp/go ]; do sleep 0.1; done; "
FOREVER = "echo up; while :; do sleep 0.1; done"
#: What an engine ends when it stops or starts: none of them would have ended by itself.
ENDED_BY_ENGINE: Mapping[str, tuple[str, ...]] = {
    "takes no notice": shell(f"{ONCE}echo up; exec sleep 600"),
    "obeys with 7": shell(f"{ONCE}trap 'exit 7' TERM; {FOREVER}"),
    "obeys with 0": shell(f"{ONCE}trap 'exit 0' TERM; {FOREVER}"),
}
#: What ends by itself, and as what that is told.
ENDED_BY_THEMSELVES: Mapping[str, tuple[str, ...]] = {
    "failed: exit code 3": shell(f"echo up; {WAITS}: a bad end; exit 3"),
    "normal": shell(f"echo up; {WAITS}: a good end; exit 0"),
}
BY_ENGINE = ("lost: the engine restarted", "lost: the engine stopped")


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    with second_engine() as made:
        yield made


class Keeping(SecondEngine):
    """An engine under which containers go on running when it ends (live-restore)."""

    def _configuration(self) -> Path:
        file = super()._configuration()
        file.write_text('{"live-restore": true}')
        return file


@contextmanager
def on(directory: Path, engine: SecondEngine) -> Iterator[Installation]:
    """An installation with its agent on this engine, which will be away for a while."""
    with installed(directory, engine_url=engine.url) as installation:
        installation.witness.may_have_gaps = True
        yield installation


def has_spoken(installation: Installation, task_id: str) -> bool:
    """Whether its container wrote anything yet."""
    return bool(installation.engine.client.logs(task_id))


def begun(installation: Installation, programs: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The job of each program, whose handling of signals is set up."""
    jobs = {name: installation.client.submit(job(*command)) for name, command in programs.items()}
    for job_id in jobs.values():
        task_id = f"{job_id}-0-1"
        installation.reached(task_id, "RUNNING")
        until(partial(has_spoken, installation, task_id), f"{task_id} is up")
    return jobs


def end_by_itself(engine: SecondEngine, mark: str) -> None:
    """Let a program end, also while nobody answers for its container; returns when it has."""

    def found() -> list[int]:
        return [pid for pid, command in engine.processes().items() if f": {mark};" in command]

    for pid in found():
        Path(f"/proc/{pid}/root/tmp/go").touch()
    until(lambda: not found(), f"what waited for {mark} has ended")


def attempt_of(task: pb.Task) -> int:
    """The how many-th of its slot it is."""
    return int(task.id.rpartition("-")[2])


def spoiled(installation: Installation, job_id: str) -> None:
    """The first run was ended by the engine and nobody else, and the last one ended well."""
    story = installation.witness.story(job_id)
    found = installation.over(job_id)
    assert found.jobState.state == pb.FINISHED, story
    first = installation.client.find_task(f"{job_id}-0-1")
    assert first.state.state == pb.FAILED
    assert first.state.reason in BY_ENGINE, story
    last = max(found.tasks, key=attempt_of)
    context, attempt = last.taskContext, attempt_of(last)
    assert attempt > 1
    # Every one of them at the expense of the infrastructure.
    assert int(context["task.systemResubmitNumber"]) == attempt - 1
    assert last.state.reason == "normal"


def ended_by_itself(installation: Installation, job_id: str, told: str) -> None:
    """It ran once, and its own end is told."""
    found = installation.over(job_id)
    [task] = found.tasks
    assert (task.id, task.state.reason) == (f"{job_id}-0-1", told), installation.witness.story(job_id)


@again(5)
def test_what_a_crashed_engine_ends_at_its_start_is_lost_and_what_ended_before_is_told(
    tmp_path: Path, engine: SecondEngine
) -> None:
    with on(tmp_path, engine) as installation:
        lost = begun(installation, ENDED_BY_ENGINE)
        own = begun(installation, ENDED_BY_THEMSELVES)
        engine.kill()
        end_by_itself(engine, "a bad end")
        end_by_itself(engine, "a good end")
        engine.start()
        for told, job_id in own.items():
            ended_by_itself(installation, job_id, told)
        for job_id in lost.values():
            spoiled(installation, job_id)


@again(5)
def test_what_an_engine_ends_when_it_is_stopped_is_lost(tmp_path: Path, engine: SecondEngine) -> None:
    with on(tmp_path, engine) as installation:
        lost = begun(installation, ENDED_BY_ENGINE)
        engine.terminate()
        engine.start()
        for job_id in lost.values():
            spoiled(installation, job_id)


@again(5)
def test_what_an_engine_finds_dead_after_a_power_loss_is_lost(tmp_path: Path, engine: SecondEngine) -> None:
    with on(tmp_path, engine) as installation:
        lost = begun(installation, ENDED_BY_ENGINE)
        dark = engine.lose_power()
        installation.witness.all_died(engine.url, dark)
        engine.start()
        for job_id in lost.values():
            spoiled(installation, job_id)


@pytest.mark.parametrize("end", [SecondEngine.kill, SecondEngine.terminate], ids=["crash", "stop"])
def test_what_runs_on_without_its_engine_is_waited_for(
    tmp_path: Path, end: Callable[[SecondEngine], None]
) -> None:
    keeping = Keeping()
    try:
        keeping.start()
        keeping.load(HELLO, WORKLOADS)
        with on(tmp_path, keeping) as installation:
            during = begun(installation, ENDED_BY_THEMSELVES)
            after = begun(
                installation, {**ENDED_BY_ENGINE, "later": shell(f"echo up; {WAITS}: later; exit 5")}
            )
            end(keeping)
            end_by_itself(keeping, "a bad end")
            end_by_itself(keeping, "a good end")
            keeping.start()
            for told, job_id in during.items():
                ended_by_itself(installation, job_id, told)
            end_by_itself(keeping, "later")
            ended_by_itself(installation, after.pop("later"), "failed: exit code 5")
            for job_id in after.values():
                installation.reached(f"{job_id}-0-1", "RUNNING")
                installation.client.kill(job_id)
            for job_id in after.values():
                assert installation.over(job_id).tasks[0].state.reason.startswith("killed: by ")
    finally:
        keeping.close()


def test_what_a_person_ends_with_docker_is_lost_also_while_the_agent_is_away(
    tmp_path: Path, engine: SecondEngine
) -> None:
    with on(tmp_path, engine) as installation:
        kill, stop, later = begun(installation, ENDED_BY_ENGINE).values()
        client = installation.engine.client
        client.kill(f"{kill}-0-1")
        client.stop(f"{stop}-0-1", timeout=10)
        installation.kill("agent")
        client.stop(f"{later}-0-1", timeout=10)
        installation.start("agent")
        for job_id, signal in ((kill, 9), (stop, 15), (later, 15)):
            assert installation.over(job_id).jobState.state == pb.FINISHED
            first = installation.client.find_task(f"{job_id}-0-1")
            assert first.state.reason == f"lost: somebody stopped it on its host (signal {signal})"
            last = max(installation.client.find(job_id).tasks, key=attempt_of)
            assert last.taskContext["task.systemResubmitNumber"] == "1"
            assert last.id == f"{job_id}-0-2"
