"""How long from submitting a job until its container runs, against starting the container by hand.

    python benchmarks/submit_to_running.py [--server HOST:PORT] [--pairs N]

Without --server it starts an installation of its own. Each pair measures both ways right after each
other, in turns, so that what else the machine does meets both alike:

- titus: from CreateJob until ObserveJob says RUNNING;
- engine: create and start of the same image, command and limits through Docker's own library.

The interval of the ratio is the one of the sign test: it assumes nothing about how times are spread.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import time
from typing import Final

import docker
from comparison import sign_interval

from titus_celery.cli.temporary import temporary_installation
from titus_celery.client import TitusClient
from titus_celery.errors import TitusError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

IMAGE: Final = "titus/hello:latest"
#: Runs until it is told to end, and then ends at once: nobody waits for it to be killed.
COMMAND: Final = ("sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait")
CPU: Final = 0.1
MEMORY_MB: Final = 64
#: Runs of each kind before the first that counts: imports, caches, connections.
WARM_UP: Final = 2


def through_titus(client: TitusClient) -> float:
    """Seconds from CreateJob to RUNNING; the job is ended again."""
    container = pb.Container(
        image=pb.Image(name=IMAGE),
        command=COMMAND,
        resources={"cpu": str(CPU), "memory": f"{MEMORY_MB}MB"},
    )
    job = pb.JobDescriptor(
        appName="benchmark",
        containers={"main": container},
        batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=1), containerId="main"),
    )
    began = time.perf_counter()
    job_id = client.submit(job)
    took = math.nan
    for message in client.observe(job_id):
        if isinstance(message, pb.JobChangeNotification) and math.isnan(took) and runs(message):
            took = time.perf_counter() - began
            client.kill(job_id)
    if math.isnan(took):
        raise SystemExit(f"job {job_id} never ran: `titus show {job_id}` says why")
    return took


def runs(message: pb.JobChangeNotification) -> bool:
    """Whether the message says that a task runs."""
    tasks = [message.taskUdate.task, *message.jobSnapshot.job.tasks]
    return any(task.state.state == pb.RUNNING for task in tasks)


def through_engine(engine: docker.APIClient) -> float:
    """Seconds to create and start the same container; it is removed again."""
    memory = MEMORY_MB * 1_000_000
    began = time.perf_counter()
    host = engine.create_host_config(
        nano_cpus=int(CPU * 1e9),
        mem_limit=memory,
        memswap_limit=memory,
        security_opt=["no-new-privileges"],
    )
    container = engine.create_container(IMAGE, list(COMMAND), host_config=host)
    engine.start(container)
    took = time.perf_counter() - began
    engine.remove_container(container, force=True)
    return took


def measure(server: str, pairs: int) -> None:
    """Measure and print."""
    engine = docker.APIClient(version="auto")
    titus: list[float] = []
    plain: list[float] = []
    with TitusClient(server, caller="benchmark@localhost") as client:
        for number in range(-WARM_UP, pairs):
            # In turns, so that neither always comes second.
            if number % 2:
                one, other = through_titus(client), through_engine(engine)
            else:
                other, one = through_engine(engine), through_titus(client)
            if number >= 0:
                titus.append(one)
                plain.append(other)
                print(f"pair {number + 1:>2}: titus {one * 1000:7.1f} ms   engine {other * 1000:7.1f} ms")
    ratios = [one / other for one, other in zip(titus, plain, strict=True)]
    low, high, sure = sign_interval(ratios)
    print()
    print(f"titus, CreateJob to RUNNING   median {statistics.median(titus) * 1000:7.1f} ms")
    print(f"engine, create and start      median {statistics.median(plain) * 1000:7.1f} ms")
    print(
        f"ratio  median {statistics.median(ratios):.2f}   {low:.2f} to {high:.2f} ({sure:.0%} sign interval)"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument(
        "--server", help="measure this one, on this machine's engine; default: one of its own"
    )
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        own = ["--port", "0", "--no-flower"]
        server = arguments.server or stack.enter_context(temporary_installation(own))
        measure(server, arguments.pairs)


if __name__ == "__main__":
    try:
        main()
    except TitusError as error:
        sys.exit(f"benchmark: {error}")
