"""Why a task or job is in its state: one closed list of codes, and what each end entails.

The wire has one text field for it; what we put there is `code: detail` (docs/semantics.md A7).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from titus_celery.core.states import State

__all__ = ["ENDS", "Budget", "Code", "End", "Reason"]


class Code(enum.Enum):
    """The closed list of reason codes (A7), and `waiting` for tasks that are still queued."""

    NORMAL = "normal"
    FAILED = "failed"
    CRASHED = "crashed"
    LOST = "lost"
    KILLED = "killed"
    SCALED_DOWN = "scaledDown"
    STUCK = "stuckInState"
    LIMIT = "runtimeLimitExceeded"
    OOM = "oomKilled"
    INVALID = "invalidRequest"
    ERROR = "error"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code and the detail that a person needs."""

    code: Code
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.code.value}: {self.detail}" if self.detail else self.code.value


class Budget(enum.Enum):
    """Whose allowance a further run after this end draws on."""

    #: There is none.
    NONE = "none"
    #: The retries that the job's owner granted.
    USER = "user"
    #: Our own cap for what was not the application's fault.
    INFRA = "infra"
    #: Nobody's: it is replaced at once.
    FREE = "free"


@dataclass(frozen=True, slots=True)
class End:
    """What an end with a given code means: the final state, and whose retries it may use."""

    state: State
    batch: Budget
    service: Budget
    mantis: Budget


#: What each end entails for a task of a batch, a service and a Mantis job (A7, A8, A13, B6.5). Codes that
#: no task ends with are absent.
ENDS: Final[Mapping[Code, End]] = MappingProxyType(
    {
        Code.NORMAL: End(State.FINISHED, Budget.NONE, Budget.USER, Budget.NONE),
        Code.FAILED: End(State.FAILED, Budget.USER, Budget.USER, Budget.USER),
        Code.CRASHED: End(State.FAILED, Budget.USER, Budget.USER, Budget.USER),
        Code.LOST: End(State.FAILED, Budget.INFRA, Budget.INFRA, Budget.INFRA),
        Code.KILLED: End(State.FAILED, Budget.NONE, Budget.FREE, Budget.FREE),
        Code.SCALED_DOWN: End(State.FAILED, Budget.NONE, Budget.NONE, Budget.NONE),
        Code.STUCK: End(State.FAILED, Budget.INFRA, Budget.INFRA, Budget.INFRA),
        Code.LIMIT: End(State.FAILED, Budget.USER, Budget.USER, Budget.USER),
        Code.OOM: End(State.FAILED, Budget.USER, Budget.USER, Budget.USER),
        Code.INVALID: End(State.FAILED, Budget.USER, Budget.USER, Budget.USER),
        Code.ERROR: End(State.FAILED, Budget.INFRA, Budget.INFRA, Budget.INFRA),
    }
)
