"""Every way in which a request or a run can go wrong, as one tree.

An error carries its facts as fields, says in one sentence what happened, why and what to do,
and survives pickling, because errors cross process borders. What a client sees of each is
decided in one table, `titus_celery/grpc/status.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "EXIT_OURS",
    "AlreadyExists",
    "AnswerPending",
    "Busy",
    "Conflict",
    "EngineFault",
    "FailedPrecondition",
    "Fenced",
    "Full",
    "ImageMissing",
    "InvalidRequest",
    "InvalidSchedule",
    "LimitReached",
    "NotFound",
    "PartialFailure",
    "PlaceTaken",
    "PositionLost",
    "SettingsError",
    "SlowObserver",
    "StartRefused",
    "StoreCorrupt",
    "StoreFull",
    "StoreUnavailable",
    "Taken",
    "TitusError",
    "Unavailable",
    "Unsupported",
    "Violation",
]


#: What our commands exit with when it is our side that failed: docker run's code for the same.
EXIT_OURS: Final = 125


class TitusError(Exception):
    """The root: whatever this package raises on purpose is one of these."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request: where (a field path) and what."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


class InvalidRequest(TitusError):
    """The request breaks rules; every one of them is named (docs/semantics.md A18)."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(tuple(violations))
        self.violations: tuple[Violation, ...] = tuple(violations)

    def __str__(self) -> str:
        return "; ".join(str(violation) for violation in self.violations)


class InvalidSchedule(TitusError):
    """A cron schedule that cannot be kept: *part* says whether its text or its zone is wrong, *why* how."""

    def __init__(self, spec: str, zone: str, why: str, part: Literal["spec", "zone"]) -> None:
        super().__init__(spec, zone, why, part)
        self.spec, self.zone, self.why = spec, zone, why
        self.part: Literal["spec", "zone"] = part

    def __str__(self) -> str:
        return f"the {'time zone' if self.part == 'zone' else 'text'} of a cron schedule: {self.why}"


class Unsupported(TitusError):
    """A part of the API that this release does not offer; the message names it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is not supported by this release"


class NotFound(TitusError):
    """Somebody asked for a job, task or cluster that is not on record."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(kind, id)
        self.kind = kind
        self.id = id

    def __str__(self) -> str:
        hint = "" if self.kind == "cluster" else "; `titus ls` lists the jobs that are alive"
        return f"no {self.kind} has the id {self.id!r}{hint}"


class FailedPrecondition(TitusError):
    """The entity exists, but is in a state in which this cannot be done."""

    def __init__(self, kind: str, id: str, why: str) -> None:
        super().__init__(kind, id, why)
        self.kind, self.id, self.why = kind, id, why

    def __str__(self) -> str:
        return f"{self.kind} {self.id}: {self.why}"


class Conflict(TitusError):
    """Somebody else changed the record first: load it again and decide again."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} was changed by another writer at the same time; try again"


class Taken(Conflict):
    """A name that is one job's at a time is another one's."""

    def __str__(self) -> str:
        return f"{self.what} is another job's for as long as that lives"


class AlreadyExists(TitusError):
    """An idempotency key was used before, for something else."""

    def __init__(self, key: str, id: str, kind: str = "job") -> None:
        super().__init__(key, id, kind)
        self.key, self.id, self.kind = key, id, kind

    def __str__(self) -> str:
        made = f"the idempotency key {self.key!r} made {self.kind} {self.id}"
        return f"{made}, and was sent with another {self.kind} now"


class LimitReached(TitusError):
    """There are as many of these as there may be."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"{self.limit} {self.what} are alive, which is the most that may be"


class PartialFailure(TitusError):
    """Of several things that were asked for some were not done; the others were, and stand."""

    def __init__(self, doing: str, failures: Sequence[tuple[str, TitusError]], done: Sequence[str]) -> None:
        super().__init__(doing, tuple(failures), tuple(done))
        self.doing = doing
        self.failures: tuple[tuple[str, TitusError], ...] = tuple(failures)
        self.done: tuple[str, ...] = tuple(done)

    def __str__(self) -> str:
        count = len(self.failures) + len(self.done)
        told = "; ".join(f"{id}: {error}" for id, error in self.failures)
        return f"{self.doing}: {len(self.failures)} of {count} failed, the others are done: {told}"


class Full(Conflict):
    """An agent has no room left for what a placement wanted to reserve."""

    def __str__(self) -> str:
        return f"{self.what} has no room left; it is tried again elsewhere"


class Fenced(TitusError):
    """An agent wrote under a lease that it lost to another process; nothing was written."""

    def __init__(self, agent_id: str, epoch: int) -> None:
        super().__init__(agent_id, epoch)
        self.agent_id, self.epoch = agent_id, epoch

    def __str__(self) -> str:
        return f"agent {self.agent_id}: lease {self.epoch} was lost to another process; what it wants is void"


class PlaceTaken(TitusError):
    """Another process holds the lease of this agent."""

    def __init__(self, agent_id: str, holder: str, seconds_left: float) -> None:
        super().__init__(agent_id, holder, seconds_left)
        self.agent_id, self.holder, self.seconds_left = agent_id, holder, seconds_left

    def __str__(self) -> str:
        return (
            f"agent {self.agent_id} is run by another process ({self.holder}), whose lease lasts "
            f"{self.seconds_left:.0f} s more; give this one another name, or let it take a numbered place"
        )


class Unavailable(TitusError):
    """Something that the request needs is away for now; it may be tried again."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why

    def __str__(self) -> str:
        return f"{self.what} is unavailable: {self.why}"


class AnswerPending(Unavailable):
    """Something was asked that has not answered yet: it may be tried again in a moment."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "it has not answered yet")
        self.args = (what,)


class StoreUnavailable(Unavailable):
    """The store does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__("the store (Redis)", why)
        self.args = (why,)


class StoreFull(TitusError):
    """The store's memory is nearly used up: nothing new is taken in, so that what is there can end."""

    def __init__(self, used: int, maximum: int) -> None:
        super().__init__(used, maximum)
        self.used, self.maximum = used, maximum

    def __str__(self) -> str:
        share = round(100 * self.used / self.maximum)
        return (
            f"the store uses {share} % of its memory ({self.used} of {self.maximum} bytes), so nothing new "
            "is accepted; raise Redis's maxmemory, or keep finished jobs for a shorter time (TITUS_KEEP_*)"
        )


class StoreCorrupt(TitusError):
    """A key of ours holds what we never wrote; nothing was changed."""

    def __init__(self, key: str, found: str) -> None:
        super().__init__(key, found)
        self.key, self.found = key, found

    def __str__(self) -> str:
        return f"the store's key {self.key!r} holds {self.found}; nothing was changed: repair or delete it"


class PositionLost(TitusError):
    """The change log no longer reaches back to where a reader stood: start from a snapshot."""

    def __init__(self, position: str) -> None:
        super().__init__(position)
        self.position = position

    def __str__(self) -> str:
        return f"the change log no longer holds position {self.position}; read a fresh snapshot"


class SlowObserver(TitusError):
    """An observer took its events more slowly than they came: it may go on where it was."""

    def __init__(self, events_max: int) -> None:
        super().__init__(events_max)
        self.events_max = events_max

    def __str__(self) -> str:
        return (
            f"the observer fell more than {self.events_max} events behind and was cut off; resume at the "
            "position in the trailers, and read faster or observe fewer jobs"
        )


class Busy(TitusError):
    """One process serves only so many of these at once, and that many are open."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"{self.limit} {self.what} are open here, which is the most; end one or try again later"


class EngineFault(TitusError):
    """The Docker Engine failed us: unreachable, broken, or answering what it should not."""

    def __init__(self, doing: str, why: str) -> None:
        super().__init__(doing, why)
        self.doing, self.why = doing, why

    def __str__(self) -> str:
        return f"Docker Engine failed at {self.doing}: {self.why}"


class ImageMissing(TitusError):
    """The engine does not have this image, and (if *why* says so) cannot get it."""

    def __init__(self, image: str, why: str = "") -> None:
        super().__init__(image, why)
        self.image, self.why = image, why

    def __str__(self) -> str:
        if self.why:
            return f"the image {self.image!r} cannot be had: {self.why}"
        return f"the image {self.image!r} is not on the engine"


class StartRefused(TitusError):
    """The container itself cannot start: its command, user or directory is wrong."""

    def __init__(self, exit_code: int, why: str) -> None:
        super().__init__(exit_code, why)
        self.exit_code, self.why = exit_code, why

    def __str__(self) -> str:
        return f"the container cannot start (exit code {self.exit_code}): {self.why}"


class SettingsError(TitusError):
    """A setting is unknown or has a value that cannot be used."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"setting {self.name}: {self.why}"
