"""How the command line looks."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from titus_celery.cli import console


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_and_no_color_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.coloured(Terminal())
    assert not console.coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not console.coloured(Terminal())


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain", "plain"),
        ("gr\u00fc\u00dfe \u4f60", "gr\u00fc\u00dfe \u4f60"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),
        ("\x9b", "\\x9b"),
        ("\udc80", "\\udc80"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text: str, want: str) -> None:
    assert console.printable(text) == want


def test_help_imports_neither_grpc_nor_yaml_nor_rich() -> None:
    program = (
        "import sys\n"
        "from titus_celery.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'grpc', 'yaml', 'rich', 'google', 'celery', 'docker', 'redis'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "titus run titus/hello -- echo hello" in done.stdout


def test_the_client_needs_neither_celery_nor_redis_nor_docker() -> None:
    program = (
        "import sys\n"
        "import titus_celery.client, titus_celery.cli.run, titus_celery.cli.submit, titus_celery.cli.watch\n"
        "import titus_celery.cli.jobfile, titus_celery.cli.lookup, titus_celery.cli.pages\n"
        "print(sorted({'celery', 'kombu', 'docker', 'redis'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
