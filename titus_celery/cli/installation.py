"""One installation on this machine: its store, its processes, whether it is ready, and its orderly end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titus_celery.adapters.docker_executor import DockerExecutor
from titus_celery.adapters.redis_keyspace import RedisKeyspace
from titus_celery.adapters.redis_server import RedisServer, find_server, start_server
from titus_celery.adapters.registry import AgentStore
from titus_celery.adapters.store import RecordStore
from titus_celery.cli import processes
from titus_celery.cli.console import Fault
from titus_celery.cli.leftovers import Leftovers
from titus_celery.cli.place import Place
from titus_celery.cli.supervisor import Child, Program, Restarts, leashed_script
from titus_celery.client import TitusClient
from titus_celery.core.descriptor import Demand
from titus_celery.core.model import (
    Agent,
)
from titus_celery.core.placement import Board, Need
from titus_celery.errors import EngineFault, StoreUnavailable, Unavailable

__all__ = ["Installation", "Plan", "programs"]

#: For programs that have nothing to finish.
STOP_WITHIN: Final = timedelta(seconds=10)
#: Beyond the grace that containers get: for the engine to remove them and the store to hear of it.
AGENT_SLACK: Final = timedelta(seconds=20)
#: The store of a `titus dev` that was killed a moment ago may still be writing its file.
STORE_PATIENCE: Final = timedelta(seconds=5)
#: For an agent to start and to take over the containers of the one before.
ADOPT_WITHIN: Final = timedelta(seconds=15)
#: Between two looks at the processes.
LOOK_EVERY: Final = timedelta(milliseconds=100)
#: In which order they are told to end; the store ends last of all.
STOP_ORDER: Final = ("flower", "beat", "gateway", "agent", "control")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `titus dev` is to run."""

    place: Place
    port: int
    #: None: no Flower.
    flower_port: int | None
    #: None: an embedded server.
    redis_url: str | None
    #: Whether containers outlive it.
    keep: bool

    @property
    def listen(self) -> str:
        """Where the gateway listens."""
        return f"127.0.0.1:{self.port}"


def programs(plan: Plan, redis_url: str, agent_id: str, grace: timedelta) -> list[Program]:
    """The programs of an installation, in the order in which they start."""
    env = {
        **processes.import_path(),
        "TITUS_REDIS_URL": redis_url,
        "TITUS_LISTEN": plan.listen,
        "TITUS_AGENT_ID": agent_id,
        "TITUS_ON_STOP": "keep" if plan.keep else "stop",
    }
    commands: dict[str, Sequence[str]] = {
        "gateway": processes.gateway_command(),
        "control": processes.control_command(),
        "agent": processes.agent_command(agent_id),
        "beat": processes.beat_command(),
    }
    if plan.flower_port is not None:
        commands["flower"] = processes.flower_command("127.0.0.1", plan.flower_port)
    return [
        Program(
            name=name,
            command=command,
            env=env,
            log=plan.place.logs / f"{name}.log",
            stop_within=grace + AGENT_SLACK if name == "agent" else STOP_WITHIN,
        )
        for name, command in commands.items()
    ]


class Installation:
    """The processes of a plan. *say* gets a line for each thing that a person should know."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._settings = processes.check_environment({**environment, "TITUS_ON_STOP": "stop"})
        self._server: RedisServer | None = None
        self._server_restarts = Restarts()
        self._server_seen = timedelta(0)
        self._children: dict[str, Child] = {}
        self._url = ""
        self._agent_id = plan.place.agent_id()

    def check(self) -> None:
        """Fault if the store that the plan names cannot be used."""
        if self._plan.redis_url is not None:
            try:
                RedisKeyspace(self._plan.redis_url, self._settings.namespace).check_server()
            except StoreUnavailable as error:
                hint = "start it, or leave out --redis-url for an embedded one"
                raise Fault("cannot use the store of --redis-url", str(error), hint) from error

    def start(self) -> None:
        """Start the store and make the processes known; `tend` starts them."""
        if self._plan.redis_url is None:
            self._server = self._start_server()
            self._server_seen = _now()
            self._url = self._server.url
        else:
            self._url = self._plan.redis_url
        for program in programs(self._plan, self._url, self._agent_id, self._settings.stop_grace):
            self._children[program.name] = Child(program, self._say)

    def tend(self) -> None:
        """Start again what has ended."""
        now = _now()
        if self._server is not None and not self._server.alive():
            wait = self._server_restarts.ended(now - self._server_seen)
            self._say(f"the store ended, started again in {wait.total_seconds():g} s")
            time.sleep(wait.total_seconds())
            self._server = self._start_server(self._server.port)
            self._server_seen = _now()
        for child in self._children.values():
            child.tend(now)

    def missing(self, client: TitusClient) -> str:
        """What is not there yet for a job to run; empty when all is."""
        if not client.serving():
            return "the gateway does not serve yet"
        try:
            return self._missing_agent(AgentStore(RedisKeyspace(self._url, self._settings.namespace)))
        except StoreUnavailable as error:
            return str(error)

    def stop(self, is_forced: Callable[[], bool]) -> None:
        """End everything, in order; at once when *is_forced*."""
        for name in STOP_ORDER:
            if name in self._children:
                self._stop_child(self._children[name], is_forced)
                if name == "agent" and not self._plan.keep:
                    self._end_leftovers(self._children[name].program, is_forced)
        if self._server is not None:
            self._server.stop()

    def _missing_agent(self, store: AgentStore) -> str:
        agents, now = store.agents()
        mine = [agent for agent in agents if agent.id == self._agent_id]
        ready = Board.of(mine, now).pick(Need(demand=Demand(cpu_millis=0, memory_bytes=0)))
        if not isinstance(ready, Agent):
            return "the agent is not ready yet"
        return "" if ready.engine_id in store.images() else "the agent has not told its images yet"

    def _end_leftovers(self, agent: Program, is_forced: Callable[[], bool]) -> None:
        """End the containers of an agent that was away when it was to stop them, or say which stay."""
        executor = DockerExecutor(self._settings.engine_url or None)
        keyspace = RedisKeyspace(self._url, self._settings.namespace)
        try:
            left = Leftovers(
                executor,
                AgentStore(keyspace),
                RecordStore(keyspace).installation(),
                self._agent_id,
                self._settings.agent_lease,
            )
            if left.running() and not is_forced():
                self._say("the agent was away; it is started once more, to end its containers")
                self._start_until_adopted(agent, left, is_forced)
            stay = left.running()
        except (StoreUnavailable, EngineFault) as error:
            self._say(f"containers may stay, which the next start takes over: {error}")
            return
        finally:
            executor.close()
            keyspace.close()
        if stay:
            self._say(f"containers that stay, and that the next start takes over: {', '.join(stay)}")

    def _start_until_adopted(self, agent: Program, left: Leftovers, is_forced: Callable[[], bool]) -> None:
        child = Child(agent, self._say)
        until = _now() + ADOPT_WITHIN
        try:
            while not (left.are_adopted() or is_forced() or _now() >= until):
                child.tend(_now())
                time.sleep(LOOK_EVERY.total_seconds())
        finally:
            self._stop_child(child, is_forced)

    def _stop_child(self, child: Child, is_forced: Callable[[], bool]) -> None:
        child.stop()
        until = _now() + child.program.stop_within
        while not child.gone():
            if is_forced() or _now() >= until:
                if not is_forced():
                    self._say(f"{child.program.name} did not end in time; it is killed")
                child.kill()
                return
            time.sleep(LOOK_EVERY.total_seconds() / 5)

    def _start_server(self, port: int | None = None) -> RedisServer:
        directory = self._plan.place.redis
        directory.mkdir(mode=0o700, exist_ok=True)
        # The script binds the server's life to ours; it ends with TERM, so that its file is complete.
        script = directory / "start"
        script.write_text(leashed_script([str(find_server())], signal.SIGTERM))
        script.chmod(0o700)
        until = _now() + STORE_PATIENCE
        while True:
            try:
                return start_server(directory, binary=script, port=port)
            except Unavailable as error:
                if _now() >= until:
                    raise Fault("cannot start the store", str(error), f"its log is in {directory}") from error
            time.sleep(LOOK_EVERY.total_seconds())


def _now() -> timedelta:
    return timedelta(seconds=time.monotonic())
