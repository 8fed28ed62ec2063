"""A real grpc.aio server with the whole chain in front of small servicers, on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from integration.transports import new_transport

from trunkline.api.status import DETAILS_KEY, error_from
from trunkline.api.v1 import (
    common_pb2,
    discovery_pb2_grpc,
    events_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from trunkline.core.clock import SystemClock
from trunkline.core.errors import InstanceNotFound, TrunklineError
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.chain.chain import Chain
from trunkline.server.chain.config import ChainConfig
from trunkline.server.chain.gate import House
from trunkline.server.chain.metrics import ChainMetrics
from trunkline.server.chain.readiness import Readiness
from trunkline.server.security.authenticate import Authenticator
from trunkline.server.security.config import SecurityConfig
from trunkline.server.security.principal import Principal
from trunkline.server.security.tokens_fold import TokensFold
from trunkline.server.transport.choice import Transport
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.listener import Listener
from trunkline.server.transport.sink import SinkConfig, sink_of
from trunkline.server.transport.standard import StandardServices


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Register answers, Deregister refuses, Drain waits, SetOverride has a fault."""

    def __init__(self) -> None:
        self.principals: list[Principal] = []
        self.deadlines_ns: list[int | None] = []
        self.draining = asyncio.Event()
        self.ended = asyncio.Event()
        self.answered = 0
        """Keep-alives."""

    async def Register(self, request: Any, context: Any) -> Any:
        self.principals.append(principal_of(context))
        self.deadlines_ns.append(deadline_ns_of(context))
        answer = registry_pb2.RegisterResponse(lease_id=7, modified_revision=request.instance.weight)
        return answer.SerializeToString()

    async def Deregister(self, request: Any, context: Any) -> Any:
        raise InstanceNotFound("no such instance", service="cart", instance="c-1")

    async def Drain(self, request: Any, context: Any) -> Any:
        self.draining.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def SetOverride(self, request: Any, context: Any) -> Any:
        faulty: dict[str, Any] = {}
        return faulty["a fault"]

    async def KeepAlive(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        def answer(request: Any) -> bytes:
            self.answered += 1
            leases = request if isinstance(request, list) else request.lease_ids
            header = common_pb2.ResponseHeader(journal_id="j" * 200) if leases else None
            return registry_pb2.KeepAliveResponse(header=header, renewed=len(leases)).SerializeToString()

        try:
            await context.answer_each(requests, answer)
        finally:
            self.ended.set()


class Discovery(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Resolve echoes bytes unless the service is "slow"; Watch sends what the test offers."""

    def __init__(self, sink_config: SinkConfig) -> None:
        self.sink_config = sink_config
        self.opened: asyncio.Queue[Any] = asyncio.Queue()
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.sink_errors: asyncio.Queue[BaseException] = asyncio.Queue()

    async def Resolve(self, request: Any, context: Any) -> Any:
        if request.service == "slow":
            await asyncio.Event().wait()
        return b"\x0a\x07\x0a\x05" + request.service.encode()[:5].ljust(5)

    async def Watch(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        try:
            async with sink_of(context, self.sink_config) as sink:
                self.opened.put_nowait(sink)
                async for request in requests:
                    self.requests.put_nowait(request)
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                self.sink_errors.put_nowait(error)
            raise


class Events(events_pb2_grpc.EventServiceServicer):
    """Publish gets and gives bytes."""

    async def Publish(self, data: Any, context: Any) -> Any:
        assert isinstance(data, bytes)
        return data[:0]


@dataclass
class Running:
    """What a test may touch of a server that runs."""

    address: str
    channel: grpc.aio.Channel
    chain: Chain
    transport: Transport
    readiness: Readiness
    tokens: TokensFold
    metrics: ChainMetrics
    standard: StandardServices
    registry: Registry
    discovery: Discovery
    clock: SystemClock = field(default_factory=SystemClock)

    @property
    def registry_stub(self) -> Any:
        return registry_pb2_grpc.RegistryServiceStub(self.channel)

    @property
    def discovery_stub(self) -> Any:
        return discovery_pb2_grpc.DiscoveryServiceStub(self.channel)

    def counted(self, method: str) -> dict[str, int]:
        """Calls of a method by status."""
        return next(stats.handled for stats in self.metrics._methods if stats.labels[1] == method)


@contextlib.asynccontextmanager
async def running(
    *,
    security: SecurityConfig | None = None,
    config: ChainConfig | None = None,
    transport_config: TransportConfig | None = None,
    sink: SinkConfig | None = None,
    listener: Listener | None = None,
    channel_credentials: grpc.ChannelCredentials | None = None,
    channel_options: list[tuple[str, Any]] | None = None,
    loopback_is_open: bool = True,
    ready: bool = True,
) -> AsyncIterator[Running]:
    """Start everything, connect, and stop everything."""
    clock, tokens, readiness, metrics = SystemClock(), TokensFold(), Readiness(), ChainMetrics()
    authenticator = Authenticator(security or SecurityConfig(), tokens, clock, loopback_is_open=loopback_is_open)
    house = House(authenticator=authenticator, readiness=readiness, clock=clock, config=config or ChainConfig())
    transport = new_transport(transport_config, [listener] if listener else [])
    chain = Chain(transport, house, metrics)
    registry = Registry()  # type: ignore[abstract]
    discovery = Discovery(sink or SinkConfig())  # type: ignore[abstract]
    events = Events()  # type: ignore[abstract]
    standard = StandardServices()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, chain.server)
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(discovery, chain.server)
    events_pb2_grpc.add_EventServiceServicer_to_server(events, chain.server)
    await standard.register(chain, chain.services)
    [address] = await transport.start()
    if ready:
        readiness.open()
    if channel_credentials is None:
        channel = grpc.aio.insecure_channel(address, options=channel_options)
    else:
        channel = grpc.aio.secure_channel(address, channel_credentials, options=channel_options)
    try:
        async with channel:
            yield Running(address, channel, chain, transport, readiness, tokens, metrics, standard, registry, discovery)
    finally:
        await transport.stop(0)


def refusal(error: grpc.aio.AioRpcError) -> TrunklineError:
    """What the client makes of a failed call."""
    details = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    assert details is None or isinstance(details, bytes)
    return error_from(error.code().name, error.details() or "", details)


def register_request(**changes: Any) -> registry_pb2.RegisterRequest:
    """A request that nothing is wrong with."""
    request = registry_pb2.RegisterRequest(lease_secret=b"0123456789abcdef")
    instance = request.instance
    instance.namespace, instance.service, instance.id = "shop", "cart", "cart-1"
    instance.endpoints.add(host="10.0.0.1", port=8080)
    for name, value in changes.items():
        setattr(instance, name, value)
    return request
