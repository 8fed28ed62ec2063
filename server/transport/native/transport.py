"""The native server as the transport of a control plane."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import grpc
from prometheus_client.registry import Collector

from trunkline.core.errors import InvalidArgument

from ..config import TransportConfig
from ..listener import Listener
from .metrics import TransportMetrics
from .server import NativeServer
from .sockets import Taken


class NativeTransport:
    """A registrar that serves what was registered, from `start` until `stop`; see GrpcioTransport."""

    name = "native"

    def __init__(self, config: TransportConfig, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self.server = NativeServer(config)
        self.collector: Collector | None = TransportMetrics(self.server)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server."""
        self.server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """See grpc.aio.Server."""
        self.server.add_registered_method_handlers(service_name, method_handlers)

    async def start(self) -> list[str]:
        """Listen; returns the addresses, with the ports that were bound. InvalidArgument names one that is not free."""
        try:
            bound = [self._bind(listener) for listener in self._listeners]
            await self.server.start()
        except BaseException:
            await self.server.stop(None)
            raise
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no more connections and calls; wait so long for those that are open, then cut them."""
        await self.server.stop(grace_s)

    @property
    def sockets(self) -> list[socket.socket]:
        """What it listens on."""
        return self.server.sockets

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self.server.wait_for_termination()

    def _bind(self, listener: Listener) -> str:
        address = listener.address
        if listener.inherited is not None:
            self.server.add_socket(listener.inherited, listener.context)
            return address
        try:
            if listener.context is None:
                port = self.server.add_insecure_port(address)
            else:
                port = self.server.add_secure_port(address, listener.context)
        except Taken as error:
            rule = "cannot be bound: it is taken, or no address of this machine"
            raise InvalidArgument.of("listen", rule, address) from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
