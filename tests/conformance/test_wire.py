"""The wire as a client finds it: it asks the server for its descriptors (docs/semantics.md A1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.conformance.installation import Hand, Loop, Titus, serving
from tests.contracts.stores import MemoryBench
from tests.test_wire import CHOICES, ENUMS, MESSAGES, METHODS, _messages, _short, _table
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


@pytest.fixture(scope="module")
def served(loop: Loop) -> Iterator[FileDescriptor]:
    """What the server says of the API. It does not depend on the store."""
    hand: Hand = MemoryBench()
    with serving(hand, loop) as titus:
        database = ProtoReflectionDescriptorDatabase(titus.channel)
        pool = DescriptorPool(database)
        yield pool.FindServiceByName("netflix.titus.JobManagementService").file


def test_the_service_has_its_21_methods(served: FileDescriptor) -> None:
    found = []
    for method in served.services_by_name["JobManagementService"].methods:
        stream = "stream " if method.server_streaming else ""
        found.append(f"{method.name}({method.input_type.name}) -> {stream}{method.output_type.name}")
    assert tuple(found) == METHODS


def test_messages_have_these_fields_in_this_order_numbered_from_one(served: FileDescriptor) -> None:
    assert _table(served) == MESSAGES
    for message in _messages(served):
        assert sorted(field.number for field in message.fields) == list(range(1, len(message.fields) + 1))


def test_misspelt_names_are_as_they_are_known(served: FileDescriptor) -> None:
    names = {field.name for message in _messages(served) for field in message.fields}
    assert {"fiterlingCriteria", "taskUdate", "scalingPolices"} <= names
    assert not {"filteringCriteria", "taskUpdate", "scalingPolicies"} & names


def test_enums_have_their_numbers(served: FileDescriptor) -> None:
    enums = dict(served.enum_types_by_name)
    for message in _messages(served):
        enums |= {_short(enum.full_name, served): enum for enum in message.enum_types}
    assert {
        name: {value.name: value.number for value in enum.values} for name, enum in enums.items()
    } == ENUMS


def test_what_excludes_each_other_does(served: FileDescriptor) -> None:
    found = {
        _short(message.full_name, served): ", ".join(field.name for field in choice.fields)
        for message in _messages(served)
        for choice in message.oneofs
    }
    assert found == CHOICES


def test_our_two_fields_have_the_next_free_numbers(served: FileDescriptor) -> None:
    def number(message: str, field: str) -> int:
        return int(served.message_types_by_name[message].fields_by_name[field].number)

    assert number("JobDescriptor", "jobClusterId") == 9
    assert number("JobInstancesUpdate", "stageIndex") == 3


def test_a_method_is_called_by_its_full_name(titus: Titus) -> None:
    """By whatever client, in bytes."""
    id = titus.create()
    find: Any = titus.channel.unary_unary("/netflix.titus.JobManagementService/FindJob")
    assert pb.Job.FromString(find(pb.JobId(id=id).SerializeToString())).id == id


def test_what_is_ours_alone_is_in_a_package_of_our_own(titus: Titus) -> None:
    services = ProtoReflectionDescriptorDatabase(titus.channel).get_services()
    named = {name for name in services if not name.startswith("grpc.")}
    assert named == {
        "netflix.titus.JobManagementService",
        "titus_celery.v1.ClusterService",
        "titus_celery.v1.ObservationService",
        "titus_celery.v1.TaskOutputService",
    }
