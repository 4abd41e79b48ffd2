"""What `celery -A titus_celery ...` finds, in a process of its own, as its environment shapes a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from titus_celery.errors import EXIT_OURS

ROOT: Final = Path(__file__).parents[2]
FLOWER: Final = """
import titus_celery.celery
from flower.command import apply_env_options
import flower.options
from tornado.options import options
apply_env_options()
print(options.address, options.read_only)
"""


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TITUS_", "FLOWER_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plain_flower_listens_on_loopback_and_only_looks() -> None:
    assert python(FLOWER).stdout.split() == ["127.0.0.1", "True"]


def test_an_operator_may_decide_otherwise_about_flower() -> None:
    shown = python(FLOWER, FLOWER_ADDRESS="127.0.0.2", FLOWER_READ_ONLY="False").stdout
    assert shown.split() == ["127.0.0.2", "False"]


def test_a_mistyped_setting_is_one_line_and_125() -> None:
    done = python("import titus_celery.celery", TITUS_SLOT="3")
    assert done.returncode == EXIT_OURS
    assert done.stderr == "titus: setting TITUS_SLOT: is unknown; did you mean TITUS_SLOTS?\n"
