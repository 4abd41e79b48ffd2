"""The wire is the contract: names, numbers, types and methods, compared with a table written by hand.

The table lists the messages of the Titus job API with their fields in their order, which is what
numbers them (docs/semantics.md A1). A field is `name type`, `*` repeated, `map<type>` from strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from grpc_tools import protoc

from titus_celery.core.states import State
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

ROOT: Final = Path(__file__).parents[1]

MESSAGES: Final = {
    # supporting
    "Page": "pageNumber int32, pageSize int32",
    "Pagination": "currentPage Page, hasMore bool, totalPages int32, totalItems int32",
    "RetryPolicy": "immediate RetryPolicy.Immediate, delayed RetryPolicy.Delayed, "
    "exponentialBackOff RetryPolicy.ExponentialBackOff",
    "RetryPolicy.Immediate": "retries uint32",
    "RetryPolicy.Delayed": "initialDelayMs uint64, delayMs uint64, retries uint32",
    "RetryPolicy.ExponentialBackOff": "initialDelayMs uint64, maxDelayIntervalMs uint64, retries uint32",
    "Owner": "ownerEmail string, teamEmail string",
    "UserIdentity": "id string, securityContext map<string>",
    "StateChange": "state string, timestamp string",
    "TaskInstances": "min uint32, max uint32, desired uint32",
    # jobs
    "JobDescriptor": "owner Owner, appName string, jobGroupInfo JobGroupInfo, labels map<string>, "
    "containers map<Container>, batch BatchJobSpec, service ServiceJobSpec, mantis MantisJobSpec, "
    "jobClusterId string",
    "JobGroupInfo": "stack string, detail string, sequence string",
    "Container": "resources map<string>, securityProfile map<string>, image Image, parameters map<string>, "
    "entryPoint string*, command string*, env map<string>, softConstraints Constraints, "
    "hardConstraints Constraints",
    "Image": "imageId string, name string",
    "Constraints": "constraints map<string>, expression string",
    "BatchJobSpec": "instances TaskInstances, runtimeLimitSecs uint64, retryPolicy RetryPolicy, "
    "containerId string",
    "ServiceJobSpec": "instances TaskInstances, enabled bool, scalingPolices ScalingPolicy*, "
    "retryPolicy RetryPolicy, containerId string",
    "ScalingPolicy": "condition string, action string, durationSecs uint64, labels map<string>",
    "Job": "id string, jobClusterId string, jobDescriptor JobDescriptor, tasks Task*, jobState JobState, "
    "stateChanges StateChange*",
    "JobState": "state State, reason string",
    "JobId": "id string",
    "JobIds": "id string*",
    "JobInstancesUpdate": "jobId string, instances TaskInstances, stageIndex uint32",
    "JobStatusUpdate": "id string, enableStatus bool",
    "JobQuery": "page Page, fiterlingCriteria map<string>, fields string*",
    "JobQueryResult": "items Job*, pagination Pagination",
    "JobChangeNotification": "jobSnapshot JobChangeNotification.JobSnapshot, "
    "snapshotEnd JobChangeNotification.SnapshotEnd, "
    "jobDefinitionUpdate JobChangeNotification.JobDefinitionUpdate, "
    "jobFinished JobChangeNotification.JobFinished, taskUdate JobChangeNotification.TaskUpdate",
    "JobChangeNotification.JobSnapshot": "job Job",
    "JobChangeNotification.SnapshotEnd": "",
    "JobChangeNotification.JobDefinitionUpdate": "id string, jobDescriptor JobDescriptor",
    "JobChangeNotification.JobFinished": "id string",
    "JobChangeNotification.TaskUpdate": "task Task",
    # tasks
    "Task": "id string, taskContext map<string>, state TaskState, stateChanges StateChange*",
    "TaskState": "state State, reason string",
    "TaskId": "id string",
    "TaskIds": "id string*",
    "TaskQuery": "jobId string, page Page, fiterlingCriteria map<string>, fields string*",
    "TaskQueryResult": "items Task*, pagination Pagination",
    # Mantis
    "MantisJobSpec": "name string, jobSLA MantisJobSLA, parameters map<string>, "
    "subscriptionTimeoutSecs uint64, stages MantisStage*",
    "MantisJobSLA": "runtimeLimitSecs uint64, minRuntimeSecs uint64, durationType MantisJobSLA.DurationType, "
    "userProvidedType string",
    "MantisStage": "instances TaskInstances, containerId string, retryPolicy RetryPolicy, "
    "autoScalingPolicy MantisAutoScalingPolicy",
    "MantisAutoScalingPolicy": "increment uint32, decrement uint32, coolDownSecs uint64, "
    "strategies map<MantisAutoScalingPolicy.Strategy>",
    "MantisAutoScalingPolicy.RollingCount": "count uint32, of uint32",
    "MantisAutoScalingPolicy.Strategy": "reason string, scaleDownBelowPct uint32, scaleUpAbovePct uint32, "
    "rollingCount MantisAutoScalingPolicy.RollingCount",
    # clusters
    "BatchClusterSpec": "",
    "ServiceClusterSpec": "",
    "MantisClusterSpec": "enabled bool, min uint32, max uint32, cronSpec string, cronPolicy string",
    "JobCluster": "id string, descriptor JobClusterDescriptor",
    "JobClusterDescriptor": "owner Owner, name string, jobDescriptor JobDescriptor, batch BatchClusterSpec, "
    "service ServiceClusterSpec, mantis MantisClusterSpec",
    "JobClusterId": "id string",
    "JobClusterStatusUpdate": "id string, enableStatus bool",
    "JobClusterQuery": "page Page, fiterlingCriteria map<string>, fields string*",
    "JobClusterQueryResult": "items JobCluster*, pagination Pagination",
    "JobClusterNotification": "jobClusterSnapshot JobClusterNotification.JobClusterSnapshot, "
    "snapshotEnd JobClusterNotification.SnapshotEnd, "
    "jobClusterDefinitionUpdate JobClusterNotification.JobClusterDefinitionUpdate, "
    "jobClusterRemoved JobClusterNotification.JobClusterRemoved, "
    "jobAdded JobClusterNotification.JobAdded, jobFinished JobClusterNotification.JobFinished",
    "JobClusterNotification.JobClusterSnapshot": "jobCluster JobCluster, jobIds string*",
    "JobClusterNotification.SnapshotEnd": "",
    "JobClusterNotification.JobClusterDefinitionUpdate": "id string, descriptor JobClusterDescriptor",
    "JobClusterNotification.JobClusterRemoved": "id string",
    "JobClusterNotification.JobAdded": "jobId string",
    "JobClusterNotification.JobFinished": "jobId string",
}

ENUMS: Final = {
    "State": {"QUEUED": 0, "DISPATCHED": 1, "STARTING": 2, "RUNNING": 3, "FINISHED": 4, "FAILED": 5},
    "MantisJobSLA.DurationType": {"Perpetual": 0, "Transient": 1},
}

#: Of which fields at most one is set.
CHOICES: Final = {
    "JobDescriptor": "batch, service, mantis",
    "JobClusterDescriptor": "batch, service, mantis",
    "JobChangeNotification": "jobSnapshot, snapshotEnd, jobDefinitionUpdate, jobFinished, taskUdate",
    "JobClusterNotification": "jobClusterSnapshot, snapshotEnd, jobClusterDefinitionUpdate, "
    "jobClusterRemoved, jobAdded, jobFinished",
    "RetryPolicy": "immediate, delayed, exponentialBackOff",
}

METHODS: Final = (
    "CreateJobCluster(JobClusterDescriptor) -> JobClusterId",
    "UpdateJobCluster(JobCluster) -> Empty",
    "RemoveJobCluster(JobClusterId) -> Empty",
    "FindJobClusters(JobClusterQuery) -> JobClusterQueryResult",
    "FindJobCluster(JobClusterId) -> JobCluster",
    "UpdateJobClusterStatus(JobClusterStatusUpdate) -> Empty",
    "ObserveJobCluster(JobClusterId) -> stream JobClusterNotification",
    "ObserveJobClusters(Empty) -> stream JobClusterNotification",
    "CreateJob(JobDescriptor) -> JobId",
    "UpdateJobInstances(JobInstancesUpdate) -> Empty",
    "UpdateJobStatus(JobStatusUpdate) -> Empty",
    "FindJobs(JobQuery) -> JobQueryResult",
    "FindJob(JobId) -> Job",
    "ObserveJob(JobId) -> stream JobChangeNotification",
    "ObserveJobs(Empty) -> stream JobChangeNotification",
    "KillJob(JobId) -> Empty",
    "KillJobs(JobIds) -> Empty",
    "FindTask(TaskId) -> Task",
    "FindTasks(TaskQuery) -> TaskQueryResult",
    "KillTask(TaskId) -> Empty",
    "KillTasks(TaskIds) -> Empty",
)

V1_MESSAGES: Final = {
    "TailTaskRequest": "task_id string, offset uint64",
    "TailTaskItem": "output Output, gap Gap, end End",
    "Output": "offset uint64, source Source, data bytes",
    "Gap": "start uint64, end uint64",
    "ObserveJobRequest": "job_id string, resume string",
    "ObserveJobsRequest": "resume string",
    "JobEvent": "position string, beginning Beginning, notification JobChangeNotification",
    "Beginning": "resumed bool, why_not string",
    "ComingTimesRequest": "cluster_id string, count uint32",
    "ComingTimesReply": "times string*, time_zone string",
    "FindFiringsRequest": "cluster_id string, page Page",
    "FindFiringsReply": "items Firing*, pagination Pagination",
    "Firing": "at string, until string, count uint32, outcome Firing.Outcome, why string, job_id string, "
    "decided_at string",
    "PartialFailure": "failures PartialFailure.Failure*, done string*",
    "PartialFailure.Failure": "id string, code int32, message string",
    "End": "offset uint64, exited bool, exit_code int32, signal int32, reason_code string, reason string",
}

_SCALARS: Final = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in ("string", "bytes", "bool", "int32", "uint32", "uint64")
}


def _messages(file: FileDescriptor) -> Iterator[Descriptor]:
    todo = list(file.message_types_by_name.values())
    while todo:
        message = todo.pop()
        if not message.GetOptions().map_entry:
            yield message
            todo.extend(message.nested_types)


def _short(full_name: str, file: FileDescriptor) -> str:
    return full_name.removeprefix(f"{file.package}.")


def _written(field: FieldDescriptor) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        assert _type_of(key) == "string", f"{field.full_name} is keyed by something else than strings"
        return f"{field.name} map<{_type_of(value)}>"
    return f"{field.name} {_type_of(field)}" + ("*" if field.is_repeated else "")


def _type_of(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    return _short(named.full_name, named.file) if named else _SCALARS[field.type]


def _table(file: FileDescriptor) -> dict[str, str]:
    """The same table, written from the descriptors, fields in the order of their numbers."""
    return {
        _short(message.full_name, file): ", ".join(
            _written(field) for field in sorted(message.fields, key=lambda field: field.number)
        )
        for message in _messages(file)
    }


@pytest.mark.parametrize(
    ("file", "package", "messages"),
    [(pb.DESCRIPTOR, "netflix.titus", MESSAGES), (v1.DESCRIPTOR, "titus_celery.v1", V1_MESSAGES)],
    ids=["job-api", "v1"],
)
def test_messages_have_these_fields_of_these_types_and_no_others(
    file: FileDescriptor, package: str, messages: dict[str, str]
) -> None:
    assert file.package == package
    assert _table(file) == messages


@pytest.mark.parametrize("file", [pb.DESCRIPTOR, v1.DESCRIPTOR], ids=["job-api", "v1"])
def test_fields_are_numbered_from_one_without_holes(file: FileDescriptor) -> None:
    for message in _messages(file):
        numbers = sorted(field.number for field in message.fields)
        assert numbers == list(range(1, len(numbers) + 1)), message.full_name


def test_the_two_extensions_come_after_the_fields_of_the_contract() -> None:
    assert pb.JobDescriptor.DESCRIPTOR.fields_by_name["jobClusterId"].number == 9
    assert pb.JobInstancesUpdate.DESCRIPTOR.fields_by_name["stageIndex"].number == 3


def test_enums_have_these_values_and_there_are_no_other_enums() -> None:
    enums = {
        **pb.DESCRIPTOR.enum_types_by_name,
        **{
            _short(enum.full_name, pb.DESCRIPTOR): enum
            for message in _messages(pb.DESCRIPTOR)
            for enum in message.enum_types
        },
    }
    found = {name: {value.name: value.number for value in enum.values} for name, enum in enums.items()}
    assert found == ENUMS


def test_states_of_the_core_have_the_numbers_of_the_wire() -> None:
    assert {state.name: state.value for state in State} == ENUMS["State"]


def test_exactly_the_fields_that_exclude_each_other_share_a_oneof() -> None:
    found = {
        _short(message.full_name, pb.DESCRIPTOR): ", ".join(field.name for field in choice.fields)
        for message in _messages(pb.DESCRIPTOR)
        for choice in message.oneofs
    }
    assert found == CHOICES


def test_the_service_has_these_21_methods() -> None:
    service = pb.DESCRIPTOR.services_by_name["JobManagementService"]
    assert service.full_name == "netflix.titus.JobManagementService"
    found = []
    for method in service.methods:
        assert not method.client_streaming
        stream = "stream " if method.server_streaming else ""
        found.append(f"{method.name}({method.input_type.name}) -> {stream}{method.output_type.name}")
    assert tuple(found) == METHODS
    assert {m.input_type.full_name for m in service.methods if m.input_type.name == "Empty"} == {
        "google.protobuf.Empty"
    }


def test_output_is_a_stream_of_a_package_of_our_own() -> None:
    (method,) = v1.DESCRIPTOR.services_by_name["TaskOutputService"].methods
    assert (method.name, method.input_type.name, method.output_type.name) == (
        "TailTask",
        "TailTaskRequest",
        "TailTaskItem",
    )
    assert method.server_streaming and not method.client_streaming
    assert {value.name: value.number for value in v1.DESCRIPTOR.enum_types_by_name["Source"].values} == {
        "SOURCE_UNSPECIFIED": 0,
        "STDOUT": 1,
        "STDERR": 2,
    }
    assert [field.name for field in v1.TailTaskItem.DESCRIPTOR.oneofs_by_name["item"].fields] == [
        "output",
        "gap",
        "end",
    ]


def test_observing_with_places_has_streams_of_the_same_names() -> None:
    service = v1.DESCRIPTOR.services_by_name["ObservationService"]
    assert [
        (method.name, method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    ] == [
        ("ObserveJob", "ObserveJobRequest", "JobEvent", True),
        ("ObserveJobs", "ObserveJobsRequest", "JobEvent", True),
    ]
    assert [field.name for field in v1.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields] == [
        "beginning",
        "notification",
    ]


def test_schedules_of_clusters_are_asked_for_in_a_package_of_our_own() -> None:
    service = v1.DESCRIPTOR.services_by_name["ClusterService"]
    assert [
        (method.name, method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    ] == [
        ("ComingTimes", "ComingTimesRequest", "ComingTimesReply", False),
        ("FindFirings", "FindFiringsRequest", "FindFiringsReply", False),
    ]
    outcomes = v1.Firing.DESCRIPTOR.enum_types_by_name["Outcome"]
    assert {value.name: value.number for value in outcomes.values} == {
        "OUTCOME_UNSPECIFIED": 0,
        "FIRED": 1,
        "SKIPPED": 2,
        "MISSED": 3,
    }


@pytest.mark.parametrize("file", [pb.DESCRIPTOR, v1.DESCRIPTOR], ids=["job-api", "v1"])
def test_generated_code_is_that_of_the_proto_file(file: FileDescriptor, tmp_path: Path) -> None:
    """If it is not, `make proto` was forgotten."""
    compiled = tmp_path / "set"
    roots = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    assert protoc.main(["protoc", *roots, f"--descriptor_set_out={compiled}", file.name]) == 0
    (fresh,) = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
    assert _without_json_names(fresh) == _without_json_names(generated)


def _without_json_names(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """protoc adds to descriptor sets what generated code leaves out because it is derived."""
    todo = list(file.message_type)
    while todo:
        message = todo.pop()
        todo.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    return file


# ------------------------------------------------------------------------------- docs/fields.md


def _documented() -> list[tuple[str, list[str]]]:
    """Every row of docs/fields.md that is about code: the name in its first cell, its other cells."""
    rows = []
    for line in (ROOT / "docs" / "fields.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| `([\w.]+)` \|(.*)\|$", line):
            rows.append((found[1], [cell.strip() for cell in found[2].split("|")]))
    return rows


def _documentable() -> set[str]:
    """What must have a row: the fields of both files and the methods of their services."""
    both = (pb.DESCRIPTOR, v1.DESCRIPTOR)
    fields = {
        f"{_short(message.full_name, file)}.{field.name}"
        for file in both
        for message in _messages(file)
        for field in message.fields
    }
    methods = {m.name for file in both for service in file.services_by_name.values() for m in service.methods}
    return fields | methods


def test_every_field_and_method_has_its_row_in_docs_fields_and_no_row_is_stale() -> None:
    names = [name for name, _ in _documented()]
    assert sorted(names) == sorted(_documentable())


def test_every_row_of_docs_fields_says_what_it_means_and_what_is_done() -> None:
    for name, cells in _documented():
        assert len(cells) == 2, f"{name} has {len(cells)} cells beside its name"
        assert all(cells), f"{name} has an empty cell"
