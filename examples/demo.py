"""The demo: start an installation, submit hello.yaml, watch it to its end, stop everything again.

Every line about the job comes from the server's streams. While it runs, another terminal can look:

    titus ls
    grpcurl -plaintext 127.0.0.1:7104 list

and Flower is at http://127.0.0.1:5555. Kill the gateway in the middle if you like: the lines stop,
and go on when it is back.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from titus_celery.cli import console, jobfile
from titus_celery.cli.follow import Follower
from titus_celery.cli.temporary import temporary_installation
from titus_celery.cli.watch import INTERRUPTED, watch
from titus_celery.client import TitusClient
from titus_celery.errors import TitusError

JOB: Final = Path(__file__).with_name("hello.yaml")
#: How many runs each slot should have needed: the one in slot 1 fails once.
RUNS_WANTED: Final = [1, 2, 1]


def main() -> int:
    """Run the demo; 0 if the job ended as its file says it should."""
    [descriptor] = jobfile.read(JOB.read_text(), JOB.name)
    with temporary_installation() as server, TitusClient(server, caller="demo@localhost") as client:
        job_id = client.submit(descriptor)
        console.note(f"job {job_id}")
        follower = Follower(job_id)
        code = watch(client, job_id, follower)
        slots = follower.summary()
        print()
        console.table(
            ("TASK", "RUNS", "HOST", "EXIT", "REASON"),
            [(s.slot, str(s.attempts), s.host, str(s.verdict.code), s.reason) for s in slots],
        )
        print()
    if code == 0 and [slot.attempts for slot in slots] == RUNS_WANTED:
        print("The demo went as it should: three tasks finished, one of them at its second attempt.")
        return 0
    console.complain("the demo did not go as it should")
    return code or 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # While it started or stopped; in between Ctrl-C ends the job.
        sys.exit(INTERRUPTED)
    except TitusError as error:
        console.complain(str(error))
        sys.exit(1)
