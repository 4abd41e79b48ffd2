"""Calls that are safe to repeat, repeated while the server is away, and many ids in calls of a few each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from typing import Final, TypeVar

import grpc

from titus_celery.client.failure import CallFailed, Failed, describe, is_unreached, partly
from titus_celery.client.streams import Pause, delay_after

__all__ = ["AWAY", "IDS_PER_CALL", "in_parts", "repeated"]

#: Statuses of a call that a server which is back, or another one, may answer otherwise. A server that
#: shuts down ends the calls that it has with CANCELLED.
REPEATABLE: Final = frozenset({"UNAVAILABLE", "CANCELLED"})
#: Statuses after which the next call would fare no better.
AWAY: Final = frozenset({*REPEATABLE, "DEADLINE_EXCEEDED"})
#: Of so many ids the details of an error have room for every one with its reason: gRPC takes no more than
#: 8 KiB of them.
IDS_PER_CALL: Final = 8

Reply = TypeVar("Reply")


def repeated(
    send: Callable[[timedelta], Reply],
    within: timedelta,
    pause: Pause,
    refuse: Callable[[str, str], CallFailed],
    on_wait: Callable[[CallFailed], None],
    unsure: str,
) -> Reply:
    """What *send* answers, which is told how much time is left and tried again while the server is away.

    After *within*, and for a refusal at once, what *refuse* makes of status and message is raised, with the
    hint *unsure* if the call may have been carried out. *on_wait* hears of each failure that is not the
    last word, with a hint only if there was nobody to send anything to.
    """
    ends = pause.now() + within
    was_sent = False
    for tries in count():
        try:
            return send(ends - pause.now())
        except grpc.RpcError as error:
            status, why = describe(error)
            failed = refuse(status, why)
            is_sent = not is_unreached(status, why)
            was_sent = was_sent or is_sent
            last = failed.with_hint(unsure) if was_sent and status in AWAY else failed
            delay = delay_after(tries)
            if status not in REPEATABLE or pause.now() + delay >= ends:
                raise last from error
            on_wait(failed.with_hint("") if is_sent else failed)
            if pause.wait(delay):
                raise last from error
    raise AssertionError("the count has no end")


def in_parts(doing: str, ids: Sequence[str], call: Callable[[Sequence[str]], object]) -> None:
    """*call* for all ids, each once, a few at a time; CallFailed in the end if that failed for any.

    Every id is tried, unless the server is away: then the rest of them failed for that, too.
    """
    rest = list(dict.fromkeys(ids))
    total = len(rest)
    failures: list[Failed] = []
    done: list[str] = []
    while rest:
        part, rest = rest[:IDS_PER_CALL], rest[IDS_PER_CALL:]
        try:
            call(part)
            done.extend(part)
        except CallFailed as error:
            failures.extend(error.failures)
            done.extend(error.done)
            if error.status in AWAY:
                part, rest = [*part, *rest], []
            told = {*(each.id for each in error.failures), *error.done}
            why = error.failures[-1].why if error.failures else error.why
            failures.extend(Failed(id, error.status, why) for id in part if id not in told)
    if failures:
        raise partly(f"{doing} ({len(failures)} of {total})", failures, done)
