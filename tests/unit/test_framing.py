"""Messages put together from parts are what protobuf itself would have read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titus_celery.grpc.framing import field, part
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

#: Around the lengths at which their own length takes a byte more.
LENGTHS = [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_152]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_field_of_any_length_is_read_as_it_was(length: int) -> None:
    task = pb.Task(id="x" * length)
    framed = field(part(pb.Job, "tasks"), task.SerializeToString())
    assert pb.Job.FromString(framed) == pb.Job(tasks=[task])
    assert (
        v1.JobEvent.FromString(field(part(v1.JobEvent, "position"), b"p" * length)).position == "p" * length
    )


def test_fields_with_large_numbers_have_longer_tags() -> None:
    """The wire has no such field here; its own numbers are what `part` is made from."""
    for message in (pb.Job, pb.JobQueryResult, pb.JobChangeNotification, v1.JobEvent):
        for each in message.DESCRIPTOR.fields:
            if each.type == each.TYPE_MESSAGE:
                assert message.FromString(field(part(message, each.name), b"")).ByteSize() > 0


@given(st.lists(st.builds(pb.Task, id=st.text(max_size=200)), max_size=5), st.text(max_size=5))
def test_parts_make_a_whole_in_any_order(tasks: list[pb.Task], id: str) -> None:
    framed = [field(part(pb.Job, "tasks"), each.SerializeToString()) for each in tasks]
    job = pb.Job(id=id, tasks=tasks)
    assert pb.Job.FromString(b"".join([*framed, pb.Job(id=id).SerializeToString()])) == job


@pytest.mark.parametrize("name", ["offset", "signal"])
def test_what_has_no_length_is_no_part(name: str) -> None:
    with pytest.raises(ValueError, match=f"End.{name} holds neither"):
        part(v1.End, name)
