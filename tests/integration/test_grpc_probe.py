"""Probes of real health servers on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from trunkline.core.model import Endpoint
from trunkline.server.registry.grpc_probe import GrpcProbe
from trunkline.server.registry.probe_config import ProberConfig

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def serve(*, with_health: bool = True, port: int = 0) -> tuple[grpc.aio.Server, int, health.aio.HealthServicer]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    if with_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port, servicer


@pytest.fixture
async def probe() -> AsyncIterator[GrpcProbe]:
    made = GrpcProbe(ProberConfig())
    yield made
    await made.close()


async def test_what_an_instance_says_of_itself(probe: GrpcProbe) -> None:
    server, port, servicer = await serve()
    endpoint = Endpoint("127.0.0.1", port)
    assert await probe.check(endpoint, "", timeout_ms=5_000) is None
    await servicer.set("orders.Orders", NOT_SERVING)
    assert await probe.check(endpoint, "orders.Orders", timeout_ms=5_000) == "answered NOT_SERVING"
    await servicer.set("orders.Orders", SERVING)
    assert await probe.check(endpoint, "orders.Orders", timeout_ms=5_000) is None
    assert await probe.check(endpoint, "else", timeout_ms=5_000) == "does not know the service asked for"
    assert len(probe._channels) == 1, "one connection for all of them"
    await server.stop(None)


async def test_a_server_without_health(probe: GrpcProbe) -> None:
    server, port, _ = await serve(with_health=False)
    assert await probe.check(Endpoint("127.0.0.1", port), "", timeout_ms=5_000) == "does not implement grpc.health.v1"
    await server.stop(None)


async def test_nobody_there_and_back_again(probe: GrpcProbe) -> None:
    server, port, _ = await serve()
    endpoint = Endpoint("127.0.0.1", port)
    assert await probe.check(endpoint, "", timeout_ms=5_000) is None
    await server.stop(None)
    failure = await probe.check(endpoint, "", timeout_ms=5_000)
    assert failure is not None
    assert failure.startswith("UNAVAILABLE")
    server, _, _ = await serve(port=port)
    for _ in range(100):
        if await probe.check(endpoint, "", timeout_ms=1_000) is None:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("a recovered instance was not found within 5 s")
    await server.stop(None)


async def test_one_that_accepts_and_says_nothing(probe: GrpcProbe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await probe.check(Endpoint("127.0.0.1", silent.getsockname()[1]), "", timeout_ms=100) == (
            "no answer in time"
        )


async def test_addresses_are_checked_after_names_are_resolved(
    probe: GrpcProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = await probe.check(Endpoint("169.254.169.254", 80), "", timeout_ms=1_000)
    assert refusal == "169.254.169.254 is never probed (169.254.0.0/16)"
    monkeypatch.setattr(
        asyncio.get_running_loop(),
        "getaddrinfo",
        lambda *_, **__: asyncio.sleep(0, [(2, 1, 6, "", ("169.254.1.1", 80))]),
    )
    assert "169.254.1.1 is never probed" in str(await probe.check(Endpoint("innocent.example", 80), "", timeout_ms=99))


async def test_connections_are_bounded() -> None:
    probe = GrpcProbe(ProberConfig(channels_max=2, concurrent_max=1))
    servers = [await serve() for _ in range(3)]
    for _, port, _ in servers:
        assert await probe.check(Endpoint("127.0.0.1", port), "", timeout_ms=5_000) is None
    assert list(probe._channels) == [f"ipv4:127.0.0.1:{port}" for _, port, _ in servers[1:]]
    await probe.close()
    for server, _, _ in servers:
        await server.stop(None)
