"""The server around the methods: health, reflection, ports, stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.grpc_api.world import PATIENCE, Store, World
from titus_celery.errors import SettingsError
from titus_celery.grpc.proto import titus_job_api_pb2 as pb
from titus_celery.grpc.proto.titus_job_api_pb2_grpc import JobManagementServiceStub
from titus_celery.grpc.server import SERVICES, GatewayServices, build_server, serve, stop_on_signals
from titus_celery.settings import Settings

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def services() -> GatewayServices:
    return Store().services()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_says_serving(titus: World, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(titus.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING


async def test_health_says_not_serving_while_it_drains(titus: World) -> None:
    watch = health_pb2_grpc.HealthStub(titus.channel).Watch(
        health_pb2.HealthCheckRequest(service=SERVICES[0])
    )
    assert (await watch.read()).status == SERVING
    stopping = asyncio.create_task(titus.gateway.stop())
    async with asyncio.timeout(PATIENCE):
        assert (await watch.read()).status == NOT_SERVING
    watch.cancel()
    await stopping


async def test_what_is_given_beside_is_served_as_it_is() -> None:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    beside = grpc.method_handlers_generic_handler("other.Service", handlers)
    gateway = build_server(services(), "127.0.0.1:0", beside=[beside])
    await gateway.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call: Any = channel.unary_unary("/other.Service/Echo")
        assert await call(b"any bytes", timeout=PATIENCE) == b"any bytes"
    await gateway.stop()


async def test_reflection_lists_the_services(titus: World) -> None:
    def names() -> set[str]:
        with grpc.insecure_channel(titus.address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert await asyncio.to_thread(names) >= {*SERVICES, "grpc.health.v1.Health"}


async def test_a_second_gateway_on_one_port_fails_and_says_why(titus: World) -> None:
    with pytest.raises(SettingsError) as refused:
        build_server(services(), titus.address)
    assert (
        str(refused.value)
        == f"setting TITUS_LISTEN: cannot listen on {titus.address}: Address already in use"
    )


@pytest.mark.parametrize("listen", ["", "7104", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
async def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(SettingsError, match="is not host:port"):
        build_server(services(), listen)


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot listen on"):
        build_server(services(), "192.0.2.1:7104")


async def test_listening_beyond_this_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(SettingsError):
        build_server(services(), "192.0.2.1:7104")
    assert "can be reached from other machines" in caplog.text


async def test_a_signal_ends_serving() -> None:
    port = free_port()
    stop = stop_on_signals()
    serving = asyncio.create_task(serve(Settings(listen=f"127.0.0.1:{port}"), services(), stop))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        jobs = JobManagementServiceStub(channel)
        await jobs.FindJobs(pb.JobQuery(), wait_for_ready=True, timeout=PATIENCE)
        observer = jobs.ObserveJobs(Empty())
        await observer.read()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await serving
        assert await observer.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_port_is_free_again_after_a_stop(titus: World) -> None:
    await titus.gateway.stop()
    again = build_server(services(), titus.address)
    await again.start()
    await again.stop()
