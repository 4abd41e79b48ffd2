"""`titus scale`: how many tasks a service, or a stage of a Mantis job, has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from titus_celery.cli.options import connect, count, epilog, given, with_owner

if TYPE_CHECKING:
    from titus_celery.client import Instances

__all__ = ["scale"]

_EPILOG: Final = epilog(
    {
        "titus scale JOB 5": "five tasks from now on",
        "titus scale JOB 0": "none; the service stays, and can be scaled up again",
        "titus scale JOB 8 --max 10": "raise the bound that would not allow it",
        "titus scale JOB --max 0": "no upper bound",
        "titus scale JOB 4 --stage 1": "four tasks in the second stage of a Mantis job",
    }
)


@click.command(epilog=_EPILOG)
@click.argument("job", callback=given)
@click.argument("wanted", metavar="[N]", callback=count, required=False)
@click.option("--min", "least", callback=count, metavar="N", help="The fewest that it may have.")
@click.option("--max", "most", callback=count, metavar="N", help="The most that it may have; 0: any number.")
@click.option("--stage", callback=count, metavar="S", help="Of a Mantis job: which stage, from 0.")
@with_owner
def scale(
    job: str,
    wanted: int | None,
    least: int | None,
    most: int | None,
    stage: int | None,
    server: str,
    owner: str,
) -> None:
    """Let the service JOB have N tasks, or a stage of a Mantis job, and say how many there were before.

    The beginning of its id is enough. What is not named stays as it is; N must lie within --min and
    --max. New tasks get slots of their own. Those that are too many are ended: of a service
    first what does not run yet, then from the host with most of them, the oldest first; of a stage those
    with the highest numbers.

    The wish is on record when this returns, and stays so through crashes; `titus show JOB` shows how far
    it is. A batch job keeps its number of tasks.
    """
    from titus_celery.cli.lookup import look_up_job
    from titus_celery.client import CallFailed

    if (wanted, least, most) == (None, None, None):
        raise click.UsageError("say how many: N, --min or --max")
    with connect(server, owner) as client:
        found = look_up_job(client, job)
        try:
            done = client.resize(found.id, wanted, min=least, max=most, stage=stage)
        except CallFailed as error:
            if error.status != "INVALID_ARGUMENT":
                raise
            raise error.with_hint("--min and --max move the bounds") from error
    before, after = _words(done.before), _words(done.after)
    changes = [
        f"{name} {old} -> {new}" if old != new else f"{name} {new}"
        for (name, old), new in zip(before.items(), after.values(), strict=True)
    ]
    click.echo(f"{found.id}  {', '.join(changes)}{'' if before != after else ' (as before)'}")


def _words(numbers: Instances) -> dict[str, str]:
    from titus_celery.cli.pages import bound

    return {"tasks": str(numbers.desired), "min": str(numbers.min), "max": bound(numbers.max)}
