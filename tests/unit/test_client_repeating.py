"""Calls that are repeated: when, for how long, and what is said in the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import grpc
import pytest

from tests.unit.broken_calls import Broke, Waits
from titus_celery.client import CallFailed, Failed
from titus_celery.client.failure import failure, partly, parts_of
from titus_celery.client.repeating import IDS_PER_CALL, in_parts, repeated

MINUTE = timedelta(minutes=1)
NOBODY = Broke(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; refused")
AWAY = Broke(grpc.StatusCode.UNAVAILABLE, "the store is away")


class Calls:
    """A call that ends as it was told to, each time in its turn, and takes no time."""

    def __init__(self, *ends: str | Broke, last: Broke = AWAY) -> None:
        self._ends = list(ends)
        self._last = last
        self.time = Waits()
        self.left: list[timedelta] = []
        self.told: list[str] = []
        self.hints: list[str] = []

    def send(self, left: timedelta) -> str:
        self.left.append(left)
        end = self._ends.pop(0) if self._ends else self._last
        if isinstance(end, Broke):
            raise end
        return end

    def make(self) -> str:
        def refuse(status: str, why: str) -> CallFailed:
            return failure(status, why, "do it", "here:1")

        return repeated(self.send, MINUTE, self.time, refuse, self.hear, "unsure")

    def hear(self, error: CallFailed) -> None:
        self.told.append(error.why)
        self.hints.append(error.hint)

    def fail(self) -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            self.make()
        return caught.value


def test_a_call_that_succeeds_is_made_once() -> None:
    calls = Calls("done")
    assert calls.make() == "done"
    assert calls.left == [MINUTE]


def test_a_call_is_repeated_while_the_server_is_away_with_the_time_that_is_left() -> None:
    calls = Calls(AWAY, NOBODY, Broke(grpc.StatusCode.CANCELLED, "it stops"), "done")
    assert calls.make() == "done"
    waits = [timedelta(milliseconds=ms) for ms in (100, 200, 400)]
    assert calls.time.spans == waits
    assert calls.left == [MINUTE - sum(waits[:count], timedelta(0)) for count in range(4)]
    assert calls.told == ["the store is away", "no Titus server answers at here:1", "it stops"]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "ALREADY_EXISTS"])
def test_a_refusal_is_the_last_word(code: str) -> None:
    calls = Calls(Broke(grpc.StatusCode[code]))
    error = calls.fail()
    assert error.status == code
    assert error.hint != "unsure"
    assert not calls.time.spans


def test_who_was_never_reached_got_nothing_and_that_is_said_with_what_to_do() -> None:
    calls = Calls(last=NOBODY)
    assert "titus dev" in calls.fail().hint
    assert calls.time.now() > MINUTE / 2, "it may be on its way"
    assert "titus dev" in calls.hints[0]


def test_a_server_that_answers_that_it_is_not_ready_needs_no_hint() -> None:
    calls = Calls(AWAY, "done")
    calls.make()
    assert calls.hints == [""]


def test_after_its_time_it_is_given_up_and_may_have_been_done() -> None:
    calls = Calls(last=NOBODY)
    calls._ends = [AWAY]
    error = calls.fail()
    assert (error.status, error.hint) == ("UNAVAILABLE", "unsure")
    assert MINUTE - timedelta(seconds=1) <= calls.time.now() < MINUTE
    assert min(calls.left) > timedelta(0)


def test_a_call_that_took_all_of_its_time_may_have_been_done() -> None:
    assert Calls(Broke(grpc.StatusCode.DEADLINE_EXCEEDED)).fail().hint == "unsure"


def test_a_client_that_is_closed_repeats_nothing() -> None:
    calls = Calls()
    calls.time = Waits(closed_after=2)
    assert calls.fail().hint == "unsure"
    assert len(calls.left) == 2


# ------------------------------------------------------------------------------------- several at once


def run(ids: Sequence[str], *ends: CallFailed | None) -> tuple[list[Sequence[str]], CallFailed | None]:
    """The ids of each call, when the calls end like this, and the error in the end."""
    asked: list[Sequence[str]] = []
    left = list(ends)

    def call(part: Sequence[str]) -> None:
        asked.append(part)
        if left and (error := left.pop(0)):
            raise error

    try:
        in_parts("end them", ids, call)
    except CallFailed as error:
        return asked, error
    return asked, None


IDS = [str(number) for number in range(2 * IDS_PER_CALL + 1)]


def test_ids_are_sent_a_few_at_a_time_and_each_once() -> None:
    asked, error = run([*IDS, *IDS])
    assert [id for part in asked for id in part] == IDS
    assert max(map(len, asked)) == IDS_PER_CALL
    assert error is None


def test_a_part_that_fails_does_not_keep_the_others() -> None:
    first = partly("end them", [Failed("0", "NOT_FOUND", "no job")], IDS[1:IDS_PER_CALL])
    asked, error = run(IDS, first)
    assert len(asked) == 3
    assert error is not None
    assert error.failures == (Failed("0", "NOT_FOUND", "no job"),)
    assert error.done == tuple(IDS[1:])
    assert str(error) == f"cannot end them (1 of {len(IDS)}); 0: no job"


def test_what_the_server_did_not_tell_of_is_not_taken_for_done() -> None:
    _, error = run(["a", "b", "c"], partly("end them", [Failed("a", "NOT_FOUND", "no job")], ["b"]))
    assert error is not None
    assert [each.id for each in error.failures] == ["a", "c"]


def test_a_part_that_is_refused_as_a_whole_is_told_of_id_by_id() -> None:
    refusal = CallFailed("end them", "INVALID_ARGUMENT", "id[0]: is empty")
    asked, error = run(IDS, refusal)
    assert len(asked) == 3
    assert error is not None
    assert [each.id for each in error.failures] == IDS[:IDS_PER_CALL]


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"])
def test_when_the_server_is_away_the_rest_is_not_tried(status: str) -> None:
    asked, error = run(IDS, None, CallFailed("end them", status, "nobody there"))
    assert len(asked) == 2
    assert error is not None
    assert error.done == tuple(IDS[:IDS_PER_CALL])
    assert error.failures == tuple(Failed(id, status, "nobody there") for id in IDS[IDS_PER_CALL:])


def test_failures_of_several_kinds_have_a_status_of_their_own() -> None:
    several = [Failed("a", "NOT_FOUND", "no job"), Failed("b", "ABORTED", "a race")]
    assert partly("end them", several, []).status == "FAILED_PRECONDITION"
    assert partly("end them", several[:1], []).status == "NOT_FOUND"


def test_details_that_are_none_are_no_parts() -> None:
    assert parts_of(AWAY) == ([], [])
    odd = Broke(grpc.StatusCode.UNAVAILABLE, trailers=(("grpc-status-details-bin", b"\xff\xff"),))
    assert parts_of(odd) == ([], [])
