"""The index: what is found, in which order, by how little looking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from titus_celery.core.shelf import Shelf

_TERMS = [f"t{number}" for number in range(5)]


def filled(*things: tuple[int, str, str]) -> Shelf[str]:
    """A shelf of things made at some time, with an id and terms of one letter each."""
    shelf: Shelf[str] = Shelf()
    for made, id, terms in things:
        shelf.put((made, id), terms, id)
    return shelf


def sets(*groups: str) -> list[frozenset[str]]:
    return [frozenset(group) for group in groups]


def test_all_are_found_by_when_they_were_made_then_by_id() -> None:
    shelf = filled((2, "a", ""), (1, "z", ""), (2, "B", ""), (1, "c", ""))
    assert shelf.find([], 0, 9) == (["c", "z", "B", "a"], 4)
    assert list(shelf) == ["c", "z", "B", "a"]


def test_a_thing_must_have_one_term_of_each_set() -> None:
    shelf = filled((1, "a", "xy"), (2, "b", "xz"), (3, "c", "y"))
    assert shelf.find(sets("x"), 0, 9) == (["a", "b"], 2)
    assert shelf.find(sets("yz"), 0, 9) == (["a", "b", "c"], 3)
    assert shelf.find(sets("x", "yz"), 0, 9) == (["a", "b"], 2)
    assert shelf.find(sets("x", "y"), 0, 9) == (["a"], 1)
    assert shelf.find(sets("n"), 0, 9) == ([], 0)
    assert shelf.find(sets("x", "n"), 0, 9) == ([], 0)


def test_a_thing_with_several_of_the_terms_is_found_once() -> None:
    assert filled((1, "a", "xyz")).find(sets("xyz"), 0, 9) == (["a"], 1)


def test_pages_are_parts_of_one_list() -> None:
    shelf = filled(*((number, f"{number}", "x" if number % 2 else "xy") for number in range(10)))
    assert shelf.find(sets("x"), 3, 2) == (["3", "4"], 10)
    assert shelf.find(sets("x", "y"), 1, 2) == (["2", "4"], 5)
    assert shelf.find(sets("x"), 10, 2) == ([], 10)


def test_what_does_not_fit_is_not_counted() -> None:
    shelf = filled((1, "a", "x"), (2, "b", "x"), (3, "c", ""))
    assert shelf.find(sets("x"), 0, 9, lambda thing: thing != "a") == (["b"], 1)
    assert shelf.find([], 0, 1, lambda thing: thing != "a") == (["b"], 2)


def test_what_is_put_again_has_its_new_terms_alone() -> None:
    shelf = filled((1, "a", "x"), (1, "a", "y"))
    assert (shelf.find(sets("x"), 0, 9)[1], shelf.find(sets("y"), 0, 9)[1], len(shelf)) == (0, 1, 1)


def test_what_is_removed_is_gone_and_twice_is_fine() -> None:
    shelf = filled((1, "a", "x"), (2, "b", "x"))
    shelf.remove("a")
    shelf.remove("a")
    assert (shelf.find(sets("x"), 0, 9), "a" in shelf, shelf.get("a")) == ((["b"], 1), False, None)


def test_of_given_ids_only_those_things_are_found() -> None:
    shelf = filled((3, "a", "x"), (2, "b", "xy"), (1, "c", "y"))
    assert shelf.find([], 0, 9, among={"a", "b", "nobody"}) == (["b", "a"], 2)
    assert shelf.find(sets("x", "y"), 0, 9, among={"a", "b"}) == (["b"], 1)
    assert shelf.find(sets("x"), 0, 9, lambda thing: thing != "a", {"a", "b"}) == (["b"], 1)
    assert shelf.find([], 0, 9, among=()) == ([], 0)


def test_a_thing_is_found_by_the_terms_that_it_has_after_a_change() -> None:
    shelf = filled((1, "a", "xy"), (2, "b", "y"))
    shelf.change("a", frozenset("xy"), frozenset("yz"))
    assert [shelf.find(sets(term), 0, 9)[0] for term in "xyz"] == [[], ["a", "b"], ["a"]]
    assert sorted(shelf.terms("a")) == ["y", "z"]
    shelf.remove("a")
    assert [shelf.find(sets(term), 0, 9)[0] for term in "xyz"] == [[], ["b"], []]


def test_a_search_that_is_made_again_knows_what_came_and_went() -> None:
    shelf = filled((1, "a", "xy"), (2, "b", "y"), (3, "c", "y"), (4, "d", "y"))
    assert shelf.find(sets("x", "y"), 0, 9)[0] == ["a"]
    shelf.put((5, "e"), "xy", "e")
    assert shelf.find(sets("x", "y"), 0, 9)[0] == ["a", "e"]
    shelf.change("a", frozenset("xy"), frozenset("x"))
    assert shelf.find(sets("x", "y"), 0, 9)[0] == ["e"]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["put", "change", "remove"]),
            st.integers(0, 6).map(str),
            st.integers(0, 3),
            st.sets(st.sampled_from(_TERMS), max_size=4),
        ),
        max_size=30,
    ),
    wanted=st.lists(st.frozensets(st.sampled_from(_TERMS), min_size=1, max_size=3), max_size=3),
    start=st.integers(0, 4),
    size=st.integers(1, 4),
)
def test_it_finds_what_looking_at_everything_would(
    steps: list[tuple[str, str, int, set[str]]], wanted: list[frozenset[str]], start: int, size: int
) -> None:
    """After each step, because what a search has built is kept for the next."""
    shelf: Shelf[str] = Shelf()
    plain: dict[str, tuple[int, set[str]]] = {}
    for step, id, made, terms in steps:
        if step == "put":
            shelf.put((made, id), sorted(terms), id)
            plain[id] = (made, terms)
        elif step == "remove":
            shelf.remove(id)
            plain.pop(id, None)
        elif id in plain:
            shelf.change(id, frozenset(plain[id][1]), frozenset(terms))
            plain[id] = (plain[id][0], terms)
        everything = sorted(
            (made, id) for id, (made, terms) in plain.items() if all(terms & group for group in wanted)
        )
        page = [id for _, id in everything[start : start + size]]
        assert shelf.find(wanted, start, size) == (page, len(everything))
        assert shelf.find(wanted, start, size, among=plain) == (page, len(everything))
