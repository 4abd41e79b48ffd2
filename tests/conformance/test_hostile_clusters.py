"""Whatever a client says of clusters and Mantis jobs: it gets an answer that is its own fault."""

from __future__ import annotations

from typing import Final

import grpc
import pytest

from tests.conformance.installation import Titus
from tests.conformance.test_hostile import live_clusters, method_of, send
from tests.grpc_api.clusters import mantis, mantis_cluster
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


@pytest.mark.parametrize("number", [0, 1, 101, 2**31, 2**32 - 1])
def test_no_number_of_a_cluster_or_stage_is_a_fault_of_ours(titus: Titus, number: int) -> None:
    job = mantis(1, 1)
    job.mantis.stages[1].instances.CopyFrom(pb.TaskInstances(desired=number, max=number))
    send(titus, method_of("CreateJob"), job.SerializeToString())
    for cluster in (
        mantis_cluster(min=number),
        mantis_cluster(max=number),
        mantis_cluster(min=number, max=number),
        mantis_cluster(mantis(number)),
    ):
        send(titus, method_of("CreateJobCluster"), cluster.SerializeToString())
    id = titus.jobs.CreateJobCluster(mantis_cluster(cronSpec="0 0 * * * ?")).id
    coming = v1.ComingTimesRequest(cluster_id=id, count=number)
    send(titus, method_of("ComingTimes"), coming.SerializeToString())


CRONS: Final = (
    "* * * * * *",
    "0 0 0 31 2 ?",
    "0 0 0 L * ?",
    "0 0 0 ? * 6#5",
    "0/0 * * * * ?",
    "99 * * * * ?",
    "0 0 0 1 1 ? 2099",
    "0 0 0 1 1 ? 1-99999999",
    "* " * 1_000,
    ",".join(["1"] * 5_000) + " * * * *",
    "@hourly",
    "\N{FULLWIDTH DIGIT ONE} * * * *",
    "R R * * *",
)


@pytest.mark.parametrize("cron", CRONS)
def test_no_schedule_is_a_fault_of_ours(titus: Titus, cron: str) -> None:
    for zone in ("", "Europe/Berlin", "/etc/localtime", "../UTC", "UTC\0"):
        cluster = mantis_cluster(mantis(parameters={"cron.timeZone": zone}), cronSpec=cron)
        if send(titus, method_of("CreateJobCluster"), cluster.SerializeToString()).code is grpc.StatusCode.OK:
            for id in live_clusters(titus):
                titus.schedules.ComingTimes(v1.ComingTimesRequest(cluster_id=id.id, count=1_000))


@pytest.mark.parametrize("number", [0, 1, 2**63, 2**64 - 1])
def test_no_duration_of_a_mantis_job_is_a_fault_of_ours(titus: Titus, number: int) -> None:
    for kind in (pb.MantisJobSLA.Perpetual, pb.MantisJobSLA.Transient):
        agreement = pb.MantisJobSLA(runtimeLimitSecs=number, minRuntimeSecs=number, durationType=kind)
        job = mantis(jobSLA=agreement, subscriptionTimeoutSecs=number)
        send(titus, method_of("CreateJob"), job.SerializeToString())
    titus.wait(1)
