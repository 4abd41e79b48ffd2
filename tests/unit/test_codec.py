"""The codec gives back what it was given, and reads what its neighbours in time wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, UnionType
from typing import Any, NewType, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import START, agent, dispatched, failed, job, killed, task
from titus_celery.adapters.codec import SCHEMA, from_text, to_text
from titus_celery.adapters.keyspace import from_ms, to_ms
from titus_celery.core.descriptor import JobDescriptor
from titus_celery.core.model import (
    Agent,
    Deadline,
    Job,
    StateChange,
    Task,
)
from titus_celery.core.states import State

INSTANTS = st.integers(0, 2**43).map(from_ms)
SPANS = st.integers(-(2**40), 2**40).map(lambda ms: timedelta(milliseconds=ms))


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a core type with every field at liberty."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, NewType):
        return st.text(max_size=5)
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=5), anything(args[1]), max_size=2)
    if origin is tuple:
        return st.lists(anything(args[0]), max_size=3).map(tuple)
    if type(None) in args:
        return st.none() | anything(args[0])
    if origin is UnionType:
        return st.one_of(*map(anything, args))
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{name: anything(hints[name]) for name in hints})
    plain = {datetime: INSTANTS, timedelta: SPANS, str: st.text(max_size=10)}
    return plain[hint] if hint in plain else st.from_type(hint)


KINDS: dict[type[Any], st.SearchStrategy[Any]] = {
    kind: anything(kind) for kind in (Task, Job, Agent, JobDescriptor, Deadline)
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_value_comes_back_equal(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(KINDS[kind])
    again = from_text(kind, to_text(value))
    assert again == value
    assert type(again) is kind


def test_what_is_stored_is_one_readable_line() -> None:
    text = to_text(failed(dispatched(task(job(7)))))
    assert "\n" not in text
    assert json.loads(text) == {
        "schema": SCHEMA,
        "id": "00000000-0000-4000-8000-000000000007-0-1",
        "job_id": "00000000-0000-4000-8000-000000000007",
        "slot": 0,
        "attempt": 1,
        "original_id": "00000000-0000-4000-8000-000000000007-0-1",
        "history": [
            {"state": 0, "at": to_ms(START)},
            {"state": 1, "at": to_ms(START) + 1_000},
            {"state": 5, "at": to_ms(START) + 9_000},
        ],
        "reason": {"code": "failed", "detail": "as told"},
        "dispatch": {
            "number": 1,
            "agent_id": "host-1",
            "engine_id": "ENGINE:1",
            "host": "host-1",
            "zone": "a",
            "region": "r",
            "demand": {"cpu_millis": 500, "memory_bytes": 2**20},
        },
        "dispatches": 1,
    }


def test_what_an_earlier_release_wrote_is_read_for_ever() -> None:
    """This text was written by schema 1; if it reads otherwise one day, SCHEMA has to move."""
    text = (
        '{"schema":1,"id":"j-0-1","job_id":"j","slot":0,"attempt":1,"original_id":"j-0-1",'
        '"history":[{"state":0,"at":1772366400000}]}'
    )
    one = from_text(Task, text)
    assert (one.version, one.user_retries, one.reason, one.address.ip, one.dispatches) == (1, 0, None, "", 0)
    assert one.history == (StateChange(state=State.QUEUED, at=START),)


def test_what_a_later_release_added_is_passed_over() -> None:
    new = killed(job())
    body = json.loads(to_text(new))
    body["mood"] = "sunny"
    body["history"][0]["by"] = "clock"
    assert from_text(Job, json.dumps(body)) == new


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "list"),
        ("null", "NoneType"),
        ('"x"', "str"),
        ("{}", "schema None"),
        ('{"schema":2}', "schema 2"),
        ('{"schema":"1"}', "schema '1'"),
        ('{"schema":1}', "missing"),
        ('{"schema":1,"kind":"retry","entity":5,"due":0}', "5 is no str"),
        ('{"schema":1,"kind":"often","entity":"x","due":0}', "often"),
        ('{"schema":1,"kind":"retry","entity":"x","due":"soon"}', "Deadline"),
        ('{"schema":1,"kind":"retry","entity":"x","due":1e300}', "Deadline"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_text(Deadline, text)


def test_a_truth_value_is_no_number() -> None:
    text = to_text(task(job())).replace('"slot":0', '"slot":true')
    with pytest.raises(ValueError, match="True is no int"):
        from_text(Task, text)


def test_instants_and_spans_are_rounded_down_to_milliseconds() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1_999
    assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    one = agent(lease_until=START + timedelta(microseconds=1_999))
    assert from_text(Agent, to_text(one)).lease_until == START + timedelta(milliseconds=1)


def test_any_mapping_comes_back_as_an_equal_one() -> None:
    descriptor = JobDescriptor(spec=job().descriptor.spec, labels=MappingProxyType({"a": "é\0"}))
    assert from_text(JobDescriptor, to_text(descriptor)) == descriptor
