"""The `titus` command: finds a subcommand, and turns every way to fail into a sentence and an exit code.

Exit codes: 2 the command line is wrong; 125 it could not be done; what else `titus run` ends with is
in `verdict.py`. A subcommand's module is imported when it is asked for, and no sooner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from titus_celery import __version__
from titus_celery.cli import console
from titus_celery.cli.lazy import LazyGroup
from titus_celery.errors import TitusError

__all__ = ["FAULT", "cli", "main"]

#: The command could not be carried out, for a reason that is not the container's.
FAULT: Final = 125
#: What a shell shows for a program that a closed pipe ended.
PIPE_CLOSED: Final = 128 + 13
INTERRUPTED: Final = 130

#: Every subcommand: the module that has it, and its line in the help, which is thus free of imports.
_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("run", "Run a command in a container; its output and exit code become yours."),
    "submit": ("submit", "Submit the jobs of a YAML or JSON file."),
    "ls": ("ls", "List jobs."),
    "show": ("show", "Show one job or task."),
    "scale": ("scale", "Change how many tasks a service or a stage has."),
    "kill": ("kill", "End jobs and tasks."),
    "cluster": ("cluster", "Job clusters: templates of jobs, how many run, and when."),
    "dev": ("dev", "Run a whole installation on this machine."),
    "gateway": ("processes", "Run the API server."),
    "control": ("processes", "Run a control worker: places tasks, acts on deadlines."),
    "agent": ("processes", "Run an agent: containers through Docker on this host."),
    "beat": ("processes", "Run the beat: makes control look for work."),
    "flower": ("processes", "Run Flower: a web page about workers and messages."),
}

_EPILOG: Final = """\b
Examples:
  titus dev                                  everything on this machine
  titus run titus/hello -- echo hello        in another terminal
  titus run --instances 3 IMAGE -- ./work    three containers, output by line
  titus run --service -p 8080 IMAGE          a service, started again whenever it ends
  titus submit job.yaml --follow             a job from a file
  titus cluster create --name nightly --cron '0 2 * * *' IMAGE
  titus ls; titus show ID; titus scale ID 3; titus kill ID

\b
Server and caller come from --server and --owner, or TITUS_SERVER and TITUS_OWNER.
Exit codes: 0 done, 2 usage, 125 titus could not do it; of a job that is followed also 124 a
run-time limit, 128+n signal n, otherwise the container's own. `titus COMMAND --help` has them all.
"""


class Commands(LazyGroup):
    """The subcommands, imported one at a time; errors of ours become exit codes."""

    table = _COMMANDS

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; what goes wrong on purpose ends in one sentence."""
        try:
            return super().invoke(ctx)
        except TitusError as error:
            console.complain(str(error))
            ctx.exit(error.exit_code if isinstance(error, console.Fault) else FAULT)
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody to tell, and nothing to flush to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(PIPE_CLOSED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            # The last resort: a fault of this program, told without its insides.
            console.complain(
                f"internal error ({type(error).__name__}: {error}); this is a fault of titus itself; "
                "`titus --debug ...` shows where"
            )
            ctx.exit(FAULT)


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="titus", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the inner workings of an internal error.")
def cli(debug: bool) -> None:
    """Container jobs on your Docker hosts: run them, watch them, end them."""


def main(args: Sequence[str] | None = None) -> None:
    """The entry point: run the command line and exit."""
    cli.main(args=list(args) if args is not None else None, prog_name="titus")
