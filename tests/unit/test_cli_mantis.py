"""Mantis jobs on the command line: written, sent into clusters, shown, scaled and followed."""

from __future__ import annotations

import pytest

from tests.unit.scripted_clusters import CLUSTER, DEFAULT, OTHER, mantis_job
from tests.unit.scripted_server import JOB, Server, job, titus
from titus_celery.cli import jobfile
from titus_celery.cli.follow import Follower, Say, Write
from titus_celery.cli.nodes import FileInvalid
from titus_celery.cli.verdict import Verdict
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def run(stage: int, slot: int, attempt: int, state: pb.State.ValueType, reason: str = "") -> pb.Task:
    """A run of a slot of a stage."""
    context = {
        "task.stage": str(stage),
        "task.index": str(slot),
        "task.resubmitNumber": str(attempt - 1),
        "agent.host": f"h{slot}",
    }
    return pb.Task(
        id=f"{JOB}-{stage}.{slot}-{attempt}",
        taskContext=context,
        state=pb.TaskState(state=state, reason=reason),
        stateChanges=[pb.StateChange(state=pb.State.Name(state), timestamp="2026-01-02T03:04:05.678Z")],
    )


def staged(*tasks: pb.Task, state: pb.State.ValueType = pb.RUNNING) -> pb.Job:
    """A Mantis job of two stages, of one and of two tasks."""
    made = job(state)
    made.ClearField("tasks")
    made.tasks.extend(tasks)
    made.jobDescriptor.CopyFrom(mantis_job(1, 2))
    return made


RUNS = (
    run(1, 0, 1, pb.FAILED, "failed: exit code 1"),
    run(0, 0, 1, pb.RUNNING),
    run(1, 1, 1, pb.RUNNING),
    run(1, 0, 2, pb.STARTING),
)


# ----------------------------------------------------------------------------------------- written

STAGES = """\
name: pipeline
type: mantis
timeout: 8h
labels: {team: blue}
parameters: {MODE: fast}
stages:
- image: titus/source
  instances: {desired: 2, max: 4}
- image: titus/sink
  command: cat -n
  cpu: 0.5
  retries: 9
  parameters: {SIZE: 3}
"""


def test_a_job_of_stages_in_the_short_form() -> None:
    [made] = jobfile.read(STAGES, "file")
    assert (made.appName, made.mantis.name, dict(made.labels)) == ("pipeline", "pipeline", {"team": "blue"})
    assert made.mantis.jobSLA.runtimeLimitSecs == 8 * 3600
    assert dict(made.mantis.parameters) == {"MODE": "fast"}
    source, sink = made.mantis.stages
    assert source.instances == pb.TaskInstances(desired=2, max=4)
    assert not source.HasField("retryPolicy"), "that is the server's to choose"
    assert sink.instances == pb.TaskInstances(desired=1)
    assert sink.retryPolicy.exponentialBackOff.retries == 9
    assert source.containerId != sink.containerId
    assert made.containers[source.containerId].image.name == "titus/source"
    container = made.containers[sink.containerId]
    assert (list(container.command), container.resources["cpu"]) == (["cat", "-n"], "0.5")
    assert dict(container.parameters) == {"SIZE": "3"}
    assert made.WhichOneof("jobSpec") == "mantis"
    assert len(made.containers) == 2


def test_a_mantis_job_without_stages_is_one() -> None:
    [made] = jobfile.read("name: a\ntype: mantis\nimage: b\ninstances: 3\nparameters: {X: 1}", "file")
    [stage] = made.mantis.stages
    assert stage.instances.desired == 3
    assert dict(made.containers[stage.containerId].parameters) == {"X": "1"}


@pytest.mark.parametrize(
    ("content", "where_and_why"),
    [
        ("type: mantis\nimage: a", "file:1: a Mantis job needs a `name`"),
        ("type: mantis\nname: a", "file:1: the job has no `image`"),
        ("name: a\ntype: batch\nstages: [{image: b}]", "file:2: `stages` make it a Mantis job"),
        ("name: a\nstages: {image: b}", "file:2: stages must be a list"),
        ("name: a\nimage: b\nstages: [{image: b}]", "file:2: `image` belongs into each of the `stages`"),
        ("name: a\nstages:\n- {image: b, timeout: 1h}", "file:3: 'timeout' is unknown in a stage"),
        ("name: a\nstages:\n- {image: b, instances: 0}", "file:3: a stage begins with one task at least"),
        ("name: a\nstages:\n- {image: b}\n- {}", "file:4: the stage has no `image`"),
        ("name: a\nappName: b\nstages: [{image: b}]", "file:2: `name` and `appName` mean the same"),
        ("name: a\ntimeout: soon\nstages: [{image: b}]", "file:2: timeout: 'soon' is no duration"),
        ("image: a\ntype: titus", "file:2: type must be one of batch, service, mantis"),
    ],
)
def test_a_mistake_is_named_with_its_line(content: str, where_and_why: str) -> None:
    with pytest.raises(FileInvalid) as caught:
        jobfile.read(content, "file")
    assert str(caught.value).startswith(where_and_why)


# ---------------------------------------------------------------------------------- into clusters


def test_submit_into_a_cluster(server: Server) -> None:
    result = titus(server, "submit", "--cluster", "nightly", "-", stdin="image: a\n---\nimage: b")
    assert (result.exit_code, result.stdout) == (0, f"{JOB}\n{JOB}\n")
    assert [each.jobClusterId for each in server.created] == [CLUSTER, CLUSTER]


def test_submit_refuses_another_cluster_than_the_file_has(server: Server) -> None:
    text = '{"jobClusterId": "%s", "batch": {}}'
    assert titus(server, "submit", "--cluster", "3f2a", "-", stdin=text % CLUSTER).exit_code == 0
    result = titus(server, "submit", "--cluster", "3f2a", "-", stdin=text % OTHER)
    assert result.exit_code == 2
    assert f"another than the file's, {OTHER}" in result.stderr
    assert len(server.created) == 1


def test_run_in_a_cluster_of_batch_jobs_is_followed_as_always(server: Server) -> None:
    assert titus(server, "run", "--cluster", DEFAULT, "-q", "i").exit_code == 3
    assert server.created[0].jobClusterId == DEFAULT
    assert server.created[0].HasField("batch")


def test_run_in_a_cluster_of_mantis_jobs_makes_one_of_a_stage(server: Server) -> None:
    args = ["--instances", "2", "--timeout", "1h", "--detach"]
    result = titus(server, "run", "--cluster", "nightly", *args, "a:1", "--", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{JOB}\n", "")
    [made] = server.created
    [stage] = made.mantis.stages
    assert (made.jobClusterId, made.mantis.name) == (CLUSTER, "nightly")
    assert (stage.instances.desired, made.mantis.jobSLA.runtimeLimitSecs) == (2, 3600)
    policy = stage.retryPolicy
    assert (policy.WhichOneof("policy"), policy.exponentialBackOff.retries) == ("exponentialBackOff", 0)


def test_run_does_not_make_a_service_of_a_mantis_cluster(server: Server) -> None:
    result = titus(server, "run", "--cluster", "nightly", "--service", "i")
    assert result.exit_code == 2
    assert "the cluster is of Mantis jobs" in result.stderr
    assert server.created == []


def test_ls_of_a_cluster(server: Server) -> None:
    server.live = [staged(*RUNS)]
    result = titus(server, "ls", "--cluster", "nightly", "--type", "mantis")
    assert "mantis  RUNNING  2/3 running" in result.stdout
    asked = dict(server.queries[0].fiterlingCriteria)
    assert asked == {"jobClusterId": CLUSTER, "jobType": "mantis"}
    assert "jobDescriptor.mantis.stages.instances" in server.queries[0].fields
    twice = titus(server, "ls", "--cluster", "nightly", "--filter", "jobClusterId=x")
    assert (twice.exit_code, len(server.queries)) == (2, 1)


# --------------------------------------------------------------------------------- shown, scaled


def test_a_mantis_job_is_shown_with_its_stages(server: Server) -> None:
    shown = staged(*RUNS)
    shown.jobClusterId = CLUSTER
    terms = shown.jobDescriptor.mantis
    terms.jobSLA.runtimeLimitSecs = 3600
    terms.jobSLA.durationType = pb.MantisJobSLA.Transient
    terms.subscriptionTimeoutSecs = 300
    terms.stages[1].instances.max = 5
    server.live = [shown]
    result = titus(server, "show", JOB)
    facts, _, first, second, tasks = result.stdout.split("\n\n")
    for line in (
        "type        mantis",
        f"cluster     {CLUSTER}",
        "tasks       2 running of 3 wanted",
        "restarts    1",
        "time limit  1:00:00",
        "ends        after 0:05:00 without observers",
    ):
        assert f"{line}\n" in f"{facts}\n"
    assert first.startswith("stage     0\ntasks     1 running of 1 wanted\nrestarts  0\n")
    assert "retries   100, the first after 0 s, others after 5, 10, 20 s\n" in first
    assert "command   work-0" in first
    assert "tasks     1 running of 2 wanted" in second
    assert "bounds    min 0, max 5" in second
    assert "command   work-1" in second
    assert [line.split()[:4] for line in tasks.splitlines()] == [
        ["STAGE", "TASK", "ATTEMPT", "STATE"],
        ["0", "0", "1", "RUNNING"],
        ["1", "0", "2", "STARTING"],
        ["1", "1", "1", "RUNNING"],
    ]
    assert "1 earlier runs are not listed" in result.stderr


def test_a_task_is_found_by_its_stage_and_slot(server: Server) -> None:
    server.found_tasks = list(RUNS[1:])
    assert f"{JOB}-1.0-2\n" in titus(server, "show", f"{JOB}-1.0").stdout
    assert titus(server, "kill", f"{JOB}-0.0").stdout == f"{JOB}-0.0-1\n"
    assert "no job or task" in titus(server, "show", f"{JOB}-2.0").stderr


def test_a_job_of_a_built_in_cluster_is_shown_without_it(server: Server) -> None:
    server.live[0].jobClusterId = DEFAULT
    assert "cluster" not in titus(server, "show", JOB).stdout


def test_scale_a_stage(server: Server) -> None:
    server.live = [staged(*RUNS)]
    result = titus(server, "scale", JOB[:8], "4", "--stage", "1")
    assert (result.exit_code, result.stdout) == (0, f"{JOB}  tasks 2 -> 4, min 0, max unbounded\n")
    assert (server.resized[0].stageIndex, server.resized[0].instances.desired) == (1, 4)


def test_scale_asks_for_the_stage_if_there_are_several(server: Server) -> None:
    server.live = [staged(*RUNS)]
    result = titus(server, "scale", JOB, "4")
    assert (result.exit_code, server.resized) == (125, [])
    assert result.stderr == f"titus: cannot resize job {JOB}; say which: it has the stages 0 to 1\n"


# ---------------------------------------------------------------------------------------- followed


def seen(made: pb.Job) -> pb.JobChangeNotification:
    return pb.JobChangeNotification(jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=made))


def ended(code: int, reason: str = "failed") -> v1.TailTaskItem:
    return v1.TailTaskItem(end=v1.End(exited=True, exit_code=code, reason_code=reason, reason=f"{reason}: x"))


def test_tasks_of_stages_are_told_apart_and_counted_together() -> None:
    follower = Follower("j")
    said = [
        step.text
        for step in follower.heard(seen(staged(run(0, 0, 1, pb.RUNNING), run(1, 0, 2, pb.QUEUED))))
        if isinstance(step, Say)
    ]
    assert said == ["task 0.0 running", "task 1.0 (attempt 2) queued", "1/3 running"]
    assert not follower.is_service, "Ctrl-C ends it"
    item = v1.TailTaskItem(output=v1.Output(source=v1.STDOUT, data=b"a\n"))
    [written] = follower.tailed(f"{JOB}-0.0-1", item)
    assert written == Write(v1.STDOUT, b"0.0 | a\n")


def test_it_runs_with_the_last_of_its_tasks() -> None:
    follower = Follower("j")
    follower.heard(
        seen(staged(run(0, 0, 1, pb.RUNNING), run(1, 0, 1, pb.RUNNING), run(1, 1, 1, pb.STARTING)))
    )
    update = pb.JobChangeNotification(
        taskUdate=pb.JobChangeNotification.TaskUpdate(task=run(1, 1, 1, pb.RUNNING))
    )
    said = [step.text for step in follower.heard(update) if isinstance(step, Say)]
    assert said == ["task 1.1 running", "3/3 running"]


def test_tasks_that_ended_well_are_done() -> None:
    follower = Follower("j")
    follower.heard(seen(staged(run(0, 0, 1, pb.RUNNING), run(1, 0, 1, pb.RUNNING))))
    update = pb.JobChangeNotification.TaskUpdate(task=run(0, 0, 1, pb.FINISHED))
    steps = follower.heard(pb.JobChangeNotification(taskUdate=update))
    assert steps == [Say("1/3 running, 1 done")]


@pytest.mark.parametrize(
    ("state", "reason", "verdict"),
    [
        (pb.FINISHED, "normal: SLA enforcement", Verdict(0, "the job finished: normal: SLA enforcement")),
        (
            pb.FINISHED,
            "runtimeLimitExceeded: runtime limit reached",
            Verdict(124, "it ran into its runtime limit"),
        ),
        (pb.FAILED, "failed: too many worker resubmits", Verdict(7)),
    ],
)
def test_a_mantis_job_that_was_ended_as_it_should_ended_well(
    state: pb.State.ValueType, reason: str, verdict: Verdict
) -> None:
    follower = Follower("j")
    tasks = run(0, 0, 1, pb.RUNNING), run(1, 0, 1, pb.RUNNING)
    follower.heard(seen(staged(*tasks)))
    follower.tailed(tasks[0].id, ended(0, "normal"))
    follower.tailed(tasks[1].id, ended(7))
    over = staged(run(0, 0, 1, pb.FINISHED), run(1, 0, 1, pb.FAILED), state=state)
    over.jobState.reason = reason
    follower.settled(over)
    assert follower.is_over
    assert follower.verdict == verdict


def test_the_memory_that_was_too_little_is_that_of_the_stage() -> None:
    follower = Follower("j")
    made = staged(run(1, 1, 1, pb.RUNNING))
    made.jobDescriptor.containers["stage-0"].resources["memory"] = "1GB"
    made.jobDescriptor.containers["stage-1"].resources["memory"] = "64MB"
    follower.heard(seen(made))
    follower.tailed(made.tasks[0].id, ended(137, "oomKilled"))
    assert follower.verdict == Verdict(137, "task 1.1: out of memory (limit 64MB)")
