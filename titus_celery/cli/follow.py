"""Following one job: messages in, lines and wishes out, without a connection or a clock.

Every line that a follower says about a job comes from a message of ObserveJob or TailTask. How a
task ended is said when its output has ended, so that the last line of output comes before it. The
runs of one slot are read one after the other, so their output keeps its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from titus_celery.cli.lines import Lines
from titus_celery.cli.specs import container_of, is_scalable, is_service, parts_of, stage_of, wanted
from titus_celery.cli.verdict import Verdict, of_end, of_mantis, of_slots
from titus_celery.core.reasons import Code
from titus_celery.core.resources import MEMORY
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["Ask", "Follower", "Say", "Step", "Summary", "Tail", "Write"]

#: How often the output of one run may fail to be read. Its end comes with it and decides the exit
#: code, so one failure, which may be about the moment, is not the last word.
TRIES_MAX: Final = 2
#: Codes of ends whose reason says all that there is to say.
_PLAIN: Final = frozenset({Code.FAILED.value, Code.SCALED_DOWN.value})


@dataclass(frozen=True, slots=True)
class Say:
    """A line about what happens."""

    text: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes of a container, for standard output or standard error."""

    source: v1.Source.ValueType
    data: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """Wish: read this task's output from this byte on."""

    task_id: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Wish: the job with all of its tasks, ended ones too (`settled` takes it)."""


#: Stage, 0 without one, and number.
_Slot = tuple[int, int]
Step = Say | Write | Tail | Ask


@dataclass(slots=True)
class _Run:
    """One run of a slot, as far as it was heard of."""

    id: str
    slot: _Slot
    #: How people are told which slot it is.
    mark: str
    attempt: int
    state: State = State.QUEUED
    said: tuple[State, str] | None = None
    #: What there is to say about it once the slot's earlier runs have been read to their end.
    unsaid: list[Say] = field(default_factory=list)
    host: str = ""
    is_read: bool = False
    #: How often its output could not be read, and from which byte on it was not.
    failures: int = 0
    offset: int = 0
    is_over: bool = False
    end: v1.End | None = None
    lines: dict[int, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """One slot at the end: how often it was run, where last, and how that ended."""

    slot: str
    attempts: int
    host: str
    verdict: Verdict
    reason: str


class Follower:
    """What is known of one job, and what that means for who follows it."""

    def __init__(self, job_id: str, *, with_output: bool = True, is_service: bool = False) -> None:
        self._job_id = job_id
        self._with_output = with_output
        #: Whether it has no end of its own, so that its slots may come and go.
        self.is_service = is_service
        self._is_scalable = is_service
        self._is_staged = False
        self._outcome = pb.JobState()
        self._slots: dict[_Slot, dict[int, _Run]] = {}
        self._by_id: dict[str, _Run] = {}
        self._desired = 0
        #: By stage.
        self._memory: list[str] = []
        self._is_settled = False
        self._progress = ""

    @property
    def is_over(self) -> bool:
        """Whether the job is over and everything about it was read."""
        return self._is_settled and all(run.is_over for run in self._by_id.values())

    @property
    def verdict(self) -> Verdict:
        """The exit code that the job means, and why if the code alone does not tell; asked at the end."""
        slots = self._all_slots() or ([] if self.is_service else [(0, 0)])
        bad = of_slots({slot: self._verdict_of(slot) for slot in slots})
        if bad is None:
            return Verdict(0)
        if self._is_staged and self._outcome.state == pb.FINISHED:
            return of_mantis(self._outcome.reason)
        slot, verdict = bad
        return Verdict(verdict.code, f"task {self._mark(slot)}: {verdict.why}" if verdict.why else "")

    def summary(self) -> list[Summary]:
        """Every slot, in order."""
        last = {slot: self._last(slot) for slot in self._all_slots()}
        return [
            Summary(
                self._mark(slot),
                run.attempt if run else 0,
                run.host if run else "",
                self._verdict_of(slot),
                run.end.reason if run and run.end else "",
            )
            for slot, run in last.items()
        ]

    def heard(self, message: pb.JobChangeNotification) -> list[Step]:
        """What a message of ObserveJob means."""
        match message.WhichOneof("notification"):
            case "jobSnapshot":
                self._describe(message.jobSnapshot.job.jobDescriptor)
                for task in message.jobSnapshot.job.tasks:
                    self._update(task)
                return [*self._all_reads(), *self._tell()]
            case "jobDefinitionUpdate":
                self._describe(message.jobDefinitionUpdate.jobDescriptor)
                return [*self._tell()]
            case "taskUdate":
                run = self._update(message.taskUdate.task)
                return [*self._reads(run.slot), *self._tell()]
            case "jobFinished":
                return [Ask()]
        return []

    def settled(self, job: pb.Job) -> list[Step]:
        """What the finished job says about runs that were missed while the server was away."""
        self._is_settled = True
        self._outcome.CopyFrom(job.jobState)
        self._describe(job.jobDescriptor)
        for task in job.tasks:
            self._update(task)
        return [*self._all_reads(), *self._tell()]

    def tailed(self, task_id: str, item: v1.TailTaskItem) -> list[Step]:
        """What a message of TailTask means."""
        run = self._by_id[task_id]
        match item.WhichOneof("item"):
            case "output":
                run.offset = item.output.offset + len(item.output.data)
                return self._write(run, item.output.source, item.output.data)
            case "gap":
                run.offset = item.gap.end
                size = item.gap.end - item.gap.start
                return [Say(f"{self._name(run)}: {size:,} bytes of its output are no longer kept")]
            case "end":
                return self._over(run, item.end)
        return []

    def not_tailed(self, task_id: str, why: str) -> list[Step]:
        """The output of a task cannot be read: *why*. Once it has ended it is tried once more."""
        run = self._by_id[task_id]
        run.failures += 1
        said = Say(f"{self._name(run)}: {why}")
        if run.failures >= TRIES_MAX:
            return [said, *self._over(run, None)]
        run.is_read = False
        return [said, *self._reads(run.slot)]

    def _describe(self, descriptor: pb.JobDescriptor) -> None:
        self.is_service = is_service(descriptor)
        self._is_scalable = is_scalable(descriptor)
        self._is_staged = descriptor.HasField("mantis")
        self._desired = wanted(descriptor)
        containers = (container_of(descriptor, part) for part in parts_of(descriptor))
        self._memory = [container.resources.get(MEMORY, "") for container in containers]

    def _update(self, task: pb.Task) -> _Run:
        """Take in a task; how it stands is to be said, unless it ended: that is said with its output."""
        run = self._by_id.get(task.id)
        if run is None:
            context = task.taskContext
            slot = (stage_of(context) or 0, int(context["task.index"]))
            run = _Run(task.id, slot, self._mark(slot), int(context["task.resubmitNumber"]) + 1)
            self._by_id[task.id] = self._slots.setdefault(run.slot, {})[run.attempt] = run
        state = State(task.state.state)
        if state < run.state:
            return run
        run.state = state
        run.host = task.taskContext.get("agent.host", run.host)
        said = (state, task.state.reason)
        if not (state.is_final or said == run.said or run.is_over or self._is_settled):
            run.said = said
            where = f" on {run.host}" if state is State.DISPATCHED and run.host else ""
            why = f": {task.state.reason}" if task.state.reason else ""
            run.unsaid.append(Say(f"{self._name(run)} {state.name.lower()}{where}{why}"))
        return run

    def _reads(self, slot: _Slot) -> Iterator[Step]:
        """Go on with a slot: its first run that was not read to its end is told of, and read once begun."""
        runs = self._slots[slot]
        newest = max(runs)
        for attempt in sorted(runs):
            run = runs[attempt]
            if run.is_over:
                continue
            yield from run.unsaid
            run.unsaid.clear()
            # A run that has a successor is over, even if its own end was missed.
            has_ended = run.state.is_final or attempt < newest or self._is_settled
            has_begun = run.state >= State.STARTING or has_ended
            if (has_ended if run.failures else has_begun) and not run.is_read:
                run.is_read = True
                yield Tail(run.id, run.offset)
            return

    def _all_reads(self) -> Iterator[Step]:
        for slot in sorted(self._slots):
            yield from self._reads(slot)

    def _write(self, run: _Run, source: v1.Source.ValueType, data: bytes) -> list[Step]:
        if not self._with_output:
            return []
        if self._is_several:
            data = run.lines.setdefault(source, Lines(run.mark)).whole(data)
        return [Write(source, data)] if data else []

    def _over(self, run: _Run, end: v1.End | None) -> list[Step]:
        run.is_over, run.end = True, end
        steps: list[Step] = [
            Write(v1.Source.ValueType(source), rest)
            for source, lines in sorted(run.lines.items())
            if (rest := lines.rest())
        ]
        if end is not None:
            reason = end.reason or end.reason_code
            how = reason if end.reason_code in _PLAIN else f"failed: {reason}"
            how = "finished" if end.reason_code == Code.NORMAL.value else how
            steps.append(Say(f"{self._name(run)} {how}"))
        return [*steps, *self._reads(run.slot), *self._tell()]

    def _tell(self) -> Iterable[Step]:
        """How far the job is, when that has changed."""
        if self._is_several and (progress := self._progress_text()) != self._progress:
            self._progress = progress
            yield Say(progress)

    @property
    def _is_several(self) -> bool:
        """Whether tasks are told apart; a service's are, as it may be made larger at any time."""
        return self.is_service or self._desired > 1

    def _all_slots(self) -> Sequence[_Slot]:
        """Every slot. Where they come and go, those that were heard of, since their numbers do not return."""
        return sorted(self._slots) if self._is_scalable else [(0, slot) for slot in range(self._desired)]

    def _progress_text(self) -> str:
        if self._is_scalable:
            last = [runs[max(runs)].state for runs in self._slots.values()]
            running, done = last.count(State.RUNNING), last.count(State.FINISHED)
            # A service's task that ended well is started again.
            ended = f", {done} done" if done and not self.is_service else ""
            return f"{running}/{self._desired} running{ended}"
        done = failed = retrying = 0
        for slot in self._all_slots():
            run = self._current(slot)
            if run is None:
                continue
            if run.is_over:
                is_good = of_end(run.end, self._memory_of(slot)).code == 0
                done, failed = done + is_good, failed + (not is_good)
            elif run.attempt > 1:
                retrying += 1
        parts = [f"{done}/{self._desired} done"]
        parts += [f"{retrying} retrying"] if retrying else []
        parts += [f"{failed} failed"] if failed else []
        return ", ".join(parts)

    def _last(self, slot: _Slot) -> _Run | None:
        runs = self._slots.get(slot)
        return runs[max(runs)] if runs else None

    def _current(self, slot: _Slot) -> _Run | None:
        """The run that is being told of: the first that was not read to its end, or the last."""
        runs = self._slots.get(slot, {})
        unread = [attempt for attempt, run in runs.items() if not run.is_over]
        return runs[min(unread)] if unread else self._last(slot)

    def _verdict_of(self, slot: _Slot) -> Verdict:
        run = self._last(slot)
        return of_end(run.end if run else None, self._memory_of(slot))

    def _memory_of(self, slot: _Slot) -> str:
        """The limit of its container."""
        return self._memory[slot[0]] if slot[0] < len(self._memory) else ""

    def _mark(self, slot: _Slot) -> str:
        return f"{slot[0]}.{slot[1]}" if self._is_staged else str(slot[1])

    def _name(self, run: _Run) -> str:
        return f"task {run.mark}" + (f" (attempt {run.attempt})" if run.attempt > 1 else "")
