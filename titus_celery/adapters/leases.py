"""Named leases and flags: texts that go by themselves."""

from __future__ import annotations

from datetime import timedelta

from titus_celery.adapters.keys import Keys
from titus_celery.adapters.keyspace import Absent, Check, Delete, Keyspace, Kind, TextIs, TextSet, Write
from titus_celery.errors import Conflict

__all__ = ["LeaseStore"]


class LeaseStore:
    """The Leases of the installation whose keys this keyspace holds."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._keys = Keys(keyspace.namespace)

    def hold(self, name: str, holder: str, span: timedelta) -> bool:
        """Take or renew the lease for *span*; False while another holds it."""
        key = self._keys.lease(name)
        return self._try(TextIs(key, holder, name, or_absent=True), TextSet(key, holder, span))

    def release(self, name: str, holder: str) -> None:
        """Give it up if *holder* has it."""
        key = self._keys.lease(name)
        self._try(TextIs(key, holder, name), Delete(key, Kind.TEXT))

    def raise_flag(self, name: str, span: timedelta) -> bool:
        """True for the first to ask within *span*, or since `lower_flag`."""
        key = self._keys.flag(name)
        return self._try(Absent(key, Kind.TEXT, name), TextSet(key, "up", span))

    def lower_flag(self, name: str) -> None:
        """The next to ask is the first again."""
        self._keyspace.transact([], [Delete(self._keys.flag(name), Kind.TEXT)])

    def _try(self, check: Check, write: Write) -> bool:
        try:
            self._keyspace.transact([check], [write])
        except Conflict:
            return False
        return True
