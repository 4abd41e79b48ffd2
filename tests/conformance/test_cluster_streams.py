"""Clusters found and observed, and who keeps a Mantis job (docs/semantics.md A15, B1.4, B5.3, B5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from tests.conformance.installation import Titus, batch
from tests.grpc_api.world import PATIENCE
from tests.service.mantis import a_cluster, settle
from tests.service.world import ANN
from titus_celery.core.cluster import BUILT_IN, ClusterDescriptor
from titus_celery.core.descriptor import JobType, Owner
from titus_celery.core.model import ClusterId, JobId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

BUILT_IN_IDS = [cluster.id for cluster in BUILT_IN.values()]
MANTIS = BUILT_IN[JobType.MANTIS].id
#: A transient job ends after so many seconds without subscribers.
TIMEOUT = 20
#: Between two times that a gateway says who observes what.
SAID_EVERY = 4


def make(titus: Titus, name: str = "c", **rules: Any) -> ClusterId:
    """A new Mantis cluster's id."""
    return titus.inside.clusters.create(replace(a_cluster(**{"max": 9, **rules}), name=name), ANN)


def rename(titus: Titus, id: ClusterId, name: str) -> None:
    """Change a cluster's definition."""
    known = titus.inside.clusters.find(id)
    titus.inside.clusters.update(id, replace(known.descriptor, name=name), ANN)


def mantis(cluster_id: str = "", **agreement: Any) -> pb.JobDescriptor:
    """A Mantis job of one worker."""
    job = batch(jobClusterId=cluster_id)
    job.mantis.name = "m"
    job.mantis.jobSLA.CopyFrom(pb.MantisJobSLA(**agreement))
    job.mantis.stages.add(containerId="main").instances.desired = 1
    job.mantis.subscriptionTimeoutSecs = TIMEOUT
    return job


def end(titus: Titus, id: JobId) -> None:
    """End a job in which nothing runs."""
    titus.jobs.KillJob(pb.JobId(id=id), timeout=PATIENCE)
    titus.inside.sweep()


class Stream:
    """An observer of a cluster, or of all; whatever it waits for must come."""

    def __init__(self, titus: Titus, id: str = "") -> None:
        jobs: Any = titus.jobs
        self.call: Any = (
            jobs.ObserveJobCluster(pb.JobClusterId(id=id), timeout=PATIENCE)
            if id
            else jobs.ObserveJobClusters(Empty(), timeout=PATIENCE)
        )

    def next(self) -> pb.JobClusterNotification:
        """The next notification."""
        message: pb.JobClusterNotification = next(self.call)
        return message

    def snapshots(self) -> dict[str, list[str]]:
        """The clusters that are told first, with the ids of their jobs, up to the marker."""
        found = {}
        while (message := self.next()).HasField("jobClusterSnapshot"):
            told = message.jobClusterSnapshot
            found[told.jobCluster.id] = list(told.jobIds)
        assert message.HasField("snapshotEnd")
        return found

    def name(self) -> str:
        """The name in the next definition."""
        return self.next().jobClusterDefinitionUpdate.descriptor.name


# ---------------------------------------------------------------------------------------- finding


def found(titus: Titus, page: pb.Page | None = None, **criteria: str) -> Sequence[str]:
    """The ids of the clusters that are found."""
    query = pb.JobClusterQuery(fiterlingCriteria=criteria, page=page)
    return [each.id for each in titus.jobs.FindJobClusters(query, timeout=PATIENCE).items]


def test_all_clusters_are_found_by_creation_the_built_in_ones_first(titus: Titus) -> None:
    made = []
    for _ in range(8):
        made.append(make(titus))
        titus.wait(1)
    assert found(titus) == [*BUILT_IN_IDS, *made]
    assert found(titus, pb.Page(pageNumber=2, pageSize=2)) == made[1:3]


def test_clusters_are_found_by_criteria(titus: Titus) -> None:
    mine, other = make(titus, "a"), make(titus, "b", enabled=False)
    us = Owner(owner_email="us@example.com")
    plain = titus.inside.clusters.create(ClusterDescriptor(name="a", kind=JobType.BATCH, owner=us), ANN)
    assert set(found(titus, name="a")) == {mine, plain}
    assert found(titus, name="a", jobType="mantis") == [mine]
    assert found(titus, enabled="False") == [other]
    assert found(titus, owner="us@example.com") == [plain]
    assert set(found(titus, clusterIds=f"{mine}, {other}")) == {mine, other}
    assert set(found(titus, labels="from:template")) == {mine, other}


def test_a_criterion_of_clusters_that_is_not_known_is_refused_by_name(titus: Titus) -> None:
    query = pb.JobClusterQuery(fiterlingCriteria={"jobState": "QUEUED", "name": "a"})
    titus.invalid(titus.jobs.FindJobClusters, query, "fiterlingCriteria[jobState]: is unknown")


def test_of_a_cluster_only_what_is_asked_for_is_told_and_its_id(titus: Titus) -> None:
    id = make(titus)
    query = pb.JobClusterQuery(fiterlingCriteria={"clusterIds": id}, fields=["descriptor.name"])
    (only,) = titus.jobs.FindJobClusters(query, timeout=PATIENCE).items
    assert only == pb.JobCluster(id=id, descriptor=pb.JobClusterDescriptor(name="c"))


# ---------------------------------------------------------------------------------------- one cluster


def test_a_cluster_is_told_with_its_live_jobs_then_what_happens_to_it(titus: Titus) -> None:
    id = make(titus)
    over, old = titus.create(mantis(id)), titus.create(mantis(id))
    end(titus, over)
    stream = Stream(titus, id)
    assert stream.snapshots() == {id: [old]}
    new = titus.create(mantis(id))
    assert stream.next().jobAdded.jobId == new
    rename(titus, id, "d")
    assert stream.name() == "d"
    end(titus, old)
    assert stream.next().jobFinished.jobId == old


def test_a_job_is_added_once_whatever_becomes_of_it(titus: Titus) -> None:
    titus.host()
    id = make(titus)
    stream = Stream(titus, id)
    stream.snapshots()
    job, _ = titus.run(mantis(id))
    assert stream.next().jobAdded.jobId == job
    numbers = pb.TaskInstances(desired=2, max=2)
    titus.jobs.UpdateJobInstances(pb.JobInstancesUpdate(jobId=job, instances=numbers), timeout=PATIENCE)
    rename(titus, id, "d")
    assert stream.name() == "d"


def test_of_other_clusters_and_their_jobs_nothing_is_told(titus: Titus) -> None:
    id, other = make(titus), make(titus)
    stream = Stream(titus, id)
    stream.snapshots()
    titus.create(mantis(other))
    titus.create(mantis())
    rename(titus, other, "x")
    mine = titus.create(mantis(id))
    assert stream.next().jobAdded.jobId == mine


def test_the_removal_of_a_cluster_ends_its_stream(titus: Titus) -> None:
    id = make(titus)
    stream = Stream(titus, id)
    stream.snapshots()
    titus.inside.clusters.remove(id)
    assert stream.next().jobClusterRemoved.id == id
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK


def test_a_cluster_that_is_not_there_cannot_be_observed(titus: Titus) -> None:
    unknown = titus.refused(titus.jobs.ObserveJobCluster, pb.JobClusterId(id="x"))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    assert "x" in unknown.details
    titus.invalid(titus.jobs.ObserveJobCluster, pb.JobClusterId())


def test_a_change_that_nobody_can_see_is_not_told(titus: Titus) -> None:
    """The wire does not say whether a cluster of batch jobs is enabled."""
    id = titus.inside.clusters.create(ClusterDescriptor(name="b", kind=JobType.BATCH), ANN)
    stream = Stream(titus, id)
    stream.snapshots()
    titus.inside.clusters.enable(id, False)
    rename(titus, id, "d")
    assert stream.name() == "d"


# ---------------------------------------------------------------------------------------- all clusters


def test_all_clusters_are_told_the_built_in_ones_among_them(titus: Titus) -> None:
    id, job = make(titus), titus.create(mantis())
    told = Stream(titus).snapshots()
    assert list(told) == [*BUILT_IN_IDS, id]
    assert (told[MANTIS], told[id]) == ([job], [])


def test_a_new_cluster_is_told_by_its_definition_and_no_removal_ends_the_stream(titus: Titus) -> None:
    stream = Stream(titus)
    stream.snapshots()
    id = make(titus)
    assert stream.name() == "c"
    titus.inside.clusters.remove(id)
    assert stream.next().jobClusterRemoved.id == id
    job = titus.create()
    assert stream.next().jobAdded.jobId == job
    titus.over(job)
    assert stream.next().jobFinished.jobId == job


# ---------------------------------------------------------------------------------------- subscribers


def lonely(titus: Titus) -> JobId:
    """A RUNNING job that ends without subscribers."""
    titus.host()
    id, _ = titus.run(mantis(durationType=pb.MantisJobSLA.Transient))
    titus.inside.sweep()
    assert titus.job(id).jobState.state == pb.RUNNING
    return id


def wait(titus: Titus, seconds: int) -> None:
    """Let so much time pass in which the gateway is there."""
    for _ in range(seconds // SAID_EVERY):
        titus.store.subscriptions[0].renew()
        titus.wait(SAID_EVERY)


def is_kept(titus: Titus, id: JobId) -> bool:
    """Whether nothing wants its end."""
    return titus.inside.job(id).kill is None


def test_a_transient_job_ends_without_subscribers_and_not_before(titus: Titus) -> None:
    id = titus.create(mantis(durationType=pb.MantisJobSLA.Transient))
    # It counts from when the job is RUNNING, and this one waited for a host.
    wait(titus, TIMEOUT // 2)
    titus.host()
    titus.carry()
    titus.inside.sweep()
    wait(titus, TIMEOUT - SAID_EVERY)
    assert is_kept(titus, id)
    wait(titus, 2 * SAID_EVERY)
    settle(titus.inside)
    state = titus.job(id).jobState
    assert (state.state, state.reason) == (pb.FINISHED, f"normal: no subscriptions for {TIMEOUT} secs")


@pytest.mark.parametrize("is_ours", [False, True], ids=["titus", "with-places"])
def test_an_open_stream_of_the_job_keeps_it_and_its_end_does_not(titus: Titus, is_ours: bool) -> None:
    id = lonely(titus)
    call: Any = (
        titus.observations.ObserveJob(v1.ObserveJobRequest(job_id=id))
        if is_ours
        else titus.jobs.ObserveJob(pb.JobId(id=id))
    )
    next(call)
    wait(titus, 3 * TIMEOUT)
    assert is_kept(titus, id)
    call.cancel()
    titus.until(lambda: titus.gateway.observers == 0)
    wait(titus, TIMEOUT + 2 * SAID_EVERY)
    assert not is_kept(titus, id)


def test_who_observes_all_jobs_is_no_subscriber(titus: Titus) -> None:
    id = lonely(titus)
    call: Any = titus.jobs.ObserveJobs(Empty())
    next(call)
    wait(titus, TIMEOUT + SAID_EVERY)
    assert not is_kept(titus, id)
    assert titus.inside.job(id).state is State.RUNNING
