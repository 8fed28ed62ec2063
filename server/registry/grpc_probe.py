"""One probe: grpc.health.v1.Health/Check over a connection that is kept for the next."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trunkline.core.model import Endpoint

from .probe_config import ProberConfig

MESSAGE_MAX = 200
"""Characters of a failure that are kept."""

CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # the instance is asked, not a proxy
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # else a recovered instance is found minutes late
    ("grpc.max_receive_message_length", 4_096),
)

_EXPLAINED = {
    grpc.StatusCode.UNIMPLEMENTED: "does not implement grpc.health.v1",
    grpc.StatusCode.NOT_FOUND: "does not know the service asked for",
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time",
}


class _Kept:
    __slots__ = ("channel", "users")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.users = 0


class GrpcProbe:
    """Asks instances for their health. Plaintext; addresses are checked after names are resolved."""

    def __init__(self, config: ProberConfig) -> None:
        self._rules = config.rules()
        self._channels_max = config.channels_max
        self._channels: OrderedDict[str, _Kept] = OrderedDict()

    async def check(self, endpoint: Endpoint, service: str, *, timeout_ms: int) -> str | None:
        """None if the instance says that it serves, else what is wrong with it, for people."""
        try:
            async with asyncio.timeout(timeout_ms / 1_000):
                target = await self._resolve(endpoint)
                async with self._channel(target) as channel:
                    return await _ask(channel, service, timeout_s=timeout_ms / 1_000)
        except TimeoutError:
            return _EXPLAINED[grpc.StatusCode.DEADLINE_EXCEEDED]
        except _NotProbedError as refusal:
            return str(refusal)[:MESSAGE_MAX]

    async def close(self) -> None:
        """Close every connection."""
        kept, self._channels = self._channels, OrderedDict()
        for one in kept.values():
            await one.channel.close()

    async def _resolve(self, endpoint: Endpoint) -> str:
        """The address to ask, as gRPC names it. What was checked is what is connected to."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _NotProbedError(f"{endpoint.host} does not resolve") from error
        for _, _, _, _, address in found:
            refusal = self._rules.why_not(str(address[0]))
            if refusal:
                raise _NotProbedError(refusal)
        family, _, _, _, address = found[0]
        host = str(address[0])
        return f"ipv6:[{host}]:{endpoint.port}" if family == socket.AF_INET6 else f"ipv4:{host}:{endpoint.port}"

    @asynccontextmanager
    async def _channel(self, target: str) -> AsyncIterator[grpc.aio.Channel]:
        kept = self._channels.get(target)
        if kept is None:
            await self._make_room()
            kept = self._channels.setdefault(target, _Kept(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)))
        self._channels.move_to_end(target)
        kept.users += 1
        try:
            yield kept.channel
        finally:
            kept.users -= 1

    async def _make_room(self) -> None:
        """Close the connection that was idle longest when there are too many."""
        if len(self._channels) < self._channels_max:
            return
        for target, kept in self._channels.items():
            if not kept.users:
                del self._channels[target]
                await kept.channel.close()
                return


class _NotProbedError(Exception):
    """The endpoint cannot or must not be asked."""


async def _ask(channel: grpc.aio.Channel, service: str, *, timeout_s: float) -> str | None:
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        explained = _EXPLAINED.get(error.code())
        return explained or f"{error.code().name}: {error.details()}"[:MESSAGE_MAX]
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return f"answered {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
