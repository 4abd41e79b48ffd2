"""`titus dev`: a whole installation on this machine, for as long as the command runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.console import Fault
from titus_celery.cli.options import epilog
from titus_celery.cli.processes import FLOWER_PORT

if TYPE_CHECKING:
    from titus_celery.cli.installation import Installation, Plan

__all__ = ["LAST", "READY", "dev"]

#: How the line begins that says that jobs can be submitted, and the last one of the announcement.
READY: Final = "ready"
LAST: Final = "try"
#: How long everything may take to become ready.
START_WITHIN: Final = timedelta(seconds=90)
#: What can be listened on, and 0.
PORT: Final = click.IntRange(0, 65_535)


_EPILOG: Final = epilog(
    {
        "titus dev": "and then, in another terminal, what it says at the end of its start",
        "titus dev --port 0 --flower-port 0": "beside another one, with --state-dir DIRECTORY",
        "titus dev --keep": "containers outlive it, until the next start finds them",
    },
    {
        "0": "it was told to stop",
        "2": "the command line is wrong",
        "125": "it did not become ready, or cannot go on; standard error says why",
    },
)


@click.command(epilog=_EPILOG)
@click.option(
    "--port", type=PORT, default=7104, show_default=True, help="The API's port on loopback; 0: any free one."
)
@click.option(
    "--flower-port", type=PORT, default=FLOWER_PORT, show_default=True, help="Flower's port; 0: any free one."
)
@click.option("--no-flower", is_flag=True, help="Do without Flower.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".titus",
    show_default=True,
    help="Data, logs and identity of this installation.",
)
@click.option("--redis-url", metavar="URL", help="Use this Redis and not an embedded one.")
@click.option("--keep", is_flag=True, help="Leave containers running at the end; the next start finds them.")
def dev(
    port: int, flower_port: int, no_flower: bool, state_dir: Path, redis_url: str | None, keep: bool
) -> None:
    """Run a whole installation on this machine: store, gateway, control, agent, beat, Flower.

    It needs a Docker Engine. What dies is started again. Ctrl-C ends everything, containers too
    (unless --keep); a second one at once.
    """
    from titus_celery.adapters.docker_executor import DockerExecutor
    from titus_celery.cli import processes
    from titus_celery.cli.installation import Installation, Plan
    from titus_celery.cli.place import Place, claim_port

    settings = processes.check_environment(os.environ)
    place = Place.take(state_dir)
    port = claim_port(port, "--port")
    flower = None if no_flower else claim_port(flower_port, "--flower-port or do without: --no-flower")
    engine = DockerExecutor(settings.engine_url or None)
    facts = engine.facts()
    engine.close()
    plan = Plan(place=place, port=port, flower_port=flower, redis_url=redis_url, keep=keep)
    installation = Installation(plan, os.environ, console.note)
    installation.check()
    console.note(f"starting in {place.directory}, on Docker Engine {facts.version}")
    with _stop_signals() as asked:
        try:
            installation.start()
            _run(installation, plan, asked)
        finally:
            cause = f" on {signal.Signals(asked[0]).name}" if asked else ""
            console.note(f"stopping{cause}{'' if keep else ', containers too'} (Ctrl-C again: at once)")
            pressed = len(asked)
            installation.stop(lambda: len(asked) > max(pressed, 1))
            place.leave()
    console.note("stopped")


def _run(installation: Installation, plan: Plan, asked: list[int]) -> None:
    from titus_celery.cli.installation import LOOK_EVERY
    from titus_celery.client import TitusClient

    until = time.monotonic() + START_WITHIN.total_seconds()
    is_ready = False
    with TitusClient(plan.listen) as client:
        while not asked:
            installation.tend()
            if not is_ready:
                missing = installation.missing(client)
                is_ready = not missing
                if is_ready:
                    _announce(plan)
                elif time.monotonic() >= until:
                    raise Fault("the installation did not become ready", missing, f"see {plan.place.logs}")
            time.sleep(LOOK_EVERY.total_seconds())


def _announce(plan: Plan) -> None:
    here = "" if plan.port == 7104 else f" --server {plan.listen}"
    rows = [(READY, f"API     {plan.listen}")]
    if plan.flower_port is not None:
        rows.append(("", f"Flower  http://127.0.0.1:{plan.flower_port}"))
    rows.append(("", f"logs    {plan.place.logs}"))
    rows.append((LAST, f"titus run{here} titus/hello -- echo hello"))
    click.echo("\n".join(f"{label:<6}  {text}" for label, text in rows))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The list of the signals to stop that came so far."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
