"""A server of gRPC's interoperability tests in a process of its own: python -m interop.interop_server --transport native

Prints its port, and with --tls that of a second one over TLS; stops with its standard input, in an orderly way.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import grpc
import uvloop
from interop.conformance.cases import TRANSPORTS
from interop.conformance.service import InteropService

from trunkline.server.security.config import TlsConfig
from trunkline.server.security.tls import server_context, server_credentials
from trunkline.server.transport.choice import make_transport
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.listener import Listener

if TYPE_CHECKING:
    from trunkline.server.transport.choice import Transport

GRACE_S = 5.0
CONFIG = TransportConfig(
    receive_message_bytes_max=8 << 20,
    metadata_bytes_max=16 << 10,
    streams_per_connection_max=50,
    client_ping_interval_ms_min=100,
)
"""Bounds that a client reaches in a short test."""


class Anything(grpc.GenericRpcHandler):
    """Answers whatever path with a little, after a moment in which the client may do its worst."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._answer)

    async def _answer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.03)
        yield bytes(100)


def made(kind: Any, tls: TlsConfig | None) -> Transport:
    """The one place that knows how each transport is made."""
    listeners = [Listener(address="127.0.0.1:0")]
    if tls is not None:
        credentials, context = server_credentials(tls), server_context(tls)
        listeners.append(Listener(address="127.0.0.1:0", credentials=credentials, context=context))
    return make_transport(replace(CONFIG, kind=kind), listeners)


async def main(transport: Transport, *more: grpc.GenericRpcHandler) -> None:
    transport.add_generic_rpc_handlers((*InteropService().handlers(), *more))
    addresses = await transport.start()
    sys.stdout.write(" ".join(address.rpartition(":")[2] for address in addresses) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await transport.stop(GRACE_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORTS, default="native")
    parser.add_argument("--any-request", action="store_true", help="let through what is no call, for h2spec")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERTIFICATE", "KEY"))
    asked = parser.parse_args()
    tls = None if asked.tls is None else TlsConfig(certificate=asked.tls[0], key=asked.tls[1])
    gate = patch("trunkline.server.transport.native.connection.refusal_headers", return_value=None)
    with (
        gate if asked.any_request else nullcontext(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop if asked.transport == "native" else None) as runner,
    ):
        runner.run(main(made(asked.transport, tls), *([Anything()] if asked.any_request else [])))
