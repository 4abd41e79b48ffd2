"""Options that several commands share, and what they make of them."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from titus_celery.client import TitusClient

__all__ = ["as_json", "connect", "given", "with_server"]

F = TypeVar("F", bound=Callable[..., Any])


def with_server(function: F) -> F:
    """Add --server and --owner."""
    server = click.option(
        "--server",
        envvar="TITUS_SERVER",
        default="127.0.0.1:7104",
        show_default=True,
        metavar="HOST:PORT",
        help="The gateway to talk to (or TITUS_SERVER).",
    )
    owner = click.option(
        "--owner",
        envvar="TITUS_OWNER",
        default=_me,
        show_default="USER@HOST",
        metavar="EMAIL",
        callback=_email,
        help="Who you are (or TITUS_OWNER).",
    )
    return server(owner(function))


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


def connect(server: str, owner: str) -> TitusClient:
    """A client for the server and the caller that the options name."""
    from titus_celery.client import TitusClient

    return TitusClient(server, caller=owner)


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as in many containers.
        user = "nobody"
    return f"{user}@{socket.gethostname()}"


def given(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """The id or ids of an argument, none of which may be empty (as an unset shell variable is)."""
    if not all(id.strip() for id in ([value] if isinstance(value, str) else value)):
        raise click.BadParameter("an id is empty")
    return value


def _email(ctx: click.Context, param: click.Parameter, value: str) -> str:
    name, _, host = value.strip().partition("@")
    if not (value.isascii() and value.isprintable() and name and host):
        raise click.BadParameter(
            "must be an e-mail address of plain ASCII characters, such as ann@example.com"
        )
    return value
