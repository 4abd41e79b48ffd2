"""Options that several commands share, what they make of them, and how their help ends."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from titus_celery.client import CallFailed, TitusClient

__all__ = [
    "DONE_OR_NOT",
    "as_json",
    "connect",
    "count",
    "epilog",
    "given",
    "once_told",
    "pair",
    "with_cluster",
    "with_key",
    "with_owner",
    "with_server",
]

F = TypeVar("F", bound=Callable[..., Any])

#: What the API has room for where it counts something.
_COUNT_MAX: Final = 2**32 - 1
#: The exit codes of most commands.
DONE_OR_NOT: Final[Mapping[str, str]] = {
    "0": "done",
    "2": "the command line is wrong",
    "125": "it could not be done; standard error says why",
}


def epilog(examples: Mapping[str, str], codes: Mapping[str, str] = DONE_OR_NOT) -> str:
    """How a command's help ends: examples, each with what it does, and the exit codes."""
    return "\n".join(("\b", "Examples:", *_rows(examples), "", "\b", "Exit codes:", *_rows(codes)))


def _rows(of: Mapping[str, str]) -> list[str]:
    width = max(map(len, of))
    return [f"  {name:<{width}}  {what}".rstrip() for name, what in of.items()]


def count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The number of something that an option holds, for which the API has room."""
    if value is None:
        return None
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(_COUNT_MAX))
    if not (is_number and int(value) <= _COUNT_MAX):
        raise click.BadParameter(f"{value!r} is not a whole number from 0 to {_COUNT_MAX}")
    return int(value)


def with_server(function: F) -> F:
    """Add --server."""
    return click.option(
        "--server",
        envvar="TITUS_SERVER",
        default="127.0.0.1:7104",
        show_default=True,
        metavar="HOST:PORT",
        help="The gateway to talk to (or TITUS_SERVER).",
    )(function)


def with_owner(function: F) -> F:
    """Add --server and --owner."""
    owner = click.option(
        "--owner",
        envvar="TITUS_OWNER",
        default=_me,
        show_default="USER@HOST",
        metavar="EMAIL",
        callback=_email,
        help="Who you are (or TITUS_OWNER).",
    )
    return with_server(owner(function))


def with_cluster(function: F) -> F:
    """Add --cluster."""
    return click.option(
        "--cluster",
        metavar="CLUSTER",
        callback=given,
        help="The cluster to join: its id, the beginning of it, or its name.  [default: that of its type]",
    )(function)


def with_key(function: F) -> F:
    """Add --key."""
    return click.option(
        "--key",
        metavar="KEY",
        callback=_key,
        help="Make it once, however often it is sent with this key.  [default: a new one each time]",
    )(function)


def as_json(function: F) -> F:
    """Add -o json."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print it.",
    )(function)


def connect(server: str, owner: str = "") -> TitusClient:
    """A client for the server and the caller that the options name; nobody in particular may look."""
    from titus_celery.client import TitusClient

    return TitusClient(server, caller=owner)


def once_told(tell: Callable[[str], None]) -> Callable[[CallFailed], None]:
    """What tells, the first time, why a submission is tried again, and what can be done meanwhile."""
    told: list[CallFailed] = []

    def hear(error: CallFailed) -> None:
        if not told:
            parts = (error.why, error.hint, "trying again for some seconds")
            tell("; ".join(part for part in parts if part))
        told.append(error)

    return hear


def pair(entry: str, option: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE, as *option* was given; BadParameter if it is not that."""
    name, equals, value = entry.partition("=")
    if not (name.strip() and equals):
        raise click.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint=option)
    return name, value


def _key(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """An idempotency key that can be sent."""
    if value is not None and not (value.strip() and value.isascii() and value.isprintable()):
        raise click.BadParameter("must be plain ASCII characters, and not blank")
    return value


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as in many containers.
        user = "nobody"
    return f"{user}@{socket.gethostname()}"


def given(
    ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """The id or ids of an argument, none of which may be empty (as an unset shell variable is)."""
    if value is not None and not all(id.strip() for id in ([value] if isinstance(value, str) else value)):
        raise click.BadParameter("an id is empty")
    return value


def _email(ctx: click.Context, param: click.Parameter, value: str) -> str:
    name, _, host = value.strip().partition("@")
    if not (value.isascii() and value.isprintable() and name and host):
        raise click.BadParameter(
            "must be an e-mail address of plain ASCII characters, such as ann@example.com"
        )
    return value
