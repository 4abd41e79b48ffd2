"""Streams that outlive the server: when they are tried again, and when they are given up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest

from tests.unit.broken_calls import Broke
from titus_celery.client import CallFailed, Disconnected, Reconnected
from titus_celery.client.failure import failure
from titus_celery.client.streams import DELAY_MAX, SETTLED_AFTER, Outage, resumed

MINUTE = timedelta(minutes=1)
NOTHING = timedelta(0)


AWAY = Broke(grpc.StatusCode.UNAVAILABLE)


class Stream:
    """A connection that gives what it was told to."""

    def __init__(self, items: list[str | Broke]) -> None:
        self.items = items
        self.is_cancelled = False

    def __iter__(self) -> Iterator[str]:
        for item in self.items:
            if isinstance(item, Broke):
                raise item
            yield item

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True


class World:
    """Connections in the order in which they are opened, and time that passes by waiting alone."""

    def __init__(self, *streams: list[str | Broke], closed_after: int = 1000) -> None:
        self.streams = [Stream(items) for items in streams]
        self.opened: list[Stream] = []
        self.time = NOTHING
        self.waits = 0
        self.closed_after = closed_after

    def now(self) -> timedelta:
        return self.time

    def wait(self, span: timedelta) -> bool:
        self.time += span
        self.waits += 1
        return self.waits >= self.closed_after

    def open(self) -> Stream:
        self.opened.append(self.streams.pop(0) if self.streams else Stream([AWAY]))
        return self.opened[-1]

    def read(self) -> list[str | Disconnected | Reconnected]:
        def refuse(status: str, why: str) -> CallFailed:
            return failure(status, why, "read", "here:1")

        return list(resumed(self.open, lambda item: item == "end", MINUTE, self, refuse))


def test_a_stream_ends_with_its_last_message() -> None:
    world = World(["a", "end", "never"])
    assert world.read() == ["a", "end"]
    assert world.opened[0].is_cancelled


def test_an_outage_is_said_once_and_its_end_once() -> None:
    world = World(["a", AWAY], [AWAY], [AWAY], ["b", "end"])
    assert world.read() == ["a", Disconnected("words"), Reconnected(), "b", "end"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "CANCELLED"])
def test_what_a_restart_looks_like_is_tried_again(code: str) -> None:
    assert World([Broke(grpc.StatusCode[code])], ["end"]).read()[-1] == "end"


def test_a_stream_that_ends_early_and_well_is_opened_again() -> None:
    world = World(["a"], ["end"])
    assert world.read()[1:] == [
        Disconnected("the server ended the stream early"),
        Reconnected(),
        "end",
    ]


def test_a_refusal_is_raised_at_once() -> None:
    world = World([Broke(grpc.StatusCode.NOT_FOUND)])
    with pytest.raises(CallFailed) as caught:
        world.read()
    assert caught.value.status == "NOT_FOUND"
    assert world.waits == 0


def test_patience_ends_after_its_time() -> None:
    world = World(["a"])
    with pytest.raises(CallFailed) as caught:
        world.read()
    assert caught.value.status == "UNAVAILABLE"
    assert MINUTE <= world.time < MINUTE + 2 * DELAY_MAX


def test_patience_begins_anew_with_each_answer() -> None:
    outages: list[list[str | Broke]] = [[AWAY] for _ in range(40)]
    world = World(*outages, ["a"], *outages, ["end"])
    assert world.read()[-1] == "end"
    assert world.time > MINUTE


def test_a_server_without_room_is_waited_for_without_a_limit() -> None:
    full: list[list[str | Broke]] = [[Broke(grpc.StatusCode.RESOURCE_EXHAUSTED)] for _ in range(1000)]
    world = World(*full, ["a", "end"], closed_after=10_000)
    assert world.read() == [Disconnected("words"), Reconnected(), "a", "end"]
    assert world.time > 10 * MINUTE
    assert timedelta(milliseconds=500) <= world.time / world.waits <= timedelta(seconds=1), "politely"


def test_a_server_without_room_that_then_goes_away_is_given_up() -> None:
    full: list[list[str | Broke]] = [[Broke(grpc.StatusCode.RESOURCE_EXHAUSTED)] for _ in range(200)]
    with pytest.raises(CallFailed) as caught:
        World(*full).read()
    assert caught.value.status == "UNAVAILABLE"


def test_a_closed_client_ends_the_stream_without_an_error() -> None:
    assert World(["a"], closed_after=3).read() == ["a", Disconnected("the server ended the stream early")]


def test_the_waits_grow_to_their_bound() -> None:
    outage = Outage(MINUTE)
    waits = [outage.failed(NOTHING, NOTHING) for _ in range(20)]
    assert waits[:4] == [timedelta(milliseconds=ms) for ms in (100, 200, 400, 800)]
    assert set(waits[4:]) == {DELAY_MAX}


def test_a_stream_that_stayed_open_was_connected_even_if_it_was_silent() -> None:
    outage = Outage(MINUTE)
    outage.failed(NOTHING, NOTHING)
    assert outage.failed(MINUTE * 10, MINUTE * 10 + SETTLED_AFTER) == timedelta(milliseconds=100)
    assert outage.failed(MINUTE * 20, MINUTE * 20) is None, "and an attempt that fails at once was not"


@pytest.mark.parametrize(
    ("status", "why", "parts"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; ...", ["here:1", "titus dev", "--server"]),
        ("UNAVAILABLE", "errors resolving nope:1: [Domain name not found]", ["here:1", "titus dev"]),
        ("UNAVAILABLE", "empty address list: address lookup failed for nope:1", ["here:1", "--server"]),
        ("UNIMPLEMENTED", "service jobs", ["service jobs", "this server does not offer it"]),
        ("UNAVAILABLE", "the store (Redis) is unavailable", ["the store (Redis)", "try again"]),
        ("INVALID_ARGUMENT", "batch.instances: too many", ["too many", "correct the request"]),
        ("NOT_FOUND", "no job has the id 'x'", ["no job has the id 'x'"]),
        ("DATA_LOSS", "", ["answered DATA_LOSS"]),
    ],
)
def test_a_failure_says_what_why_and_what_to_do(status: str, why: str, parts: list[str]) -> None:
    text = str(failure(status, why, "list the jobs", "here:1"))
    assert text.startswith("cannot list the jobs; ")
    assert all(part in text for part in parts)
