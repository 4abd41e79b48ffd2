"""Files that describe a job cluster: YAML or JSON, in one of two forms, as job files are.

The full form is `JobClusterDescriptor` in proto3 JSON. A document that names one of its own parts is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yaml.nodes import Node, ScalarNode

from titus_celery.cli import jobfile, nodes, shortform, staged
from titus_celery.core.cluster import CATCH_UP, TIME_ZONE, CronPolicy
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["read"]

#: Names that only the full form has.
_FULL_MARKS: Final = frozenset({"jobDescriptor", "batch", "service", "mantis"})
_TYPES: Final = ("batch", "service", "mantis")
_CATCH_UPS: Final = ("none", "once")
_POLICIES: Final = tuple(policy.value for policy in CronPolicy)
#: What goes with a schedule, and with nothing else.
_OF_CRON: Final = ("cronPolicy", "timeZone", "catchUp")
#: What only clusters of Mantis jobs have.
_OF_MANTIS: Final = ("stages", "cron", *_OF_CRON, "min", "max")
_NAMES: Final = ("name", "type", "enabled", *_OF_MANTIS, "owner", "job")


def read(content: str, name: str, *, is_enabled: bool = True) -> pb.JobClusterDescriptor:
    """The cluster that a file describes; *name* is what messages call it. FileInvalid names the line.

    *is_enabled*: whether a cluster of Mantis jobs in the short form is, if it does not say.
    """
    documents = nodes.documents(content, name)
    if not documents:
        raise nodes.FileInvalid(name, "there is no cluster in it; it needs at least `name`")
    if len(documents) > 1:
        raise nodes.fault(documents[1], name, "a second document; a file describes one cluster")
    [node] = documents
    found = nodes.entries(node, name, "a cluster")
    if _FULL_MARKS & found.keys():
        return jobfile.message(node, name, "the cluster", pb.JobClusterDescriptor())
    return _short(node, found, name, is_enabled)


def _short(
    node: Node, found: Mapping[str, tuple[ScalarNode, Node]], file: str, is_enabled: bool
) -> pb.JobClusterDescriptor:
    values = nodes.known(found, _NAMES, file, "a cluster")
    if "name" not in values:
        raise nodes.fault(node, file, "the cluster has no `name`")
    if "job" in values and "stages" in values:
        raise nodes.fault(
            found["stages"][0], file, "`job` and `stages` are two ways to say it; give one of them"
        )
    made = pb.JobClusterDescriptor(name=nodes.text(values["name"], file, "name"))
    kind = _kind(values, file)
    getattr(made, kind).SetInParent()
    if kind == staged.TYPE:
        _put_mantis(made, values, found, file, is_enabled)
    else:
        _refuse_mantis(values, found, file, kind)
    if "job" in values:
        made.jobDescriptor.CopyFrom(_job(values["job"], file, kind, made.name))
    elif "stages" in values:
        only = {"stages": found["stages"]}
        made.jobDescriptor.CopyFrom(staged.job(node, only, file, made.name))
    if kind == staged.TYPE:
        _put_schedule(made, values, found, file)
    if "owner" in values:
        made.owner.CopyFrom(shortform.put({"owner": values["owner"]}, file, "batch").owner)
    return made


def _kind(values: Mapping[str, Node], file: str) -> str:
    """What kind of jobs it is of: what it says, or what follows from the rest of it."""
    if "type" in values:
        return nodes.choice(values["type"], file, "type", _TYPES)
    if any(name in values for name in _OF_MANTIS):
        return staged.TYPE
    if "job" not in values:
        return _TYPES[0]
    found = nodes.entries(values["job"], file, "a job")
    if jobfile.is_full(found):
        return jobfile.job(values["job"], file).WhichOneof("jobSpec") or _TYPES[0]
    if staged.is_meant(found):
        return staged.TYPE
    return nodes.choice(found["type"][1], file, "type", _TYPES) if "type" in found else _TYPES[0]


def _job(node: Node, file: str, kind: str, name: str) -> pb.JobDescriptor:
    """The job that others are made after, of the kind that the cluster is of."""
    found = nodes.entries(node, file, "a job")
    is_short = not jobfile.is_full(found)
    if kind == staged.TYPE and is_short and _says_batch(found):
        found = {key: entry for key, entry in found.items() if key != "type"}
        return staged.job(node, found, file, name)
    made = jobfile.job(node, file, name)
    if (its := made.WhichOneof("jobSpec")) != kind:
        raise nodes.fault(node, file, f"the job is of type {its}, and the cluster of type {kind}")
    return made


def _says_batch(found: Mapping[str, tuple[ScalarNode, Node]]) -> bool:
    """Whether a job in the short form can be read as a Mantis job of one stage."""
    kind = found["type"][1] if "type" in found else None
    return kind is None or (isinstance(kind, ScalarNode) and kind.value in ("batch", staged.TYPE))


def _put_mantis(
    made: pb.JobClusterDescriptor,
    values: Mapping[str, Node],
    found: Mapping[str, tuple[ScalarNode, Node]],
    file: str,
    is_enabled: bool,
) -> None:
    """How many of its jobs run."""
    rules = made.mantis
    rules.enabled = nodes.flag(values["enabled"], file, "enabled") if "enabled" in values else is_enabled
    for bound in ("min", "max"):
        if bound in values:
            setattr(rules, bound, nodes.whole(values[bound], file, bound))
    if "cron" in values:
        for bound, allowed in (("min", (0,)), ("max", (0, 1))):
            if getattr(rules, bound) not in allowed:
                why = f"with `cron` one job runs at a time; leave `{bound}` out"
                raise nodes.fault(values[bound], file, why)
    elif rules.max < rules.min:
        given = found["max" if "max" in found else "min"][0]
        raise nodes.fault(given, file, f"`max` must be given, and no less than `min`, {rules.min}")
    needs = "cron" if "cron" in values else "min" if rules.min else ""
    if needs and not {"job", "stages"} & values.keys():
        raise nodes.fault(found[needs][0], file, f"`{needs}` needs a `job` or `stages` that jobs are made of")


def _put_schedule(
    made: pb.JobClusterDescriptor,
    values: Mapping[str, Node],
    found: Mapping[str, tuple[ScalarNode, Node]],
    file: str,
) -> None:
    """When its jobs are made."""
    if "cron" not in values:
        for name in _OF_CRON:
            if name in values:
                raise nodes.fault(found[name][0], file, f"`{name}` goes with `cron`, which is not given")
        return
    made.mantis.cronSpec = nodes.text(values["cron"], file, "cron")
    if not made.mantis.cronSpec.strip():
        raise nodes.fault(values["cron"], file, "cron is empty; write for example '0 0 2 * * ?'")
    if "cronPolicy" in values:
        made.mantis.cronPolicy = nodes.choice(values["cronPolicy"], file, "cronPolicy", _POLICIES)
    parameters = made.jobDescriptor.mantis.parameters
    if "timeZone" in values:
        parameters[TIME_ZONE] = nodes.text(values["timeZone"], file, "timeZone")
    if "catchUp" in values:
        parameters[CATCH_UP] = nodes.choice(values["catchUp"], file, "catchUp", _CATCH_UPS)


def _refuse_mantis(
    values: Mapping[str, Node], found: Mapping[str, tuple[ScalarNode, Node]], file: str, kind: str
) -> None:
    for name in _OF_MANTIS:
        if name in values:
            why = f"`{name}` is for clusters of Mantis jobs, and this one is of type {kind}"
            raise nodes.fault(found[name][0], file, why)
    if "enabled" in values:
        why = f"a cluster of type {kind} begins enabled; `titus cluster disable` changes that"
        raise nodes.fault(found["enabled"][0], file, why)
