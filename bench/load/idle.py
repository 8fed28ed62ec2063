"""Connections that have asked something once and wait: what each costs the server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import grpc

from bench.load.client.hold import Held, holding
from bench.load.client.program import message
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.resolve import REQUEST, RESOLVE, register_all
from bench.load.server import GRPCIO, NATIVE, Server, called
from bench.row import Row, row
from bench.runner import scratch_folder

SETTLED_S = 1
FIRST = 100
"""Connections that come and go before the rest: what the server needs once is not what a connection costs."""


def kib_each(folder: Path, transport: str, connections: int) -> float:
    """Growth of the server's resident memory by one connection."""
    folder.mkdir()
    says = [message(REQUEST.SerializeToString())]
    with running(Server(folder, transport=transport, core=SERVER_CORE)) as server:
        address = server.ready()
        with grpc.insecure_channel(address) as channel:
            register_all(channel)
        with holding(address, Held(connections=FIRST, path=RESOLVE, says=says, is_call=True)):
            time.sleep(SETTLED_S)
        before = server.memory_bytes()
        with holding(address, Held(connections=connections, path=RESOLVE, says=says, is_call=True), within_s=120):
            time.sleep(SETTLED_S)
            return (server.memory_bytes() - before) / connections / 1024


def rows(quick: bool) -> list[Row]:
    """KiB each, beside the other transport."""
    os.sched_setaffinity(0, {LOAD_CORE})
    connections = 1_000 if quick else 10_000
    with scratch_folder() as folder:
        native = kib_each(folder / "native", NATIVE, connections)
        grpcio = kib_each(folder / "grpcio", GRPCIO, connections)
    return [
        row(
            "idle",
            f"memory of one of {connections:,} idle connections, without TLS, {called(NATIVE)}",
            [native],
            "KiB",
            peer="the same servicer on grpc.aio",
            peer_values=[grpcio],
            gate="value <= 32 KiB",
        )
    ]
