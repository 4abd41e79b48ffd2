"""A process knows a predecessor that is gone from one that lives or cannot be seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from titus_celery.adapters.process_name import is_gone, process_name

#: Tells its name, and lives until its input ends.
TELLING = (
    "import sys; from titus_celery.adapters.process_name import process_name;"
    "print(process_name(), flush=True); sys.stdin.read()"
)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process of this machine that waits to be ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_this_process_and_one_that_lives_are_not_gone(other: subprocess.Popen[str]) -> None:
    assert not is_gone(process_name())
    assert not is_gone(told(other))


def test_one_that_was_killed_is_gone_even_before_anybody_waited_for_it(other: subprocess.Popen[str]) -> None:
    name = told(other)
    other.kill()
    assert other.stdout is not None
    # Its end of the pipe closes when it ends.
    assert other.stdout.read() == ""
    while not is_gone(name):
        assert other.returncode is None
    other.wait()
    assert is_gone(name)


def test_a_later_process_of_the_same_id_is_another_one() -> None:
    host, pid, rest = process_name().split("/")
    started, _, whereabouts = rest.partition(".")
    assert is_gone(f"{host}/{pid}/{int(started) - 1}.{whereabouts}")


@pytest.mark.parametrize(
    "name", ["", "somebody", "host/12/34", "host/x/34.boot", "host/999999/1.another-boot.1"]
)
def test_of_what_cannot_be_seen_from_here_nothing_is_claimed(name: str) -> None:
    assert not is_gone(name)
