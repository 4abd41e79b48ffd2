"""Which part of a list was asked for, and what to say of the whole (docs/semantics.md B4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from titus_celery.errors import InvalidRequest, Violation

__all__ = ["FIRST_PAGE", "PAGE_SIZE_DEFAULT", "PAGE_SIZE_MAX", "Page", "Totals", "page_asked"]

#: Items on a page when the caller does not say.
PAGE_SIZE_DEFAULT: Final = 100
#: Items on a page at most: one reply holds them all in memory, each with its active tasks. More is
#: refused rather than cut, because a short page looks like the last one.
PAGE_SIZE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list: its number, from 0, and how many items a page holds."""

    number: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The whole that *page* is a part of: how many *items* there are on all pages."""

    page: Page
    items: int

    @property
    def pages(self) -> int:
        """How many pages the items fill; none if there is no item."""
        return -(-self.items // self.page.size)

    @property
    def has_more(self) -> bool:
        """Whether a later page holds an item."""
        return (self.page.number + 1) * self.page.size < self.items


#: What a caller gets who does not ask for a page.
FIRST_PAGE: Final = Page(number=0, size=PAGE_SIZE_DEFAULT)


def page_asked(number: int, size: int) -> Page:
    """The page that was asked for in so many words; InvalidRequest with all that is wrong with it."""
    found = []
    if number < 0:
        found.append(Violation("page.pageNumber", f"{number} is negative; pages count from 0"))
    if not 1 <= size <= PAGE_SIZE_MAX:
        found.append(Violation("page.pageSize", f"{size} is not from 1 to {PAGE_SIZE_MAX}"))
    if found:
        raise InvalidRequest(found)
    return Page(number=number, size=size)
