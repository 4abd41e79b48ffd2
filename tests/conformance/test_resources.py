"""What a container may ask for, in which words, and what becomes of it (docs/semantics.md A4, B2, B8.1)."""

from __future__ import annotations

import pytest

from tests.conformance.installation import Titus, container
from titus_celery.core.engine import ContainerOrder
from titus_celery.core.lifecycle import task_id
from titus_celery.grpc.proto import titus_job_api_pb2 as pb


def asking(**resources: str) -> pb.JobDescriptor:
    """A job whose container asks for this."""
    return container(resources=resources)


def shown(titus: Titus, **resources: str) -> dict[str, str]:
    """What a job that asks for this is shown to have."""
    job = titus.job(titus.create(asking(**resources)))
    return dict(job.jobDescriptor.containers["main"].resources)


def ordered(titus: Titus, **resources: str) -> ContainerOrder:
    """What the engine is asked for when such a task runs."""
    host = titus.host()
    titus.run(asking(**resources))
    return host.engine.orders[-1]


def test_who_asks_for_nothing_gets_a_tenth_of_a_core_and_128_mb(titus: Titus) -> None:
    assert shown(titus) == {"cpu": "0.1", "memory": "128MB"}
    demand = ordered(titus).demand
    assert (demand.cpu_millis, demand.memory_bytes) == (100, 128_000_000)
    # Of these nothing means no limit, or none.
    assert (demand.disk_bytes, demand.network_mbps, demand.gpus, demand.ports) == (0, 0, 0, ())


def test_no_amount_is_moved_into_its_bounds(titus: Titus) -> None:
    asked = {"cpu": "0.01", "memory": "6MiB", "disk": "1", "network": "1"}
    assert shown(titus, **asked) == asked


@pytest.mark.parametrize(
    ("kind", "most", "too_much"),
    [
        ("cpu", "96", "96.001"),
        ("memory", "244000MB", "244001MB"),
        ("disk", "640000MB", "640001MB"),
        ("network", "6000Mbps", "6001Mbps"),
        ("gpu", "16", "17"),
    ],
)
def test_more_than_the_cap_is_refused_by_the_name_of_its_kind(
    titus: Titus, kind: str, most: str, too_much: str
) -> None:
    assert shown(titus, **{kind: most})[kind] == most
    titus.wrong(asking(**{kind: too_much}), f"containers[main].resources[{kind}]", "the most is")


def test_less_than_can_be_granted_is_refused(titus: Titus) -> None:
    titus.wrong(asking(cpu="0.009"), "containers[main].resources[cpu]", "the least is")
    titus.wrong(asking(memory="5MiB"), "containers[main].resources[memory]", "the least is")


#: What no kind can be read as: also what numbers look like elsewhere.
NO_AMOUNTS = (
    "x",
    "1e3",
    "-1",
    "+1",
    "NaN",
    "Infinity",
    "0x10",
    "1,5",
    "\u0661",
    "1.",
    ".5",
    "9" * 40,
    "1 000",
)


@pytest.mark.parametrize("kind", ["cpu", "memory", "disk", "network", "gpu"])
def test_what_cannot_be_read_is_refused_by_the_name_of_its_kind(titus: Titus, kind: str) -> None:
    for text in NO_AMOUNTS:
        titus.wrong(asking(**{kind: text}), f"containers[main].resources[{kind}]")


def test_each_kind_that_is_wrong_is_named(titus: Titus) -> None:
    bad = asking(cpu="97", memory="1TB", disk="x", network="7Gbps", gpu="1.5")
    titus.wrong(bad, *(f"resources[{kind}]" for kind in ("cpu", "memory", "disk", "network", "gpu")))


@pytest.mark.parametrize(
    ("text", "bytes"),
    [
        ("7", 7_000_000),
        ("7M", 7_000_000),
        ("7MB", 7_000_000),
        ("7Mb", 7_000_000),
        ("7 mb", 7_000_000),
        ("7000000b", 7_000_000),
        ("7000K", 7_000_000),
        ("7MiB", 7 * 2**20),
        ("7Mi", 7 * 2**20),
        ("3Gb", 3_000_000_000),
        ("0.5GiB", 2**29),
        ("0.001TB", 1_000_000_000),
    ],
)
def test_memory_and_disk_have_units_in_any_case(titus: Titus, text: str, bytes: int) -> None:
    demand = ordered(titus, memory=text, disk=text).demand
    assert (demand.memory_bytes, demand.disk_bytes) == (bytes, bytes)


@pytest.mark.parametrize(("text", "mbps"), [("128", 128), ("128Mbps", 128), ("2 gbps", 2_000), ("1Kbps", 1)])
def test_network_is_megabits_unless_it_says_otherwise(titus: Titus, text: str, mbps: int) -> None:
    host = titus.host()
    id = titus.create(asking(network=text))
    titus.inside.sweep()
    (order,) = titus.inside.orders()
    assert order.dispatch.demand.network_mbps == mbps
    assert titus.task(f"{id}-0-1").taskContext["agent.host"] == host.id


def test_cpu_may_be_a_part_of_a_core_and_has_no_unit(titus: Titus) -> None:
    assert ordered(titus, cpu="0.25").demand.cpu_millis == 250
    titus.wrong(asking(cpu="1MB"), "resources[cpu]")


def test_what_is_asked_for_is_reserved_where_the_task_runs(titus: Titus) -> None:
    titus.host(cores=1)
    first = titus.create(asking(cpu="0.6"))
    titus.wait(1)
    second = titus.create(asking(cpu="0.6"))
    titus.carry()
    assert titus.task(f"{first}-0-1").state.state == pb.RUNNING
    waiting = titus.task(f"{second}-0-1").state
    assert waiting.state == pb.QUEUED
    assert waiting.reason == "waiting: 1 agent serves queue default: 1 lacks cpu (needs 0.6 cores)"


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [({"disk": "2GB"}, "lacks disk"), ({"network": "200"}, "lacks network"), ({"gpu": "2"}, "lacks GPUs")],
)
def test_disk_network_and_gpus_are_reserved_too(titus: Titus, asked: dict[str, str], lacks: str) -> None:
    titus.host(room={"disk_bytes": 1_000_000_000, "network_mbps": 100, "gpus": ("GPU-1",)})
    id = titus.create(asking(**asked))
    titus.inside.sweep()
    assert lacks in titus.task(f"{id}-0-1").state.reason


def test_a_gpu_is_one_tasks_at_a_time_and_told_to_the_engine_by_name(titus: Titus) -> None:
    host = titus.host(room={"gpus": ("GPU-1", "GPU-2")})
    for _ in range(2):
        titus.run(asking(gpu="1"))
    assert sorted(order.gpus for order in host.engine.orders) == [("GPU-1",), ("GPU-2",)]


def test_a_container_that_writes_more_than_its_disk_is_ended_and_says_why(titus: Titus) -> None:
    host = titus.host()
    id, (run,) = titus.run(asking(disk="10MB"))
    one = task_id(id, 0, 1)
    host.engine.disks[one] = 10_000_000
    host.runs.check_disks()
    assert titus.task(one).state.state == pb.RUNNING
    host.engine.disks[one] = 11_000_000
    host.runs.check_disks()
    run.end()
    ended = titus.task(one).state
    assert ended.state == pb.FAILED
    assert ended.reason == "failed: wrote 11 MB to its disk; its limit is 10 MB"


def test_ports_are_published_and_told(titus: Titus) -> None:
    titus.host()
    id, _ = titus.run(asking(ports="8080, 9090"))
    context = titus.task(f"{id}-0-1").taskContext
    assert context["task.ports"] == "8080=host-1:38080;9090=host-1:39090"


@pytest.mark.parametrize("ports", ["0", "65536", "x", "80,80", "-1", ",".join(map(str, range(1, 34)))])
def test_ports_that_cannot_be_are_refused(titus: Titus, ports: str) -> None:
    titus.wrong(asking(ports=ports), "containers[main].resources[ports]")


def test_an_address_of_ones_own_may_be_asked_for(titus: Titus) -> None:
    for text in ("true", "false", "TRUE"):
        assert shown(titus, allocateIP=text)["allocateIP"] == text
    titus.wrong(asking(allocateIP="maybe"), "containers[main].resources[allocateIP]")


def test_network_interfaces_of_a_cloud_are_refused(titus: Titus) -> None:
    titus.wrong(asking(eni="1"), "containers[main].resources[eni]")


def test_kinds_that_are_not_known_are_kept_and_become_labels_of_the_container(titus: Titus) -> None:
    assert shown(titus, colour="red")["colour"] == "red"
    assert ordered(titus, colour="red").labels["titus.resource.colour"] == "red"
