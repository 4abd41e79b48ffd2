"""`titus submit`: the jobs of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from titus_celery.cli import console
from titus_celery.cli.console import Fault
from titus_celery.cli.options import connect, epilog, once_told, with_cluster, with_key, with_owner

if TYPE_CHECKING:
    from titus_celery.client import CallFailed, TitusClient
    from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["submit"]

#: Statuses of a call that may have been carried out all the same.
_UNSURE: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"})

_EPILOG: Final = epilog(
    {
        "titus submit job.yaml": "",
        "titus submit job.yaml --follow": "and show what the containers write, to the end",
        "titus submit --cluster web job.yaml": "into the cluster of that name",
        "titus submit --key nightly-7 job.yaml": "as often as you like: it is made once",
        "echo 'image: titus/hello' | titus submit -": "from standard input",
    },
    {
        "0": "all were accepted; with --wait and --follow the codes of `titus run`",
        "2": "the command line or the file is wrong",
        "125": "not all were accepted; standard error says why, and how to go on",
    },
)


@click.command(epilog=_EPILOG)
@click.argument("file", type=click.File("rb"))
@click.option("--quiet", "-q", is_flag=True, help="Print the ids and nothing else.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is that of `titus run`.")
@click.option("--follow", is_flag=True, help="Wait, and show what the containers write.")
@with_cluster
@with_key
@with_owner
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    file: BinaryIO,
    quiet: bool,
    wait: bool,
    follow: bool,
    cluster: str | None,
    key: str | None,
    server: str,
    owner: str,
) -> None:
    """Submit the jobs of FILE (- for standard input) and print their ids.

    FILE is YAML or JSON, one job a document, either a whole JobDescriptor in proto3 JSON, or short:

    \b
      image: titus/hello
      type: service                # without it: batch, a job that ends; mantis: see below
      command: echo hello          # or a list of words; entryPoint likewise
      env: {NAME: value}
      cpu: 0.5
      memory: 256MiB               # disk, network, gpu likewise
      ports: [8080]
      resources: {allocateIP: true}                 # any other kind
      instances: 3                 # of a service also {desired: 3, min: 1, max: 9}
      retries: 2                   # or {exponential: {retries: 2, initialDelay: 1s, maxDelay: 1m}},
                                   # delayed, immediate
      timeout: 10m
      hardConstraints: [uniqueHost, host=NAME]      # softConstraints likewise
      parameters: {NAME: value}
      volumes: [data:/data:ro]
      securityProfile: {securityGroups: [sg-1]}
      name: nightly
      owner: ann@example.com       # or {ownerEmail: ..., teamEmail: ...}
      labels: {team: blue}
      jobGroupInfo: {stack: prod, detail: eu, sequence: "001"}

    \b
    A Mantis job has stages, which run side by side, each task until it exits with 0:

    \b
      name: pipeline
      stages:
        - {image: titus/source, instances: 2}       # whatever a job has for its container
        - {image: titus/sink, cpu: 0.5, retries: 9}
      timeout: 8h                  # of the whole job, from when it was submitted

    Nothing is submitted if one document is wrong. If the server refuses one, those before it stay
    submitted, and it is said which, and how to go on. --wait and --follow go through several jobs one
    after another, so of output that the server keeps only for a while (after the end of a task) some may
    be gone. Ctrl-C ends the job that is being followed; a service it leaves running.
    """
    from titus_celery.adapters.system import SystemIds
    from titus_celery.cli.cluster_lookup import look_up_cluster
    from titus_celery.cli.specs import is_service

    descriptors = _read(file)
    tell = console.silent if quiet else console.note
    with connect(server, owner) as client:
        if cluster is not None:
            _join(descriptors, look_up_cluster(client, cluster).id)
        ids = _submitted(client, descriptors, key or SystemIds().new(), once_told(tell), file)
    if not (wait or follow):
        return
    ends = (
        _watched(id, is_service(each), follow, quiet, server, owner)
        for id, each in zip(ids, descriptors, strict=True)
    )
    ctx.exit(next(filter(None, list(ends)), 0))


def _join(descriptors: Sequence[pb.JobDescriptor], cluster_id: str) -> None:
    """Let the jobs be of this cluster."""
    for descriptor in descriptors:
        if descriptor.jobClusterId not in ("", cluster_id):
            raise click.UsageError(f"--cluster is another than the file's, {descriptor.jobClusterId}")
        descriptor.jobClusterId = cluster_id


def _submitted(
    client: TitusClient,
    descriptors: Sequence[pb.JobDescriptor],
    key: str,
    on_wait: Callable[[CallFailed], None],
    file: BinaryIO,
) -> list[str]:
    """The ids of the jobs, printed as they come. Fault says how far it came when one fails."""
    from titus_celery.client import CallFailed

    ids: list[str] = []
    for number, descriptor in enumerate(descriptors, 1):
        try:
            ids.append(client.submit(descriptor, _key_of(key, number), on_wait=on_wait))
        except CallFailed as error:
            if len(descriptors) == 1:
                raise
            done = ", ".join(f"document {at} is job {id}" for at, id in enumerate(ids, 1))
            left = [f"document {at}" for at in range(number, len(descriptors) + 1)]
            if error.status in _UNSURE:
                left[0] += " (or it was, and the answer was lost)"
            raise Fault(
                f"document {number} of {len(descriptors)}: {error.with_hint('')}",
                f"submitted: {done or 'none'}; not submitted: {', '.join(left)}",
                f"`titus submit --key {key} {_name_of(file)}` goes on there and makes no job twice",
            ) from error
        click.echo(ids[-1])
    return ids


def _key_of(key: str, number: int) -> str:
    """The key of a document: that of the first is also the key of a file that has no other."""
    return key if number == 1 else f"{key}-{number}"


def _name_of(file: BinaryIO) -> str:
    name = str(getattr(file, "name", "-"))
    return "-" if name == "<stdin>" else name


def _read(file: BinaryIO) -> list[pb.JobDescriptor]:
    from titus_celery.cli import jobfile

    return jobfile.read(*jobfile.content_of(file))


def _watched(job_id: str, is_service: bool, follow: bool, quiet: bool, server: str, owner: str) -> int:
    from titus_celery.cli.follow import Follower
    from titus_celery.cli.watch import watch

    tell = console.silent if quiet else console.note
    with connect(server, owner) as client:
        follower = Follower(job_id, with_output=follow, is_service=is_service)
        return watch(client, job_id, follower, note=tell)
