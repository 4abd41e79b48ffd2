"""Every setting, read once at start and handed to whoever needs it.

Each comes from the environment as TITUS_<NAME>; an unknown TITUS_ name is refused, because a
mistyped setting that is silently ignored is found out too late.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final

from titus_celery.core.containers import ContainerLimits
from titus_celery.core.lifecycle import Spans
from titus_celery.core.placement import LEASE_SPAN_MAX
from titus_celery.core.validation import Limits
from titus_celery.errors import SettingsError
from titus_celery.service.crash import POINTS

__all__ = ["ENV_PREFIX", "FOREIGN_NAMES", "Settings"]

ENV_PREFIX: Final = "TITUS_"

#: TITUS_ names that are not settings of a process: the command line's own, those that containers get,
#: and the one that tells our child processes who started them.
FOREIGN_NAMES: Final = frozenset(
    {
        "TITUS_SERVER",
        "TITUS_OWNER",
        "TITUS_JOB_ID",
        "TITUS_TASK_ID",
        "TITUS_TASK_INDEX",
        "TITUS_TASK_ORIGINAL_ID",
        "TITUS_TASK_ATTEMPT",
    }
)


#: Periods and leases: with none of it a process would spin, or never hold what it took.
_SPANS_NOT_ZERO: Final = (
    "agent_lease",
    "beat_lease",
    "deaf_after",
    "poll_period",
    "republish_after",
    "tick_period",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may choose; durations are given in seconds, lists with commas."""

    #: The store and Celery's broker. May hold a password; it is never logged.
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: Separates installations that share one Redis; part of every key and queue name.
    namespace: str = "titus"
    #: Where the gateway listens. Loopback unless you decide otherwise: there is no authentication yet.
    listen: str = "127.0.0.1:7104"
    #: What numbered agents are called: <name>-1, <name>-2. Empty: the host's name.
    agent_id: str = ""
    #: The named queues this agent serves.
    queues: tuple[str, ...] = ("default",)
    #: Where this agent's host is, for taskContext and placement.
    zone: str = "local"
    region: str = "local"
    #: Containers one agent holds at once; each costs a thread (about 0.15 MB).
    slots: int = 512
    #: The Docker Engine. Empty: DOCKER_HOST, or the default socket.
    engine_url: str = ""
    #: Registries (host[:port]) that the gateway asks without TLS, besides those on loopback. Whoever listens
    #: on the way sees the login and may answer in their place. Engines have such a list of their own.
    insecure_registries: tuple[str, ...] = ()
    #: The address of the host on which ports of containers are published.
    publish_on: str = "127.0.0.1"
    #: What tasks may reserve of the engine's disk (MB; 0: the size of its file system), of its host's
    #: network (Mbps; 0: as much as they want), and which GPUs of it they may have, by NVIDIA's ids.
    disk_mb: int = 0
    network_mbps: int = 0
    gpus: tuple[str, ...] = ()
    #: How long an agent's lease lasts without renewal.
    agent_lease: timedelta = timedelta(seconds=10)
    #: How long an agent may be without a lease until its tasks are lost.
    agent_lost_after: timedelta = timedelta(seconds=60)
    #: How long an agent that cannot reach the store lets its containers run; 0: for ever, so that a task
    #: which is given up meanwhile may run twice. Until then an outage of Redis costs no container.
    fence_after: timedelta = timedelta(seconds=45)
    #: What a container gets between SIGTERM and SIGKILL.
    stop_grace: timedelta = timedelta(seconds=10)
    #: How often an agent looks for kill intents that no message told it of.
    poll_period: timedelta = timedelta(seconds=3)
    #: An order that was not claimed this long after it was sent is sent again.
    republish_after: timedelta = timedelta(seconds=3)
    #: A task of a batch, and of a service job, that stays STARTING this long is given up.
    stuck_after: timedelta = timedelta(minutes=12)
    service_stuck_after: timedelta = timedelta(minutes=5)
    #: A worker that has not heard itself for so long ends, to be started again. Above the 30 s that Celery
    #: lets pass between two attempts to reach a broker that was away, and the seconds that one takes.
    deaf_after: timedelta = timedelta(seconds=45)
    #: What an agent does with its containers when it is told to stop: keep (to adopt them at its
    #: next start) or stop.
    on_stop: str = "keep"
    #: Whether control sleeps to the next deadline by itself; beat's tick remains either way.
    control_timer: bool = True
    #: How often beat makes control look for work.
    tick_period: timedelta = timedelta(seconds=1)
    #: How long a beat that died keeps others from ticking.
    beat_lease: timedelta = timedelta(seconds=10)
    #: Default and cap of a batch task's run time (docs/semantics.md A5).
    runtime_limit_default: timedelta = timedelta(days=5)
    runtime_limit_max: timedelta = timedelta(days=10)
    #: Tasks of one batch, and of one service job.
    batch_tasks_max: int = 1_000
    service_tasks_max: int = 2_000
    #: Jobs that may be alive at once.
    jobs_max: int = 12_000
    #: Bytes of a job's description as it is sent: more than all other limits of one together let through.
    descriptor_bytes_max: int = 1_000_000
    #: Caps for one task (docs/semantics.md B2).
    cpu_max: int = 96
    memory_mb_max: int = 244_000
    disk_mb_max: int = 640_000
    network_mbps_max: int = 6_000
    gpu_max: int = 16
    #: What jobs may mount: names of volumes (*: any), and directories of hosts with all below them.
    volumes_allowed: tuple[str, ...] = ()
    #: What a container gets whose security profile names none (docs/semantics.md B8.3).
    security_groups: tuple[str, ...] = ()
    iam_profile: str = ""
    #: How long, how many, and how much of them: jobs that are over are kept until the first of these is
    #: exceeded (docs/semantics.md A17); bytes are those of their compressed records.
    keep_days: int = 15
    keep_jobs: int = 100_000
    keep_bytes: int = 1024**3
    #: What the change log may take of the store's memory, however short a time it then reaches back.
    log_bytes_max: int = 256 * 1024**2
    #: For tests: the point at which this process dies or freezes (service/crash.py). Empty: none.
    crash_at: str = ""
    #: text, or json for one JSON object a line.
    log_format: str = "text"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """The settings that *env* holds; SettingsError for an unknown name or a bad value."""
        known = {ENV_PREFIX + field.name.upper(): field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in env.items():
            if not name.startswith(ENV_PREFIX) or name in FOREIGN_NAMES:
                continue
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise SettingsError(name, "is unknown" + (f"; did you mean {near[0]}?" if near else ""))
            default = getattr(cls(), known[name])
            values[known[name]] = _parse(name, text, type(default))
        return cls(**values)._checked()

    def limits(self) -> Limits:
        """What jobs are judged by."""
        return Limits(
            runtime_default=self.runtime_limit_default,
            runtime_max=self.runtime_limit_max,
            batch_max=self.batch_tasks_max,
            service_max=self.service_tasks_max,
            jobs_max=self.jobs_max,
            container=ContainerLimits(
                cpu_max=self.cpu_max,
                memory_mb_max=self.memory_mb_max,
                disk_mb_max=self.disk_mb_max,
                network_mbps_max=self.network_mbps_max,
                gpu_max=self.gpu_max,
                volumes=self.volumes_allowed,
                security_groups=self.security_groups,
                iam_profile=self.iam_profile,
            ),
        )

    def spans(self) -> Spans:
        """What control and agents decide by."""
        return Spans(
            republish_after=self.republish_after,
            stuck_after=self.stuck_after,
            service_stuck_after=self.service_stuck_after,
        )

    def _checked(self) -> Settings:
        for name, value, allowed in (
            ("TITUS_ON_STOP", self.on_stop, ("keep", "stop")),
            ("TITUS_LOG_FORMAT", self.log_format, ("text", "json")),
            ("TITUS_CRASH_AT", self.crash_at.removesuffix(":freeze"), ("", *POINTS)),
        ):
            if value not in allowed:
                raise SettingsError(name, f"{value!r} is none of {', '.join(allowed)}")
        for field in fields(self):
            if type(field.default) is int and field.default and getattr(self, field.name) < 1:
                raise SettingsError(ENV_PREFIX + field.name.upper(), "must be at least 1")
        for registry in self.insecure_registries:
            if "/" in registry:
                raise SettingsError("TITUS_INSECURE_REGISTRIES", f"{registry!r} is no host or host:port")
        if not self.queues:
            raise SettingsError("TITUS_QUEUES", "must name at least one")
        for name in _SPANS_NOT_ZERO:
            if getattr(self, name) == timedelta(0):
                raise SettingsError(ENV_PREFIX + name.upper(), "0 would never pause; give it some seconds")
        if self.agent_lease > LEASE_SPAN_MAX:
            seconds = int(LEASE_SPAN_MAX.total_seconds())
            raise SettingsError("TITUS_AGENT_LEASE", f"must be {seconds} s at most; longer is not believed")
        return self


def _seconds(text: str) -> timedelta:
    span = timedelta(seconds=float(text))
    if span < timedelta(0):
        raise ValueError("must not be negative")
    return span


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _switch(text: str) -> bool:
    try:
        return {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}[text.lower()]
    except KeyError:
        raise ValueError("must be on or off") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: Final[Mapping[type, Callable[[str], Any]]] = {
    str: str.strip,
    int: _count,
    bool: _switch,
    timedelta: _seconds,
    tuple: _names,
}


def _parse(name: str, text: str, kind: type) -> Any:
    try:
        return _PARSERS[kind](text)
    except (ValueError, OverflowError) as error:
        raise SettingsError(name, f"{text!r} cannot be used: {error}") from error
