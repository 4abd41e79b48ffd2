"""Leases: one holder at a time, by the store's time."""

from __future__ import annotations

from datetime import timedelta

from tests.contracts.stores import Bench, at_once

LONG = timedelta(minutes=1)
SHORT = timedelta(milliseconds=30)


def test_a_lease_has_one_holder_who_may_renew_it(bench: Bench) -> None:
    assert bench.leases.hold("beat", "a", LONG)
    assert not bench.leases.hold("beat", "b", LONG)
    assert bench.leases.hold("beat", "a", LONG)
    assert bench.leases.hold("other", "b", LONG)


def test_a_lease_that_is_not_renewed_falls_to_the_next(bench: Bench) -> None:
    assert bench.leases.hold("beat", "a", SHORT)
    bench.world.let_pass(SHORT)
    assert bench.leases.hold("beat", "b", LONG)
    assert not bench.leases.hold("beat", "a", LONG)


def test_renewing_prolongs_it(bench: Bench) -> None:
    bench.leases.hold("beat", "a", SHORT)
    bench.leases.hold("beat", "a", LONG)
    bench.world.let_pass(SHORT)
    assert not bench.leases.hold("beat", "b", LONG)


def test_only_the_holder_gives_it_up(bench: Bench) -> None:
    bench.leases.hold("beat", "a", LONG)
    bench.leases.release("beat", "b")
    assert not bench.leases.hold("beat", "b", LONG)
    bench.leases.release("beat", "a")
    assert bench.leases.hold("beat", "b", LONG)
    bench.leases.release("nobody", "a")


def test_of_many_who_ask_at_once_one_gets_it(bench: Bench) -> None:
    assert sum(at_once(8, lambda number: bench.leases.hold("beat", str(number), LONG))) == 1


def test_a_flag_is_raised_once_until_it_is_lowered(bench: Bench) -> None:
    assert sum(at_once(8, lambda _: bench.leases.raise_flag("wake", LONG))) == 1
    assert not bench.leases.raise_flag("wake", LONG)
    bench.leases.lower_flag("wake")
    assert bench.leases.raise_flag("wake", LONG)


def test_a_flag_falls_by_itself(bench: Bench) -> None:
    assert bench.leases.raise_flag("wake", SHORT)
    bench.world.let_pass(SHORT)
    assert bench.leases.raise_flag("wake", SHORT)


def test_a_flag_is_no_lease(bench: Bench) -> None:
    assert bench.leases.hold("x", "a", LONG) and bench.leases.raise_flag("x", LONG)
