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


@given(
    steps=st.lists(
        st.tuples(
            st.booleans(),
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
    steps: list[tuple[bool, str, int, set[str]]], wanted: list[frozenset[str]], start: int, size: int
) -> None:
    shelf: Shelf[str] = Shelf()
    plain: dict[str, tuple[int, set[str]]] = {}
    for puts, id, made, terms in steps:
        if puts:
            shelf.put((made, id), sorted(terms), id)
            plain[id] = (made, terms)
        else:
            shelf.remove(id)
            plain.pop(id, None)
    everything = sorted(
        (made, id) for id, (made, terms) in plain.items() if all(terms & group for group in wanted)
    )
    page = [id for _, id in everything[start : start + size]]
    assert shelf.find(wanted, start, size) == (page, len(everything))
