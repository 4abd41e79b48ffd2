"""Criteria, fields and pages (docs/semantics.md B4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.installation import Titus, batch, container, service
from tests.grpc_api.world import AGENT
from titus_celery.core.model import TaskId
from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

ME, US = "me@example.com", "us@example.com"

IMAGES = {"busybox:1": "sha256:1", "other:1": "sha256:2", "other:2": "sha256:2"}


def labelled(**labels: str) -> pb.JobDescriptor:
    return batch(labels=labels)


def found(titus: Titus, criteria: dict[str, str]) -> set[str]:
    """The ids of the jobs that have all that."""
    return {job.id for job in titus.found(criteria).items}


# ---------------------------------------------------------------------------------------- criteria

#: A criterion, a value that finds a job, such a job, and one that it does not find.
CRITERIA: list[tuple[str, str, Callable[[], pb.JobDescriptor], Callable[[], pb.JobDescriptor]]] = [
    ("appName", "web", lambda: batch(appName="web"), lambda: batch(appName="Web")),
    ("applicationName", "web", lambda: batch(appName="web"), batch),
    ("owner", US, lambda: batch(owner=pb.Owner(ownerEmail=ME, teamEmail=US)), batch),
    ("owner", US, lambda: batch(owner=pb.Owner(ownerEmail=US, teamEmail=ME)), batch),
    ("jobType", "SERVICE", service, batch),
    ("jobType", "batch", batch, service),
    ("labels", "a=1", lambda: labelled(a="1"), lambda: labelled(a="2")),
    ("attributes", "a:1", lambda: labelled(a="1"), batch),
    ("labels.a", "1", lambda: labelled(a="1"), lambda: labelled(a="2")),
    ("labels", "a", lambda: labelled(a="anything"), batch),
    ("labels.a", "", lambda: labelled(a="anything"), batch),
    ("labels", "a=", lambda: labelled(a="anything"), batch),
    ("imageName", "busybox", batch, lambda: container(image=pb.Image(name="other:1"))),
    ("imageName", "busybox:1", batch, lambda: container(image=pb.Image(name="other:1"))),
    ("imageTag", "1", batch, lambda: container(image=pb.Image(name="other:2"))),
    ("imageId", "sha256:1", batch, lambda: container(image=pb.Image(name="other:2"))),
    ("jobGroupStack", "s", lambda: batch(jobGroupInfo=pb.JobGroupInfo(stack="s")), batch),
    ("jobGroupDetail", "d", lambda: batch(jobGroupInfo=pb.JobGroupInfo(detail="d")), batch),
    ("jobGroupSequence", "n", lambda: batch(jobGroupInfo=pb.JobGroupInfo(sequence="n")), batch),
    ("jobClusterId", "x,00000000-0000-4000-8000-000000000002", service, batch),
    ("capacityGroup", "g", lambda: labelled(capacityGroup="g"), batch),
]


@pytest.mark.parametrize(
    ("name", "value", "this", "other"), CRITERIA, ids=[f"{each[0]}-{each[1]}" for each in CRITERIA]
)
def test_a_criterion_finds_the_jobs_that_have_it_and_no_others(
    titus: Titus,
    name: str,
    value: str,
    this: Callable[[], pb.JobDescriptor],
    other: Callable[[], pb.JobDescriptor],
) -> None:
    titus.inside.registry.report_images(AGENT.engine_id, IMAGES)
    wanted, unwanted = titus.create(this()), titus.create(other())
    assert found(titus, {name: value}) == {wanted}
    # FindTasks takes the same ones: of the job they say whether any of its tasks are meant.
    assert [task.id for task in titus.jobs.FindTasks(query(wanted, name, value)).items] == [f"{wanted}-0-1"]
    assert not titus.jobs.FindTasks(query(unwanted, name, value)).items


def query(id: str, name: str, value: str) -> pb.TaskQuery:
    return pb.TaskQuery(jobId=id, fiterlingCriteria={name: value})


def test_ids_are_listed_with_commas(titus: Titus) -> None:
    one, two, three = (titus.create() for _ in range(3))
    assert found(titus, {"jobIds": f"{one}, {three},nobody"}) == {one, three}
    assert found(titus, {"taskIds": f"{two}-0-1,x, {one}-0-1"}) == {one, two}
    assert found(titus, {"jobIds": one, "taskIds": f"{two}-0-1"}) == set()
    both = titus.create(batch(2))
    assert [task.id for task in titus.tasks(both, taskIds=f"{both}-1-1").items] == [f"{both}-1-1"]


def test_a_job_is_found_by_its_state_in_any_case(titus: Titus) -> None:
    queued, running = titus.create(), titus.create()
    titus.store.advance(TaskId(f"{running}-0-1"), State.RUNNING)
    assert found(titus, {"jobState": "running"}) == {running}
    assert found(titus, {"jobState": "QUEUED"}) == {queued}


def test_a_job_is_found_by_the_states_that_any_of_its_tasks_is_in(titus: Titus) -> None:
    queued, both = titus.create(), titus.create(batch(3))
    titus.store.advance(TaskId(f"{both}-0-1"), State.RUNNING)
    titus.store.advance(TaskId(f"{both}-1-1"), State.FAILED)
    assert found(titus, {"taskStates": "Running"}) == {both}
    assert found(titus, {"taskStates": "FAILED,DISPATCHED"}) == {both}
    assert found(titus, {"taskStates": "QUEUED"}) == {queued, both}
    assert found(titus, {"taskStates": "any"}) == {queued, both}
    assert found(titus, {"taskStates": "STARTING"}) == set()


def test_all_criteria_must_hold(titus: Titus) -> None:
    both, _ = titus.create(batch(appName="web", labels={"a": "1"})), titus.create(batch(appName="web"))
    assert found(titus, {"appName": "web", "labels": "a"}) == {both}


def test_what_is_blank_asks_for_nothing(titus: Titus) -> None:
    id = titus.create()
    assert found(titus, {"appName": " ", "jobIds": "", "labels": "", "jobState": " "}) == {id}
    assert found(titus, {"appName": "  app "}) == {id}


@pytest.mark.parametrize(
    "criteria",
    [
        {"colour": "red", "AppName": "x"},
        {"jobState": "DONE"},
        {"taskStates": "RUNNING,DONE"},
        {"jobType": "daemon"},
        {"labels.op": "xor"},
        {"needsMigration": "true"},
    ],
    ids=str,
)
def test_what_is_unknown_or_cannot_be_read_is_refused_by_name(titus: Titus, criteria: dict[str, str]) -> None:
    named = [f"fiterlingCriteria[{name}]" for name in criteria]
    titus.invalid(titus.jobs.FindJobs, pb.JobQuery(fiterlingCriteria=criteria), *named)
    id = titus.create()
    titus.invalid(titus.jobs.FindTasks, pb.TaskQuery(jobId=id, fiterlingCriteria=criteria), *named)


def test_labels_are_pairs_with_either_separator_and_all_of_them_must_be_there(titus: Titus) -> None:
    both, a, b = (titus.create(labelled(**each)) for each in ({"a": "1", "b": "x=y"}, {"a": "1"}, {"b": "2"}))
    assert found(titus, {"labels": "a=1 , b:x=y"}) == {both}
    assert found(titus, {"labels": "a:1,b=x=y"}) == {both}
    # Of one label any of its values.
    assert found(titus, {"labels": "b=2,b=x=y"}) == {both, b}
    for name in ("labels.op", "attributes.op"):
        assert found(titus, {"labels": "a=1,b=2", name: "OR"}) == {both, a, b}
        assert found(titus, {"labels": "a=1,b=2", name: "and"}) == set()


def test_a_job_without_labels_is_found_by_none(titus: Titus) -> None:
    titus.create()
    for criteria in ({"labels": "a"}, {"labels": "a,b", "labels.op": "or"}, {"labels.a": ""}):
        assert found(titus, criteria) == set()


# ---------------------------------------------------------------------------------------- fields


def test_without_fields_everything_comes(titus: Titus) -> None:
    id = titus.create(labelled(a="1"))
    assert titus.find(fields=[]).items[0] == titus.find().items[0]
    assert titus.find().items[0] == titus.job(id)


def test_only_what_is_named_comes_but_for_the_id_and_the_application(titus: Titus) -> None:
    id = titus.create(labelled(a="1"))
    (job,) = titus.find(fields=["jobState"]).items
    assert job == pb.Job(
        id=id, jobState=titus.job(id).jobState, jobDescriptor=pb.JobDescriptor(appName="app")
    )
    (task,) = titus.tasks(id, fields=["state"]).items
    assert task == pb.Task(id=f"{id}-0-1", state=titus.job(id).tasks[0].state)


def test_a_path_names_a_part_of_each_element(titus: Titus) -> None:
    id = titus.create(batch(2))
    for path in ("tasks.id", "tasks.taskId"):
        (job,) = titus.find(fields=[path]).items
        assert list(job.tasks) == [pb.Task(id=f"{id}-{slot}-1") for slot in (0, 1)]


def test_paths_under_one_parent_are_united_and_the_parent_is_more(titus: Titus) -> None:
    titus.create()
    (job,) = titus.find(fields=["jobDescriptor.owner.ownerEmail", "jobDescriptor.batch"]).items
    assert [field.name for field, _ in job.jobDescriptor.ListFields()] == ["owner", "appName", "batch"]
    assert job.jobDescriptor.owner == pb.Owner(ownerEmail=ME)
    (whole,) = titus.find(fields=["jobDescriptor", "jobDescriptor.batch"]).items
    assert whole.jobDescriptor == titus.find().items[0].jobDescriptor


def test_a_map_comes_whole_and_unknown_names_name_nothing(titus: Titus) -> None:
    titus.create(labelled(a="1", b="2"))
    (job,) = titus.find(fields=["jobDescriptor.labels", "colour", "jobDescriptor.colour"]).items
    assert dict(job.jobDescriptor.labels) == {"a": "1", "b": "2"}
    (job,) = titus.find(fields=["jobDescriptor.labels.a"]).items
    assert dict(job.jobDescriptor.labels) == {"a": "1", "b": "2"}


def test_fields_change_nothing_about_pages(titus: Titus) -> None:
    for _ in range(3):
        titus.create()
    page = pb.Page(pageNumber=0, pageSize=2)
    assert titus.find(page, fields=["id"]).pagination == titus.find(page).pagination


# ---------------------------------------------------------------------------------------- pages


def test_pages_are_exact_and_past_the_end_there_is_nothing(titus: Titus) -> None:
    made = sorted(titus.create(labelled(a="1")) for _ in range(5))
    titus.create()
    seen = []
    for number in range(4):
        reply = titus.find(pb.Page(pageNumber=number, pageSize=2), labels="a")
        seen += [job.id for job in reply.items]
        assert reply.pagination == pb.Pagination(
            currentPage=pb.Page(pageNumber=number, pageSize=2),
            hasMore=number < 2,
            totalPages=3,
            totalItems=5,
        )
    assert seen == made


def test_pages_of_tasks_are_exact(titus: Titus) -> None:
    id = titus.create(batch(5))
    reply = titus.tasks(id, pb.Page(pageNumber=2, pageSize=2))
    assert [task.id for task in reply.items] == [f"{id}-4-1"]
    assert reply.pagination == pb.Pagination(
        currentPage=pb.Page(pageNumber=2, pageSize=2), hasMore=False, totalPages=3, totalItems=5
    )


def test_who_asks_for_no_page_gets_the_first_hundred_and_of_nothing_there_are_no_pages(
    titus: Titus,
) -> None:
    first = pb.Page(pageNumber=0, pageSize=100)
    assert titus.find().pagination == pb.Pagination(currentPage=first)
    id = titus.create(batch(101))
    reply = titus.tasks(id)
    assert len(reply.items) == 100
    assert reply.pagination == pb.Pagination(currentPage=first, hasMore=True, totalPages=2, totalItems=101)


@pytest.mark.parametrize(
    ("page", "field"),
    [
        (pb.Page(pageNumber=0, pageSize=0), "page.pageSize"),
        (pb.Page(pageNumber=3), "page.pageSize"),
        (pb.Page(pageNumber=0, pageSize=-(2**31)), "page.pageSize"),
        (pb.Page(pageNumber=-1, pageSize=10), "page.pageNumber"),
        (pb.Page(pageNumber=0, pageSize=1_001), "page.pageSize"),
    ],
    ids=["size-0", "no-size", "negative-size", "negative-number", "size-1001"],
)
def test_a_page_that_cannot_be_is_refused(titus: Titus, page: pb.Page, field: str) -> None:
    titus.invalid(titus.jobs.FindJobs, pb.JobQuery(page=page), field)
    titus.invalid(titus.jobs.FindTasks, pb.TaskQuery(jobId=titus.create(), page=page), field)


def test_the_order_of_pages_stays_while_states_change(titus: Titus) -> None:
    made = sorted(titus.create() for _ in range(4))
    titus.store.advance(TaskId(f"{made[2]}-0-1"), State.RUNNING)
    titus.store.advance(TaskId(f"{made[0]}-0-1"), State.DISPATCHED)
    assert [job.id for job in titus.find().items] == made
    over = [titus.create() for _ in range(3)]
    for id in reversed(sorted(over)):
        titus.over(id)
    assert [job.id for job in titus.find(jobState="FINISHED").items] == sorted(over)
