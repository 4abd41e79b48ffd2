"""What a job cluster must look like, and what a job gets of it (docs/semantics.md B1.1, B6.1, B6.5).

Nothing is stored or looked up here. What a schedule means is asked of a calendar that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from titus_celery.core import validation
from titus_celery.core.cluster import (
    CATCH_UP,
    TIME_ZONE,
    Cluster,
    ClusterDescriptor,
    CronPolicy,
    MantisRules,
)
from titus_celery.core.cron import Schedule
from titus_celery.core.descriptor import JobDescriptor, JobType, MantisSpec, Owner, type_of
from titus_celery.core.model import Caller
from titus_celery.core.texts import check_name
from titus_celery.core.validation import Limits
from titus_celery.errors import InvalidSchedule, Unsupported, Violation

__all__ = ["MAX_MAX", "MIN_MAX", "Calendar", "check", "effective", "inherited"]

#: The largest floor and ceiling of a Mantis cluster.
MIN_MAX: Final = 5
MAX_MAX: Final = 100
#: Of a cluster with a schedule.
_CRON_MAX: Final = 1

_TEMPLATE: Final = "jobDescriptor"
_CATCH_UPS: Final = ("", "none", "once")

#: A schedule with which nothing is wrong, in whatever zone.
_HOURLY: Final = "0 0 * * * ?"

#: The times of a schedule in a zone; InvalidSchedule if it has none.
Calendar = Callable[[str, str], Schedule]


def effective(cluster: ClusterDescriptor, caller: Caller, limits: Limits) -> ClusterDescriptor:
    """*cluster* trimmed and with every default filled in, valid or not."""
    email = caller.email.strip()
    owner = Owner(
        owner_email=cluster.owner.owner_email.strip() or email,
        team_email=cluster.owner.team_email.strip() or email,
    )
    template = cluster.template
    if template is not None:
        # Its jobs belong to the cluster's owner unless the template says otherwise.
        mine = Caller(id=caller.id, email=owner.owner_email)
        template = replace(validation.effective(template, mine, limits), cluster_id="")
    rules = None if cluster.rules is None else _filled(cluster.rules)
    return replace(cluster, name=cluster.name.strip(), owner=owner, template=template, rules=rules)


def check(cluster: ClusterDescriptor, limits: Limits, calendar: Calendar, now: datetime) -> list[Violation]:
    """Everything wrong with an *effective* cluster; [] if nothing is.

    Raises Unsupported, if nothing is wrong, for what this release does not offer.
    """
    found = [
        *([] if cluster.name else [Violation("name", "a cluster needs a name")]),
        *check_name("name", cluster.name),
        *validation.check_owner(cluster.owner),
        *_rules(cluster, calendar, now),
    ]
    template = cluster.template
    if template is not None:
        if (kind := type_of(template.spec)) is not cluster.kind:
            why = f"is a {kind.value} job; the cluster is of {cluster.kind.value} jobs"
            found.append(Violation(_TEMPLATE, why))
        try:
            of_template = validation.check(template, limits)
        except Unsupported:
            # What is wrong is said first.
            if not found:
                raise
            return found
        found += (Violation(f"{_TEMPLATE}.{each.field}", each.text) for each in of_template)
    return found


def inherited(job: JobDescriptor, cluster: Cluster) -> JobDescriptor:
    """*job* with what it takes over from its cluster's template: labels and parameters, if it has none."""
    template = cluster.descriptor.template
    if template is None:
        return job
    spec = job.spec
    if isinstance(spec, MantisSpec) and not spec.parameters:
        spec = replace(spec, parameters=cluster.descriptor.parameters)
    return replace(job, labels=job.labels or template.labels, spec=spec)


def _filled(rules: MantisRules) -> MantisRules:
    cron = rules.cron.strip()
    if not cron:
        return replace(rules, cron="", policy="")
    policy = rules.policy.strip().upper() or CronPolicy.KEEP_EXISTING.value
    return MantisRules(min=0, max=_CRON_MAX, cron=cron, policy=policy)


def _rules(cluster: ClusterDescriptor, calendar: Calendar, now: datetime) -> Iterator[Violation]:
    if cluster.kind is not JobType.MANTIS or (rules := cluster.rules) is None:
        return
    if rules.min > MIN_MAX:
        yield Violation("mantis.min", f"{rules.min} is more than a cluster may have, {MIN_MAX}")
    if rules.max > MAX_MAX:
        yield Violation("mantis.max", f"{rules.max} is more than a cluster may have, {MAX_MAX}")
    if rules.max < rules.min:
        yield Violation("mantis.max", f"{rules.max} is less than min, {rules.min}")
    if (rules.min or rules.cron) and cluster.template is None:
        what = "jobs by its schedule" if rules.cron else "jobs below its min"
        yield Violation(_TEMPLATE, f"a cluster that makes {what} needs a template to make them of")
    yield from _schedule(rules, cluster, calendar, now)


def _schedule(
    rules: MantisRules, cluster: ClusterDescriptor, calendar: Calendar, now: datetime
) -> Iterator[Violation]:
    at = f"{_TEMPLATE}.mantis.parameters"
    if (catch_up := cluster.parameters.get(CATCH_UP, "").strip()) not in _CATCH_UPS:
        yield Violation(f"{at}[{CATCH_UP}]", f"{catch_up[:40]!r} is neither none nor once")
    if not rules.cron:
        return
    if rules.policy not in {policy.value for policy in CronPolicy}:
        known = ", ".join(policy.value for policy in CronPolicy)
        yield Violation("mantis.cronPolicy", f"{rules.policy[:40]!r} is none of {known}")
    try:
        if calendar(rules.cron, cluster.time_zone).after(now) is None:
            yield Violation("mantis.cronSpec", "all of its times are past")
    except InvalidSchedule as error:
        if error.part == "spec":
            yield Violation("mantis.cronSpec", error.why)
            # Its zone may be wrong, too (A18).
            error = _wrong_zone(calendar, cluster.time_zone) or error
        if error.part == "zone":
            yield Violation(f"{at}[{TIME_ZONE}]", error.why)


def _wrong_zone(calendar: Calendar, zone: str) -> InvalidSchedule | None:
    try:
        calendar(_HOURLY, zone)
    except InvalidSchedule as error:
        return error
    return None
