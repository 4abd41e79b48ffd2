"""The name of every key, and of every member of an index, of one installation.

Ids come from clients, so nothing becomes part of a key that could not be an id of ours.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from titus_celery.adapters.keyspace import from_ms
from titus_celery.core.claims import ClaimKind
from titus_celery.core.model import Deadline, DeadlineKind, JobId, Task, TaskId
from titus_celery.errors import NotFound, SettingsError

__all__ = ["Keys", "deadline_member", "deadline_of", "queued_member", "queued_task"]

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: A task id is `<job id>-<slot>-<attempt>` (docs/semantics.md A9).
_TASK_ID: Final = re.compile(r"(?P<job>[A-Za-z0-9][A-Za-z0-9._-]{0,127})-[0-9.]{1,20}-[0-9]{1,10}")
#: Digits to which slots are padded where the order of texts must be the order of slots.
_SLOT_DIGITS: Final = 9


class Keys:
    """The names of an installation's keys; those made of an id raise NotFound if it cannot be one."""

    def __init__(self, namespace: str) -> None:
        """SettingsError if the namespace cannot be part of a key."""
        if not _PLAIN_ID.fullmatch(namespace):
            raise SettingsError("TITUS_NAMESPACE", f"{namespace!r} must be of letters, digits, '.', '_', '-'")
        # One hash tag, so that a cluster keeps all keys of an installation in one place.
        self._prefix = prefix = f"{{{namespace}}}:"
        self.installation = prefix + "installation"
        self.live = prefix + "jobs:live"
        self.over = prefix + "jobs:over"
        self.queued = prefix + "queued"
        self.deadlines = prefix + "deadlines"
        self.log = prefix + "log"
        self.ledger = prefix + "ledger"
        self.agents = prefix + "agents"
        self.engines = prefix + "engines"
        self.inventories = prefix + "inventories"
        self.kept = prefix + "kept"
        self.clusters = prefix + "clusters"

    def job(self, job_id: str) -> str:
        """The job's hash."""
        return f"{self._prefix}job:{_plain('job', job_id)}"

    def open(self, job_id: JobId) -> str:
        """The job's open tasks by slot."""
        return f"{self.job(job_id)}:open"

    def done(self, job_id: JobId) -> str:
        """The job's other tasks by end (ms)."""
        return f"{self.job(job_id)}:done"

    def spread(self, job_id: JobId) -> str:
        """How many of the job's tasks hold room on each engine."""
        return f"{self.job(job_id)}:spread"

    def task(self, task_id: str) -> str:
        """The task's hash."""
        self.job_of_task(task_id)
        return f"{self._prefix}task:{task_id}"

    def job_of_task(self, task_id: str) -> str:
        """The hash of the job that the task belongs to, which its id tells."""
        return self.job(self.job_id(task_id))

    def archive(self, job_id: str) -> str:
        """The job and all of its tasks as one compressed text, once it is over for a while."""
        return f"{self._prefix}past:{_plain('job', job_id)}"

    def job_id(self, task_id: str) -> JobId:
        """Which job the task belongs to; NotFound if that cannot be a task's id."""
        if not (match := _TASK_ID.fullmatch(task_id)):
            raise NotFound("task", task_id)
        return JobId(match["job"])

    def claim(self, kind: ClaimKind, name: str) -> str:
        """Whose the name is."""
        # Names come from clients and may be anything.
        digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
        return f"{self._prefix}name:{kind.value}:{digest}"

    def cluster(self, cluster_id: str) -> str:
        """The cluster's hash."""
        return f"{self._prefix}cluster:{_plain('cluster', cluster_id)}"

    def cluster_jobs(self, cluster_id: str) -> str:
        """The cluster's live jobs by creation (ms)."""
        return f"{self.cluster(cluster_id)}:jobs"

    def firings(self, cluster_id: str) -> str:
        """What became of the times of the cluster's schedule, by time (ms)."""
        return f"{self.cluster(cluster_id)}:firings"

    def subscribers(self, job_id: str) -> str:
        """Which gateways have subscribers of the job, by until when that holds (ms)."""
        return f"{self.job(job_id)}:subscribers"

    def output(self, task_id: str) -> str:
        """What the task wrote."""
        self.job_of_task(task_id)
        return f"{self._prefix}out:{task_id}"

    def agent(self, agent_id: str) -> str:
        """The agent's hash."""
        return f"{self._prefix}agent:{_plain('agent', agent_id)}"

    def agent_tasks(self, agent_id: str) -> str:
        """The tasks that hold room on the agent, by when they came to hold it (ms)."""
        return f"{self.agent(agent_id)}:tasks"

    def images(self, engine_id: str) -> str:
        """The engine's image inventory."""
        return f"{self._prefix}images:{engine_id}"

    def lease(self, name: str) -> str:
        """The lease's holder."""
        return f"{self._prefix}lease:{name}"

    def flag(self, name: str) -> str:
        """The flag, while it is up."""
        return f"{self._prefix}flag:{name}"


def _plain(kind: str, id: str) -> str:
    if not _PLAIN_ID.fullmatch(id):
        raise NotFound(kind, id)
    return id


def queued_member(task: Task) -> str:
    """The task in the queue, in which tasks of one moment stand by slot."""
    return f"{task.rank:0{_SLOT_DIGITS}}:{task.id}"


def queued_task(member: str) -> TaskId:
    """Which task a member of the queue is."""
    return TaskId(member.partition(":")[2])


def deadline_member(kind: DeadlineKind, entity: str) -> str:
    """A deadline without its time: arming it again moves it."""
    return f"{kind.value}:{entity}"


def deadline_of(member: str, due: int) -> Deadline | None:
    """The deadline of a member and its score (ms); None for a kind that only a later release knows."""
    kind, _, entity = member.partition(":")
    if kind not in {known.value for known in DeadlineKind}:
        return None
    return Deadline(kind=DeadlineKind(kind), entity=entity, due=from_ms(due))
