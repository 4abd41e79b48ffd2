"""Letting go of what is kept too long, too many or too much, a bounded piece at a time.

Any number of control processes may do it at once: the oldest job is removed by one of them, and who
comes second leaves the rest to the first.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from titus_celery.core.retention import Keep, is_too_much
from titus_celery.errors import Conflict, StoreCorrupt
from titus_celery.ports import Leases, Retained

__all__ = ["JOBS_MAX", "PERIOD", "TASKS_MAX", "Retention"]

#: Between two passes, of all control processes together, while nothing is left over.
PERIOD: Final = timedelta(seconds=10)
#: Jobs that one pass removes, and tasks of removed jobs after which it leaves the rest to the next:
#: either takes less than a second, so that what is due meanwhile does not wait for long.
JOBS_MAX: Final = 500
TASKS_MAX: Final = 5_000
#: Raised by who makes a pass.
_FLAG: Final = "retention"

_log = logging.getLogger(__name__)


class Retention:
    """Keeps what is over, and the change log, within their bounds (docs/semantics.md A17)."""

    def __init__(self, *, retained: Retained, leases: Leases, keep: Keep, log_bytes_max: int) -> None:
        self._retained = retained
        self._leases = leases
        self._keep = keep
        self._log_bytes_max = log_bytes_max

    def when_due(self) -> None:
        """A pass, unless any control made one within PERIOD and left nothing over."""
        if self._leases.raise_flag(_FLAG, PERIOD) and self.run():
            self._leases.lower_flag(_FLAG)

    def run(self) -> bool:
        """One pass: the oldest jobs that are too much go, and the log is trimmed; True if more is to go.

        A job whose records cannot be read is passed over, and told of at the end.
        """
        # First, because it costs least and the log grows fastest.
        self._retained.trim_log(self._log_bytes_max)
        faults: list[StoreCorrupt] = []
        has_more = self._let_go(faults)
        if faults:
            raise faults[0]
        return has_more

    def _let_go(self, faults: list[StoreCorrupt]) -> bool:
        kept, tasks = self._retained.kept(JOBS_MAX), 0
        for oldest in kept.oldest:
            if tasks >= TASKS_MAX:
                return True
            if not is_too_much(kept, oldest, self._keep):
                return False
            try:
                freed = self._retained.remove(oldest)
            except Conflict:
                _log.info("job %s went meanwhile; another control is at it", oldest.job_id)
                return False
            except StoreCorrupt as error:
                _log.warning("job %s cannot be removed and is passed over: %s", oldest.job_id, error)
                faults.append(error)
                continue
            kept = kept.less(freed)
            tasks += freed.tasks
        return len(kept.oldest) == JOBS_MAX
