"""Things in the order in which they were made, found by their terms without looking at all of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, TypeVar

__all__ = ["Order", "Shelf"]

#: When it was made (ms), and its id: what makes the order of all things total and lasting.
Order = tuple[int, str]

T = TypeVar("T")


@dataclass(slots=True)
class _Place(Generic[T]):
    order: Order
    terms: tuple[str, ...]
    thing: T


@dataclass(slots=True)
class _Having:
    """The things that have a term, and the one text of it that all of them share."""

    term: str
    orders: list[Order] = field(default_factory=list)
    #: Their ids, from when they were first needed: most terms are never asked for.
    ids: set[str] | None = None

    def add(self, order: Order) -> None:
        """Have one thing more."""
        insort(self.orders, order)
        if self.ids is not None:
            self.ids.add(order[1])

    def drop(self, order: Order) -> None:
        """Have it no more."""
        _drop(self.orders, order)
        if self.ids is not None:
            self.ids.discard(order[1])

    def known_ids(self) -> set[str]:
        """The ids of its things."""
        if self.ids is None:
            self.ids = {id for _, id in self.orders}
        return self.ids


class Shelf(Generic[T]):
    """An index over things by id. What is found comes by *order*: when it was made, then its id."""

    def __init__(self) -> None:
        self._places: dict[str, _Place[T]] = {}
        self._orders: list[Order] = []
        self._having: dict[str, _Having] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def __iter__(self) -> Iterator[T]:
        return (self._places[id].thing for _, id in self._orders)

    def get(self, id: str) -> T | None:
        """The thing of this id."""
        place = self._places.get(id)
        return None if place is None else place.thing

    def terms(self, id: str) -> Sequence[str]:
        """The terms of the thing of this id."""
        place = self._places.get(id)
        return () if place is None else place.terms

    def put(self, order: Order, terms: Iterable[str], thing: T) -> None:
        """Put a thing there, in place of the one of the same id."""
        self.remove(order[1])
        self._places[order[1]] = _Place(order, tuple(self._add(term, order) for term in terms), thing)
        insort(self._orders, order)

    def change(self, id: str, before: frozenset[str], after: frozenset[str]) -> None:
        """Let the thing of this id, which has the terms *before*, have those *after* in their place."""
        if before == after:
            return
        place = self._places[id]
        for term in before - after:
            self._take(term, place.order)
        new = (self._add(term, place.order) for term in after - before)
        place.terms = (*(term for term in place.terms if term not in before or term in after), *new)

    def remove(self, id: str) -> None:
        """Take a thing away, if it is there."""
        place = self._places.pop(id, None)
        if place is None:
            return
        _drop(self._orders, place.order)
        for term in place.terms:
            self._take(term, place.order)

    def _add(self, term: str, order: Order) -> str:
        """Let one thing more have the term, whose one text is returned."""
        having = self._having.setdefault(term, _Having(term))
        having.add(order)
        return having.term

    def _take(self, term: str, order: Order) -> None:
        having = self._having[term]
        having.drop(order)
        if not having.orders:
            del self._having[term]

    def find(
        self,
        wanted: Sequence[frozenset[str]],
        start: int,
        size: int,
        fits: Callable[[T], bool] | None = None,
        among: Collection[str] | None = None,
    ) -> tuple[Sequence[T], int]:
        """*size* things from the *start*-th on of those that have one term of each set in *wanted*, and fit;
        and how many there are in all. With *among* only the things of these ids are looked at."""
        orders = self._having_all(wanted) if among is None else self._of(among, wanted)
        if fits is not None:
            orders = [order for order in orders if fits(self._places[order[1]].thing)]
        return [self._places[id].thing for _, id in orders[start : start + size]], len(orders)

    def _of(self, ids: Iterable[str], wanted: Sequence[frozenset[str]]) -> Sequence[Order]:
        places = [place for id in ids if (place := self._places.get(id)) is not None]
        return sorted(
            place.order for place in places if not any(terms.isdisjoint(place.terms) for terms in wanted)
        )

    def _having_all(self, wanted: Sequence[frozenset[str]]) -> Sequence[Order]:
        """The things that have a term of each set: only those with one of the rarest are looked at."""
        if not wanted:
            return self._orders
        sets = [[having for term in terms if (having := self._having.get(term))] for terms in wanted]
        rarest = min(range(len(sets)), key=lambda at: sum(len(each.orders) for each in sets[at]))
        orders = _merged([each.orders for each in sets.pop(rarest)])
        for some in sets if orders else ():
            # Not by looking at the terms of each thing, which takes ten times as long.
            ids = [each.known_ids() for each in some]
            if len(ids) == 1:
                (only,) = ids
                orders = [order for order in orders if order[1] in only]
            else:
                orders = [order for order in orders if any(order[1] in each for each in ids)]
        return orders


def _merged(lists: Sequence[list[Order]]) -> Sequence[Order]:
    """What is in any of the sorted lists, each once, sorted."""
    # A thing may have several of the terms. Sorting what is sorted in parts costs about one look at each.
    return lists[0] if len(lists) == 1 else list(dict.fromkeys(sorted(chain(*lists))))


def _drop(orders: list[Order], order: Order) -> None:
    at = bisect_left(orders, order)
    if at < len(orders) and orders[at] == order:
        del orders[at]
