"""Values of the core as JSON text and back, so that the store holds what a person can read.

The shape follows the types: a field added to the model needs no line here. Instants and durations are
whole milliseconds, rounded down (whoever makes an instant, makes it of whole milliseconds: the store's
time is). What equals its default is left out, and what a later release added is passed over; so a
release reads what its neighbours wrote. Changing a field's meaning or default takes a new SCHEMA.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from titus_celery.adapters.keyspace import from_ms, to_ms

__all__ = ["SCHEMA", "from_text", "to_text"]

#: Counts the meanings of what is stored; a release reads its own and those before.
SCHEMA: Final = 1

_SCHEMA_FIELD: Final = "schema"
_MILLISECOND: Final = timedelta(milliseconds=1)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Form:
    """How values of one type become JSON values and come back."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def to_text(value: Any) -> str:
    """One dataclass value of the core as one line of JSON."""
    body = {_SCHEMA_FIELD: SCHEMA, **_form(type(value)).dump(value)}
    return json.dumps(body, separators=(",", ":"))


def from_text(kind: type[_T], text: str | bytes) -> _T:
    """The value of this type that `to_text` wrote; ValueError says what is wrong with *text*."""
    try:
        body = json.loads(text)
        if not isinstance(body, dict):
            raise ValueError(f"{type(body).__name__} instead of an object")
        schema = body.get(_SCHEMA_FIELD)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise ValueError(f"schema {schema!r}, of which this release knows up to {SCHEMA}")
        value: _T = _form(kind).load(body)
        return value
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from error


def _form(hint: Any) -> _Form:
    if hint not in _FORMS:
        _FORMS[hint] = _made(hint)
    return _FORMS[hint]


def _made(hint: Any) -> _Form:
    if isinstance(hint, NewType):
        return _form(hint.__supertype__)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(args) if type(None) in args else _one_of(args)
    if origin is tuple:
        item = _form(args[0])
        return _Form(lambda value: [item.dump(one) for one in value], lambda raw: tuple(map(item.load, raw)))
    if origin is Mapping:
        return _mapping(_form(args[1]))
    if issubclass(hint, enum.Enum):
        return _Form(lambda value: value.value, hint)
    if is_dataclass(hint):
        return _record(hint)  # type: ignore[arg-type]  # only classes get here
    raise TypeError(f"the codec has no form for {hint}")


def _optional(args: tuple[Any, ...]) -> _Form:
    (some,) = (_form(arg) for arg in args if arg is not type(None))
    return _Form(
        lambda value: None if value is None else some.dump(value),
        lambda raw: None if raw is None else some.load(raw),
    )


def _one_of(kinds: tuple[Any, ...]) -> _Form:
    """A value of one of several classes, told apart by the class's name."""
    forms = {kind.__name__: _form(kind) for kind in kinds}

    def load(raw: Any) -> Any:
        ((name, body),) = raw.items()
        return forms[name].load(body)

    return _Form(lambda value: {type(value).__name__: forms[type(value).__name__].dump(value)}, load)


def _mapping(item: _Form) -> _Form:
    return _Form(
        lambda value: {key: item.dump(one) for key, one in value.items()},
        lambda raw: {key: item.load(one) for key, one in raw.items()},
    )


def _record(kind: type[Any]) -> _Form:
    hints = get_type_hints(kind)
    parts = [(one.name, _default(one), _form(hints[one.name])) for one in fields(kind)]

    def dump(value: Any) -> dict[str, Any]:
        body = {}
        for name, default, form in parts:
            part = getattr(value, name)
            if part != default:
                body[name] = form.dump(part)
        return body

    def load(raw: Any) -> Any:
        return kind(**{name: form.load(raw[name]) for name, _, form in parts if name in raw})

    return _Form(dump, load)


def _default(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return one.default


def _exactly(kind: type[Any]) -> _Form:
    def load(raw: Any) -> Any:
        if type(raw) is not kind:
            raise ValueError(f"{raw!r} is no {kind.__name__}")
        return raw

    return _Form(lambda value: value, load)


#: Every form that was ever needed, starting with those that nothing is derived from.
_FORMS: Final[dict[Any, _Form]] = {
    str: _exactly(str),
    int: _exactly(int),
    bool: _exactly(bool),
    datetime: _Form(to_ms, from_ms),
    timedelta: _Form(lambda span: span // _MILLISECOND, lambda raw: raw * _MILLISECOND),
}
