"""What each end entails, and how reasons read."""

from __future__ import annotations

from typing import Final

import pytest

from titus_celery.core.reasons import ENDS, Budget, Code, Reason
from titus_celery.core.states import State

#: code on the wire, final state, whose retries in a batch job (docs/semantics.md A7, A8); those of Mantis
#: workers are in test_retry_workers.py.
ENDINGS: Final = [
    ("normal", State.FINISHED, Budget.NONE),
    ("failed", State.FAILED, Budget.USER),
    ("crashed", State.FAILED, Budget.USER),
    ("lost", State.FAILED, Budget.INFRA),
    ("killed", State.FAILED, Budget.NONE),
    ("scaledDown", State.FAILED, Budget.NONE),
    ("stuckInState", State.FAILED, Budget.INFRA),
    ("runtimeLimitExceeded", State.FAILED, Budget.USER),
    ("oomKilled", State.FAILED, Budget.USER),
    ("invalidRequest", State.FAILED, Budget.USER),
    ("error", State.FAILED, Budget.INFRA),
]


@pytest.mark.parametrize(("code", "state", "budget"), ENDINGS)
def test_an_end_has_its_state_and_its_budget(code: str, state: State, budget: Budget) -> None:
    assert (ENDS[Code(code)].state, ENDS[Code(code)].batch) == (state, budget)


def test_every_code_but_waiting_ends_a_task() -> None:
    assert {code.value for code in ENDS} == {code for code, _, _ in ENDINGS}
    assert set(Code) - set(ENDS) == {Code.WAITING}


def test_a_reason_reads_code_colon_detail() -> None:
    assert str(Reason(Code.OOM, "it used more memory than its limit")) == (
        "oomKilled: it used more memory than its limit"
    )


def test_a_reason_without_detail_is_its_code() -> None:
    assert str(Reason(Code.NORMAL)) == "normal"
