"""Where the SDK meets the machine: everything that the simulator replaces is a field here."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InvalidArgument

UNIX = "unix:"
"""Begins a target that is a socket in the file system."""


class ControlChannel(Protocol):
    """The part of grpc.aio.Channel that reaches the control plane; generated stubs take it."""

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any: ...
    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any: ...
    async def close(self, grace: float | None = None) -> None: ...


class AddressFinder(Protocol):
    """Asks the machine about addresses."""

    async def local_address(self) -> str:
        """The address from which the control plane is reached."""

    async def control_is_loopback(self) -> bool:
        """Whether the control plane is on this machine's loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Time, chance, network and addresses. `connect()` makes the real ones; nothing else does."""

    clock: Clock
    rng: Rng
    """For jitter and picks; not for secrets."""
    entropy: Callable[[int], bytes]
    """So many unpredictable bytes: lease secrets and ids."""
    dial_control: Callable[[], ControlChannel]
    """A new channel to the control plane; called again after each lost connection."""
    dial_instance: Callable[[str, grpc.ChannelCredentials | None], grpc.aio.Channel]
    """A new channel to an instance's address, in plaintext without credentials; it connects lazily."""
    addresses: AddressFinder


CONNECTION_ARGUMENTS: list[tuple[str, Any]] = [
    # Connections are ours alone: a shared pool would hand a dead connection's backoff to a fresh channel.
    ("grpc.use_local_subchannel_pool", 1),
]

INSTANCE_ARGUMENTS: list[tuple[str, Any]] = [
    *CONNECTION_ARGUMENTS,
    # An instance that comes back at its old address is worth a look every few seconds, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def dial_instance(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """The network's own way to an instance."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=INSTANCE_ARGUMENTS)
    return grpc.aio.secure_channel(address, credentials, options=INSTANCE_ARGUMENTS)


def host_and_port(target: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port"; "unix:PATH" is loopback. InvalidArgument when it is none of them."""
    if target.startswith(UNIX) and len(target) > len(UNIX):
        return "localhost", 0
    host, colon, port = target.removeprefix("dns:///").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument.of("target", "host:port", target)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise InvalidArgument.of("target", "an IPv6 address in brackets, then :port", target)
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether an address or name means the machine itself. Other names are not looked up."""
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class SocketAddresses:
    """Asks the resolver and the routing table."""

    def __init__(self, target: str) -> None:
        self._host, self._port = host_and_port(target)

    async def control_is_loopback(self) -> bool:
        return is_loopback(self._host) or is_loopback(await self.local_address())

    async def local_address(self) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setblocking(False)
            probe.connect(address)  # a datagram socket: looks the route up, sends nothing
            return str(probe.getsockname()[0])
