"""Workers that no message reaches any more end by themselves; their containers do not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.dev import Dev, developing
from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import job, shell
from tests.e2e.processes import Process, until
from tests.repetition import again
from titus_celery.adapters.celery_app import CONTROL_QUEUE, App, agent_queue, make_app
from titus_celery.adapters.celery_queue import agent_node
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_server import start_server
from titus_celery.adapters.registry import AgentStore
from titus_celery.cli.processes import agent_command
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.settings import Settings
from titus_celery.tasks.deafness import EXIT_DEAF

pytestmark = pytest.mark.e2e

#: Prints, waits for the test, and ends with 4.
WAITING: Final = "echo up; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo done; exit 4"
#: Waits for the test, and ends well.
HOLDING: Final = "while ! [ -e /tmp/go ]; do sleep 0.1; done"
#: Soon enough for a test, and four messages of a worker to itself.
DEAF_AFTER: Final = timedelta(seconds=8)
QUICK: Final = {"TITUS_DEAF_AFTER": str(int(DEAF_AFTER.total_seconds()))}
#: How long the broker is away, and how soon after its return a worker consumes again.
OUTAGE: Final = timedelta(seconds=3)
BACK_WITHIN: Final = timedelta(seconds=10)
#: An agent that was told to end does so, whatever runs and whoever does not answer.
ENDS_WITHIN: Final = timedelta(seconds=6)


def same(container: dict[str, Any] | None) -> tuple[str, str]:
    """What tells one container that runs all the time from one that was started again."""
    assert container is not None
    assert container["State"]["Running"]
    return container["Id"], container["State"]["StartedAt"]


# ------------------------------------------------------------------------------------------ deaf for real


class Deafener:
    """Makes workers of a `titus dev` deaf: they cancel their consumers, as if they had lost them."""

    def __init__(self, dev: Dev, redis_url: str) -> None:
        self._dev = dev
        self._app: App = make_app(Settings(redis_url=redis_url))

    def queues(self, name: str) -> tuple[str, list[str]]:
        """What a program's worker is called, and the queues that it consumes."""
        agent = agent_queue((self._dev.state / "agent-id").read_text().strip())
        main = {"agent": agent, "control": CONTROL_QUEUE}[name]

        def asked() -> tuple[str, list[str]] | None:
            # On a busy machine some answer later than others.
            answers = self._app.control.inspect(timeout=2).active_queues() or {}
            for node, queues in answers.items():
                names = [queue["name"] for queue in queues]
                if main in names:
                    return node, names
            return None

        found = until(asked, f"somebody consumes {main}")
        assert found is not None
        return found

    def deafen(self, name: str) -> None:
        """Let the worker consume nothing any more."""
        node, queues = self.queues(name)
        for queue in queues:
            told = self._app.control.cancel_consumer(queue, destination=[node], reply=True, timeout=5)
            assert told == [{node: {"ok": f"no longer consuming from {queue}"}}]

    def close(self) -> None:
        """Let go of the connections."""
        self._app.close()


@contextmanager
def deafening(directory: Path) -> Iterator[tuple[Dev, Deafener]]:
    """A `titus dev` whose workers may be made deaf, and soon notice."""
    store = start_server(directory / "redis")
    try:
        with developing(directory, "--no-flower", "--redis-url", store.url, **QUICK) as dev:
            deafener = Deafener(dev, store.url)
            yield dev, deafener
            deafener.close()
    finally:
        store.stop()


def has_told(dev: Dev, name: str) -> bool:
    """Whether `titus dev` told that a program ended deaf."""
    assert dev.process is not None
    return f"{name} ended (exit code {EXIT_DEAF}), started again" in dev.process.text()


def log_of(dev: Dev, name: str) -> str:
    """What a program logged."""
    return (dev.state / "logs" / f"{name}.log").read_text()


def test_a_deaf_agent_is_started_again_and_its_container_goes_on(tmp_path: Path) -> None:
    with deafening(tmp_path) as (dev, deafener):
        running = dev.follow("agent", "run", "titus/hello", "--", "sh", "-c", WAITING)
        until(lambda: running.out == "up\n", "it runs")
        [task_id] = dev.engine.containers(dev.label)
        before = same(dev.engine.container(task_id))
        deafener.deafen("agent")
        until(lambda: has_told(dev, "agent"), "the agent ended")
        [line] = [line for line in log_of(dev, "agent").splitlines() if " CRITICAL " in line]
        assert "the broker took messages for this worker, and none of them came" in line
        until(lambda: f"task {task_id}: adopting it" in log_of(dev, "agent"), "it is adopted")
        assert same(dev.engine.container(task_id)) == before
        dev.engine.touch(task_id, "/tmp/go")
        assert running.wait() == 4
        assert running.out == "up\ndone\n"


def test_a_deaf_control_is_started_again_and_jobs_go_on(tmp_path: Path) -> None:
    with deafening(tmp_path) as (dev, deafener):
        _, queues = deafener.queues("control")
        assert len(queues) == 2
        deafener.deafen("control")
        until(lambda: has_told(dev, "control"), "control ended")
        done = dev.titus("run", "titus/hello", "--", "sh", "-c", "exit 3")
        assert done.code == 3, done.err
        # The next one listens again, through a queue that is its own.
        _, later = deafener.queues("control")
        assert later[0] == queues[0] == CONTROL_QUEUE
        assert later[1] != queues[1]


def test_workers_that_hear_or_were_suspended_go_on(tmp_path: Path) -> None:
    """Longer than it takes to be deaf: with all threads at their disposal, and without running at all."""
    with deafening(tmp_path) as (dev, _):
        pids = {name: dev.pid(name) for name in ("agent", "control")}
        time.sleep(2 * DEAF_AFTER.total_seconds())
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(DEAF_AFTER.total_seconds() + 2)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
        time.sleep(2 * DEAF_AFTER.total_seconds())
        assert {name: dev.pid(name) for name in pids} == pids
        assert dev.titus("run", "titus/hello", "--", "true").code == 0


# ------------------------------------------------------------------------------------------ broker away


def restart_agent(installation: Installation, *options: str) -> Process:
    """Start the agent again, with options of Celery's."""
    if installation.processes["agent"].alive():
        installation.stop("agent")
    command = [*agent_command(installation.agent_id), *options]
    log = installation.directory / "agent.log"
    installation.processes["agent"] = process = Process(command, installation.settings, log)
    installation.ready()
    return process


def blink(installation: Installation) -> None:
    """Take the store and broker away for a while."""
    installation.shaken |= {"agent", "control", "beat", "gateway"}
    installation.store.stop()
    time.sleep(OUTAGE.total_seconds())
    installation.restart_store()


@pytest.fixture
def proofs() -> Iterator[Callable[[Installation], tuple[datetime, datetime]]]:
    """When the only agent proved itself last, and the store's time."""
    keyspaces: list[RedisKeyspace] = []

    def look(installation: Installation) -> tuple[datetime, datetime]:
        keyspaces.append(RedisKeyspace(installation.store.url, installation.settings["TITUS_NAMESPACE"]))
        [agent], now = AgentStore(keyspaces[-1]).agents()
        return agent.proved_at, now

    yield look
    for keyspace in keyspaces:
        keyspace.close()


@pytest.mark.parametrize("threads", [10, 2], ids=["threads to spare", "every thread taken"])
def test_a_full_agent_consumes_again_soon_after_the_broker_is_back(
    tmp_path: Path, threads: int, proofs: Callable[[Installation], tuple[datetime, datetime]]
) -> None:
    """What Celery 5.7.0 does not survive if it holds a message meanwhile: nothing is lost or doubled."""
    with installed(tmp_path, TITUS_SLOTS="2") as installation:
        agent = restart_agent(installation, "--concurrency", str(threads))
        held = installation.client.submit(job(*shell(HOLDING), instances=2))
        first, second = f"{held}-0-1", f"{held}-1-1"
        for id in (first, second):
            installation.reached(id, "RUNNING")
        before = [same(installation.engine.container(id)) for id in (first, second)]
        waits = installation.client.submit(job(*shell(HOLDING)))
        blink(installation)
        if threads > 2:
            _, back = proofs(installation)
            until(lambda: proofs(installation)[0] > back, "a new proof", BACK_WITHIN)
        assert [same(installation.engine.container(id)) for id in (first, second)] == before
        installation.engine.touch(first, "/tmp/go")
        installation.reached(f"{waits}-0-1", "RUNNING", BACK_WITHIN)
        assert same(installation.engine.container(second)) == before[1]
        for id in (second, f"{waits}-0-1"):
            installation.engine.touch(id, "/tmp/go")
        for job_id, ids in ((held, [first, second]), (waits, [f"{waits}-0-1"])):
            over = installation.over(job_id)
            assert [task.id for task in over.tasks] == ids
            assert {task.state.reason for task in over.tasks} == {"normal"}
        assert agent.alive()


@again(3)
def test_workers_under_traffic_survive_a_broker_that_restarts(tmp_path: Path) -> None:
    """Messages are on their way all the time: Celery 5.7.0 gives up over one that it holds when it goes."""
    # Without its timer, control does only what messages make it do.
    with installed(tmp_path, TITUS_TICK_PERIOD="0.01", TITUS_CONTROL_TIMER="off") as installation:
        for outages in range(4):
            if outages:
                blink(installation)
            job_id = installation.client.submit(job(*shell("exit 0")))
            assert installation.over(job_id).jobState.state == pb.FINISHED
        assert [name for name, process in installation.processes.items() if not process.alive()] == []


def test_an_agent_whose_consumer_celery_gives_up_ends_at_once_and_its_container_goes_on(
    tmp_path: Path,
) -> None:
    """Celery itself would wait for all containers first, deaf. Here it is told not to reconnect."""
    with installed(tmp_path) as installation:
        agent = restart_agent(installation, "--", "broker.connection_retry=0")
        job_id = installation.client.submit(job(*shell(WAITING)))
        task_id = f"{job_id}-0-1"
        installation.reached(task_id, "RUNNING")
        before = same(installation.engine.container(task_id))
        blink(installation)
        # Long before its watchdog would end it.
        assert agent.wait(BACK_WITHIN) == EXIT_DEAF
        assert "Celery gave up consuming" in agent.text()
        assert same(installation.engine.container(task_id)) == before
        restart_agent(installation)
        installation.engine.touch(task_id, "/tmp/go")
        over = installation.over(job_id)
        assert [(task.id, task.state.reason) for task in over.tasks] == [(task_id, "failed: exit code 4")]


# ------------------------------------------------------------------------------------------ told to end


def by_signal(number: int) -> Callable[[Installation], None]:
    """What tells an agent to end with a signal."""
    return lambda installation: os.kill(installation.processes["agent"].pid, number)


def by_message(installation: Installation) -> None:
    """Tell an agent to end with Celery's own `shutdown`."""
    settings = Settings(redis_url=installation.store.url, namespace=installation.settings["TITUS_NAMESPACE"])
    app = make_app(settings)
    app.control.shutdown(destination=[agent_node(installation.agent_id)])
    app.close()


@contextmanager
def silence(installation: Installation, is_silent: bool) -> Iterator[None]:
    """Let the store say nothing for a while, if *is_silent*."""
    if is_silent:
        os.kill(installation.store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(installation.store.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("tell", "is_silent"),
    [
        pytest.param(by_signal(signal.SIGTERM), False, id="TERM"),
        pytest.param(by_signal(signal.SIGINT), False, id="INT"),
        pytest.param(by_signal(signal.SIGQUIT), False, id="QUIT"),
        pytest.param(by_message, False, id="shutdown"),
        pytest.param(by_signal(signal.SIGTERM), True, id="TERM while the store is silent"),
    ],
)
def test_an_agent_that_is_told_to_end_does_so_at_once_and_its_container_goes_on(
    tmp_path: Path, tell: Callable[[Installation], None], is_silent: bool
) -> None:
    with installed(tmp_path) as installation:
        # Celery tells with a traceback that it cannot cancel threads, and that its broker is away.
        installation.shaken |= {"agent", "control", "beat", "gateway"}
        job_id = installation.client.submit(job(*shell(WAITING)))
        task_id = f"{job_id}-0-1"
        installation.reached(task_id, "RUNNING")
        before = same(installation.engine.container(task_id))
        agent = installation.processes["agent"]
        with silence(installation, is_silent):
            tell(installation)
            assert agent.wait(ENDS_WITHIN) == 0
        assert same(installation.engine.container(task_id)) == before
        installation.start("agent")
        until(lambda: f"task {task_id}: adopting it" in installation.processes["agent"].text(), "adopted")
        assert same(installation.engine.container(task_id)) == before
        installation.engine.touch(task_id, "/tmp/go")
        over = installation.over(job_id)
        assert over.jobState.state == pb.FAILED
        assert [(task.id, task.state.reason) for task in over.tasks] == [(task_id, "failed: exit code 4")]
