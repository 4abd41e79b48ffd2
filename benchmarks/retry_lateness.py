"""How late delayed retries fire: from the instant that the record says until the replacement is queued.

    python benchmarks/retry_lateness.py [--server HOST:PORT] [--retries N] [--delay MILLISECONDS]

Without --server it starts an installation of its own. One job fails again and again under a `delayed`
policy; both instants are the store's, read from the histories of its tasks. The promise, on a machine
with nothing else to do, is at most 100 ms; the exit code is 1 if the median is later than that. (Single
ones may be: whatever else the machine does delays them, too.)
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from titus_celery.cli.temporary import temporary_installation
from titus_celery.client import TitusClient
from titus_celery.errors import TitusError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

IMAGE: Final = "titus/hello:latest"
#: What is promised of an idle machine.
PROMISED: Final = timedelta(milliseconds=100)
_MILLISECOND: Final = timedelta(milliseconds=1)


def failing_job(retries: int, delay: timedelta) -> pb.JobDescriptor:
    """A job that fails at once, and is tried again *retries* times after *delay* each."""
    span = delay // _MILLISECOND
    policy = pb.RetryPolicy.Delayed(initialDelayMs=span, delayMs=span, retries=retries)
    container = pb.Container(image=pb.Image(name=IMAGE), command=["false"])
    return pb.JobDescriptor(
        appName="benchmark",
        containers={"main": container},
        batch=pb.BatchJobSpec(
            instances=pb.TaskInstances(desired=1),
            containerId="main",
            retryPolicy=pb.RetryPolicy(delayed=policy),
        ),
    )


def entered(task: pb.Task, state: str) -> datetime:
    """When the task reached *state*."""
    [at] = [change.timestamp for change in task.stateChanges if change.state == state]
    return datetime.fromisoformat(at)


def lateness(client: TitusClient, retries: int, delay: timedelta) -> list[timedelta]:
    """How late each retry of one job was."""
    job_id = client.submit(failing_job(retries, delay))
    for _ in client.observe(job_id):
        pass
    tasks = sorted(client.find(job_id).tasks, key=lambda task: int(task.taskContext["task.resubmitNumber"]))
    if len(tasks) != retries + 1:
        raise SystemExit(f"job {job_id} was run {len(tasks)} times: `titus show {job_id}` says why")
    return [entered(later, "QUEUED") - entered(task, "FAILED") - delay for task, later in pairwise(tasks)]


def main() -> int:
    """Read the command line, measure, print; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--server", help="measure this one; default: one of its own")
    parser.add_argument("--retries", type=int, default=30)
    parser.add_argument("--delay", type=int, default=700, metavar="MILLISECONDS")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        own = ["--port", "0", "--no-flower"]
        server = arguments.server or stack.enter_context(temporary_installation(own))
        client = stack.enter_context(TitusClient(server, caller="benchmark@localhost"))
        late = sorted(lateness(client, arguments.retries, arguments.delay * _MILLISECOND))
    millis = [span / _MILLISECOND for span in late]
    middle = statistics.median(millis)
    within = sum(span <= PROMISED for span in late)
    print(f"{len(late)} retries, late by: median {middle:.0f} ms, {millis[0]:.0f} to {millis[-1]:.0f} ms")
    print(f"{within} of {len(late)} within the promised {PROMISED // _MILLISECOND} ms")
    return 0 if middle <= PROMISED / _MILLISECOND else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
