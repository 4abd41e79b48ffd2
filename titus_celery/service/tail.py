"""What a task wrote and writes, until it has ended: the use case behind following output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titus_celery.core.model import Exit, Task, TaskId
from titus_celery.core.reasons import Reason
from titus_celery.ports import Chunk, Gap, Outputs, Records

__all__ = ["Ended", "TailItem", "Tails"]

#: Waited at once for more output: how late a follower hears that a silent task ended, and how long
#: one that left is held. Shorter costs the store two reads more a second for each follower and halving.
BLOCK: Final = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The task is over and all that is kept of its output was given; it ends at *offset*."""

    offset: int
    exit: Exit | None
    reason: Reason | None


TailItem = Chunk | Gap | Ended


class Tails:
    """Follows the output of tasks."""

    def __init__(self, records: Records, outputs: Outputs, *, block: timedelta = BLOCK) -> None:
        self._records = records
        self._outputs = outputs
        self._block = block

    def follow(self, task_id: TaskId, offset: int) -> Iterator[Sequence[TailItem]]:
        """What the task wrote from *offset* on, as it comes, and last that it Ended.

        Each step blocks for at most *block* and may give nothing. The output of a task that ended long
        ago is gone: then Ended is all. NotFound if there is no such task, from the first step.
        """
        while True:
            # In this order: what a task wrote is stored before its end is, so output read after
            # the end was seen is all of it.
            task = self._records.task(task_id).task
            is_over = task.state.is_final
            items = self._outputs.read(task_id, offset, timedelta(0) if is_over else self._block)
            if items:
                offset = items[-1].end
            elif is_over:
                yield (self._end(task, offset),)
                return
            yield items

    def _end(self, task: Task, reached: int) -> Ended:
        # Nothing kept tells where it ended; what the follower has seen is the best there is.
        end = self._outputs.end(task.id) or reached
        return Ended(offset=end, exit=task.exit, reason=task.reason)
