"""Pages: what is refused, and what is said of the whole."""

from __future__ import annotations

import pytest

from titus_celery.core.paging import FIRST_PAGE, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Page, Totals, page_asked
from titus_celery.errors import InvalidRequest


@pytest.mark.parametrize(
    ("number", "size", "items", "pages", "has_more"),
    [
        pytest.param(0, 10, 0, 0, False, id="nothing-at-all"),
        pytest.param(0, 10, 1, 1, False, id="one-of-one"),
        pytest.param(0, 10, 10, 1, False, id="exactly-one-page"),
        pytest.param(0, 10, 11, 2, True, id="one-item-on-the-next"),
        pytest.param(1, 10, 11, 2, False, id="the-last-page"),
        pytest.param(7, 10, 11, 2, False, id="past-the-end"),
        pytest.param(0, 1, 3, 3, True, id="pages-of-one"),
    ],
)
def test_totals_are_exact(number: int, size: int, items: int, pages: int, has_more: bool) -> None:
    totals = Totals(page=Page(number=number, size=size), items=items)
    assert (totals.pages, totals.has_more) == (pages, has_more)


@pytest.mark.parametrize(
    ("number", "size", "fields"),
    [
        pytest.param(-1, 10, ["page.pageNumber"], id="negative-number"),
        pytest.param(0, 0, ["page.pageSize"], id="no-size"),
        pytest.param(0, -5, ["page.pageSize"], id="negative-size"),
        pytest.param(0, PAGE_SIZE_MAX + 1, ["page.pageSize"], id="too-large"),
        pytest.param(-1, 0, ["page.pageNumber", "page.pageSize"], id="both-are-named"),
    ],
)
def test_a_page_that_cannot_be_is_refused_with_all_that_is_wrong(
    number: int, size: int, fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page_asked(number, size)
    assert [violation.field for violation in refused.value.violations] == fields


def test_a_page_of_the_largest_size_is_given_as_asked() -> None:
    assert page_asked(3, PAGE_SIZE_MAX) == Page(number=3, size=PAGE_SIZE_MAX)


def test_who_asks_for_no_page_gets_the_first_of_the_default_size() -> None:
    assert Page(number=0, size=PAGE_SIZE_DEFAULT) == FIRST_PAGE
