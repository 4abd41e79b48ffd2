"""Which cluster a job belongs to, and what that asks of it (docs/semantics.md A2, A12, B1.9).

The commit that creates the job asks again: the cluster is still defined as it was seen, and has room.
"""

from __future__ import annotations

from typing import Final

from titus_celery.core.claims import ClaimKind, user_type_name
from titus_celery.core.cluster import BUILT_IN, Cluster, built_in
from titus_celery.core.decision import Gate
from titus_celery.core.descriptor import JobDescriptor, MantisSpec, type_of
from titus_celery.core.keeping import ceiling
from titus_celery.core.model import ClusterId, JobId
from titus_celery.errors import FailedPrecondition, InvalidRequest, Violation
from titus_celery.ports import Clusters, Records

__all__ = ["Membership", "gate_of"]

_BUILT_IN: Final = {cluster.id: cluster for cluster in BUILT_IN.values()}


class Membership:
    """Looks clusters up for jobs that are to join them."""

    def __init__(self, records: Records, clusters: Clusters) -> None:
        self._records = records
        self._clusters = clusters

    def of(self, job: JobDescriptor) -> Cluster:
        """The cluster that it is to join; NotFound if there is none."""
        if not job.cluster_id:
            return built_in(job.spec)
        id = ClusterId(job.cluster_id)
        return _BUILT_IN.get(id) or self._clusters.cluster(id)[0]

    def same(self, job: JobDescriptor, cluster: Cluster) -> JobId | None:
        """The live job of the type that its user gave this one, too (docs/semantics.md B6.5)."""
        if not isinstance(job.spec, MantisSpec) or not (user_type := job.spec.agreement.user_type.strip()):
            return None
        found = self._records.claimed(ClaimKind.USER_TYPE, user_type_name(cluster.id, user_type))
        return None if found is None else JobId(found.id)


def gate_of(job: JobDescriptor, cluster: Cluster) -> Gate | None:
    """What its creation asks of its cluster; InvalidRequest if that is of another kind, FailedPrecondition
    if it takes no jobs."""
    kind = type_of(job.spec)
    if cluster.descriptor.kind is not kind:
        which = "is the built-in cluster" if cluster.id in _BUILT_IN else "is a cluster"
        raise InvalidRequest([Violation("jobClusterId", f"{which} of {cluster.descriptor.kind.value} jobs")])
    if cluster.id in _BUILT_IN:
        return None
    if not cluster.is_enabled:
        raise FailedPrecondition("cluster", cluster.id, "it is disabled and takes no jobs")
    return Gate(cluster_id=cluster.id, number=cluster.gate, jobs_max=ceiling(cluster))
