"""The options of `titus run` and `titus cluster create` that describe a job, and the job that they describe.

They are called what `docker run` calls them, where it has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from titus_celery.cli.options import count, pair

if TYPE_CHECKING:
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["Describing", "Wanted", "describing", "describing_staged"]

F = TypeVar("F", bound=Callable[..., Any])


def _checked(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """What the option holds, if its parser accepts it; its ValueError says what is wrong."""
    from titus_celery.cli import quantities
    from titus_celery.core import parameters, resources

    parsers: dict[str | None, Callable[[str], object]] = {
        "cpu": resources.cpu_millis,
        "memory": resources.memory_bytes,
        "disk": resources.memory_bytes,
        "network": resources.network_mbps,
        "gpu": resources.gpus,
        "publish": _port,
        "volume": parameters.volumes,
        "timeout": quantities.seconds,
    }
    try:
        for text in value if isinstance(value, tuple) else filter(None, [value]):
            parsers[param.name](text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def _port(text: str) -> object:
    from titus_celery.core import resources

    if ":" in text:
        raise ValueError(f"{text!r} names a port of the host, which the agent chooses; see `titus show`")
    return resources.ports(text)


_Options = tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]

#: What a container is made of, where it may run, and what its job is labelled with.
_CONTAINER: Final[_Options] = (
    click.option(
        "--env", "-e", multiple=True, metavar="K=V", help="Set a variable of its environment. Repeatable."
    ),
    click.option(
        "--cpu",
        "--cpus",
        callback=_checked,
        metavar="CORES",
        help="Such as 0.5.  [default: the server's]",
    ),
    click.option(
        "--memory",
        "-m",
        callback=_checked,
        metavar="AMOUNT",
        help="Such as 256MiB.  [default: the server's]",
    ),
    click.option("--disk", callback=_checked, metavar="AMOUNT", help="Room for what it writes, such as 2GB."),
    click.option(
        "--network", callback=_checked, metavar="RATE", help="Bandwidth (no network's name), such as 100Mbps."
    ),
    click.option("--gpu", "--gpus", callback=_checked, metavar="N", help="Whole GPUs."),
    click.option(
        "--publish",
        "-p",
        multiple=True,
        callback=_checked,
        metavar="PORT",
        help="Make a port of the container reachable by one of its host that `titus show` tells. Repeatable.",
    ),
    click.option(
        "--volume",
        "-v",
        multiple=True,
        callback=_checked,
        metavar="SRC:DST[:ro]",
        help="Mount a named volume or a directory of the host, if the operator allows it. Repeatable.",
    ),
    click.option("--label", "-l", multiple=True, metavar="K[=V]", help="Label the job. Repeatable."),
    click.option(
        "--constraint",
        multiple=True,
        metavar="KIND[=V]",
        help="Where it may run: uniqueHost, exclusiveHost, zoneBalance, host=NAME, serverGroup=QUEUE. "
        "Until that can be, it waits. Repeatable.",
    ),
    click.option(
        "--soft-constraint",
        multiple=True,
        metavar="KIND[=V]",
        help="The same, followed as far as that goes. Repeatable.",
    ),
    click.option(
        "--param",
        multiple=True,
        metavar="K=V",
        help="A parameter of the container: its variable TITUS_PARAM_K. Repeatable.",
    ),
    click.option("--entrypoint", metavar="WORDS", help="In the place of the image's own."),
)
_KIND: Final[_Options] = (
    click.option(
        "--service",
        "is_service",
        is_flag=True,
        help="Keep it running: each task that ends is started again, however it ended, until `titus kill`.",
    ),
)
_COUNT: Final[_Options] = (
    click.option(
        "--instances", callback=count, default="1", metavar="N", show_default=True, help="How many tasks."
    ),
)
_BOUNDS: Final[_Options] = (
    click.option("--min", "least", callback=count, metavar="N", help="Of a service: the fewest tasks."),
    click.option("--max", "most", callback=count, metavar="N", help="Of a service: the most tasks."),
)


def _runs(retries: str, timeout: str) -> _Options:
    """How often and how long, with what there is to say about them."""
    return (
        click.option(
            "--retries", callback=count, metavar="N", help=f"Retries of each task.  [default: {retries}]"
        ),
        click.option("--timeout", callback=_checked, metavar="SPAN", help=timeout),
    )


_RUNS: Final = _runs("0; of a service: without end", "Longest run of a task, such as 10m.")
_RUNS_OF_STAGES: Final = _runs("100", "Longest life of each job, such as 10m.")
_NAME: Final[_Options] = (
    click.option("--name", "app_name", metavar="APP", default="", help="A name for the job."),
)


def describing(function: F) -> F:
    """Add the options; the command gets the fields of Wanted."""
    return _with(function, (*_CONTAINER, *_KIND, *_COUNT, *_BOUNDS, *_RUNS, *_NAME))


def describing_staged(function: F) -> F:
    """Add those that describe a Mantis job of one stage; the command gets the fields of Wanted that have no
    default."""
    return _with(function, (*_CONTAINER, *_COUNT, *_RUNS_OF_STAGES))


def _with(function: F, options: _Options) -> F:
    described: Any = function
    for option in reversed(options):
        described = option(described)
    return cast(F, described)


class Describing(click.Command):
    """Says what to do about `titus run IMAGE sh -c ...`, whose -c would be ours."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The order in which it reads best."""
        return ["IMAGE", "[OPTIONS]", "[-- COMMAND...]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As usual, with a hint."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = f"{error.message} Write -- before the command for the container."
            raise click.UsageError(hint, ctx) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the options say."""

    env: Sequence[str]
    cpu: str | None
    memory: str | None
    disk: str | None
    network: str | None
    gpu: str | None
    publish: Sequence[str]
    volume: Sequence[str]
    label: Sequence[str]
    constraint: Sequence[str]
    soft_constraint: Sequence[str]
    param: Sequence[str]
    entrypoint: str | None
    instances: int
    retries: int | None
    timeout: str | None
    is_service: bool = False
    least: int | None = None
    most: int | None = None
    app_name: str = ""

    def descriptor(self, image: str, command: Sequence[str]) -> pb.JobDescriptor:
        """The job; UsageError for options that do not go together."""
        from titus_celery.cli.shortform import CONTAINER_ID, grant
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        job = pb.JobDescriptor(
            appName=self.app_name,
            labels=dict(_given(entry) for entry in self.label),
            containers={CONTAINER_ID: self._container(image, command)},
        )
        if self.is_service:
            job.service.CopyFrom(self._service(CONTAINER_ID))
        else:
            job.batch.CopyFrom(self._batch(CONTAINER_ID))
        if self.is_service and self.retries is not None:
            grant(job.service.retryPolicy, self.retries, spaced=True)
        elif self.retries:
            grant(job.batch.retryPolicy, self.retries, spaced=False)
        return job

    def staged(self, image: str, command: Sequence[str]) -> pb.JobDescriptor:
        """The same as a Mantis job of one stage."""
        from titus_celery.cli import quantities
        from titus_celery.cli.shortform import grant
        from titus_celery.cli.staged import add_stage
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        if self.is_service:
            raise click.UsageError("--service is for services; the cluster is of Mantis jobs")
        if self.instances < 1:
            raise click.BadParameter("a stage begins with one task at least", param_hint="--instances")
        job = pb.JobDescriptor(appName=self.app_name, labels=dict(_given(entry) for entry in self.label))
        job.mantis.name = self.app_name
        if self.timeout:
            job.mantis.jobSLA.runtimeLimitSecs = quantities.seconds(self.timeout)
        stage = add_stage(job, self._container(image, command))
        stage.instances.CopyFrom(self._numbers())
        if self.retries is not None:
            grant(stage.retryPolicy, self.retries, spaced=True)
        return job

    def _numbers(self) -> pb.TaskInstances:
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        return pb.TaskInstances(desired=self.instances, min=self.least or 0, max=self.most or 0)

    def _container(self, image: str, command: Sequence[str]) -> pb.Container:
        from titus_celery.core import resources
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        # Only what was asked for is sent: the defaults are the server's.
        amounts = {
            resources.CPU: self.cpu,
            resources.MEMORY: self.memory,
            resources.DISK: self.disk,
            resources.NETWORK: self.network,
            resources.GPU: self.gpu,
            resources.PORTS: ",".join(self.publish),
        }
        container = pb.Container(
            image=pb.Image(imageId=image) if image.startswith("sha256:") else pb.Image(name=image),
            command=command,
            entryPoint=[self.entrypoint] if self.entrypoint else [],
            env=dict(pair(entry, "--env") for entry in self.env),
            parameters=self._parameters(),
            resources={kind: amount for kind, amount in amounts.items() if amount},
        )
        if self.constraint:
            container.hardConstraints.constraints.update(map(_given, self.constraint))
        if self.soft_constraint:
            container.softConstraints.constraints.update(map(_given, self.soft_constraint))
        return container

    def _parameters(self) -> dict[str, str]:
        from titus_celery.core import parameters

        found = dict(pair(entry, "--param") for entry in self.param)
        if self.volume:
            if parameters.VOLUMES in found:
                raise click.UsageError(f"--param {parameters.VOLUMES}= and --volume mean the same; give one")
            found[parameters.VOLUMES] = ",".join(self.volume)
        return found

    def _batch(self, container_id: str) -> pb.BatchJobSpec:
        from titus_celery.cli import quantities
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        for option, number in (("--min", self.least), ("--max", self.most)):
            if number is not None:
                raise click.UsageError(f"{option} is for services; add --service")
        if self.instances < 1:
            raise click.BadParameter("0 is not in the range of a job that ends", param_hint="--instances")
        batch = pb.BatchJobSpec(instances=pb.TaskInstances(desired=self.instances), containerId=container_id)
        if self.timeout:
            batch.runtimeLimitSecs = quantities.seconds(self.timeout)
        return batch

    def _service(self, container_id: str) -> pb.ServiceJobSpec:
        from titus_celery.grpc.proto import titus_job_api_pb2 as pb

        if self.timeout:
            raise click.UsageError("--timeout is for jobs that end; a service has no run-time limit")
        return pb.ServiceJobSpec(instances=self._numbers(), containerId=container_id)


def _given(entry: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE, or of NAME alone."""
    name, _, value = entry.partition("=")
    return name, value
