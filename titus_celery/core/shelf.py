"""Things in the order in which they were made, found by their terms without looking at all of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
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
        having = [self._having.setdefault(term, _Having(term)) for term in terms]
        self._places[order[1]] = _Place(order, tuple(each.term for each in having), thing)
        insort(self._orders, order)
        for each in having:
            insort(each.orders, order)

    def remove(self, id: str) -> None:
        """Take a thing away, if it is there."""
        place = self._places.pop(id, None)
        if place is None:
            return
        _drop(self._orders, place.order)
        for term in place.terms:
            _drop(orders := self._having[term].orders, place.order)
            if not orders:
                del self._having[term]

    def find(
        self,
        wanted: Sequence[frozenset[str]],
        start: int,
        size: int,
        fits: Callable[[T], bool] | None = None,
    ) -> tuple[Sequence[T], int]:
        """*size* things from the *start*-th on of those that have one term of each set in *wanted*, and fit;
        and how many there are in all."""
        orders, rest = self._candidates(wanted)
        if rest or fits is not None:
            orders = [order for order in orders if self._is_found(order[1], rest, fits)]
        page = [self._places[id].thing for _, id in orders[start : start + size]]
        return page, len(orders)

    def _candidates(self, wanted: Sequence[frozenset[str]]) -> tuple[Sequence[Order], list[frozenset[str]]]:
        """The things that have a term of the rarest set, so that only they are looked at; the other sets."""
        if not wanted:
            return self._orders, []
        lists = [[having.orders for term in terms if (having := self._having.get(term))] for terms in wanted]
        at = min(range(len(lists)), key=lambda place: sum(map(len, lists[place])))
        rest = [terms for place, terms in enumerate(wanted) if place != at]
        rarest = lists[at]
        # A thing may have several of them.
        return (rarest[0] if len(rarest) == 1 else list(dict.fromkeys(merge(*rarest)))), rest

    def _is_found(self, id: str, rest: Sequence[frozenset[str]], fits: Callable[[T], bool] | None) -> bool:
        place = self._places[id]
        return all(any(term in terms for term in place.terms) for terms in rest) and (
            fits is None or fits(place.thing)
        )


def _drop(orders: list[Order], order: Order) -> None:
    at = bisect_left(orders, order)
    if at < len(orders) and orders[at] == order:
        del orders[at]
