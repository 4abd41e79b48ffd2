"""Which page a query asks for, and what its reply says of the whole (docs/semantics.md B4.4)."""

from __future__ import annotations

from titus_celery.core.paging import FIRST_PAGE, Page, Totals, page_asked
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["page_from", "pagination_to_pb"]


#: What is asked for in pages.
_Paged = pb.JobQuery | pb.TaskQuery | pb.JobClusterQuery | v1.FindFiringsRequest


def page_from(query: _Paged) -> Page:
    """The page; InvalidRequest for one that cannot be.

    Only what is absent has a default: a page of size 0 that was asked for is an error.
    """
    return page_asked(query.page.pageNumber, query.page.pageSize) if query.HasField("page") else FIRST_PAGE


def pagination_to_pb(page: Page, total: int) -> pb.Pagination:
    """What a reply of *page* says of all *total* items."""
    totals = Totals(page=page, items=total)
    return pb.Pagination(
        currentPage=pb.Page(pageNumber=page.number, pageSize=page.size),
        hasMore=totals.has_more,
        totalPages=totals.pages,
        totalItems=total,
    )
