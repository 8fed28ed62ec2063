"""The gRPC server on grpc.aio."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import grpc
from prometheus_client.registry import Collector

from trunkline.core.errors import InvalidArgument

from .config import TransportConfig
from .listener import Listener


class GrpcioTransport:
    """A registrar that serves what was registered, from `start` until `stop`.

    Handlers are registered before `start`. Each runs in a task of its own on the loop that called `start`.
    """

    name = "grpcio"
    collector: Collector | None = None  # gRPC's core tells nothing of its connections

    def __init__(self, config: TransportConfig, listeners: Sequence[Listener]) -> None:
        if any(listener.inherited is not None for listener in listeners):
            rule = "cannot be grpcio with an inherited socket: grpc.aio makes its own"
            raise InvalidArgument.of("transport.kind", rule, config.kind)
        self._config = config
        self._listeners = tuple(listeners)
        self._generic: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, dict[str, Any]] = {}
        self._server: grpc.aio.Server | None = None

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """See grpc.aio.Server."""
        self._registered[service_name] = method_handlers

    async def start(self) -> list[str]:
        """Listen; returns the addresses, with the ports that were bound. InvalidArgument names one that is not free."""
        assert self._server is None, "started twice"
        server = grpc.aio.server(options=_options(self._config))
        server.add_generic_rpc_handlers(tuple(self._generic))
        for service_name, method_handlers in self._registered.items():
            server.add_registered_method_handlers(service_name, method_handlers)
        try:
            bound = [_bind(server, listener) for listener in self._listeners]
            await server.start()
        except BaseException:
            await server.stop(None)
            raise
        self._server = server
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no more connections and calls; wait so long for those that are open, then cut them."""
        if self._server is not None:
            await self._server.stop(grace_s)

    @property
    def sockets(self) -> list[socket.socket]:
        """None that could be handed over."""
        return []

    async def wait(self) -> None:
        """Return when the server has stopped."""
        assert self._server is not None, "not started"
        await self._server.wait_for_termination()


def _bind(server: grpc.aio.Server, listener: Listener) -> str:
    address = listener.address
    is_unix = address.startswith("unix:")
    taken = InvalidArgument.of("listen", "cannot be bound: it is taken, or no address of this machine", address)
    if is_unix and _answers(address.removeprefix("unix:")):
        raise taken  # gRPC would take the path away from the server that has it
    try:
        if listener.credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, listener.credentials)
    except RuntimeError as error:
        raise taken from error
    return address if is_unix else f"{address.rpartition(':')[0]}:{port}"


def _answers(path: str) -> bool:
    """Whether a server has this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _options(config: TransportConfig) -> list[tuple[str, int]]:
    age = [
        ("grpc.max_connection_age_ms", config.connection_age_ms_max),
        ("grpc.max_connection_age_grace_ms", config.connection_age_grace_ms),
    ]
    return [
        ("grpc.max_receive_message_length", config.receive_message_bytes_max),
        ("grpc.max_send_message_length", config.send_message_bytes_max),
        ("grpc.max_metadata_size", config.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", 2 * config.metadata_bytes_max),
        ("grpc.max_concurrent_streams", config.streams_per_connection_max),
        ("grpc.keepalive_time_ms", config.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", config.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", config.client_ping_interval_ms_min),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", config.client_ping_interval_ms_min),
        ("grpc.so_reuseport", int(config.reuse_port)),
        *(age if config.connection_age_ms_max else []),
    ]
