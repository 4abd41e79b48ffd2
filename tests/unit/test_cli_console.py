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


@pytest.mark.parametrize(("outcome", "code"), [("FIRED", 32), ("SKIPPED", 33), ("MISSED", 31), ("other", 0)])
def test_outcomes_have_colours_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    console.table(("A", "B"), [(outcome, "x")])
    assert (f"\x1b[{code}m{outcome}" in terminal.getvalue()) == bool(code)


@pytest.mark.parametrize(
    ("args", "example"),
    [
        (["--help"], "titus run titus/hello -- echo hello"),
        (["cluster", "--help"], "titus cluster next nightly"),
        (["cluster", "create", "--help"], "titus cluster create nightly.yaml"),
    ],
    ids=["titus", "titus cluster", "titus cluster create"],
)
def test_help_imports_neither_grpc_nor_yaml_nor_rich(args: list[str], example: str) -> None:
    program = (
        "import sys\n"
        "from titus_celery.cli.main import cli\n"
        f"cli({args!r}, standalone_mode=False)\n"
        "heavy = {'grpc', 'yaml', 'rich', 'google', 'celery', 'docker', 'redis'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert example in done.stdout


def test_the_client_needs_neither_celery_nor_redis_nor_docker() -> None:
    program = (
        "import sys\n"
        "import titus_celery.client, titus_celery.cli.run, titus_celery.cli.submit, titus_celery.cli.watch\n"
        "import titus_celery.cli.jobfile, titus_celery.cli.lookup, titus_celery.cli.pages\n"
        "import titus_celery.cli.clusterfile, titus_celery.cli.cluster_show, titus_celery.cli.cluster_times\n"
        "print(sorted({'celery', 'kombu', 'docker', 'redis', 'croniter'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
