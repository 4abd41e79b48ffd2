"""The short form of a job file: what most jobs need, each in a line or two.

Names are those of the API where it has one for the same. Amounts and numbers are looked at here as far as
that goes without a server, so that a mistake is named with its line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from titus_celery.cli import nodes, quantities
from titus_celery.core import parameters, resources
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["CONTAINER_ID", "NAMES", "grant", "job", "put"]

#: The name of the one container of a job in the short form.
CONTAINER_ID: Final = "main"

#: `mantis` is read by `staged.py`.
_TYPES: Final = ("batch", "service", "mantis")
#: How a service with a bounded number of restarts waits before each (ms): as one without a bound does.
_RESTART_DELAY_FIRST: Final = 1_000
_RESTART_DELAY_MAX: Final = 30_000

_Setter = Callable[[pb.JobDescriptor, Node, str, str], None]


def job(node: Node, found: Mapping[str, tuple[ScalarNode, Node]], file: str) -> pb.JobDescriptor:
    """The job of a document, of which *found* are the entries. FileInvalid names the line."""
    values = nodes.known(found, NAMES, file, "a job")
    if "image" not in values:
        raise nodes.fault(node, file, "the job has no `image`")
    kind = nodes.choice(values.pop("type"), file, "type", _TYPES) if "type" in values else _TYPES[0]
    return put(values, file, kind)


def put(values: Mapping[str, Node], file: str, kind: str) -> pb.JobDescriptor:
    """A batch job or a service of these values."""
    if "name" in values and "appName" in values:
        raise nodes.fault(values["appName"], file, "`name` and `appName` mean the same; give one of them")
    made = pb.JobDescriptor()
    # An empty container would otherwise not come into being when nothing is set in it.
    made.containers[CONTAINER_ID].SetInParent()
    getattr(made, kind).SetInParent()
    spec = _spec_of(made)
    spec.instances.desired, spec.containerId = 1, CONTAINER_ID
    for name, value in values.items():
        _SETTERS[name](made, value, file, name)
    return made


def grant(policy: pb.RetryPolicy, retries: int, *, spaced: bool) -> None:
    """Grant so many retries: at once, or some seconds apart as for what is to be kept running."""
    if not spaced:
        policy.immediate.retries = retries
        return
    backed_off = policy.exponentialBackOff
    backed_off.retries = retries
    backed_off.initialDelayMs, backed_off.maxDelayIntervalMs = _RESTART_DELAY_FIRST, _RESTART_DELAY_MAX


# ---------------------------------------------------------------------------------------- what is run


def _image(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    image = nodes.text(node, file, name)
    if image.startswith("sha256:"):
        made.containers[CONTAINER_ID].image.imageId = image
    else:
        made.containers[CONTAINER_ID].image.name = image


def _words(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    words = made.containers[CONTAINER_ID].command
    if name == "entryPoint":
        words = made.containers[CONTAINER_ID].entryPoint
    if isinstance(node, SequenceNode):
        words.extend(_listed(node, file, f"each word of {name}"))
        return
    try:
        words.extend(shlex.split(nodes.text(node, file, name)))
    except ValueError as error:
        raise nodes.fault(node, file, f"{name} cannot be split into words: {error}") from error


def _env(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    made.containers[CONTAINER_ID].env.update(nodes.texts(node, file, name))


def _parameters(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    given = made.containers[CONTAINER_ID].parameters
    for key, value in nodes.texts(node, file, name).items():
        if key in given:
            raise nodes.fault(node, file, f"{name}.{key} and `{key}` mean the same; give one of them")
        given[key] = value


def _volumes(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    given = made.containers[CONTAINER_ID].parameters
    if parameters.VOLUMES in given:
        raise nodes.fault(node, file, f"parameters.{name} and `{name}` mean the same; give one of them")
    texts = []
    for item, text in _items(node, file, f"each of {name}"):
        try:
            parameters.volumes(text)
        except ValueError as error:
            raise nodes.fault(item, file, f"{name}: {error}") from error
        texts.append(text)
    given[parameters.VOLUMES] = ",".join(texts)


def _security_profile(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    profile = made.containers[CONTAINER_ID].securityProfile
    for key, (_, value) in nodes.entries(node, file, name).items():
        profile[key] = ",".join(_listed(value, file, f"{name}.{key}"))


# ----------------------------------------------------------------------------------- what is needed

#: How the amounts of each kind are read; their ValueError says what is wrong.
_AMOUNTS: Final[Mapping[str, Callable[[str], object]]] = {
    resources.CPU: resources.cpu_millis,
    resources.MEMORY: resources.memory_bytes,
    resources.DISK: resources.memory_bytes,
    resources.NETWORK: resources.network_mbps,
    resources.GPU: resources.gpus,
    resources.PORTS: resources.ports,
}


def _amount(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    given = made.containers[CONTAINER_ID].resources
    is_list = name == resources.PORTS and isinstance(node, SequenceNode)
    written = ",".join(_listed(node, file, f"each of {name}")) if is_list else nodes.text(node, file, name)
    try:
        _AMOUNTS.get(name, str)(written)
    except ValueError as error:
        raise nodes.fault(node, file, f"{name}: {error}") from error
    if name in given:
        raise nodes.fault(node, file, f"resources.{name} and `{name}` mean the same; give one of them")
    given[name] = written


def _resources(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    for kind, (_, value) in nodes.entries(node, file, name).items():
        _amount(made, value, file, kind)


def _constraints(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    chosen = getattr(made.containers[CONTAINER_ID], name).constraints
    if isinstance(node, MappingNode):
        chosen.update(nodes.texts(node, file, name))
        return
    for item, text in _items(node, file, f"each of {name}"):
        kind, _, value = text.partition("=")
        if kind in chosen:
            raise nodes.fault(item, file, f"{kind!r} is given twice in {name}")
        chosen[kind] = value


# ----------------------------------------------------------------------------- how often, how long


def _instances(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    numbers = _spec_of(made).instances
    # A batch job has tasks, or there is nothing to run; a service may have none for a while.
    least = 0 if _is_service(made) else 1
    if not isinstance(node, MappingNode):
        numbers.desired = nodes.whole(node, file, name, least=least)
        return
    values = nodes.known(nodes.entries(node, file, name), ("desired", "min", "max"), file, name)
    if "desired" not in values:
        raise nodes.fault(node, file, f"{name} does not say how many are `desired`")
    numbers.desired = nodes.whole(values.pop("desired"), file, f"{name}.desired", least=least)
    for bound, value in values.items():
        if not _is_service(made):
            raise nodes.fault(value, file, f"{name}.{bound} is for services; add `type: service`")
        setattr(numbers, bound, nodes.whole(value, file, f"{name}.{bound}"))


def _timeout(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    if _is_service(made):
        raise nodes.fault(node, file, f"{name} is for jobs that end; a service has no run-time limit")
    try:
        made.batch.runtimeLimitSecs = quantities.seconds(nodes.text(node, file, name))
    except ValueError as error:
        raise nodes.fault(node, file, f"{name}: {error}") from error


#: The kinds of retry policy in a file: what each is called in the contract, and its delays there.
_RETRIES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "immediate": ("immediate", {}),
    "delayed": ("delayed", {"initialDelay": "initialDelayMs", "delay": "delayMs"}),
    "exponential": (
        "exponentialBackOff",
        {"initialDelay": "initialDelayMs", "maxDelay": "maxDelayIntervalMs"},
    ),
}


def _retries(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    if not isinstance(node, MappingNode):
        policy = _spec_of(made).retryPolicy
        grant(policy, nodes.whole(node, file, name), spaced=_is_service(made))
        return
    kinds = nodes.known(nodes.entries(node, file, name), _RETRIES, file, name)
    if len(kinds) != 1:
        raise nodes.fault(node, file, f"{name} needs exactly one of {', '.join(_RETRIES)}")
    [(kind, body)] = kinds.items()
    field, delays = _RETRIES[kind]
    what = f"{name}.{kind}"
    values = nodes.known(nodes.entries(body, file, what), ("retries", *delays), file, what)
    if "retries" not in values:
        raise nodes.fault(body, file, f"{what} does not say how many `retries`")
    chosen = getattr(_spec_of(made).retryPolicy, field)
    chosen.retries = nodes.whole(values.pop("retries"), file, f"{what}.retries")
    for delay, value in values.items():
        try:
            length = quantities.span(nodes.text(value, file, f"{what}.{delay}"))
        except ValueError as error:
            raise nodes.fault(value, file, f"{what}.{delay}: {error}") from error
        setattr(chosen, delays[delay], round(length.total_seconds() * 1000))


# -------------------------------------------------------------------------------------- whose it is


def _app_name(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    made.appName = nodes.text(node, file, name)


def _owner(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    if not isinstance(node, MappingNode):
        made.owner.ownerEmail = made.owner.teamEmail = nodes.text(node, file, name)
        return
    _fill(made.owner, node, file, name)


def _group(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    _fill(made.jobGroupInfo, node, file, name)


def _labels(made: pb.JobDescriptor, node: Node, file: str, name: str) -> None:
    made.labels.update(nodes.texts(node, file, name))


def _fill(message: pb.Owner | pb.JobGroupInfo, node: Node, file: str, name: str) -> None:
    """Set the texts of a message."""
    fields = message.DESCRIPTOR.fields_by_name
    for field, value in nodes.known(nodes.entries(node, file, name), fields, file, name).items():
        setattr(message, field, nodes.text(value, file, f"{name}.{field}"))


def _is_service(made: pb.JobDescriptor) -> bool:
    return made.HasField("service")


def _spec_of(made: pb.JobDescriptor) -> pb.BatchJobSpec | pb.ServiceJobSpec:
    return made.service if _is_service(made) else made.batch


def _items(node: Node, file: str, what: str) -> Sequence[tuple[Node, str]]:
    """The texts of a list, or of one text, each with its place."""
    items = node.value if isinstance(node, SequenceNode) else [node]
    return [(item, nodes.text(item, file, what)) for item in items]


def _listed(node: Node, file: str, what: str) -> Sequence[str]:
    return [text for _, text in _items(node, file, what)]


#: Each name of the short form, and who puts its value into the descriptor.
_SETTERS: Final[Mapping[str, _Setter]] = {
    "image": _image,
    "command": _words,
    "entryPoint": _words,
    "env": _env,
    **dict.fromkeys(_AMOUNTS, _amount),
    "resources": _resources,
    "instances": _instances,
    "retries": _retries,
    "timeout": _timeout,
    "hardConstraints": _constraints,
    "softConstraints": _constraints,
    "parameters": _parameters,
    "volumes": _volumes,
    "securityProfile": _security_profile,
    "name": _app_name,
    "appName": _app_name,
    "owner": _owner,
    "labels": _labels,
    "jobGroupInfo": _group,
}

#: Every name of the short form.
NAMES: Final = ("image", "type", *(name for name in _SETTERS if name != "image"))
