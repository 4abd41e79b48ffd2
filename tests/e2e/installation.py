"""A whole installation for a test, of plain commands: store, gateway, control, agent, beat, Flower.

It has a directory, ports, a namespace and an agent id of its own. When it is closed it asserts what
holds for every test: no container of it is left, no process, and no fault of ours in a log.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import grpc
import redis
from docker.errors import DockerException, ImageNotFound, NotFound

from tests.e2e.engines import NO_ANSWER, connect
from tests.e2e.jobs import HELLO, WORKLOADS
from tests.e2e.processes import PATIENCE, Process, until
from tests.e2e.witness import Witness
from titus_celery.adapters.docker_records import INSTALLATION
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_server import RedisServer, start_server
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.store import RecordStore
from titus_celery.cli import processes
from titus_celery.client import CallFailed, TitusClient
from titus_celery.core.descriptor import Demand
from titus_celery.core.model import (
    Agent,
)
from titus_celery.core.placement import Board, Need
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto import titus_job_api_pb2_grpc as pb_grpc

__all__ = ["CALLER", "CORE", "Engine", "Installation", "faults", "free_port", "installed"]

CALLER: Final = "e2e@example.com"
#: Everything but Flower, in the order of starting.
CORE: Final = ("gateway", "control", "agent", "beat")
#: So that containers that ignore TERM cost a test a second and not ten.
GRACE: Final = {"TITUS_STOP_GRACE": "1"}
#: How a line of our logs begins: date, time, level, logger.
LOGGED: Final = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ +[\w.]+: ", re.MULTILINE)


def free_port() -> int:
    """A port on loopback that nobody uses."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tracebacks(log: str, *, with_celery: bool = True) -> list[str]:
    """The entries of a log that hold tracebacks; those of Celery's own loggers too if *with_celery*."""
    starts = [match.start() for match in LOGGED.finditer(log)]
    entries = [log[start:end] for start, end in pairwise([0, *starts, len(log)])]
    return [
        entry
        for entry in entries
        if "\nTraceback" in entry and (with_celery or " titus_celery." in entry.partition("\n")[0])
    ]


def faults(directory: Path, shaken: Collection[str] = ()) -> list[str]:
    """Faults of ours that the logs of a directory tell of; Celery's too, but for programs in *shaken*."""
    found: list[str] = []
    for log in sorted(directory.glob("*.log")):
        text = log.read_text(errors="replace")
        if "internal error" in text:
            found.append(f"{log.name} tells of an internal error")
        if told := tracebacks(text, with_celery=log.stem not in shaken):
            found.append(f"{log.name} holds {len(told)} tracebacks: {told[0][:300]} ... {told[0][-2000:]}")
    return found


class Engine:
    """The Docker Engine as a bystander sees it; a missing one is a failure that says how to get it."""

    def __init__(self, url: str = "") -> None:
        try:
            self.client = connect(url)
        except DockerException as error:
            raise AssertionError(f"these tests need a Docker Engine: `make setup`. {error}") from error
        for image in (HELLO, WORKLOADS):
            self.image_id(image)

    def image_id(self, name: str) -> str:
        """The id of an image."""
        try:
            return str(self.client.inspect_image(name)["Id"])
        except ImageNotFound as error:
            raise AssertionError(f"these tests need the image {name}: `make setup`") from error

    def container(self, name: str) -> dict[str, Any] | None:
        """The inspected container, if there is one."""
        try:
            found: dict[str, Any] = self.client.inspect_container(name)
        except NotFound:
            return None
        return found

    def containers(self, label: str) -> list[str]:
        """The names of the containers with a label ("name=value"), ended ones too."""
        listed = self.client.containers(all=True, filters={"label": label})
        return [each["Names"][0].removeprefix("/") for each in listed]

    def touch(self, container: str, path: str) -> None:
        """Make a file in a running container: what its script waits for."""
        made = self.client.exec_create(container, ["touch", path])
        self.client.exec_start(made["Id"])

    def clear(self, label: str) -> None:
        """Remove what an installation left."""
        for name in self.containers(label):
            with suppress(NotFound):
                self.client.remove_container(name, force=True, v=True)

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()


class Installation:
    """The processes of one installation, each at the test's mercy."""

    def __init__(
        self, directory: Path, *, redis_binary: Path | None = None, engine_url: str = "", **settings: str
    ) -> None:
        self.directory = directory
        self.engine = Engine(engine_url)
        #: Every engine on which it may have containers, by URL.
        self.engines: dict[str, Engine] = {engine_url: self.engine}
        self.store: RedisServer = start_server(directory / "redis", binary=redis_binary)
        self._binary = redis_binary
        # The end of the directory's name is pytest's number: unique in a run, and readable.
        self.agent_id = f"e2e-{directory.name}-{self.store.port}".lower()
        self.listen = f"127.0.0.1:{free_port()}"
        self.flower_port = free_port()
        self.settings = {
            "TITUS_REDIS_URL": self.store.url,
            "TITUS_NAMESPACE": f"e2e-{directory.name}".lower(),
            "TITUS_LISTEN": self.listen,
            "TITUS_AGENT_ID": self.agent_id,
            "FLOWER_UNAUTHENTICATED_API": "1",
            **({"TITUS_ENGINE_URL": engine_url} if engine_url else {}),
            **GRACE,
            **settings,
        }
        self._keyspace = RedisKeyspace(self.store.url, self.settings["TITUS_NAMESPACE"])
        self.id = RecordStore(self._keyspace).installation()
        #: The label of this installation's containers.
        self.label = f"{INSTALLATION}={self.id}"
        #: What the engines say happened to its containers.
        self.witness = Witness(lambda: self.label)
        self.witness.watch(engine_url)
        self.processes: dict[str, Process] = {}
        self.client = TitusClient(self.listen, CALLER)
        self._channel = grpc.insecure_channel(self.listen)
        #: The methods as they are on the wire.
        self.stub = pb_grpc.JobManagementServiceStub(self._channel)
        #: Programs in whose logs Celery may put a traceback, because a test broke what it stands on.
        self.shaken: set[str] = set()

    def start(self, *names: str, **settings: str) -> None:
        """Start programs; *settings* are for them alone."""
        commands: Mapping[str, Sequence[str]] = {
            "gateway": processes.gateway_command(),
            "control": processes.control_command(),
            "agent": processes.agent_command(self.agent_id),
            "beat": processes.beat_command(),
            "flower": processes.flower_command("127.0.0.1", self.flower_port),
        }
        for name in names:
            self.start_command(name, commands[name], **settings)

    def start_command(self, name: str, command: Sequence[str], **settings: str) -> None:
        """Start a program of any command under a name: further agents, say."""
        log = self.directory / f"{name}.log"
        self.processes[name] = Process(command, {**self.settings, **settings}, log)

    def also_on(self, engine_url: str) -> Engine:
        """Another engine of this installation: its containers count, and it is watched from now on."""
        self.witness.watch(engine_url)
        return self.engines.setdefault(engine_url, Engine(engine_url))

    def stop(self, *names: str) -> None:
        """End programs in good order."""
        for name in names:
            self.processes[name].ask_to_stop()
        for name in names:
            self.processes.pop(name).wait()

    def kill(self, name: str) -> None:
        """End a program as a crash would."""
        self.processes.pop(name).kill()

    def freeze(self, name: str) -> None:
        """Take the processor away from a program."""
        self.processes[name].freeze()

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].thaw()

    def ready(self) -> None:
        """Wait until a job would run."""
        until(self._is_ready, f"{self.agent_id} and the gateway ready; logs in {self.directory}")

    def _is_ready(self) -> bool:
        for name, process in self.processes.items():
            assert process.alive(), f"{name} ended:\n{process.text()[-3000:]}"
        store = AgentStore(self._keyspace)
        agents, now = store.agents()
        agent = Board.of(agents, now).pick(Need(demand=Demand(cpu_millis=0, memory_bytes=0)))
        return isinstance(agent, Agent) and agent.engine_id in store.images() and self.client.serving()

    def knows_image(self, name: str) -> bool:
        """Whether an agent told of an image of this name."""
        return any(name in images for images in AgentStore(self._keyspace).images().values())

    def agents(self) -> Sequence[Agent]:
        """The agents as they are registered."""
        return AgentStore(self._keyspace).agents()[0]

    def purge_queue(self, queue: str) -> int:
        """Throw away the messages of a Celery queue that nobody took yet; how many there were."""
        key = f"{self.settings['TITUS_NAMESPACE']}-mq:{queue}"
        with redis.Redis.from_url(self.store.url) as client, client.pipeline() as both:
            length, _ = both.llen(key).delete(key).execute()
        return int(length)

    def restart_store(self) -> None:
        """Start the store again where it was, after `store.stop()`."""
        self.store = start_server(self.directory / "redis", binary=self._binary, port=self.store.port)

    # ------------------------------------------------------------------------------------ what users do

    def task(self, task_id: str) -> pb.Task | None:
        """The task, if there is one."""
        try:
            return self.client.find_task(task_id)
        except CallFailed as error:
            assert error.status == "NOT_FOUND", error
            return None

    def reached(self, task_id: str, state: str, within: timedelta = PATIENCE) -> pb.Task:
        """The task once it is in *state*."""

        def look() -> pb.Task | None:
            task = self.task(task_id)
            return task if task and task.state.state == pb.State.Value(state) else None

        found = until(look, f"{task_id} is {state}", within)
        assert found is not None
        return found

    def over(self, job_id: str, within: timedelta = PATIENCE) -> pb.Job:
        """The job once it is over."""

        def look() -> pb.Job | None:
            found = self.client.find(job_id)
            return found if found.jobState.state in (pb.FINISHED, pb.FAILED) else None

        found = until(look, f"job {job_id} is over", within)
        assert found is not None
        return found

    def output(self, task_id: str) -> str:
        """What an ended task wrote."""
        return b"".join(item.output.data for item in self.tail(task_id)).decode()

    def tail(self, task_id: str) -> Iterator[v1.TailTaskItem]:
        """What the task writes, and its end."""
        return (item for item in self.client.tail(task_id) if isinstance(item, v1.TailTaskItem))

    def end(self, task_id: str) -> v1.End:
        """How its output stream says that it ended."""
        [end] = [item.end for item in self.tail(task_id) if item.HasField("end")]
        return end

    # -------------------------------------------------------------------------------------- at the end

    def close(self) -> None:
        """End everything; AssertionError if something was not as it must be."""
        problems: list[str] = []
        try:
            left: list[str] = []
            try:
                # A container goes right after its task's end was told; one that its engine would not
                # remove then goes with the agent's next comparison.
                until(lambda: not self._left(left), "no container left", timedelta(seconds=45))
            except NO_ANSWER as error:
                problems.append(f"an engine does not answer: {error}")
            except AssertionError:
                problems += [f"container {name} is left" for name in left]
            problems += self._end_processes()
            problems += faults(self.directory, self.shaken)
            problems += self._testimony()
        finally:
            self.witness.close()
            self.client.close()
            self._channel.close()
            for engine in self.engines.values():
                with suppress(*NO_ANSWER):
                    engine.clear(self.label)
                engine.close()
            if self.store.alive():
                self.store.stop()
            self._keyspace.close()
        assert not problems, "\n".join([*problems, f"the logs are in {self.directory}"])

    def _left(self, left: list[str]) -> list[str]:
        left[:] = [name for engine in self.engines.values() for name in engine.containers(self.label)]
        return left

    def _testimony(self) -> list[str]:
        try:
            return self.witness.problems()
        except AssertionError as error:
            return [str(error)]

    def _end_processes(self) -> list[str]:
        problems: list[str] = []
        for name, process in self.processes.items():
            if process.alive():
                process.ask_to_stop()
            else:
                problems.append(f"{name} had ended by itself: {process.text()[-3000:]}")
        for process in self.processes.values():
            try:
                process.wait()
            except AssertionError as error:
                problems.append(str(error))
        return problems


@contextmanager
def installed(
    directory: Path,
    *names: str,
    redis_binary: Path | None = None,
    engine_url: str = "",
    **settings: str,
) -> Iterator[Installation]:
    """An installation of the programs *names* (all of CORE, if none), ready for jobs if it has them all."""
    installation = Installation(directory, redis_binary=redis_binary, engine_url=engine_url, **settings)
    try:
        installation.start(*(names or CORE))
        installation.ready()
        yield installation
    except BaseException:
        # The test's own failure is what counts; what is wrong besides is told on standard error.
        try:
            installation.close()
        except AssertionError as error:
            print(error, file=sys.stderr)
        raise
    installation.close()
