"""Exit codes, from how tasks ended."""

from __future__ import annotations

import pytest

from titus_celery.cli.verdict import Verdict, of_end, of_slots
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1


def end(code: str, exit_code: int | None = None, signal: int = 0) -> v1.End:
    return v1.End(
        reason_code=code,
        reason=f"{code}: words",
        exited=exit_code is not None,
        exit_code=exit_code or 0,
        signal=signal,
    )


@pytest.mark.parametrize(
    ("ended", "want"),
    [
        pytest.param(end("normal", 0), Verdict(0), id="well"),
        pytest.param(end("failed", 3), Verdict(3), id="its-own-code"),
        pytest.param(end("failed", 124), Verdict(124), id="its-own-124"),
        pytest.param(end("crashed", 127), Verdict(127), id="no-such-command"),
        pytest.param(end("failed", 139, signal=11), Verdict(139, "failed: words"), id="signal"),
        pytest.param(end("oomKilled", 137, signal=9), Verdict(137, "out of memory (limit 64MB)"), id="oom"),
        pytest.param(end("killed", 143, signal=15), Verdict(143, "killed: words"), id="killed"),
        pytest.param(end("killed", 5), Verdict(5, "killed: words"), id="killed-with-a-code"),
        pytest.param(end("killed", 0), Verdict(125, "killed: words"), id="killed-yet-content"),
        pytest.param(
            end("runtimeLimitExceeded", 143, signal=15),
            Verdict(124, "it ran into its runtime limit"),
            id="limit",
        ),
        pytest.param(
            end("runtimeLimitExceeded", 0), Verdict(124, "it ran into its runtime limit"), id="limit-yet-0"
        ),
        pytest.param(end("killed"), Verdict(125, "killed: words"), id="killed-before-it-ran"),
        pytest.param(end("scaledDown", 143, signal=15), Verdict(0), id="not-needed-any-more"),
        pytest.param(end("lost"), Verdict(125, "lost: words"), id="lost"),
        pytest.param(end("error"), Verdict(125, "error: words"), id="engine"),
        pytest.param(end("crashed"), Verdict(125, "crashed: words"), id="never-ran"),
        pytest.param(None, Verdict(125, "how it ended could not be learnt"), id="unknown"),
    ],
)
def test_the_exit_code_of_one_run(ended: v1.End | None, want: Verdict) -> None:
    assert of_end(ended, "64MB") == want


def test_the_words_of_a_reason_do_not_matter() -> None:
    ended = v1.End(exited=True, exit_code=1, reason_code="failed", reason="runtimeLimitExceeded: no")
    assert of_end(ended, "").code == 1


def test_the_first_slot_that_did_not_end_well_counts() -> None:
    assert of_slots({2: Verdict(9), 0: Verdict(0), 1: Verdict(4)}) == (1, Verdict(4))
    assert of_slots({0: Verdict(0)}) is None
