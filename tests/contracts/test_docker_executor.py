"""What only a real Docker Engine can show of its executor; the rest is in test_executor.py."""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contracts.docker_engine import DockerBench, DockerImages, made_images
from tests.contracts.executors import CONTENT, ENDLESS, MIB, order, run, started, text
from titus_celery.adapters.docker_executor import DockerExecutor
from titus_celery.core.descriptor import Demand
from titus_celery.core.engine import (
    Phase,
)
from titus_celery.core.model import (
    Exit,
)
from titus_celery.core.parameters import Volume
from titus_celery.errors import EngineFault, StartRefused


@pytest.fixture(scope="module")
def images() -> Iterator[DockerImages]:
    yield from made_images()


@pytest.fixture
def docker_bench(images: DockerImages) -> Iterator[DockerBench]:
    made = DockerBench(f"contract-{secrets.token_hex(4)}", images)
    yield made
    made.close()


def test_no_engine_at_all_is_a_fault_that_says_what_to_do() -> None:
    with pytest.raises(EngineFault) as fault:
        DockerExecutor("tcp://127.0.0.1:1")
    assert "DOCKER_HOST" in str(fault.value)
    assert "Connection refused" in fault.value.why


def test_the_limits_and_the_surroundings_are_really_set(docker_bench: DockerBench) -> None:
    wanted = order(
        docker_bench,
        ENDLESS,
        demand=Demand(cpu_millis=500, memory_bytes=32 * MIB),
        labels={"titus.job_id": "a lie", "team": "blue"},
    )
    docker_bench.executor.create(wanted)
    found = docker_bench.inspect(wanted.task_id)
    host, config = found["HostConfig"], found["Config"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == host["MemorySwap"] == 32 * MIB
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert (host["Privileged"], host["AutoRemove"]) == (False, False)
    assert (config["Tty"], config["OpenStdin"], config["AttachStdin"]) == (False, False, False)
    assert config["Labels"] == {
        "team": "blue",
        "titus.installation": docker_bench.installation,
        "titus.job_id": "job-1",
        "titus.task_id": wanted.task_id,
        "titus.agent_id": "agent-1",
        "titus.dispatch": "4",
    }


def test_a_port_is_published_where_nobody_from_outside_can_reach_it(docker_bench: DockerBench) -> None:
    serve = ("sh", "-c", "while :; do echo hello | nc -l -p 8080; done")
    demand = Demand(cpu_millis=250, memory_bytes=64 * MIB, ports=(8080, 9090))
    wanted = order(docker_bench, serve, demand=demand)
    docker_bench.executor.create(wanted)
    address = docker_bench.executor.start(wanted.task_id).address
    assert [port.inside for port in address.ports] == [8080, 9090]
    outside = address.ports[0].outside
    assert said_at(outside) == b"hello\n"
    bindings = docker_bench.inspect(wanted.task_id)["NetworkSettings"]["Ports"]["8080/tcp"]
    assert bindings == [{"HostIp": "127.0.0.1", "HostPort": str(outside)}]
    seen = docker_bench.executor.look(wanted.task_id)
    assert seen is not None
    assert seen.address == address


def said_at(port: int) -> bytes:
    """What a program in a container says on its port, once it listens."""
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
            if said := line.recv(100):
                return said
    raise AssertionError(f"nothing at port {port}")


def test_volumes_are_there_and_read_only_ones_cannot_be_written(
    docker_bench: DockerBench, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("from the host")
    name = f"contract-{secrets.token_hex(4)}"
    volumes = (
        Volume(source=str(tmp_path), target="/in", read_only=True),
        Volume(source=name, target="/out"),
    )
    script = "cat /in/file; touch /out/x && echo ' written'; touch /in/x 2>&1 || echo refused"
    wanted = replace(order(docker_bench, ("sh", "-c", script)), volumes=volumes)
    try:
        assert text(run(docker_bench, wanted)[1]) == (
            b"from the host written\ntouch: /in/x: Read-only file system\nrefused\n"
        )
    finally:
        docker_bench.executor.remove(wanted.task_id)
        docker_bench.client.remove_volume(name)


def test_a_directory_that_is_not_there_is_not_made_but_refused(docker_bench: DockerBench) -> None:
    missing = Volume(source="/nowhere/at/all", target="/in")
    with pytest.raises(StartRefused, match="does not exist"):
        docker_bench.executor.create(replace(order(docker_bench, ("true",)), volumes=(missing,)))


def test_gpus_are_asked_for_by_their_ids(docker_bench: DockerBench) -> None:
    """No engine here has one; what it would be asked for can be seen all the same."""
    docker_bench.executor.create(wanted := replace(order(docker_bench, ("true",)), gpus=("GPU-1", "GPU-3")))
    (asked,) = docker_bench.inspect(wanted.task_id)["HostConfig"]["DeviceRequests"]
    assert (asked["DeviceIDs"], asked["Capabilities"]) == (["GPU-1", "GPU-3"], [["gpu"]])
    with pytest.raises(EngineFault, match="device driver"):
        docker_bench.executor.start(wanted.task_id)


def test_what_a_container_wrote_is_measured(docker_bench: DockerBench) -> None:
    script = "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null; sleep 600"
    wanted = order(docker_bench, ("sh", "-c", script))
    docker_bench.executor.create(wanted)
    assert docker_bench.executor.disk_used(wanted.task_id) < MIB
    docker_bench.executor.start(wanted.task_id)
    while docker_bench.executor.disk_used(wanted.task_id) < 3 * MIB:
        pass
    docker_bench.executor.remove(wanted.task_id)
    assert docker_bench.executor.disk_used(wanted.task_id) == 0


def test_the_size_of_the_engines_disk_is_known_where_it_is_ours(docker_bench: DockerBench) -> None:
    root = docker_bench.client.info()["DockerRootDir"]
    assert docker_bench.executor.facts().capacity.disk_bytes == shutil.disk_usage(root).total


def test_the_environment_is_the_order_s_and_the_image_s(docker_bench: DockerBench) -> None:
    chunks = run(docker_bench, order(docker_bench, ("env",), env={"A": "x=y z", "EMPTY": ""}))[1]
    lines = dict(line.split("=", 1) for line in text(chunks).decode().splitlines())
    assert lines.pop("PATH")
    assert lines.pop("HOSTNAME")
    assert lines == {"A": "x=y z", "EMPTY": "", "FROM": "image", "HOME": "/"}


def test_a_demand_smaller_than_the_kernel_can_limit_still_runs(docker_bench: DockerBench) -> None:
    tiny = Demand(cpu_millis=1, memory_bytes=64 * MIB)
    assert run(docker_bench, order(docker_bench, ("true",), demand=tiny))[0] == Exit(code=0)


def test_less_memory_than_the_engine_allows_is_refused_at_once(docker_bench: DockerBench) -> None:
    with pytest.raises(StartRefused) as refused:
        docker_bench.executor.create(
            order(docker_bench, ("true",), demand=Demand(cpu_millis=100, memory_bytes=MIB))
        )
    assert refused.value.exit_code == 125


def test_the_last_words_before_the_end_are_not_lost(docker_bench: DockerBench) -> None:
    """What an engine's own `follow` forgets in most of such runs (Docker 20.10)."""
    short = (("sh", "-c", "sleep 0.2; printf 'the last words'"), b"the last words")
    # Long enough for the end to be read from the second before it, not from the beginning.
    long = (("sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.8; done; printf end"), b"1\n2\n3\n4\nend")

    def read(case: tuple[tuple[str, ...], bytes]) -> bool:
        return text(run(docker_bench, order(docker_bench, case[0]))[1]) == case[1]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(read, [short] * 9 + [long] * 3)) == [True] * 12


def test_a_fast_writer_is_read_whole_in_few_chunks(docker_bench: DockerBench) -> None:
    wanted = order(
        docker_bench, ("seq", "1", "200000"), demand=Demand(cpu_millis=2_000, memory_bytes=64 * MIB)
    )
    end, chunks = run(docker_bench, wanted)
    assert end == Exit(code=0)
    assert text(chunks) == b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert len(chunks) < 20_000


def test_an_engine_that_is_about_to_stop_gets_nothing_to_start(docker_bench: DockerBench) -> None:
    """It would: it serves the connections it has. What it starts then it ends when it comes back."""
    executor, first, second = docker_bench.frail(), order(docker_bench, ENDLESS), order(docker_bench, ENDLESS)
    executor.create(first)
    executor.start(first.task_id)
    executor.create(second)
    docker_bench.refuse()
    with pytest.raises(EngineFault):
        executor.start(second.task_id)
    seen = executor.look(second.task_id)
    assert seen is not None
    assert seen.phase is Phase.CREATED


def test_an_end_is_not_believed_of_an_engine_that_is_about_to_stop(docker_bench: DockerBench) -> None:
    """It may have ended the container, and the word of that may still be on its way."""
    executor, wanted = docker_bench.frail(), order(docker_bench, ("sh", "-c", "exit 0"))
    executor.create(wanted)
    executor.start(wanted.task_id)
    docker_bench.executor.wait(wanted.task_id)
    docker_bench.refuse()
    with pytest.raises(EngineFault):
        executor.wait(wanted.task_id)
    assert docker_bench.executor.wait(wanted.task_id) == Exit(code=0)


def test_an_agent_that_was_away_learns_from_the_engine_who_ended_its_container(
    docker_bench: DockerBench,
) -> None:
    task_id = started(docker_bench, CONTENT)
    next(docker_bench.executor.output(task_id, 0))
    docker_bench.interfere(task_id, "TERM")
    docker_bench.executor.wait(task_id)
    end = docker_bench.frail().wait(task_id)
    assert end == Exit(code=0, outside="somebody stopped it on its host (signal 15)")
