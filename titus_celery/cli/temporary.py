"""An installation for a short while, in a directory of its own: for the demo and for measurements."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from titus_celery.cli import console
from titus_celery.cli.console import Fault
from titus_celery.cli.dev import LAST, READY
from titus_celery.cli.processes import import_path
from titus_celery.cli.supervisor import leashed

__all__ = ["temporary_installation"]


@contextmanager
def temporary_installation(options: Sequence[str] = ()) -> Iterator[str]:
    """Run `titus dev` with *options* around a block, which gets the address of the API.

    Its directory goes with it, unless the block fails: then it stays, for its logs. Fault if it does
    not become ready; why was said on standard error.
    """
    directory = Path(tempfile.mkdtemp(prefix="titus-"))
    command = [sys.executable, "-m", "titus_celery", "dev", "--state-dir", str(directory), *options]
    process = subprocess.Popen(
        leashed(command, signal.SIGTERM),
        env={**os.environ, **import_path()},
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the block; the installation is stopped after it.
        start_new_session=True,
    )
    try:
        yield _address(process)
    except KeyboardInterrupt:
        # Whoever ends it has no question that the logs would answer.
        _stop(process)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except BaseException:
        _stop(process)
        logs = directory / "logs"
        if logs.is_dir() and any(logs.iterdir()):
            console.note(f"the logs of the installation stay in {logs}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    _stop(process)
    shutil.rmtree(directory, ignore_errors=True)


def _address(process: subprocess.Popen[str]) -> str:
    """The address of the API; what is announced is passed on."""
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(READY):
            address = line.split()[-1]
        if line.split()[:1] == [LAST]:
            return address
    raise Fault("the installation did not start", "", "the reason is above")


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop it and wait; each Ctrl-C meanwhile is passed on, and means the same as there: at once."""
    while True:
        # TERM and not INT: a Python that only just starts obeys it without a traceback.
        process.terminate()
        try:
            process.communicate()
        except KeyboardInterrupt:
            continue
        return
