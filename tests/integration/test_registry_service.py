"""RegistryService on a real socket, on a real registry; the chain in front of it has tests of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest

from reference.registry_facts import instance
from reference.registry_world import World
from trunkline.api import convert
from trunkline.api.v1 import common_pb2, registry_pb2, registry_pb2_grpc
from trunkline.server.chain.call import Call
from trunkline.server.discovery.header import ResponseHeaders
from trunkline.server.registry.service import RegistryService
from trunkline.server.security.principal import Principal, Role, Via

CALLER = Principal(name="token/7", role=Role.ADMIN, via=Via.TOKEN)
SECRET = b"0123456789abcdef"


class Known(Call):
    """A call whose answers are bytes, which grpc.aio is to serialize."""

    def write(self, message: Any, /) -> Awaitable[None]:
        return super().write(registry_pb2.KeepAliveResponse.FromString(message))


class KnownCaller(RegistryService):
    """What the chain does for a servicer: the context knows who calls, and answers may be bytes."""

    def __init__(self, world: World) -> None:
        super().__init__(world.registry, ResponseHeaders("a-journal", 1, lambda: world.control.sequencer.revision))
        self._world = world

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("Register", "KeepAlive", "KeepAliveOnce", "Deregister", "Drain", "SetOverride"):
            return found
        clock = self._world.clock

        async def called(request: Any, context: Any) -> Any:
            answer = await found(request, Known(context, CALLER, lambda data, _: data, clock))
            if not isinstance(answer, bytes):
                return answer
            response = registry_pb2.RegisterResponse if name == "Register" else registry_pb2.KeepAliveOnceResponse
            return response.FromString(answer)

        return called


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.running():
        yield made


@pytest.fixture
async def stub(world: World) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(KnownCaller(world), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield registry_pb2_grpc.RegistryServiceStub(channel)
    await server.stop(None)


def wanted(**fields: Any) -> registry_pb2.RegisterRequest:
    return registry_pb2.RegisterRequest(
        instance=convert.instance_to(instance("a")), lease_secret=SECRET, ttl=convert.ms_to(3_000), **fields
    )


async def test_an_instance_comes_stays_and_goes(world: World, stub: Any) -> None:
    registered = await stub.Register(wanted())
    assert (registered.changed, registered.ttl.seconds, registered.header.revision) == (True, 3, 1)
    assert registered.modified_revision == 1
    assert world.steps[-1].changes[0].author == "token/7"
    again = await stub.Register(wanted())
    assert (again.lease_id, again.changed) == (registered.lease_id, False)

    by_lease = registry_pb2.RegistrationRef(namespace="default", lease_id=registered.lease_id)
    drained = await stub.Drain(registry_pb2.DrainRequest(registration=by_lease, reason="deploy"))
    assert (drained.complete, drained.drained_revision, list(drained.late)) == (True, 2, [])
    assert world.steps[-1].changes[0].reason == "deploy"
    request = registry_pb2.DeregisterRequest(registration=by_lease, request_id="r1")
    assert (await stub.Deregister(request)).changed
    assert not (await stub.Deregister(registry_pb2.DeregisterRequest(registration=by_lease))).changed


async def test_keep_alives_over_a_stream_and_one_by_one(stub: Any) -> None:
    lease_id = (await stub.Register(wanted())).lease_id
    stream = stub.KeepAlive()
    for _ in range(3):
        await stream.write(registry_pb2.KeepAliveRequest(lease_ids=[lease_id, 5]))
        answer = await stream.read()
        assert (answer.renewed, answer.header.revision) == (1, 1)
        assert [(lost.lease_id, lost.reason) for lost in answer.lost] == [(5, registry_pb2.LostLease.REASON_UNKNOWN)]
        assert convert.ms_from(answer, "next_within", 0) == 1_000
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    once = await stub.KeepAliveOnce(registry_pb2.KeepAliveOnceRequest(lease_ids=[lease_id]))
    assert (once.renewed, list(once.lost), once.header.journal_id) == (1, [], "a-journal")
    assert convert.ms_from(once, "next_within", 0) == 1_000


async def test_an_override_is_set_and_taken_back(stub: Any) -> None:
    await stub.Register(wanted())
    request = registry_pb2.SetOverrideRequest(
        namespace="default", service="orders", instance_id="a", status=common_pb2.INSTANCE_STATUS_DRAINING, reason="x"
    )
    held = (await stub.SetOverride(request)).instance
    assert (held.status, held.status_reason) == (common_pb2.INSTANCE_STATUS_DRAINING, "override: x")
    request.status = common_pb2.INSTANCE_STATUS_UNSPECIFIED
    assert (await stub.SetOverride(request)).instance.status == common_pb2.INSTANCE_STATUS_SERVING
