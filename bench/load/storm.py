"""One registry change told to many watches: from the Register that makes it to the last watch that hears of it."""

from __future__ import annotations

import os
import time

import grpc

from bench.load.batches import MARK
from bench.load.client.hold import Held, Holding, holding
from bench.load.client.program import message
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import common_pb2, discovery_pb2, registry_pb2, registry_pb2_grpc

WATCH = "/trunkline.api.v1.DiscoveryService/Watch"
SERVICE = "storm"
PER_CONNECTION = 10
QUIET_S = 0.7
"""Acknowledgements are read, and the server is quiet."""


def opened() -> bytes:
    """What a connection says first: all its watches."""
    return b"".join(
        said(discovery_pb2.WatchRequest(open=discovery_pb2.OpenWatch(watch_id=n, namespace=NAMESPACE, service=SERVICE)))
        for n in range(1, PER_CONNECTION + 1)
    )


def applied(revision: int) -> bytes:
    """All of them have applied it."""
    return b"".join(
        said(discovery_pb2.WatchRequest(acknowledge=discovery_pb2.AcknowledgeWatch(watch_id=n, revision=revision)))
        for n in range(1, PER_CONNECTION + 1)
    )


def said(request: discovery_pb2.WatchRequest) -> bytes:
    """As it stands on the stream."""
    return message(request.SerializeToString())


def change(stub: registry_pb2_grpc.RegistryServiceStub, number: int) -> int:
    """Register the one instance with another label, whose value is seen once in each watch's event; the revision."""
    instance = common_pb2.Instance(
        namespace=NAMESPACE,
        service=SERVICE,
        id="one",
        endpoints=[common_pb2.Endpoint(host="10.0.0.1", port=8080)],
        labels={"mark": f"{MARK.decode()}{number:016x}"},
    )
    request = registry_pb2.RegisterRequest(instance=instance, lease_secret=b"secret of a storm")
    request.ttl.FromSeconds(300)
    return stub.Register(request, timeout=30).modified_revision


def storms(address: str, connections: int, changes: int) -> list[float]:
    """Milliseconds from a change to the last watch that hears of it."""
    with grpc.insecure_channel(address) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        revision = change(stub, 0)
        held = Held(connections=connections, path=WATCH, says=[opened()], each=connections * PER_CONNECTION)
        with holding(address, held) as watches:
            watches.told_at(0, within_s=90)
            found = []
            for number in range(1, changes + 1):
                took_ms, revision = storm(stub, watches, number, revision)
                found.append(took_ms)
            return found


def storm(
    stub: registry_pb2_grpc.RegistryServiceStub, watches: Holding, number: int, revision: int
) -> tuple[float, int]:
    """One change, after the last was acknowledged; and its revision."""
    watches.say([applied(revision)])
    time.sleep(QUIET_S)
    began = time.perf_counter()
    revision = change(stub, number)
    return 1_000 * (watches.told_at(number, within_s=30) - began), revision


def rows(quick: bool) -> list[Row]:
    """The change is durable before it is told."""
    os.sched_setaffinity(0, {LOAD_CORE})
    connections, changes = (200, 5) if quick else (1_000, 11)
    with scratch_folder() as folder, running(Server(folder, core=SERVER_CORE)) as server:
        found = storms(server.ready(), connections, changes)
    watches = f"{connections * PER_CONNECTION:,} watches on {connections:,} connections"
    what = f"Register to the last of {watches}, {called(NATIVE)}"
    return [row("watch-storm", what, found, "ms", gate="value <= 100 ms", goal="value <= 40 ms")]
