"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from titus_celery.cli import quantities


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("90", timedelta(seconds=90)),
        ("1.5", timedelta(seconds=1.5)),
        ("500ms", timedelta(milliseconds=500)),
        ("10m", timedelta(minutes=10)),
        (" 1H30M ", timedelta(hours=1, minutes=30)),
        ("2d1s", timedelta(days=2, seconds=1)),
        ("0", timedelta(0)),
    ],
)
def test_a_span(text: str, want: timedelta) -> None:
    assert quantities.span(text) == want


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1 h", "10 minutes", "1x", "9999999999999d", "\u0661s", "1e3"]
)
def test_what_is_no_span_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration|too long"):
        quantities.span(text)


def test_whole_seconds() -> None:
    assert quantities.seconds("2m") == 120


@pytest.mark.parametrize("text", ["0", "999ms", "1.5s"])
def test_what_is_no_number_of_whole_seconds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number of seconds"):
        quantities.seconds(text)
