"""What resource texts mean."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.core.descriptor import Demand
from titus_celery.core.resources import cpu_millis, demand, memory_bytes

MEMORY: Final = [
    # A bare number is megabytes.
    ("128", 128_000_000),
    ("0.5", 500_000),
    ("128M", 128_000_000),
    ("128MB", 128_000_000),
    ("128Mb", 128_000_000),
    ("128mb", 128_000_000),
    ("128 MB", 128_000_000),
    ("  128MB  ", 128_000_000),
    ("1b", 1),
    ("1B", 1),
    ("1k", 1_000),
    ("1KB", 1_000),
    ("1Ki", 1_024),
    ("1KiB", 1_024),
    ("1MiB", 1_048_576),
    ("1Mi", 1_048_576),
    ("1G", 1_000_000_000),
    ("10Gb", 10_000_000_000),
    ("1GiB", 1_073_741_824),
    ("1T", 1_000_000_000_000),
    ("1TB", 1_000_000_000_000),
    ("1Ti", 1_099_511_627_776),
    ("1TiB", 1_099_511_627_776),
    # 1.5 * 2^30
    ("1.5GiB", 1_610_612_736),
    # Less than a byte is none.
    ("0.9b", 0),
    ("0", 0),
    # No rounding through floats: 0.1 + 0.2 times ten million.
    ("0.3000001", 300_000),
]


@pytest.mark.parametrize(("text", "expected"), MEMORY)
def test_memory_in_bytes(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1_000),
        ("0.5", 500),
        ("0.1", 100),
        (" 2 ", 2_000),
        ("0.01", 10),
        # Thousandths are the finest: the rest is cut.
        ("0.0019", 1),
        ("96", 96_000),
        ("0", 0),
    ],
)
def test_cpu_in_thousandths_of_a_core(text: str, expected: int) -> None:
    assert cpu_millis(text) == expected


NO_AMOUNTS: Final = [
    "",
    " ",
    "x",
    "-1",
    "+1",
    "1e3",
    "1,5",
    ".5",
    "1.",
    "0x10",
    "1 2",
    "MB",
    "1 M B",
    "NaN",
    "\u0661",
]


@pytest.mark.parametrize("text", NO_AMOUNTS)
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    for parse in (cpu_millis, memory_bytes):
        with pytest.raises(ValueError, match=r"is not an amount such as 1, 0\.5 or 128MB"):
            parse(text)


@pytest.mark.parametrize(("text", "unit"), [("1X", "x"), ("1PB", "pb"), ("1Mbps", "mbps"), ("1bb", "bb")])
def test_an_unknown_unit_is_named(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' has the unknown unit '{unit}'; use MB, GB, MiB or GiB"):
        memory_bytes(text)


@pytest.mark.parametrize("text", ["1m", "500MB", "1 cores"])
def test_cpu_has_no_unit(text: str) -> None:
    with pytest.raises(ValueError, match=r"has a unit; cpu is a number of cores such as 0\.5"):
        cpu_millis(text)


def test_a_long_text_is_refused_and_only_its_beginning_shown() -> None:
    with pytest.raises(ValueError, match="is not an amount") as refusal:
        memory_bytes("1" * 33)
    assert "1" * 32 in str(refusal.value)
    assert "1" * 33 not in str(refusal.value)


def test_unset_resources_are_a_tenth_of_a_core_and_128_mb() -> None:
    assert demand({}) == Demand(cpu_millis=100, memory_bytes=128_000_000)


def test_a_task_needs_what_it_names() -> None:
    assert demand({"cpu": "2", "memory": "1GiB", "colour": "red"}) == Demand(
        cpu_millis=2_000, memory_bytes=2**30
    )


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    for parse in (cpu_millis, memory_bytes):
        try:
            assert parse(text) >= 0
        except ValueError as refusal:
            assert len(str(refusal)) < 400


@given(st.decimals(0, 10**6, places=3, allow_nan=False))
def test_amounts_are_exact(number: object) -> None:
    assert memory_bytes(f"{number}MB") == int(Fraction(str(number)) * 10**6)
    assert cpu_millis(f"{number}") == int(Fraction(str(number)) * 1_000)
