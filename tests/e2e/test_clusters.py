"""Job clusters and Mantis jobs on a real engine: schedules and crashes, floors, stages, idle ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from tests.contracts.registries import running
from tests.e2e.installation import Installation, installed
from tests.e2e.jobs import DEMAND, HELLO, at, shell
from tests.e2e.processes import until
from titus_celery.adapters.system import system_now
from titus_celery.cli import processes
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_celery_v1_pb2_grpc as v1_grpc
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e

EVERY_5_S = "*/5 * * * * ?"
STEP = timedelta(seconds=5)
#: A second beat leads by then.
TAKES_OVER = timedelta(seconds=15)
#: So many times of such a schedule are looked at, half of them after the crashes.
TIMES = 6
#: Ends when it is told to, at once.
OBEDIENT = shell("trap 'exit 0' TERM; while :; do sleep 0.05; done")
#: Lives through the next time of its schedule.
SEVEN_S = shell("i=0; while [ $i -lt 140 ]; do sleep 0.05; i=$((i+1)); done")


def mantis(
    *commands: Sequence[str], timeout: int = 0, terms: pb.MantisJobSLA | None = None
) -> pb.JobDescriptor:
    """A Mantis job with a stage of one worker for each command."""
    job = pb.JobDescriptor(appName="e2e-mantis")
    job.mantis.name = "e2e"
    job.mantis.subscriptionTimeoutSecs = timeout
    job.mantis.jobSLA.CopyFrom(terms or pb.MantisJobSLA())
    for number, command in enumerate(commands):
        container = pb.Container(image=pb.Image(name=HELLO), command=command, resources=dict(DEMAND))
        job.containers[f"stage{number}"].CopyFrom(container)
        job.mantis.stages.add(containerId=f"stage{number}").instances.desired = 1
    return job


def cluster(template: pb.JobDescriptor, rules: pb.MantisClusterSpec) -> pb.JobClusterDescriptor:
    rules.enabled = True
    return pb.JobClusterDescriptor(
        name="e2e",
        owner=pb.Owner(ownerEmail="ann@example.com", teamEmail="ann@example.com"),
        jobDescriptor=template,
        mantis=rules,
    )


def leads(installation: Installation, beat: str) -> bool:
    return "this beat leads" in installation.processes[beat].text()


def leading(installation: Installation, *beats: str) -> Sequence[str]:
    """The beats, that first which leads."""
    return sorted(beats, key=lambda beat: not leads(installation, beat))


def live(installation: Installation, cluster_id: str) -> list[pb.Job]:
    query = pb.JobQuery(fiterlingCriteria={"jobClusterId": cluster_id})
    return list(installation.stub.FindJobs(query, timeout=20).items)


def firings(installation: Installation, cluster_id: str) -> list[v1.Firing]:
    """What became of the times of its schedule, the oldest first."""
    with grpc.insecure_channel(installation.listen) as channel:
        schedules = v1_grpc.ClusterServiceStub(channel)
        page = pb.Page(pageSize=1_000)
        found = schedules.FindFirings(v1.FindFiringsRequest(cluster_id=cluster_id, page=page), timeout=20)
    return list(found.items)[::-1]


def disable(installation: Installation, cluster_id: str) -> None:
    """Disable it, and wait for the end of its jobs."""
    update = pb.JobClusterStatusUpdate(id=cluster_id, enableStatus=False)
    installation.stub.UpdateJobClusterStatus(update, timeout=20)
    until(lambda: not live(installation, cluster_id), f"no job of cluster {cluster_id} lives")


def assert_each_time_once(found: Sequence[v1.Firing]) -> None:
    """Every time of the schedule from the first one on is on record, once."""
    times: list[datetime] = []
    for one in found:
        first, last = datetime.fromisoformat(one.at), datetime.fromisoformat(one.until)
        count = int((last - first) / STEP) + 1
        assert one.count == count, one
        times += (first + number * STEP for number in range(count))
    assert times == [times[0] + number * STEP for number in range(len(times))]


def test_schedules_are_kept_through_the_crashes_of_beat_and_control(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start_command("beat-2", processes.beat_command())
        installation.start_command("control-2", processes.control_command())
        create = installation.stub.CreateJobCluster
        rules = pb.MantisClusterSpec(cronSpec=EVERY_5_S)
        existing = create(cluster(mantis(SEVEN_S), rules), timeout=20).id
        rules.cronPolicy = "KEEP_NEW"
        new = create(cluster(mantis(OBEDIENT), rules), timeout=20).id
        patience = STEP * (TIMES + 2)
        until(lambda: len(firings(installation, existing)) >= TIMES // 2, "half of the times came", patience)
        leader, other = leading(installation, "beat", "beat-2")
        installation.kill(leader)
        installation.kill("control")
        installation.start("control")
        until(lambda: leads(installation, other), "the other beat leads", TAKES_OVER)
        until(lambda: len(firings(installation, existing)) >= TIMES, "all of the times came", patience)
        for id in (existing, new):
            disable(installation, id)
        kept, handed_on = firings(installation, existing), firings(installation, new)
        for found in (kept, handed_on):
            assert_each_time_once(found)
        outcomes = [one.outcome for one in kept]
        # Each job lives through the next time, so that one is skipped for it.
        assert outcomes.count(v1.Firing.FIRED) >= TIMES // 2 - 1, kept
        assert v1.Firing.SKIPPED in outcomes
        for one in kept:
            assert (one.outcome == v1.Firing.FIRED) == bool(one.job_id)
            if one.job_id:
                assert installation.witness.creates(f"{one.job_id}-0.0-1") == 1
        assert_handed_on(installation, [one.job_id for one in handed_on if one.job_id])


def assert_handed_on(installation: Installation, job_ids: Sequence[str]) -> None:
    """Each job but the last was ended by its cluster, and not before the one after it ran."""
    assert len(job_ids) >= TIMES // 2
    jobs = [installation.client.find(id) for id in job_ids]
    for old, new in pairwise(jobs):
        assert (old.jobState.state, old.jobState.reason) == (pb.FINISHED, "normal: SLA enforcement")
        assert at(old.stateChanges, "FINISHED") >= at(new.stateChanges, "RUNNING")
    assert jobs[-1].jobState.reason == "normal: job cluster disabled"


def test_a_schedule_is_kept_although_the_registry_of_its_image_hangs_when_its_time_comes(
    tmp_path: Path,
) -> None:
    with (
        running(tmp_path / "registry") as (registry, publisher),
        installed(tmp_path / "titus") as installation,
    ):
        first = publisher.put("team/app", "first")
        time = system_now().replace(microsecond=0) + timedelta(seconds=12)
        template = mantis([])
        template.containers["stage0"].image.name = f"{registry.host}/team/app"
        rules = pb.MantisClusterSpec(cronSpec=f"{time:%-S %-M %-H %-d %-m} ? {time:%Y}")
        id = installation.stub.CreateJobCluster(cluster(template, rules), timeout=20).id
        asked = registry.asked("HEAD /v2/team/app/manifests/latest")
        until(lambda: registry.asked("HEAD /v2/team/app/manifests/latest") > asked, "it is looked up")
        registry.freeze()
        assert system_now() < time
        (fired,) = until(lambda: firings(installation, id), "its time is decided")
        registry.thaw()
        assert (fired.outcome, datetime.fromisoformat(fired.at)) == (v1.Firing.FIRED, time), fired
        found = installation.over(fired.job_id)
        assert found.jobDescriptor.containers["stage0"].image.imageId == f"{registry.host}/team/app@{first}"
        assert installation.output(found.tasks[0].id) == "first"


def test_a_floor_is_filled_again_when_a_job_ends(shared: Installation) -> None:
    id = shared.stub.CreateJobCluster(
        cluster(mantis(OBEDIENT), pb.MantisClusterSpec(min=1, max=2)), timeout=20
    ).id

    def runs() -> str:
        return next((job.id for job in live(shared, id) if job.jobState.state == pb.RUNNING), "")

    first = until(runs, "its job runs")
    shared.client.kill(first)
    second = until(lambda: runs() if runs() != first else "", "another job runs")
    assert shared.over(first).jobState.reason.startswith("killed: by ")
    disable(shared, id)
    assert shared.over(second).jobState.reason == "normal: job cluster disabled"
    shared.stub.RemoveJobCluster(pb.JobClusterId(id=id), timeout=20)


def test_workers_of_all_stages_run_are_restarted_and_end_together(shared: Installation) -> None:
    once = shell('[ "$TITUS_TASK_ATTEMPT" = 2 ] && exit 0; echo "stage $TITUS_TASK_STAGE"; exit 3')
    id = shared.client.submit(mantis(once, once))
    job = shared.over(id)
    assert (job.jobState.state, job.jobState.reason) == (pb.FINISHED, "normal")
    ends = {task.id.removeprefix(f"{id}-"): task.state.reason for task in job.tasks}
    assert ends == {
        "0.0-1": "failed: exit code 3",
        "0.0-2": "normal",
        "1.0-1": "failed: exit code 3",
        "1.0-2": "normal",
    }
    assert shared.output(f"{id}-1.0-1") == "stage 1\n"
    assert {task.taskContext["task.stage"] for task in job.tasks} == {"0", "1"}


def test_a_transient_job_lives_as_long_as_somebody_observes_it(shared: Installation) -> None:
    terms = pb.MantisJobSLA(durationType=pb.MantisJobSLA.Transient, minRuntimeSecs=1)
    watched = shared.client.submit(mantis(OBEDIENT, timeout=2, terms=terms))
    left = shared.client.submit(mantis(OBEDIENT, timeout=2, terms=terms))
    stream = shared.stub.ObserveJob(pb.JobId(id=watched), timeout=120)
    next(stream)
    ended = shared.over(left)
    assert (ended.jobState.state, ended.jobState.reason) == (
        pb.FINISHED,
        "normal: no subscriptions for 2 secs",
    )
    assert shared.client.find(watched).jobState.state == pb.RUNNING
    stream.cancel()
    assert shared.over(watched).jobState.reason == "normal: no subscriptions for 2 secs"
