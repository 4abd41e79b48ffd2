"""Faults of single records, set aside until the end of a pass, so that they do not keep the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from titus_celery.errors import Conflict, NotFound, StoreCorrupt, TitusError

__all__ = ["put_off"]

_log = logging.getLogger(__name__)


@contextmanager
def put_off(faults: list[TitusError], what: str) -> Iterator[None]:
    """Keep a fault of one record for the end of the pass; a store that is away ends it at once."""
    try:
        yield
    except (Conflict, NotFound, StoreCorrupt) as error:
        _log.warning("%s is passed over: %s", what, error)
        faults.append(error)
