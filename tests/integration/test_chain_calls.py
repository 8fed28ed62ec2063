"""Calls through the chain on real sockets: good ones, and every way in which they are refused."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from integration.chain_server import refusal, register_request, running
from integration.waiting import until

from trunkline.api.v1 import discovery_pb2, registry_pb2
from trunkline.core.errors import (
    DeadlineExceeded,
    InstanceNotFound,
    Internal,
    InvalidArgument,
    LimitExceeded,
    NotReady,
    Violation,
)
from trunkline.server.chain.config import ChainConfig
from trunkline.server.security.principal import Role, Via
from trunkline.server.transport.config import TransportConfig

EACH_TRANSPORT = True

BY_LEASE = registry_pb2.RegistrationRef(namespace="shop", lease_id=7)


async def test_a_good_call_is_answered_and_counted() -> None:
    async with running() as server:
        answer = await server.registry_stub.Register(register_request(weight=5))
        assert (answer.lease_id, answer.modified_revision) == (7, 5)
        [principal] = server.registry.principals
        assert (principal.role, principal.via) == (Role.ADMIN, Via.LOOPBACK)
        assert server.counted("Register") == {"OK": 1}


async def test_what_is_wrong_is_named_field_by_field() -> None:
    async with running() as server:
        request = register_request(id="not an id", weight=10_001)
        request.instance.endpoints.add(host="0.0.0.0", port=0)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(request)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        error = refusal(failed.value)
        assert isinstance(error, InvalidArgument)
        assert [violation.field for violation in error.violations] == [
            "instance.id",
            "instance.endpoints[1].host",
            "instance.endpoints[1].port",
            "instance.weight",
        ]
        assert error.violations[3] == Violation("instance.weight", "must be at most 10000", "10001")
        assert not server.registry.principals
        assert server.counted("Register") == {"INVALID_ARGUMENT": 1}


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x03\x0a\x01\xff"])
async def test_malformed_bytes_are_the_callers_fault(data: bytes) -> None:
    async with running() as server:
        call: Any = server.channel.unary_unary("/trunkline.api.v1.RegistryService/Register")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(data)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        error = refusal(failed.value)
        assert isinstance(error, InvalidArgument)
        assert error.violations[0].field == "trunkline.api.v1.RegisterRequest"
        assert (await server.registry_stub.Register(register_request())).lease_id == 7


async def test_a_servicers_error_is_raised_again_at_the_client() -> None:
    async with running() as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Deregister(registry_pb2.DeregisterRequest(registration=BY_LEASE))
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        error = refusal(failed.value)
        assert isinstance(error, InstanceNotFound)
        assert error.fields == {"service": "cart", "instance": "c-1"}
        assert server.counted("Deregister") == {"NOT_FOUND": 1}


async def test_a_fault_of_ours_is_logged_once_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as server:
        request = registry_pb2.SetOverrideRequest(namespace="shop", service="cart", instance_id="c")
        with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.SetOverride(request)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert isinstance(refusal(failed.value), Internal)
        assert "a fault" not in (failed.value.details() or "")
        [record] = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[0] is KeyError


async def test_a_call_without_a_deadline_gets_one() -> None:
    async with running(config=ChainConfig(call_deadline_ms_default=60)) as server:
        await server.registry_stub.Register(register_request())
        await server.registry_stub.Register(register_request(), timeout=20)
        defaulted, given = server.registry.deadlines_ns
        now_ns = server.clock.now_ns()
        assert defaulted is not None
        assert given is not None
        assert defaulted < now_ns + 60_000_000
        assert now_ns + 10_000_000_000 < given < now_ns + 21_000_000_000


async def test_a_default_deadline_ends_the_call() -> None:
    async with running(config=ChainConfig(call_deadline_ms_default=50)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.discovery_stub.Resolve(discovery_pb2.ResolveRequest(namespace="shop", service="slow"))
        assert isinstance(refusal(failed.value), DeadlineExceeded)
        assert server.counted("Resolve") == {"DEADLINE_EXCEEDED": 1}


async def test_a_client_that_gives_up_ends_its_call_at_once() -> None:
    async with running() as server:
        call = server.registry_stub.Drain(registry_pb2.DrainRequest(registration=BY_LEASE))
        await server.registry.draining.wait()
        call.cancel()
        await server.registry.ended.wait()
        await asyncio.sleep(0)
        assert server.counted("Drain") == {"CANCELLED": 1}


async def test_nothing_is_answered_before_the_folds_have_caught_up() -> None:
    async with running(ready=False) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request())
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert isinstance(refusal(failed.value), NotReady)
        server.readiness.open()
        await server.registry_stub.Register(register_request())
        server.readiness.close("stopping")
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await server.registry_stub.Register(register_request())


async def test_calls_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    async with running(config=ChainConfig(calls_in_flight_max=1)) as server:
        drain = registry_pb2.DrainRequest(registration=BY_LEASE)
        first = server.registry_stub.Drain(drain)
        await server.registry.draining.wait()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Drain(drain)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = refusal(failed.value)
        assert isinstance(error, LimitExceeded)
        assert error.fields == {"limit": "in_flight_max of trunkline.api.v1.RegistryService/Drain", "value": "1"}
        assert not first.done()
        first.cancel()


async def test_oversize_requests_are_refused() -> None:
    async with running(transport_config=TransportConfig(receive_message_bytes_max=10_000)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request(id="x" * 20_000))
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await server.registry_stub.Register(register_request())


async def test_a_method_that_the_servicer_lacks_is_unimplemented() -> None:
    async with running() as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.discovery_stub.ListServices(discovery_pb2.ListServicesRequest())
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_raw_methods_pass_bytes() -> None:
    async with running() as server:
        publish: Any = server.channel.unary_unary("/trunkline.api.v1.EventService/Publish")
        assert await publish(b"\xff not a message") == b""
        answer = await server.discovery_stub.Resolve(discovery_pb2.ResolveRequest(namespace="shop", service="cart"))
        assert answer.header.journal_id == "cart "


async def test_very_many_violations_fit_into_the_trailers() -> None:
    async with running() as server:
        request = register_request()
        for _ in range(16):
            request.instance.endpoints.add(host="\u00e9" * 200, port=70_000, protocol="X" * 300)
        request.instance.labels.update({"-" * 200 + str(index): "\u00e9" * 500 for index in range(60)})
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(request)
        error = refusal(failed.value)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(error, InvalidArgument)


async def test_health_needs_no_credentials_and_follows_the_server() -> None:
    async with running(loopback_is_open=False, ready=False) as server:
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        request = health_pb2.HealthCheckRequest()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch = stub.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.standard.set_serving(True, server.chain.services)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        named = health_pb2.HealthCheckRequest(service="trunkline.api.v1.RegistryService")
        assert (await stub.Check(named)).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Check(health_pb2.HealthCheckRequest(service="no.such"))
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        # The servicer ended the call itself, and it is counted when that was sent.
        await until(lambda: server.counted("Check") == {"OK": 2, "NOT_FOUND": 1})


async def test_reflection_lists_every_service() -> None:
    async with running() as server:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert names == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "trunkline.api.v1.DiscoveryService",
            "trunkline.api.v1.EventService",
            "trunkline.api.v1.RegistryService",
        ]


async def test_stream_requests_are_checked_one_by_one() -> None:
    async with running() as server:
        call = server.registry_stub.KeepAlive()
        await call.write(registry_pb2.KeepAliveRequest(lease_ids=[1, 2, 3]))
        assert (await call.read()).renewed == 3
        await call.write(registry_pb2.KeepAliveRequest(lease_ids=range(10_001)))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        error = refusal(failed.value)
        assert isinstance(error, InvalidArgument)
        assert error.violations == (Violation("lease_ids", "must have at most 10000 items", "10001 items"),)


async def test_a_connection_may_not_open_streams_without_end() -> None:
    async with running(config=ChainConfig(streams_per_connection_max=2)) as server:
        calls = [server.registry_stub.KeepAlive() for _ in range(2)]
        for call in calls:
            await call.write(registry_pb2.KeepAliveRequest(lease_ids=[1]))
            assert (await call.read()).renewed == 1
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.KeepAlive().read()
        assert isinstance(refusal(failed.value), LimitExceeded)
        await calls[0].done_writing()
        assert await calls[0].read() is grpc.aio.EOF
        again = server.registry_stub.KeepAlive()
        await again.write(registry_pb2.KeepAliveRequest(lease_ids=[1]))
        assert (await again.read()).renewed == 1
        async with grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            raw: Any = other.stream_stream("/trunkline.api.v1.RegistryService/KeepAlive")()
            await raw.write(b"")
            assert await raw.read() == b""


async def test_streams_are_ended_when_the_server_stops() -> None:
    async with running() as server:
        call = server.registry_stub.KeepAlive()
        await call.write(registry_pb2.KeepAliveRequest(lease_ids=[1]))
        await call.read()
        server.chain.end_streams("the control plane is stopping")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert isinstance(refusal(failed.value), NotReady)
        assert server.registry.ended.is_set()
        assert server.counted("KeepAlive") == {"UNAVAILABLE": 1}
