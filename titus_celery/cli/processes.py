"""`titus gateway`, `control`, `agent`, `beat`, `flower`: the plain commands, with options as settings.

Each of them becomes the command that it stands for. Options set the TITUS_ environment variables of
`settings.py`; what has no option is set there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

import titus_celery
from titus_celery.cli.console import Fault
from titus_celery.cli.options import epilog
from titus_celery.settings import Settings

__all__ = [
    "FLOWER_PORT",
    "agent",
    "agent_command",
    "beat",
    "beat_command",
    "check_environment",
    "control",
    "control_command",
    "flower",
    "flower_command",
    "gateway",
    "gateway_command",
    "import_path",
]

FLOWER_PORT: Final = 5555

_CELERY: Final = (sys.executable, "-m", "celery", "-A", "titus_celery")

#: How each of them ends.
_STOPPED: Final = "it was told to stop, by SIGTERM or Ctrl-C"
_CODES: Final[Mapping[str, str]] = {
    "0": _STOPPED,
    "2": "the command line is wrong",
    "125": "it cannot start; standard error says why",
}
_DEAF: Final = {"75": "it can do no good any more and must be started again, as `titus dev` and systemd do"}
_AGENT_CODES: Final[Mapping[str, str]] = {**_CODES, **_DEAF}
#: Celery calls a worker that Ctrl-C stopped a failure.
_CONTROL_CODES: Final[Mapping[str, str]] = {
    "0": "it was told to stop, by SIGTERM",
    "1": "it was told to stop, by Ctrl-C",
    "2": _CODES["2"],
    **_DEAF,
    "125": _CODES["125"],
}

F = TypeVar("F", bound=Callable[..., Any])


def gateway_command() -> list[str]:
    """What `titus gateway` becomes."""
    return [sys.executable, "-m", "titus_celery.grpc"]


def control_command() -> list[str]:
    """What `titus control` becomes."""
    return [*_CELERY, "worker", "-Q", "titus.control", "-n", "control@%h"]


def agent_command(agent_id: str = "") -> list[str]:
    """What `titus agent` becomes: the agent of this name, or without one the first that is free here."""
    queue, node = (
        (f"titus.agent.{agent_id}", f"agent-{agent_id}@%h") if agent_id else ("titus.agent", "agent@%h")
    )
    return [*_CELERY, "worker", "-Q", queue, "-n", node]


def beat_command() -> list[str]:
    """What `titus beat` becomes."""
    return [*_CELERY, "beat"]


def flower_command(address: str, port: int) -> list[str]:
    """What `titus flower` becomes: it shows, and its buttons that would change workers do nothing."""
    return [*_CELERY, "flower", f"--address={address}", f"--port={port}", "--read_only=True"]


def import_path() -> dict[str, str]:
    """What a Python of ours must have in its environment to find this very package."""
    root = str(Path(titus_celery.__file__).resolve().parent.parent)
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, known)))}


def check_environment(env: Mapping[str, str]) -> Settings:
    """The settings that a process with *env* will have; Fault if the server's parts are not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("celery", "docker", "grpc_health")):
        raise Fault(
            "this command needs the server's parts",
            "only the client is installed here",
            "pip install 'titus-celery[server]'",
        )
    return Settings.from_env(env)


def _become(command: list[str], **options: object) -> NoReturn:
    given = {name: str(value) for name, value in options.items() if value is not None}
    env = {**os.environ, **import_path(), **given}
    check_environment(env)
    os.execve(command[0], command, env)


def _redis_url(function: F) -> F:
    return click.option(
        "--redis-url",
        metavar="URL",
        help="The store and broker (or TITUS_REDIS_URL, which no process list shows).",
    )(function)


@click.command(
    epilog=epilog(
        {
            "titus gateway": "on 127.0.0.1:7104, with the Redis of this machine",
            "titus gateway --listen 10.0.0.5:7104": "where others reach it, who are not asked who they are",
        },
        _CODES,
    )
)
@click.option("--listen", metavar="HOST:PORT", help="Where to listen (or TITUS_LISTEN).")
@_redis_url
def gateway(listen: str | None, redis_url: str | None) -> None:
    """Run the API server: `python -m titus_celery.grpc`."""
    _become(gateway_command(), TITUS_LISTEN=listen, TITUS_REDIS_URL=redis_url)


@click.command(epilog=epilog({"titus control": "one is enough; of several each does a part"}, _CONTROL_CODES))
@_redis_url
def control(redis_url: str | None) -> None:
    """Run a control worker: `celery -A titus_celery worker -Q titus.control`."""
    _become(control_command(), TITUS_REDIS_URL=redis_url)


@click.command(
    epilog=epilog(
        {
            "titus agent": "with all that this host's engine has",
            "titus agent --queues gpu,default --zone b": "for jobs with the constraint serverGroup=gpu, too",
            "titus agent --id $(hostname)": "the same agent at every start",
        },
        _AGENT_CODES,
    )
)
@click.option(
    "--id",
    "agent_id",
    metavar="NAME",
    help="Be this agent (default: the first of HOST-1, HOST-2 and so on that is free on this engine).",
)
@click.option("--queues", metavar="NAME,...", help="The named queues to serve (or TITUS_QUEUES).")
@click.option("--slots", type=click.IntRange(1), metavar="N", help="Containers at once (or TITUS_SLOTS).")
@click.option("--zone", metavar="NAME", help="Where this host is (or TITUS_ZONE).")
@click.option("--region", metavar="NAME", help="Where this host is (or TITUS_REGION).")
@click.option("--engine-url", metavar="URL", help="The Docker Engine (or TITUS_ENGINE_URL, or DOCKER_HOST).")
@click.option("--on-stop", type=click.Choice(["keep", "stop"]), help="Containers, when it stops.")
@_redis_url
def agent(
    agent_id: str | None,
    queues: str | None,
    slots: int | None,
    zone: str | None,
    region: str | None,
    engine_url: str | None,
    on_stop: str | None,
    redis_url: str | None,
) -> None:
    """Run an agent: `celery -A titus_celery worker -Q titus.agent`, with --id `-Q titus.agent.NAME`.

    Start as many as you like on one engine: they share its room. What one that ended was running goes
    on, and is taken over by the others or by the next that starts.
    """
    _become(
        agent_command(agent_id or ""),
        TITUS_QUEUES=queues,
        TITUS_SLOTS=slots,
        TITUS_ZONE=zone,
        TITUS_REGION=region,
        TITUS_ENGINE_URL=engine_url,
        TITUS_ON_STOP=on_stop,
        TITUS_REDIS_URL=redis_url,
    )


@click.command(epilog=epilog({"titus beat": "of several one ticks, and when it is gone another"}, _CODES))
@_redis_url
def beat(redis_url: str | None) -> None:
    """Run the beat: `celery -A titus_celery beat`."""
    _become(beat_command(), TITUS_REDIS_URL=redis_url)


@click.command(epilog=epilog({"titus flower --port 5556": "http://127.0.0.1:5556"}, _CODES))
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=FLOWER_PORT, show_default=True, help="Where to listen."
)
@_redis_url
def flower(address: str, port: int, redis_url: str | None) -> None:
    """Run Flower: `celery -A titus_celery flower`."""
    _become(flower_command(address, port), TITUS_REDIS_URL=redis_url)
