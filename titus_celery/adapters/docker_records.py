"""The engine's JSON to our values and back: what is asked of it, and what its answers mean.

Pure, so that what we ask for can be read in one place. Nothing here depends on the wording of an
error: texts differ between engine versions, the fields of a container's state do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from titus_celery.core.engine import (
    ContainerOrder,
    EngineFacts,
    Phase,
    Seen,
)
from titus_celery.core.model import Address, AgentId, Capacity, EngineId, Exit, Port, TaskId

__all__ = [
    "INSTALLATION",
    "LOG",
    "LOOPBACK",
    "address_of",
    "config",
    "exit_of",
    "facts_of",
    "grace_seconds",
    "images_of",
    "instant",
    "ip_of",
    "is_ours",
    "phase_of",
    "seen_of",
    "short",
]

#: The labels by which an agent knows its containers again.
INSTALLATION: Final = "titus.installation"
TASK: Final = "titus.task_id"
JOB: Final = "titus.job_id"
AGENT: Final = "titus.agent_id"
DISPATCH: Final = "titus.dispatch"

#: The log of every container. `local` keeps bytes as they are; `json-file` replaces what is no
#: UTF-8. Nothing may be lost (blocking) or rotated away: offsets count from the first byte. So a
#: container that writes without end fills the engine's disk until it is removed.
LOG: Final = {
    "Type": "local",
    "Config": {"mode": "blocking", "max-size": "1000g", "max-file": "1", "compress": "false"},
}

#: Where ports are published unless an operator decides otherwise.
LOOPBACK: Final = "127.0.0.1"

#: The engine counts cpu in billionths of a core, we in thousandths.
_NANO_PER_MILLI: Final = 1_000_000
_MILLIS_PER_CPU: Final = 1_000

#: The smallest cpu limit the kernel can set, in thousandths: 1 ms in its period of 100 ms. The
#: engine accepts less and then fails to start the container.
_CPU_MILLIS_MIN: Final = 10

#: A process that a signal ended is shown as 128 + its number, and there are 64 of them.
_SIGNAL_BASE: Final = 128
_SIGNALS: Final = 64

#: Characters of an engine's text that go into an error; it may quote whole configurations.
_TEXT_MAX: Final = 300

_PHASES: Final[Mapping[str, Phase]] = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "paused": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "exited": Phase.EXITED,
    "dead": Phase.EXITED,
}


def config(order: ContainerOrder, publish_on: str = LOOPBACK) -> dict[str, Any]:
    """What to ask the engine for; ports are published on this address. What is empty is left to the image."""
    memory = order.demand.memory_bytes
    asked: dict[str, Any] = {
        "Image": order.image_id,
        "Env": [f"{name}={value}" for name, value in order.env.items()],
        "Labels": {
            **order.labels,
            INSTALLATION: order.installation,
            JOB: order.job_id,
            TASK: order.task_id,
            AGENT: order.agent_id,
            DISPATCH: str(order.dispatch_number),
        },
        "HostConfig": {
            "NanoCpus": max(order.demand.cpu_millis, _CPU_MILLIS_MIN) * _NANO_PER_MILLI,
            "Memory": memory,
            # Memory and swap together: equal means no swap.
            "MemorySwap": memory,
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": LOG,
            **_extras(order, publish_on),
        },
    }
    if order.demand.ports:
        asked["ExposedPorts"] = {f"{port}/tcp": {} for port in order.demand.ports}
    if order.entry_point:
        asked["Entrypoint"] = list(order.entry_point)
    if order.command:
        asked["Cmd"] = list(order.command)
    return asked


def _extras(order: ContainerOrder, publish_on: str) -> dict[str, Any]:
    """The parts of a host's configuration that most containers do without."""
    extras: dict[str, Any] = {}
    if order.demand.ports:
        # The engine picks a free port of the host for each.
        anywhere = [{"HostIp": publish_on, "HostPort": ""}]
        extras["PortBindings"] = {f"{port}/tcp": anywhere for port in order.demand.ports}
    if order.gpus:
        extras["DeviceRequests"] = [{"DeviceIDs": list(order.gpus), "Capabilities": [["gpu"]]}]
    if order.volumes:
        extras["Mounts"] = [
            {
                "Type": "bind" if volume.source.startswith("/") else "volume",
                "Source": volume.source,
                "Target": volume.target,
                "ReadOnly": volume.read_only,
            }
            for volume in order.volumes
        ]
    return extras


def is_ours(container: Mapping[str, Any], task_id: TaskId) -> bool:
    """Whether this inspected container was made for the task, not merely named like it."""
    return bool(_labels(container).get(TASK) == task_id)


def phase_of(container: Mapping[str, Any]) -> Phase | None:
    """How far it got; None while it is being removed, or in a state we do not know."""
    return _PHASES.get(container["State"]["Status"])


def exit_of(container: Mapping[str, Any]) -> Exit | None:
    """How it ended, if it has.

    A program that itself exits with 137 looks like one that was killed: the engine tells no more.
    That some process ran out of memory counts only if the container failed: a program may well
    survive the death of a child.
    """
    if phase_of(container) is not Phase.EXITED:
        return None
    state = container["State"]
    code = int(state["ExitCode"])
    signal = code - _SIGNAL_BASE if _SIGNAL_BASE < code <= _SIGNAL_BASE + _SIGNALS else 0
    return Exit(code=code, signal=signal, oom=bool(state["OOMKilled"]) and code != 0)


def instant(text: str) -> datetime | None:
    """A time of the engine's, to the microsecond; None for its "never", the year 1."""
    at = datetime.fromisoformat(text)
    return at if at.year > 1 else None


def ip_of(container: Mapping[str, Any]) -> str:
    """Its address in the first network that gave it one; empty if none did, or it has ended."""
    networks = container["NetworkSettings"].get("Networks") or {}
    return next((str(net["IPAddress"]) for net in networks.values() if net.get("IPAddress")), "")


def address_of(container: Mapping[str, Any]) -> Address:
    """Where it can be reached, if it runs."""
    published = container["NetworkSettings"].get("Ports") or {}
    ports = (
        Port(inside=int(port.partition("/")[0]), outside=int(bindings[0]["HostPort"]))
        for port, bindings in published.items()
        if bindings
    )
    return Address(ip=ip_of(container), ports=tuple(sorted(ports, key=lambda port: port.inside)))


def seen_of(container: Mapping[str, Any]) -> Seen | None:
    """Our view of an inspected container; None if it lacks what each of ours has."""
    labels, phase = _labels(container), phase_of(container)
    if phase is None or not all(name in labels for name in (INSTALLATION, TASK, AGENT)):
        return None
    number = labels.get(DISPATCH, "")
    if not number.isdecimal():
        return None
    return Seen(
        task_id=TaskId(labels[TASK]),
        container_id=str(container["Id"]),
        installation=labels[INSTALLATION],
        agent_id=AgentId(labels[AGENT]),
        dispatch_number=int(number),
        phase=phase,
        exit=exit_of(container),
        started_at=instant(container["State"]["StartedAt"]),
        address=address_of(container),
    )


def facts_of(info: Mapping[str, Any], api_version: str, disk_bytes: int = 0) -> EngineFacts:
    """The engine's description of itself; how large its disk is, it does not say."""
    return EngineFacts(
        id=_engine_id(info),
        name=str(info["Name"]),
        version=str(info["ServerVersion"]),
        api_version=api_version,
        capacity=Capacity(
            cpu_millis=int(info["NCPU"]) * _MILLIS_PER_CPU,
            memory_bytes=int(info["MemTotal"]),
            slots=0,
            disk_bytes=disk_bytes,
        ),
    )


def _engine_id(info: Mapping[str, Any]) -> EngineId:
    """An identity that no other engine has.

    The engine's own is not enough: copied machines, and engines of one machine before Docker 23, share it.
    """
    return EngineId(f"{info['ID']}@{info['Name']}{info['DockerRootDir']}")


def images_of(listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Every id, name:tag and name@digest of the engine's list of images, to the id."""
    found: dict[str, str] = {}
    for image in listed:
        names = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        # An image without a name is listed as <none>.
        found.update({name: image["Id"] for name in names if "<none>" not in name})
        found[image["Id"]] = image["Id"]
    return found


def grace_seconds(grace: timedelta) -> int:
    """Whole seconds, as the engine wants them; never less than asked for."""
    return math.ceil(max(grace, timedelta(0)).total_seconds())


def short(text: str) -> str:
    """The part of an engine's text that says what is wrong, without the names of its own layers."""
    said = text.rpartition("unable to start container process: ")[2].removesuffix(": unknown")
    return said if len(said) <= _TEXT_MAX else f"{said[:_TEXT_MAX]}..."


def _labels(container: Mapping[str, Any]) -> Mapping[str, str]:
    return container["Config"].get("Labels") or {}
