"""`titus kill`: ends jobs and tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli import console
from titus_celery.cli.options import connect, epilog, given, with_owner
from titus_celery.errors import EXIT_OURS, TitusError

if TYPE_CHECKING:
    from titus_celery.client import TitusClient

__all__ = ["kill"]

_EPILOG: Final = epilog(
    {
        "titus kill 0b0e7a52": "the job whose id begins like this",
        "titus kill --wait JOB": "and return when its containers are gone",
        "titus kill JOB-3": "the task in slot 3; if its job is kept running it is replaced",
        "titus kill $(titus ls -q --label team=blue)": "all that are listed",
    },
    {
        "0": "all of them",
        "2": "the command line is wrong",
        "125": "not all of them; standard error says which, and why",
    },
)


@click.command(epilog=_EPILOG)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", callback=given)
@click.option("--wait", is_flag=True, help="Return when they have ended.")
@with_owner
@click.pass_context
def kill(ctx: click.Context, /, ids: tuple[str, ...], wait: bool, server: str, owner: str) -> None:
    """End each job or task ID, and print its id.

    The beginning of a live job's id is enough. A job that is over and a task need the whole id; of a task
    that lives, JOB-SLOT is, and of a Mantis job JOB-STAGE.SLOT. A task of a batch job is not replaced;
    one of a service or a Mantis job is.

    The wish is on record when this returns; with --wait, the containers are gone too. Every id is tried,
    whatever becomes of the others.
    """
    with connect(server, owner) as client:
        work = _Kills(client)
        work.find(ids)
        work.end()
        if wait:
            work.wait()
    ctx.exit(EXIT_OURS if work.has_failed else 0)


class _Kills:
    """What is to be ended. What goes wrong is told at once, and costs the others nothing."""

    def __init__(self, client: TitusClient) -> None:
        self._client = client
        self._jobs: list[str] = []
        self._tasks: list[str] = []
        self.has_failed = False

    def find(self, ids: Sequence[str]) -> None:
        """Learn what the ids name."""
        from titus_celery.cli.lookup import look_up
        from titus_celery.client import AWAY, CallFailed
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        for number, id in enumerate(ids):
            try:
                found = look_up(self._client, id)
            except TitusError as error:
                self._fail(str(error))
                if isinstance(error, CallFailed) and error.status in AWAY:
                    # Whoever does not answer about one, does not about the others.
                    if left := ids[number + 1 :]:
                        self._fail(f"not tried for that reason: {', '.join(left)}")
                    return
                continue
            (self._jobs if isinstance(found, pb.Job) else self._tasks).append(found.id)

    def end(self) -> None:
        """Put the wishes on record."""
        self._tasks = self._ended(self._client.kill_tasks, self._tasks)
        self._jobs = self._ended(self._client.kill_jobs, self._jobs)

    def wait(self) -> None:
        """Return when all that could be ended has ended."""
        from titus_celery.client import Disconnected

        # The streams end when their subjects have ended.
        streams = [*map(self._client.observe, self._jobs), *map(self._client.tail, self._tasks)]
        for item in (item for stream in streams for item in stream):
            if isinstance(item, Disconnected):
                console.note("the server went away; waiting for it")

    def _ended(self, call: Callable[[Sequence[str]], None], ids: Sequence[str]) -> list[str]:
        """The ids that could be ended, which are printed."""
        from titus_celery.client import CallFailed

        done = list(dict.fromkeys(ids))
        if not done:
            return []
        try:
            call(done)
        except CallFailed as error:
            done = list(error.done)
            for each in error.failures:
                self._fail(f"cannot end {each.id}; {each.why}")
        for id in done:
            click.echo(id)
        return done

    def _fail(self, why: str) -> None:
        self.has_failed = True
        console.complain(why)
