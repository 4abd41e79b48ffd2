"""What jobs and tasks do, said once more and as plainly as that goes: dicts, lists and numbers.

It knows batch and service jobs, retries, kills, resizing and the order of things, and nothing of stores,
commits or agents. A random story (test_model.py) is told to it and to the real thing, and both must agree.
Times are in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["ENDS", "OVER", "STATES", "Job", "Model", "Task", "Wish"]

STATES: Final = ["QUEUED", "DISPATCHED", "STARTING", "RUNNING", "FINISHED", "FAILED"]
OVER: Final = ("FINISHED", "FAILED")
#: How an agent may report an end, and whose retries a batch task's and a service's uses then.
ENDS: Final = {
    "normal": ("FINISHED", "none", "owner"),
    "failed": ("FAILED", "owner", "owner"),
    "oomKilled": ("FAILED", "owner", "owner"),
    "lost": ("FAILED", "ours", "ours"),
    "killed": ("FAILED", "none", "free"),
    "scaledDown": ("FAILED", "none", "none"),
}


@dataclass(frozen=True)
class Wish:
    """A job as it is asked for; *delay* is in seconds, *retries* of None means no policy."""

    kind: str
    desired: int
    retries: int | None = None
    delay: int = 0
    app: str = "app"
    label: str = ""
    sequence: str = ""


@dataclass
class Task:
    """An attempt in a slot."""

    slot: int
    attempt: int
    history: list[tuple[str, int]]
    code: str = ""
    killed: bool = False
    surplus: bool = False
    #: When it is replaced; None: never.
    retry_at: int | None = None
    user_retries: int = 0
    our_retries: int = 0

    @property
    def state(self) -> str:
        return self.history[-1][0]

    @property
    def is_open(self) -> bool:
        return self.state not in OVER or self.retry_at is not None


@dataclass
class Job:
    """A job and all of its tasks."""

    id: str
    wish: Wish
    numbers: tuple[int, int, int]
    history: list[tuple[str, int]]
    enabled: bool = False
    killed: bool = False
    code: str = ""
    tasks: list[Task] = field(default_factory=list)
    slots: int = 0
    #: Slots that are over, as they ended, and how many of those a service no longer wants.
    ok: int = 0
    failed: int = 0
    dropped: int = 0

    @property
    def state(self) -> str:
        return self.history[-1][0]

    def find(self, slot: int, attempt: int) -> Task:
        return next(each for each in self.tasks if (each.slot, each.attempt) == (slot, attempt))


class Model:
    """All jobs. Each method that a client can call gives the status that it expects."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.jobs: dict[str, Job] = {}
        self.keys: dict[str, tuple[Wish, str]] = {}
        #: What control does when, by kind and job or task, as it is ordered.
        self.due: dict[tuple[str, str, Any], int] = {}

    # --------------------------------------------------------------------------------- what clients do

    def create(self, wish: Wish, key: str) -> tuple[str, str]:
        """The status, and the id of the job that was made before under this key."""
        if key in self.keys:
            before, id = self.keys[key]
            return ("OK", id) if before == wish else ("ALREADY_EXISTS", id)
        if not (1 if wish.kind == "batch" else 0) <= wish.desired <= 1_000:
            return "INVALID_ARGUMENT", ""
        held = {(job.wish.app, job.wish.sequence) for job in self.live() if job.wish.sequence}
        return ("RESOURCE_EXHAUSTED" if (wish.app, wish.sequence) in held else "OK"), ""

    def created(self, id: str, wish: Wish, key: str) -> None:
        """The job was made."""
        numbers = (0, wish.desired, 0 if wish.kind == "batch" else 2**31 - 1)
        self.jobs[id] = Job(id, wish, numbers, [("QUEUED", self.now)])
        self.grow(self.jobs[id], wish.desired)
        if key:
            self.keys[key] = (wish, id)

    def kill_job(self, id: str) -> str:
        job = self.jobs.get(id)
        if job is None:
            return "NOT_FOUND"
        if job.state in OVER:
            return "FAILED_PRECONDITION"
        if not job.killed:
            job.killed = True
            self.due[("fanout", id, None)] = self.now
        return "OK"

    def kill_task(self, id: str, slot: int, attempt: int) -> str:
        if id not in self.jobs:
            return "NOT_FOUND"
        job = self.jobs[id]
        task = job.find(slot, attempt)
        if task.state in OVER:
            return "FAILED_PRECONDITION"
        self.kill(job, task)
        return "OK"

    def resize(self, id: str, least: int, desired: int, most: int) -> str:
        refusal = self.refuses_service(id)
        most = most or 2**31 - 1
        if refusal or not least <= desired <= most:
            return refusal or "INVALID_ARGUMENT"
        if self.jobs[id].numbers != (least, desired, most):
            self.jobs[id].numbers = (least, desired, most)
            self.due[("resize", id, None)] = self.now
        return "OK"

    def enable(self, id: str, status: bool) -> str:
        refusal = self.refuses_service(id)
        if not refusal:
            self.jobs[id].enabled = status
        return refusal or "OK"

    def refuses_service(self, id: str) -> str:
        job = self.jobs.get(id)
        if job is None:
            return "NOT_FOUND"
        is_ending = job.killed or job.state in OVER
        return "FAILED_PRECONDITION" if is_ending or job.wish.kind == "batch" else ""

    def live(self) -> list[Job]:
        """By creation, then id."""
        found = [job for job in self.jobs.values() if job.state not in OVER]
        return sorted(found, key=lambda job: (job.history[0][1], job.id))

    # --------------------------------------------------------------------------------- what agents do

    def step(self, job: Job, task: Task) -> None:
        """The next state on the way to RUNNING, unless the task is not wanted any more."""
        follows = STATES[STATES.index(task.state) + 1]
        if task.state in ("QUEUED", "DISPATCHED") and (job.killed or task.killed):
            return
        self.enter(job, task, follows)

    def end(self, job: Job, task: Task, code: str) -> None:
        """The task ends; whether its slot is tried again follows from why, and from what was wanted."""
        self.enter(job, task, ENDS[code][0])
        task.code = code
        wanted = "scaledDown" if task.surplus else "killed" if task.killed else code
        budget = ENDS[wanted][1 if job.wish.kind == "batch" else 2]
        delay = None if job.killed else self.delay(job, task, budget)
        if delay is None:
            self.close(job, task)
        else:
            task.retry_at = self.now + delay
            self.due[("retry", job.id, (task.slot, task.attempt))] = task.retry_at

    def delay(self, job: Job, task: Task, budget: str) -> int | None:
        """Milliseconds until the replacement; None if there is none."""
        is_endless = job.wish.kind == "service" and job.wish.retries is None
        if budget == "free":
            return 0
        if budget == "ours" and (task.our_retries < 10 or is_endless):
            return min(1_000 << task.our_retries, 30_000)
        if budget == "owner" and is_endless:
            return min(1_000 << task.user_retries, 30_000)
        if budget == "owner" and task.user_retries < (job.wish.retries or 0):
            return job.wish.delay * 1_000
        return None

    # --------------------------------------------------------------------------------- what control does

    def control(self) -> None:
        """Everything that is due, in the order of its time; and what becomes due by that."""
        seen: set[tuple[tuple[str, str, Any], int]] = set()
        while fresh := [each for each in self.due.items() if each[1] <= self.now and each not in seen]:
            seen.update(fresh)
            for (kind, id, place), due in sorted(fresh, key=self.order):
                if self.due.get((kind, id, place)) == due:
                    del self.due[kind, id, place]
                    self.act(kind, self.jobs[id], place)

    @staticmethod
    def order(item: tuple[tuple[str, str, Any], int]) -> tuple[int, str]:
        (kind, id, place), due = item
        return due, f"{kind}:{id}" + (f"-{place[0]}-{place[1]}" if place else "")

    def act(self, kind: str, job: Job, place: Any) -> None:
        if kind == "retry" and not job.killed:
            self.replace(job, job.find(*place))
        elif kind == "fanout":
            for task in [each for each in job.tasks if each.is_open]:
                self.kill(job, task)
            self.settle(job)
        elif kind == "settle":
            self.settle(job)
        elif kind == "resize":
            self.fit(job)

    def replace(self, job: Job, task: Task) -> None:
        if task.retry_at is None:
            return
        task.retry_at = None
        new = Task(task.slot, task.attempt + 1, [("QUEUED", self.now)])
        wanted = "killed" if task.killed else task.code
        budget = ENDS[wanted][1 if job.wish.kind == "batch" else 2]
        new.user_retries = task.user_retries + (budget == "owner")
        new.our_retries = task.our_retries + (budget == "ours")
        job.tasks.append(new)

    def fit(self, job: Job) -> None:
        """As many slots as are wanted."""
        if job.killed or job.state in OVER:
            return
        standing = [each for each in job.tasks if each.is_open and not each.surplus]
        lacking = job.numbers[1] - len(standing) - (job.ok + job.failed - job.dropped)
        if lacking >= 0:
            self.grow(job, lacking)
            return
        dropped = min(-lacking, job.ok + job.failed - job.dropped)
        job.dropped += dropped
        for task in sorted(standing, key=self.rank)[: -lacking - dropped]:
            task.surplus = True
            if task.state in OVER:
                task.retry_at = None
                self.due.pop(("retry", job.id, (task.slot, task.attempt)), None)
                self.close(job, task)
            elif task.state in ("QUEUED", "DISPATCHED"):
                self.end(job, task, "scaledDown")

    @staticmethod
    def rank(task: Task) -> tuple[int, int, int, int]:
        """Who is missed least. All are on one host, so that what holds room there goes first."""
        groups = {"QUEUED": 1, "DISPATCHED": 2, "STARTING": 2, "RUNNING": 3}
        group = 0 if task.killed or task.state in OVER else groups[task.state]
        holds = task.state in ("DISPATCHED", "STARTING", "RUNNING")
        return group, 0 if holds else 1, task.history[0][1], task.slot

    def settle(self, job: Job) -> None:
        """The job's end, if nothing of it is left or to come."""
        if job.state in OVER or any(each.is_open for each in job.tasks):
            return
        is_batch, desired = job.wish.kind == "batch", job.numbers[1]
        is_spent = True if is_batch else 0 < desired <= job.ok + job.failed - job.dropped
        if not (job.killed or is_spent):
            return
        is_good = is_batch and job.ok == desired
        job.code = "normal" if is_good else "killed" if job.killed else "failed"
        job.history.append(("FINISHED" if is_good else "FAILED", self.now))

    # --------------------------------------------------------------------------------- below all that

    def grow(self, job: Job, count: int) -> None:
        job.tasks += [Task(slot, 1, [("QUEUED", self.now)]) for slot in range(job.slots, job.slots + count)]
        job.slots += count

    def enter(self, job: Job, task: Task, state: str) -> None:
        task.history.append((state, self.now))
        if state not in OVER and STATES.index(state) > STATES.index(job.state):
            job.history.append((state, self.now))

    def kill(self, job: Job, task: Task) -> None:
        task.killed = True
        if task.state in OVER:
            task.retry_at = None
            self.due.pop(("retry", job.id, (task.slot, task.attempt)), None)
            self.close(job, task)
        elif task.state in ("QUEUED", "DISPATCHED"):
            self.end(job, task, "killed")

    def close(self, job: Job, task: Task) -> None:
        """The slot is over, unless its service has given it up."""
        if not task.surplus:
            job.ok += task.state == "FINISHED"
            job.failed += task.state != "FINISHED"
        if not any(each.is_open for each in job.tasks):
            self.due[("settle", job.id, None)] = task.history[-1][1]
