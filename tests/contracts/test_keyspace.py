"""The keyspace itself: what each check lets pass, and what each write leaves, on every store."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.contracts.stores import Bench
from titus_celery.adapters import keyspace as ks
from titus_celery.core.model import AgentId, Holding
from titus_celery.errors import Conflict, Fenced, Full, LimitReached, StoreCorrupt, StoreUnavailable

HASH, SORTED, STREAM, TEXT = "h", "z", "x", "t"
NOT_AT_ALL = timedelta(0)


class Place:
    """Keys of this test's own, and one way to look at each."""

    def __init__(self, bench: Bench) -> None:
        self.space = bench.keyspace
        self.prefix = f"{{{bench.keyspace.namespace}}}:"

    def __call__(self, key: str) -> str:
        return self.prefix + key

    def write(self, *writes: ks.Write) -> None:
        self.space.transact([], writes)

    def passes(self, check: ks.Check) -> bool:
        """Whether a transaction with this check is done, to be seen by what it writes."""
        self.write(ks.Delete(self("seen"), ks.Kind.TEXT))
        try:
            self.space.transact([check], [ks.TextSet(self("seen"), "yes")])
        except Conflict as error:
            assert error.what == "it"
            assert self.space.text(self("seen")) is None
            return False
        return self.space.text(self("seen")) == "yes"

    def fields(self) -> dict[str, str]:
        return dict(self.space.hashes([self(HASH)])[0][0])

    def members(self) -> list[tuple[str, int]]:
        return list(self.space.members(self(SORTED), 0, 100)[0])


@pytest.fixture
def place(bench: Bench) -> Place:
    """A place for keys on the store."""
    return Place(bench)


def test_field_is(place: Place) -> None:
    def check(value: str) -> ks.Check:
        return ks.FieldIs(place(HASH), "a", value, "it")

    assert not place.passes(check("1"))
    place.write(ks.HashSet(place(HASH), {"a": "1"}))
    assert place.passes(check("1"))
    assert not place.passes(check("01"))
    assert not place.passes(ks.FieldIs(place(HASH), "b", "1", "it"))


def test_a_fence_is_told_as_such_and_before_what_comes_after_it(place: Place) -> None:
    fence = ks.FieldIs(place(HASH), "epoch", "7", "it", fence=Holding(AgentId("a"), 7))
    stale = ks.FieldIs(place(HASH), "b", "1", "it")

    def refused() -> None:
        with pytest.raises(Fenced) as caught:
            place.space.transact([fence, stale], [ks.TextSet(place("seen"), "yes")])
        assert (caught.value.agent_id, caught.value.epoch) == ("a", 7)
        assert place.space.text(place("seen")) is None

    refused()
    place.write(ks.HashSet(place(HASH), {"a": "7"}))
    refused()
    place.write(ks.HashSet(place(HASH), {"epoch": "8"}))
    refused()
    place.write(ks.HashSet(place(HASH), {"epoch": "7"}))
    assert place.passes(fence)
    with pytest.raises(Conflict):
        place.space.transact([fence, stale], [])


def test_absent(place: Place) -> None:
    check = ks.Absent(place(HASH), ks.Kind.HASH, "it")
    assert place.passes(check)
    place.write(ks.HashSet(place(HASH), {"a": "1"}))
    assert not place.passes(check)


def test_size_is(place: Place) -> None:
    assert place.passes(ks.SizeIs(place(SORTED), 0, "it"))
    place.write(ks.SetAdd(place(SORTED), "m", 1))
    assert place.passes(ks.SizeIs(place(SORTED), 1, "it"))
    assert not place.passes(ks.SizeIs(place(SORTED), 0, "it"))
    assert not place.passes(ks.SizeIs(place(SORTED), 2, "it"))


def test_room_for(place: Place) -> None:
    check = ks.RoomFor(place(SORTED), 2, "things")
    for number in (1, 2):
        place.space.transact([check], [ks.SetAdd(place(SORTED), f"m{number}", number)])
    with pytest.raises(LimitReached, match="things"):
        place.space.transact([check], [ks.SetAdd(place(SORTED), "m3", 3)])
    assert place.space.members(place(SORTED), 0, 10)[1] == 2


def test_members_of_several_sets_at_once(place: Place) -> None:
    place.write(ks.SetAdd(place(SORTED), "a", 1), ks.SetAdd(place(SORTED), "b", 2))
    empty = place("nothing")
    assert place.space.members_of([place(SORTED), empty], 10) == [[("a", 1), ("b", 2)], []]
    assert place.space.members_of([place(SORTED)], 1) == [[("a", 1)]]
    assert place.space.members_of([place(SORTED)], 1, newest=True) == [[("b", 2)]]
    assert place.space.members_of([], 10) == []


def test_score_is(place: Place) -> None:
    check = ks.ScoreIs(place(SORTED), "m", 1_772_366_400_123, "it")
    assert not place.passes(check)
    place.write(ks.SetAdd(place(SORTED), "m", 1_772_366_400_122))
    assert not place.passes(check)
    place.write(ks.SetAdd(place(SORTED), "m", 1_772_366_400_123))
    assert place.passes(check)


def test_at_most(place: Place) -> None:
    def check(delta: int, maximum: int) -> ks.Check:
        return ks.AtMost(place(HASH), "n", delta, maximum, "it")

    assert place.passes(check(5, 5))
    assert not place.passes(check(6, 5))
    place.write(ks.HashSet(place(HASH), {"n": "3"}))
    assert place.passes(check(2, 5))
    assert not place.passes(check(3, 5))
    with pytest.raises(Full, match="it"):
        place.space.transact([ks.AtMost(place(HASH), "n", 3, 5, "it", room=True)], [])


def test_ends_at(place: Place) -> None:
    def check(id: str) -> ks.Check:
        return ks.EndsAt(place(STREAM), id, "it")

    assert place.passes(check(ks.NO_ENTRY))
    place.write(ks.Put(place(STREAM), "7-1", {"a": "b"}, "0-1", 10))
    assert place.passes(check("7-1"))
    assert not place.passes(check(ks.NO_ENTRY))


def test_text_is(place: Place) -> None:
    mine = ks.TextIs(place(TEXT), "me", "it")
    mine_or_nobodys = ks.TextIs(place(TEXT), "me", "it", or_absent=True)
    assert not place.passes(mine)
    assert place.passes(mine_or_nobodys)
    place.write(ks.TextSet(place(TEXT), "me"))
    assert place.passes(mine) and place.passes(mine_or_nobodys)
    place.write(ks.TextSet(place(TEXT), "you"))
    assert not place.passes(mine) and not place.passes(mine_or_nobodys)


def test_the_first_check_that_fails_is_named(place: Place) -> None:
    place.write(ks.HashSet(place(HASH), {"a": "1"}))
    checks = [
        ks.FieldIs(place(HASH), "a", value, what) for value, what in (("1", "x"), ("2", "y"), ("3", "z"))
    ]
    with pytest.raises(Conflict) as caught:
        place.space.transact(checks, [])
    assert caught.value.what == "y"


def test_hash_writes(place: Place) -> None:
    place.write(ks.HashSet(place(HASH), {"a": "1", "b": "2"}), ks.HashSet(place(HASH), {"a": "3"}))
    place.write(ks.HashSetNew(place(HASH), "a", "4"), ks.HashSetNew(place(HASH), "c", "5"))
    place.write(ks.HashAdd(place(HASH), "n", 7), ks.HashAdd(place(HASH), "n", -9))
    assert place.fields() == {"a": "3", "b": "2", "c": "5", "n": "-2"}


def test_raising_a_number_notes_the_levels_newly_reached(place: Place) -> None:
    def lift(level: int, times: dict[int, int]) -> dict[str, str]:
        place.write(ks.HashRaise(place(HASH), "s", level, times))
        return place.fields()

    assert lift(1, {0: 10, 1: 11}) == {"s": "1", "at:0": "10", "at:1": "11"}
    assert lift(1, {0: 20, 1: 21}) == lift(0, {0: 30}) == {"s": "1", "at:0": "10", "at:1": "11"}
    later = lift(3, {0: 40, 1: 41, 3: 43})
    assert later == {"s": "3", "at:0": "10", "at:1": "11", "at:3": "43"}
    # A level that was passed over stays without a time.
    assert lift(3, {2: 52}) == later


def test_numbers_have_up_to_fifteen_digits(place: Place) -> None:
    place.write(ks.HashSet(place(HASH), {"n": "9" * 15, "m": "-" + "9" * 15, "big": "1" + "0" * 15}))
    place.write(ks.HashAdd(place(HASH), "n", -1), ks.HashAdd(place(HASH), "m", 1))
    assert (place.fields()["n"], place.fields()["m"]) == ("9" * 14 + "8", "-" + "9" * 14 + "8")
    with pytest.raises(StoreCorrupt, match="big"):
        place.write(ks.HashAdd(place(HASH), "big", 1))


def test_set_writes(place: Place) -> None:
    place.write(
        *(ks.SetAdd(place(SORTED), member, score) for member, score in (("b", 2), ("a", 2), ("c", 1)))
    )
    assert place.members() == [("c", 1), ("a", 2), ("b", 2)]
    place.write(
        ks.SetAdd(place(SORTED), "c", 3), ks.SetRemove(place(SORTED), "a"), ks.SetRemove(place(SORTED), "q")
    )
    assert place.members() == [("b", 2), ("c", 3)]
    place.write(ks.SetRemoveIf(place(SORTED), "b", 9), ks.SetRemoveIf(place(SORTED), "c", 3))
    place.write(ks.SetRemoveIf(place(SORTED), "q", 3))
    assert place.members() == [("b", 2)]
    place.write(ks.SetRemove(place(SORTED), "b"))
    assert place.passes(ks.Absent(place(SORTED), ks.Kind.SORTED, "it"))


def test_adding_if_another_set_is_empty_sees_the_writes_before_it(place: Place) -> None:
    def add(member: str) -> ks.Write:
        return ks.SetAddIfEmpty(place(SORTED), place("other"), member, 5)

    place.write(ks.SetAdd(place("other"), "x", 1), add("early"))
    assert place.members() == []
    assert place.passes(ks.Absent(place(SORTED), ks.Kind.SORTED, "it"))
    place.write(ks.SetRemove(place("other"), "x"), add("late"))
    assert place.members() == [("late", 5)]


def test_pages_of_a_set(place: Place) -> None:
    place.write(*(ks.SetAdd(place(SORTED), name, score) for score, name in enumerate("abcde")))
    key = place(SORTED)
    assert place.space.members(key, 1, 2) == ([("b", 1), ("c", 2)], 5)
    assert place.space.members(key, 1, 2, newest=True) == ([("d", 3), ("c", 2)], 5)
    assert place.space.members(key, 4, 9) == ([("e", 4)], 5)
    assert place.space.members(key, 0, 0) == ([], 5)
    assert place.space.members_until(key, 2, 9) == [("a", 0), ("b", 1), ("c", 2)]
    assert place.space.members_until(key, 2, 1) == [("a", 0)]
    assert place.space.members_until(key, -1, 9) == []
    assert place.space.members_from(key, 2, 9) == [("c", 2), ("d", 3), ("e", 4)]
    assert place.space.members_from(key, 2, 1) == [("c", 2)]
    assert place.space.members_from(key, 5, 9) == []


def test_a_stream_keeps_what_it_is_told_to(place: Place) -> None:
    def ids() -> list[str]:
        return [entry.id for entry in place.space.entries(place(STREAM), ks.NO_ENTRY, 100, NOT_AT_ALL)]

    for number in (1, 3, 5, 7):
        place.write(ks.Put(place(STREAM), f"{number}-1", {"n": str(number)}, "2-1", 10))
    assert ids() == ["3-1", "5-1", "7-1"]
    place.write(ks.Put(place(STREAM), "9-1", {"n": b"\xff"}, "0-1", 2))
    assert ids() == ["7-1", "9-1"]
    newest = place.space.last_entry(place(STREAM))
    assert newest == ks.Entry("9-1", {"n": b"\xff"})
    assert place.space.last_entry(place(STREAM), "8-1") == ks.Entry("7-1", {"n": b"7"})
    assert place.space.last_entry(place(STREAM), "7-1") == ks.Entry("7-1", {"n": b"7"})
    assert place.space.last_entry(place(STREAM), "6-9") is None
    after = place.space.entries(place(STREAM), "7-1", 9, NOT_AT_ALL)
    assert after == [newest]


def test_appended_entries_have_the_stores_time_and_name_the_one_before(place: Place) -> None:
    keep = timedelta(hours=1)
    before = ks.to_ms(place.space.now())
    place.write(*(ks.Append(place(STREAM), {"n": str(n)}, keep) for n in range(3)))
    place.write(ks.Append(place(STREAM), {"n": "3"}, keep))
    entries = place.space.entries(place(STREAM), ks.NO_ENTRY, 9, NOT_AT_ALL)
    assert [entry.fields["n"] for entry in entries] == [b"0", b"1", b"2", b"3"]
    named = [entry.fields["p"].decode() for entry in entries]
    assert named == [ks.NO_ENTRY, *(entry.id for entry in entries[:-1])]
    assert before <= int(entries[0].id.partition("-")[0]) <= ks.to_ms(place.space.now())


def test_times_to_live(bench: Bench, place: Place) -> None:
    key, hour = place(TEXT), timedelta(hours=1)
    place.write(ks.Expire(key, ks.Kind.TEXT, hour), ks.TextSet(key, "a"))
    assert bench.world.time_left(key) is None
    place.write(ks.Expire(key, ks.Kind.TEXT, hour, unless_set=True))
    place.write(ks.Expire(key, ks.Kind.TEXT, 2 * hour, unless_set=True))
    left = bench.world.time_left(key)
    assert left is not None and hour / 2 < left <= hour
    place.write(ks.Expire(key, ks.Kind.TEXT, 2 * hour))
    left = bench.world.time_left(key)
    assert left is not None and left > hour
    place.write(ks.TextSet(key, "b"))
    assert bench.world.time_left(key) is None
    place.write(ks.TextSet(key, "c", timedelta(milliseconds=5)))
    bench.world.let_pass(timedelta(milliseconds=5))
    assert place.space.text(key) is None


def test_a_key_that_was_deleted_starts_anew(bench: Bench, place: Place) -> None:
    place.write(ks.TextSet(place(TEXT), "a", timedelta(hours=1)))
    place.write(ks.Delete(place(TEXT), ks.Kind.TEXT), ks.Delete(place("none"), ks.Kind.HASH))
    assert place.space.text(place(TEXT)) is None
    place.write(ks.TextSet(place(TEXT), "b"))
    assert bench.world.time_left(place(TEXT)) is None


def test_a_text_may_be_any_bytes(place: Place) -> None:
    every = bytes(range(256)) * 300
    assert place.space.blob(place(TEXT)) is None
    for value in (every, b"", b"\0", b"7", b"short", "ünï".encode()):
        place.write(ks.TextSet(place(TEXT), value))
        assert place.space.blob(place(TEXT)) == value
    assert place.space.text(place(TEXT)) == "ünï"
    place.write(ks.TextSet(place(TEXT), "ü"))
    assert place.space.blob(place(TEXT)) == "ü".encode()
    place.write(ks.TextSet(place(TEXT), b"\xff"))
    assert place.space.text(place(TEXT)) == "\ufffd"
    place.write(ks.SetAdd(place(SORTED), "m", 1))
    with pytest.raises(StoreCorrupt):
        place.space.blob(place(SORTED))


def test_many_texts_are_read_at_once(place: Place) -> None:
    place.write(
        ks.TextSet(place("one"), b"\xff"), ks.TextSet(place("two"), ""), ks.SetAdd(place(SORTED), "m", 1)
    )
    assert place.space.blobs([place("two"), place("none"), place("one")]) == [b"", None, b"\xff"]
    assert place.space.blobs([]) == []
    with pytest.raises(StoreCorrupt) as error:
        place.space.blobs([place("one"), place(SORTED)])
    assert error.value.key == place(SORTED)


def test_the_score_of_one_member(place: Place) -> None:
    assert place.space.score(place(SORTED), "m") is None
    place.write(ks.SetAdd(place(SORTED), "m", 1_772_366_400_123))
    assert place.space.score(place(SORTED), "m") == 1_772_366_400_123
    assert place.space.score(place(SORTED), "n") is None
    place.write(ks.TextSet(place(TEXT), "a"))
    with pytest.raises(StoreCorrupt):
        place.space.score(place(TEXT), "m")


def test_a_stream_is_trimmed_to_the_memory_it_may_take(place: Place) -> None:
    """Of 16,000 entries about a quarter stays: more go than Redis drops by one command."""
    key, keep, size = place(STREAM), timedelta(hours=1), 240
    for start in range(0, 16_000, 100):
        entries = (ks.Append(key, {"n": str(start + n), "x": "x" * size}, keep) for n in range(100))
        place.write(*entries)

    def left() -> list[int]:
        found = place.space.entries(key, ks.NO_ENTRY, 20_000, NOT_AT_ALL)
        return [int(entry.fields["n"]) for entry in found]

    place.space.trim(key, 16_000 * size * 2)
    assert len(left()) == 16_000
    place.space.trim(key, 4_000 * size)
    numbers = left()
    assert numbers == list(range(numbers[0], 16_000))
    assert 2_800 <= len(numbers) <= 4_000
    place.space.trim(key, 4_000 * size)
    assert left() == numbers
    place.space.trim(key, 1)
    assert 1 <= len(left()) <= 20 and left()[-1] == 15_999


def test_trimming_what_is_no_stream(place: Place) -> None:
    place.space.trim(place(STREAM), 1)
    assert place.passes(ks.Absent(place(STREAM), ks.Kind.STREAM, "it"))
    place.write(ks.TextSet(place(TEXT), "a"))
    for bytes_max in (1, 1_000_000):
        with pytest.raises(StoreCorrupt) as caught:
            place.space.trim(place(TEXT), bytes_max)
        assert caught.value.key == place(TEXT)


def test_memory_that_is_used_up_refuses_only_what_grows_the_store(bench: Bench, place: Place) -> None:
    write = ks.HashSet(place(HASH), {"a": "x" * 1_000})
    with bench.world.crowded():
        used, maximum = place.space.memory()
        assert used > maximum > 0
        with pytest.raises(StoreUnavailable, match="memory is full"):
            place.space.transact([], [write], grows=True)
        assert place.fields() == {}
        # Many times, since nothing that was freed meanwhile is to explain it.
        for _ in range(100):
            place.space.transact([], [write])
        with pytest.raises(StoreUnavailable, match="memory is full"):
            place.space.transact([], [write], grows=True)
    place.space.transact([], [write], grows=True)
    assert len(place.fields()["a"]) == 1_000
