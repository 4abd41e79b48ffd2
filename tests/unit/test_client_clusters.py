"""The client's calls about clusters, over real gRPC with a scripted server."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from tests.unit.scripted_clusters import CLUSTER, DEFAULT, mantis_job, nightly
from tests.unit.scripted_server import JOB, Server, job
from titus_celery.client import CallFailed, Disconnected, Instances, Reconnected, Resized, TitusClient
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


@pytest.fixture
def client(server: Server) -> Iterator[TitusClient]:
    with TitusClient(f"127.0.0.1:{server.port}", "ann@example.com") as made:
        yield made


def test_a_cluster_is_sent_again_under_one_key(server: Server, client: TitusClient) -> None:
    server.cluster_refusals[""] = (grpc.StatusCode.UNAVAILABLE, "a restart")
    waits: list[CallFailed] = []
    assert client.create_cluster(nightly().descriptor, on_wait=waits.append) == CLUSTER
    [key] = set(server.cluster_keys)
    assert (len(server.cluster_keys), len(waits)) == (2, 1)
    assert len(key) == 36, "it has one of its own"
    assert server.created_clusters == [nightly().descriptor]


def test_a_cluster_that_is_refused_is_not_sent_again(server: Server, client: TitusClient) -> None:
    server.cluster_refusals[""] = (grpc.StatusCode.INVALID_ARGUMENT, "mantis.max: 0 is less than min, 2")
    with pytest.raises(CallFailed) as caught:
        client.create_cluster(nightly().descriptor)
    assert str(caught.value).startswith("cannot create the cluster; mantis.max: 0 is less than min, 2;")
    assert len(server.cluster_keys) == 1


def test_what_is_changed_is_what_was_named(server: Server, client: TitusClient) -> None:
    client.update_cluster(CLUSTER, nightly().descriptor)
    client.enable_cluster(CLUSTER)
    client.disable_cluster(DEFAULT)
    client.remove_cluster(CLUSTER)
    assert server.updated_clusters == [nightly()]
    assert server.statuses == [(CLUSTER, True), (DEFAULT, False)]
    assert server.removed == [CLUSTER]


def test_clusters_are_found_by_id_by_page_and_all_at_once(server: Server, client: TitusClient) -> None:
    assert client.find_cluster(CLUSTER) == nightly()
    page = client.find_clusters({"owner": "a@b"}, ["id"], page=1)
    assert [each.id for each in page.items] == [CLUSTER]
    assert page.pagination.totalItems == 2
    assert [each.id for each in client.ls_clusters({"name": "a"})] == [DEFAULT, CLUSTER]
    assert server.cluster_queries == [{"owner": "a@b"}, {"name": "a"}, {"name": "a"}]
    with pytest.raises(CallFailed, match="no cluster has the id"):
        client.find_cluster("nobody")


def test_the_times_of_a_schedule(server: Server, client: TitusClient) -> None:
    assert client.coming_times(CLUSTER, 2) == server.coming
    assert client.firings(CLUSTER, page_size=7).pagination.totalItems == 0
    assert server.times_asked == [(CLUSTER, 2), (CLUSTER, 7)]


def test_a_cluster_is_observed_until_it_is_removed_and_anew_after_a_break(
    server: Server, client: TitusClient
) -> None:
    server.cluster_breaks = 1
    told = [
        each.WhichOneof("notification") if isinstance(each, pb.JobClusterNotification) else each
        for each in client.observe_cluster(CLUSTER)
    ]
    # Nothing is gone on from: what follows a Reconnected is another snapshot.
    snapshot = ["jobClusterSnapshot", "snapshotEnd"]
    back = Reconnected(resumed=False)
    assert told == [*snapshot, Disconnected("restart"), back, *snapshot, "jobClusterRemoved"]


# ------------------------------------------------------------------------------------- stages


def staged(*desired: int) -> pb.Job:
    made = job(pb.RUNNING)
    made.jobDescriptor.CopyFrom(mantis_job(*desired))
    return made


def test_a_stage_is_resized_and_what_is_not_named_stays(server: Server, client: TitusClient) -> None:
    server.live = [staged(2, 3)]
    server.live[0].jobDescriptor.mantis.stages[1].instances.max = 9
    done = client.resize(JOB, 5, stage=1)
    assert done == Resized(Instances(desired=3, max=9), Instances(desired=5, max=9))
    [update] = server.resized
    assert update == pb.JobInstancesUpdate(
        jobId=JOB, stageIndex=1, instances=pb.TaskInstances(desired=5, max=9)
    )


def test_the_stage_may_be_left_out_if_there_is_one(server: Server, client: TitusClient) -> None:
    server.live = [staged(2)]
    assert client.resize(JOB, 5).before == Instances(desired=2)
    assert server.resized[0].stageIndex == 0


@pytest.mark.parametrize(
    ("found", "stage", "why"),
    [
        (staged(2, 3), None, "say which: it has the stages 0 to 1"),
        (staged(2, 3), 2, "there is no stage 2: it has the stages 0 to 1"),
        (job(pb.RUNNING), 0, "it is no Mantis job, and has no stages"),
    ],
)
def test_a_stage_that_is_none_is_refused_here(
    server: Server, client: TitusClient, found: pb.Job, stage: int | None, why: str
) -> None:
    server.live = [found]
    with pytest.raises(CallFailed) as caught:
        client.resize(JOB, 5, stage=stage)
    assert str(caught.value) == f"cannot resize job {JOB}; {why}"
    assert server.resized == []
