"""`titus cluster create`: a cluster from a file, or from options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import click
from click.core import ParameterSource

from titus_celery.cli import console
from titus_celery.cli.describe import Describing, Wanted, describing_staged
from titus_celery.cli.options import connect, count, epilog, once_told, with_key, with_owner

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["create"]

_EPILOG: Final = epilog(
    {
        "titus cluster create nightly.yaml": "from a file; - for standard input",
        "titus cluster create --name nightly --cron '0 2 * * *' IMAGE": "a job at two each night",
        "  ... --zone Europe/Berlin --keep-new": "on local clocks; the new job replaces",
        "titus cluster create --name web --min 2 --max 3 IMAGE": "two jobs at any time",
    }
)
#: Options that say what goes into a file otherwise.
_FOR_BOTH: Final = frozenset({"words", "key", "server", "owner"})


class _Create(Describing):
    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The two ways to call it."""
        return ["FILE | --name NAME [OPTIONS] IMAGE [-- COMMAND...]"]


@click.command(cls=_Create, epilog=_EPILOG)
@click.option("--name", metavar="NAME", help="Describe the cluster by options; without it, by FILE.")
@click.option(
    "--cron",
    metavar="SPEC",
    help="When a job is made: six fields from seconds on, as Quartz has them, or the five of crontab.",
)
@click.option("--zone", metavar="ZONE", help="On whose clocks, such as Europe/Berlin.  [default: UTC]")
@click.option(
    "--keep-new",
    is_flag=True,
    help="If one still lives then: make a new one, and end the old one once the new one runs.  "
    "[default: the time is passed over]",
)
@click.option(
    "--catch-up", is_flag=True, help="Make up for the newest time that was missed while nobody was there."
)
@click.option("--min", "least", callback=count, metavar="N", help="Jobs that always live.")
@click.option("--max", "most", callback=count, metavar="N", help="Jobs that live at most.")
@click.option("--disabled", is_flag=True, help="Make no jobs until `titus cluster enable`.")
@describing_staged
@with_key
@with_owner
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="FILE | IMAGE")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    name: str | None,
    words: tuple[str, ...],
    key: str | None,
    server: str,
    owner: str,
    **options: Any,
) -> None:
    """Create a cluster, and print its id.

    With --name it is one of Mantis jobs of a single stage, which runs COMMAND in a container of IMAGE.
    Whatever else there is takes a FILE, YAML or JSON; either a whole JobClusterDescriptor in proto3 JSON,
    or short:

    \b
      name: nightly
      cron: 0 0 2 * * ?            # from seconds to weekday, or the five fields of crontab; in quotes
                                   # if it begins with a star
      timeZone: Europe/Berlin      # without it UTC
      cronPolicy: KEEP_NEW         # without it KEEP_EXISTING: no new job while the old one lives
      catchUp: once                # without it none: what was missed while all was down is not made up for
      job: {image: titus/hello, command: echo hello, timeout: 1h}    # as `titus submit --help` has it

    \b
      name: pipeline
      min: 1                       # jobs that always live, and at most
      max: 2
      stages: [{image: titus/source}, {image: titus/sink, instances: 2}]
      enabled: false               # without it true

    \b
      name: web
      type: service                # or batch; what has cron, min, max or stages is of type mantis
      job: {type: service, image: titus/hello}
      owner: ann@example.com

    In a cluster of Mantis jobs a job that says no more than its container becomes one of a single stage,
    and its timeout the longest life of the job. Note that in the full form such a cluster makes no jobs
    unless it says `enabled: true`, as in the API.
    """
    from titus_celery.cli import clusterfile, jobfile

    if name is None:
        _refuse_options(ctx, words)
        file = cast(BinaryIO, click.File("rb").convert(words[0], None, ctx))
        descriptor = clusterfile.read(*jobfile.content_of(file))
    else:
        descriptor = _described(name, words, options)
    with connect(server, owner) as client:
        id = client.create_cluster(descriptor, key, on_wait=once_told(console.note))
    click.echo(id)
    if descriptor.HasField("mantis") and not descriptor.mantis.enabled:
        console.note(f"it makes no jobs until `titus cluster enable {id}`")


def _refuse_options(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Without --name there is one file, and nothing else is said about the cluster."""
    if len(words) > 1:
        raise click.UsageError("one FILE is all there can be; IMAGE and COMMAND go with --name")
    for param in ctx.command.params:
        name = param.name or ""
        if name not in _FOR_BOTH and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} goes with --name; a FILE says all of it")


def _described(name: str, words: tuple[str, ...], options: dict[str, Any]) -> pb.JobClusterDescriptor:
    """The cluster that the options describe."""
    from titus_celery.core.cluster import CATCH_UP, TIME_ZONE, CronPolicy
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

    cron, zone = options.pop("cron"), options.pop("zone")
    keep_new, catch_up = options.pop("keep_new"), options.pop("catch_up")
    least, most = options.pop("least"), options.pop("most")
    if not name.strip():
        raise click.BadParameter("a cluster needs a name", param_hint="--name")
    if cron is None:
        given = {"--zone": zone, "--keep-new": keep_new, "--catch-up": catch_up}
        for option in (option for option, value in given.items() if value):
            raise click.UsageError(f"{option} goes with --cron")
        if (least or 0) > (most or 0):
            raise click.UsageError("--max must be given, and no less than --min")
    elif least or (most or 1) != 1:
        raise click.UsageError("with --cron one job runs at a time; leave --min and --max out")
    rules = pb.MantisClusterSpec(
        enabled=not options.pop("disabled"), min=least or 0, max=most or 0, cronSpec=cron or ""
    )
    if keep_new:
        rules.cronPolicy = CronPolicy.KEEP_NEW.value
    job = Wanted(app_name=name, **options).staged(words[0], words[1:])
    if zone:
        job.mantis.parameters[TIME_ZONE] = zone
    if catch_up:
        job.mantis.parameters[CATCH_UP] = "once"
    return pb.JobClusterDescriptor(name=name, jobDescriptor=job, mantis=rules)
