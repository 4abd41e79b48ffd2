"""YAML documents (and so JSON) read with their line numbers, so that each mistake can be pointed at.

Scalars keep the text they were written with: `off`, `1.10` and `007` in an environment mean
themselves, not a bool and two numbers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from titus_celery.cli.console import Fault

__all__ = [
    "FileInvalid",
    "choice",
    "documents",
    "entries",
    "fault",
    "flag",
    "items",
    "known",
    "number",
    "text",
    "texts",
    "whole",
]

_KINDS: Final[Mapping[str, str]] = {
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:bool": "a yes or no",
    "tag:yaml.org,2002:int": "a whole number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:map": "a mapping",
    "tag:yaml.org,2002:seq": "a list",
}
#: What the numbers of the contract can hold.
UINT32_MAX: Final = 2**32 - 1
UINT64_MAX: Final = 2**64 - 1
#: A mistaken value is quoted up to here.
_QUOTE_MAX: Final = 40


class FileInvalid(Fault):
    """A file cannot be used; *place* is its name with the line, *why* what is wrong there."""

    exit_code = 2

    def __init__(self, place: str, why: str) -> None:
        super().__init__(place, why)
        self.args = (place, why)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


def documents(content: str, name: str) -> list[Node]:
    """The YAML documents of *content*, empty ones left out. FileInvalid for what is no YAML."""
    try:
        return [node for node in yaml.compose_all(content, yaml.SafeLoader) if not _is_null(node)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        why = " ".join(part for part in (error.context, error.problem) if part)
        raise FileInvalid(where, f"this is not valid YAML: {why}") from error
    except yaml.YAMLError as error:
        raise FileInvalid(name, f"this is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise FileInvalid(name, "it is nested more deeply than any job is") from error


def entries(node: Node, file: str, what: str) -> dict[str, tuple[ScalarNode, Node]]:
    """The entries of a mapping: key to key node and value; a key that occurs twice is refused."""
    if not isinstance(node, MappingNode):
        raise _wrong(node, file, what, "a mapping of names to values")
    found: dict[str, tuple[ScalarNode, Node]] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or _is_null(key):
            raise _wrong(key, file, f"a name in {what}", "a plain word")
        if _encodable(key, file, f"a name in {what}") in found:
            raise fault(key, file, f"{key.value!r} is given twice in {what}")
        found[key.value] = (key, value)
    return found


def known(
    found: Mapping[str, tuple[ScalarNode, Node]], allowed: Iterable[str], file: str, what: str
) -> dict[str, Node]:
    """The values of *found*, whose names must all be *allowed*; a near one is suggested."""
    names = list(allowed)
    for name, (key, _) in found.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
            raise fault(key, file, f"{name!r} is unknown in {what}; {hint}")
    return {name: value for name, (_, value) in found.items()}


def items(node: Node, file: str, what: str) -> Sequence[Node]:
    """The items of a list."""
    if not isinstance(node, SequenceNode):
        raise _wrong(node, file, what, "a list")
    return list(node.value)


def text(node: Node, file: str, what: str) -> str:
    """A scalar as it was written."""
    if not isinstance(node, ScalarNode) or _is_null(node):
        raise _wrong(node, file, what, "text")
    return _encodable(node, file, what)


def texts(node: Node, file: str, what: str) -> dict[str, str]:
    """A mapping of names to texts."""
    found = entries(node, file, what)
    return {name: text(value, file, f"{what}.{name}") for name, (_, value) in found.items()}


def whole(node: Node, file: str, what: str, least: int = 0, most: int = UINT32_MAX) -> int:
    """A whole number within bounds; proto3 JSON writes large ones in quotes, so quotes are allowed."""
    written = node.value if isinstance(node, ScalarNode) else ""
    digits = written.isascii() and written.isdigit() and len(written) <= len(str(most))
    if not (digits and least <= int(written) <= most):
        raise _wrong(node, file, what, f"a whole number from {least} to {most}")
    return int(written)


def choice(node: Node, file: str, what: str, words: Sequence[str]) -> str:
    """One of these words."""
    word = text(node, file, what)
    if word not in words:
        raise fault(node, file, f"{what} must be one of {', '.join(words)}, but is {word!r}")
    return word


def number(node: Node, file: str, what: str) -> str:
    """A decimal number, as it was written."""
    written = node.value if isinstance(node, ScalarNode) else ""
    whole_part, _, rest = written.partition(".")
    if not (
        (whole_part + rest).isascii() and whole_part.isdigit() and (rest.isdigit() or "." not in written)
    ):
        raise _wrong(node, file, what, "a number such as 2 or 0.5")
    return str(written)


def flag(node: Node, file: str, what: str) -> bool:
    """A yes or no in any of YAML's spellings."""
    words = yaml.SafeLoader.bool_values
    written = node.value.lower() if isinstance(node, ScalarNode) else ""
    if written not in words:
        raise _wrong(node, file, what, "true or false")
    return bool(words[written])


def fault(node: Node, file: str, why: str) -> FileInvalid:
    """The error that something is wrong at *node*."""
    return FileInvalid(f"{file}:{node.start_mark.line + 1}", why)


def _wrong(node: Node, file: str, what: str, wanted: str) -> FileInvalid:
    if isinstance(node, ScalarNode) and not _is_null(node):
        written = node.value if len(node.value) <= _QUOTE_MAX else node.value[:_QUOTE_MAX] + "..."
        found = repr(written)
    else:
        found = _KINDS.get(node.tag, "something else")
    return fault(node, file, f"{what} must be {wanted}, but is {found}")


def _encodable(node: ScalarNode, file: str, what: str) -> str:
    written = str(node.value)
    if any("\ud800" <= character <= "\udfff" for character in written):
        raise fault(node, file, f"{what} holds half of a character (an unpaired surrogate)")
    return written


def _is_null(node: Node | None) -> bool:
    return node is None or (isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null")
