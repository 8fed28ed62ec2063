"""Which transport serves: the native one where it is there, unless another is asked for."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from prometheus_client.registry import Collector

from trunkline.core.errors import InvalidArgument

from .config import TransportConfig
from .listener import Listener


class Transport(Protocol):
    """A registrar that serves what was registered, from `start` until `stop`."""

    name: str
    collector: Collector | None
    """Its metrics, if it has any."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """See grpc.aio.Server."""

    async def start(self) -> list[str]:
        """Listen; returns the addresses, with the ports that were bound. InvalidArgument names one that is not free."""

    async def stop(self, grace_s: float) -> None:
        """Take no more connections and calls; wait so long for those that are open, then cut them."""

    @property
    def sockets(self) -> list[socket.socket]:
        """What it listens on and can hand over; empty where it cannot."""

    async def wait(self) -> None:
        """Return when the server has stopped."""


def native_lacks() -> str:
    """Why there is no native transport; empty when there is."""
    try:
        importlib.import_module("trunkline.core.http2")
    except ImportError as error:
        return f"trunkline was built without libnghttp2 ({error})"
    return ""


def kind_of(config: TransportConfig) -> str:
    """native or grpcio. InvalidArgument when native is asked for and not there."""
    lacks = native_lacks()
    if config.kind == "native" and lacks:
        raise InvalidArgument.of("transport.kind", f"cannot be native: {lacks}", config.kind)
    return config.kind or ("grpcio" if lacks else "native")


def make_transport(config: TransportConfig, listeners: Sequence[Listener]) -> Transport:
    """The transport that `kind_of` names. Only its libraries are imported."""
    if kind_of(config) == "native":
        from .native.transport import NativeTransport

        return NativeTransport(config, listeners)
    from .grpcio import GrpcioTransport

    return GrpcioTransport(config, listeners)
