"""The transport that suits the running event loop: native on uvloop, as `serve` has it, and grpc.aio on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import uvloop

from trunkline.server.security.config import TlsConfig
from trunkline.server.security.tls import server_context, server_credentials
from trunkline.server.transport.choice import Transport, make_transport
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.listener import Listener


def new_transport(config: TransportConfig | None = None, listeners: Sequence[Listener] = ()) -> Transport:
    """On a free port of 127.0.0.1 unless told otherwise. Called on the loop that will serve."""
    is_native = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    chosen = replace(config or TransportConfig(), kind="native" if is_native else "grpcio")
    return make_transport(chosen, listeners or [Listener(address="127.0.0.1:0")])


def with_tls(tls: TlsConfig, address: str = "127.0.0.1:0") -> Listener:
    """A listener with TLS for either."""
    return Listener(address=address, credentials=server_credentials(tls), context=server_context(tls))
