"""The standard services, as stock clients use them: health, and reflection that gives the whole contract."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from integration.processes import Server, serving

SERVING, UNKNOWN = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = [
    f"trunkline.api.v1.{name}" for name in ("AdminService", "DiscoveryService", "EventService", "RegistryService")
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_of_the_server_and_of_each_service(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_what_is_not_there(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert next(watch).status == UNKNOWN
    watch.cancel()


def test_reflection_lists_every_service(channel: grpc.Channel) -> None:
    names = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert names >= {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_a_client_without_protos_calls_by_reflection(channel: grpc.Channel) -> None:
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    for name in SERVICES:
        assert pool.FindServiceByName(name).methods
    method = pool.FindServiceByName("trunkline.api.v1.AdminService").methods_by_name["Status"]
    answer = message_factory.GetMessageClass(method.output_type)
    status: Any = channel.unary_unary("/trunkline.api.v1.AdminService/Status", response_deserializer=answer.FromString)
    assert status(b"", timeout=10).version


def test_reflection_refuses_what_it_does_not_know(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=10)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    asked = reflection_pb2.ServerReflectionRequest(file_by_filename="trunkline/api/v1/events.proto")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=10)
    file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
    assert file.package == "trunkline.api.v1"


def read_to_end(watch: Iterator[health_pb2.HealthCheckResponse]) -> None:
    for answer in watch:
        assert answer.status == NOT_SERVING


def test_whoever_watches_health_hears_that_the_server_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("stopping")) as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == SERVING
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            read_to_end(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(20) == 0
