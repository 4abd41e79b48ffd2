"""What a follower makes of messages: lines, output, which tasks it wants to read, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable

from titus_celery.cli.follow import Ask, Follower, Say, Step, Tail, Write
from titus_celery.cli.verdict import Verdict
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

OUT, ERR = v1.STDOUT, v1.STDERR


def task(slot: int, state: str, attempt: int = 1, *, reason: str = "", host: str = "") -> pb.Task:
    context = {"task.index": str(slot), "task.resubmitNumber": str(attempt - 1)}
    if host:
        context["agent.host"] = host
    return pb.Task(
        id=f"j-{slot}-{attempt}",
        taskContext=context,
        state=pb.TaskState(state=pb.State.Value(state), reason=reason),
    )


def job(desired: int, *tasks: pb.Task) -> pb.Job:
    return pb.Job(
        id="j",
        jobDescriptor=pb.JobDescriptor(
            containers={"main": pb.Container(resources={"memory": "64MB"})},
            batch=pb.BatchJobSpec(instances=pb.TaskInstances(desired=desired), containerId="main"),
        ),
        tasks=tasks,
    )


def snapshot(desired: int, *tasks: pb.Task) -> pb.JobChangeNotification:
    return pb.JobChangeNotification(
        jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=job(desired, *tasks))
    )


def update(*args: object, **kwargs: str) -> pb.JobChangeNotification:
    return pb.JobChangeNotification(
        taskUdate=pb.JobChangeNotification.TaskUpdate(task=task(*args, **kwargs))  # type: ignore[arg-type]
    )


FINISHED = pb.JobChangeNotification(jobFinished=pb.JobChangeNotification.JobFinished(id="j"))


def output(data: bytes, source: v1.Source.ValueType = OUT) -> v1.TailTaskItem:
    return v1.TailTaskItem(output=v1.Output(source=source, data=data))


def ended(exit_code: int = 0, code: str = "", **more: int) -> v1.TailTaskItem:
    code = code or ("failed" if exit_code else "normal")
    end = v1.End(exited=True, exit_code=exit_code, reason_code=code, reason=f"{code}: exit code {exit_code}")
    end.signal = more.get("signal", 0)
    return v1.TailTaskItem(end=end)


def lines(steps: Iterable[Step]) -> list[str]:
    return [step.text for step in steps if isinstance(step, Say)]


def wishes(steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if isinstance(step, Tail | Ask)]


def written(steps: Iterable[Step]) -> bytes:
    return b"".join(step.data for step in steps if isinstance(step, Write))


def test_one_task_from_its_first_state_to_its_exit_code() -> None:
    follower = Follower("j")
    steps = follower.heard(snapshot(1, task(0, "QUEUED")))
    steps += follower.heard(update(0, "DISPATCHED", host="h1"))
    assert not wishes(steps), "nothing is read before it starts"
    assert follower.heard(update(0, "STARTING", host="h1")) == [Say("task 0 starting"), Tail("j-0-1")]
    steps += follower.heard(update(0, "RUNNING"))
    assert lines(steps) == ["task 0 queued", "task 0 dispatched on h1", "task 0 running"]
    assert follower.tailed("j-0-1", output(b"\xffa")) == [Write(OUT, b"\xffa")]
    assert follower.tailed("j-0-1", output(b"b", ERR)) == [Write(ERR, b"b")]
    assert follower.heard(update(0, "FAILED", reason="failed: exit code 3")) == []
    assert lines(follower.tailed("j-0-1", ended(3))) == ["task 0 failed: exit code 3"]
    assert follower.heard(FINISHED) == [Ask()]
    assert not follower.is_over
    assert follower.settled(job(1, task(0, "FAILED"))) == []
    assert follower.is_over
    assert follower.verdict == Verdict(3)


def test_a_state_is_said_once_and_a_new_reason_to_wait_again() -> None:
    follower = Follower("j")
    said = lines(follower.heard(snapshot(1, task(0, "QUEUED"))))
    for reason in ("waiting: no agent", "waiting: no agent", "waiting: no memory"):
        said += lines(follower.heard(update(0, "QUEUED", reason=reason)))
    assert said == ["task 0 queued", "task 0 queued: waiting: no agent", "task 0 queued: waiting: no memory"]


def test_states_never_go_back_when_a_snapshot_is_old() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "RUNNING")))
    assert follower.heard(snapshot(1, task(0, "STARTING"))) == []


def test_the_end_is_said_after_the_output() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "RUNNING")))
    assert follower.heard(update(0, "FINISHED")) == []
    assert follower.tailed("j-0-1", output(b"last\n")) == [Write(OUT, b"last\n")]
    assert lines(follower.tailed("j-0-1", ended())) == ["task 0 finished"]


def test_a_retry_is_read_once_its_forerunner_was_read_to_the_end() -> None:
    follower = Follower("j")
    assert wishes(follower.heard(snapshot(1, task(0, "RUNNING")))) == [Tail("j-0-1")]
    follower.heard(update(0, "FAILED"))
    early = follower.heard(update(0, "QUEUED", 2)) + follower.heard(update(0, "RUNNING", 2))
    assert early == [], "one run is told of after the other"
    assert follower.tailed("j-0-1", ended(1)) == [
        Say("task 0 failed: exit code 1"),
        Say("task 0 (attempt 2) queued"),
        Say("task 0 (attempt 2) running"),
        Tail("j-0-2"),
    ]
    follower.tailed("j-0-2", ended(0))
    follower.heard(FINISHED)
    follower.settled(job(1))
    assert follower.is_over
    assert follower.verdict == Verdict(0), "the last run of the slot counts"


def test_several_tasks_are_marked_by_line_and_counted() -> None:
    follower = Follower("j")
    steps = follower.heard(snapshot(3, *(task(slot, "RUNNING") for slot in range(3))))
    assert wishes(steps) == [Tail("j-0-1"), Tail("j-1-1"), Tail("j-2-1")]
    assert lines(steps)[-1] == "0/3 done"
    assert written(follower.tailed("j-1-1", output(b"a\nb"))) == b"1 | a\n"
    assert written(follower.tailed("j-1-1", output(b"e\n", ERR))) == b"1 | e\n"
    steps = follower.tailed("j-1-1", ended(2))
    assert written(steps) == b"1 | b\n"
    assert lines(steps)[-1] == "0/3 done, 1 failed"
    follower.tailed("j-0-1", ended())
    assert lines(follower.heard(update(1, "QUEUED", 2)))[-1] == "1/3 done, 1 retrying"
    assert lines(follower.tailed("j-2-1", ended()))[-1] == "2/3 done, 1 retrying"
    follower.heard(update(1, "RUNNING", 2))
    assert lines(follower.tailed("j-1-2", ended()))[-1] == "3/3 done"


def test_what_happened_while_the_server_was_away_is_read_afterwards() -> None:
    follower = Follower("j")
    follower.heard(snapshot(2, task(0, "RUNNING"), task(1, "RUNNING")))
    # Task 0 failed, was tried again twice, task 1 ended: the snapshot holds what is active alone.
    steps = follower.heard(snapshot(2, task(0, "RUNNING", 3)))
    assert wishes(steps) == [], "the first run of slot 0 is still being read"
    assert wishes(follower.tailed("j-0-1", ended(1))) == [Tail("j-0-3")]
    follower.tailed("j-1-1", ended(0))
    assert wishes(follower.heard(FINISHED)) == [Ask()]
    whole = job(2, task(0, "FAILED"), task(0, "FAILED", 2), task(0, "FINISHED", 3), task(1, "FINISHED"))
    assert wishes(follower.settled(whole)) == [Tail("j-0-2")], "a run that nobody saw is not lost"
    follower.tailed("j-0-3", ended(0))
    assert not follower.is_over
    follower.tailed("j-0-2", ended(4))
    assert follower.is_over
    assert follower.verdict == Verdict(0)


def test_a_run_whose_begin_was_missed_is_read_when_it_has_a_successor() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "QUEUED")))
    assert wishes(follower.heard(snapshot(1, task(0, "QUEUED", 2)))) == [Tail("j-0-1")]


def test_a_run_whose_begin_was_missed_is_read_when_the_job_is_over() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "QUEUED")))
    follower.heard(FINISHED)
    assert wishes(follower.settled(job(1))) == [Tail("j-0-1")]


def test_a_job_that_was_over_before_anybody_looked() -> None:
    follower = Follower("j")
    steps = follower.heard(snapshot(2, task(0, "FINISHED"), task(1, "FAILED", reason="failed: exit code 7")))
    assert wishes(steps) == [Tail("j-0-1"), Tail("j-1-1")]
    follower.heard(FINISHED)
    follower.settled(job(2))
    follower.tailed("j-0-1", ended())
    follower.tailed("j-1-1", ended(7))
    assert follower.is_over
    assert follower.verdict == Verdict(7)


def test_a_task_that_ended_unstarted_is_read_for_its_end() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "QUEUED")))
    assert wishes(follower.heard(update(0, "FAILED", reason="killed: by ann"))) == [Tail("j-0-1")]
    end = v1.TailTaskItem(end=v1.End(reason_code="killed", reason="killed: by ann"))
    follower.tailed("j-0-1", end)
    follower.heard(FINISHED)
    follower.settled(job(1))
    assert follower.is_over
    assert follower.verdict == Verdict(125, "task 0: killed: by ann")


def test_a_signal_is_explained_at_the_end() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "RUNNING")))
    follower.heard(FINISHED)
    follower.settled(job(1))
    follower.tailed("j-0-1", ended(137, "oomKilled", signal=9))
    assert follower.verdict == Verdict(137, "task 0: out of memory (limit 64MB)")


def test_lost_output_is_told_and_output_that_cannot_be_read_costs_the_exit_code() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "RUNNING")))
    gap = v1.TailTaskItem(gap=v1.Gap(start=0, end=1234))
    assert lines(follower.tailed("j-0-1", gap)) == ["task 0: 1,234 bytes of its output are no longer kept"]
    assert follower.not_tailed("j-0-1", "no such task") == [Say("task 0: no such task")]
    follower.heard(FINISHED)
    follower.settled(job(1))
    assert lines(follower.not_tailed("j-0-1", "no such task")) == ["task 0: no such task"]
    assert follower.is_over
    assert follower.verdict == Verdict(125, "task 0: how it ended could not be learnt")


def test_output_that_could_not_be_read_is_asked_for_once_more_when_its_task_has_ended() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "RUNNING")))
    follower.tailed("j-0-1", output(b"abc"))
    assert wishes(follower.not_tailed("j-0-1", "out of luck")) == []
    assert follower.heard(update(0, "FAILED")) == [Tail("j-0-1", 3)], "from where it broke off"
    follower.tailed("j-0-1", ended(3))
    follower.heard(FINISHED)
    follower.settled(job(1))
    assert follower.is_over
    assert follower.verdict == Verdict(3), "the failure to read it did not decide"


def test_output_that_could_not_be_read_after_the_end_is_asked_for_once_more_at_once() -> None:
    follower = Follower("j")
    follower.heard(snapshot(1, task(0, "FINISHED")))
    gap = v1.TailTaskItem(gap=v1.Gap(start=0, end=9))
    follower.tailed("j-0-1", gap)
    assert wishes(follower.not_tailed("j-0-1", "out of luck")) == [Tail("j-0-1", 9)]
    assert wishes(follower.not_tailed("j-0-1", "out of luck")) == [], "not for ever"


def test_without_output_the_ends_are_still_learnt() -> None:
    follower = Follower("j", with_output=False)
    assert wishes(follower.heard(snapshot(1, task(0, "RUNNING")))) == [Tail("j-0-1")]
    assert follower.tailed("j-0-1", output(b"secret")) == []
    follower.tailed("j-0-1", ended(3))
    assert follower.verdict == Verdict(3)


def test_the_summary_has_a_row_for_each_slot() -> None:
    follower = Follower("j")
    follower.heard(snapshot(3, task(0, "RUNNING", host="h1"), task(1, "RUNNING", 2, host="h2")))
    follower.tailed("j-0-1", ended())
    follower.tailed("j-1-2", ended(1))
    rows = [(row.slot, row.attempts, row.host, row.verdict.code) for row in follower.summary()]
    assert rows == [("0", 1, "h1", 0), ("1", 2, "h2", 1), ("2", 0, "", 125)]


# ------------------------------------------------------------------------------------------ services


def service(desired: int, *tasks: pb.Task) -> pb.Job:
    made = job(desired, *tasks)
    instances = pb.TaskInstances(desired=desired)
    made.jobDescriptor.service.CopyFrom(pb.ServiceJobSpec(instances=instances, containerId="main"))
    return made


def first_seen(made: pb.Job) -> pb.JobChangeNotification:
    return pb.JobChangeNotification(jobSnapshot=pb.JobChangeNotification.JobSnapshot(job=made))


def resized(desired: int) -> pb.JobChangeNotification:
    descriptor = service(desired).jobDescriptor
    return pb.JobChangeNotification(
        jobDefinitionUpdate=pb.JobChangeNotification.JobDefinitionUpdate(id="j", jobDescriptor=descriptor)
    )


def test_a_service_tells_how_many_of_it_run() -> None:
    follower = Follower("j")
    assert not follower.is_service
    assert lines(follower.heard(first_seen(service(2, task(0, "RUNNING")))))[-1] == "1/2 running"
    assert follower.is_service
    assert lines(follower.heard(update(1, "QUEUED"))) == ["task 1 queued"]
    assert lines(follower.heard(update(1, "RUNNING")))[-1] == "2/2 running"
    assert lines(follower.heard(resized(1))) == ["2/1 running"]
    assert lines(follower.heard(update(0, "FAILED"))) == ["1/1 running"]


def test_the_output_of_a_service_is_marked_even_of_its_only_task() -> None:
    follower = Follower("j")
    follower.heard(first_seen(service(1, task(0, "RUNNING"))))
    assert written(follower.tailed("j-0-1", output(b"a\n"))) == b"0 | a\n"


def test_a_task_that_its_service_has_no_need_of_any_more_ended_well() -> None:
    follower = Follower("j")
    follower.heard(first_seen(service(2, task(0, "RUNNING"), task(1, "RUNNING"))))
    end = ended(143, "scaledDown", signal=15)
    assert lines(follower.tailed("j-0-1", end))[0] == "task 0 scaledDown: exit code 143"
    follower.tailed("j-1-1", ended(7))
    assert follower.verdict == Verdict(7), "what was too much does not speak for the service"


def test_slots_that_a_service_got_later_count_and_missing_ones_do_not() -> None:
    follower = Follower("j")
    follower.heard(first_seen(service(2, task(5, "RUNNING"), task(9, "RUNNING"))))
    follower.tailed("j-5-1", ended())
    follower.tailed("j-9-1", ended(4))
    assert follower.verdict == Verdict(4)
    assert [row.slot for row in follower.summary()] == ["5", "9"]


def test_a_service_that_never_had_a_task_ended_as_well_as_it_could() -> None:
    follower = Follower("j")
    follower.heard(first_seen(service(0)))
    follower.heard(FINISHED)
    follower.settled(service(0))
    assert follower.is_over
    assert follower.verdict == Verdict(0)
