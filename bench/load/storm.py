"""One change told to many watches: from the call that makes it, of an instance or of a policy, to the last watch that
hears of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import grpc

from bench.load.batches import MARK
from bench.load.client.hold import Held, holding
from bench.load.client.program import message
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import (
    common_pb2,
    discovery_pb2,
    policy_pb2,
    registry_pb2,
    registry_pb2_grpc,
    traffic_pb2,
    traffic_pb2_grpc,
)

WATCH = "/trunkline.api.v1.DiscoveryService/Watch"
SERVICE = "storm"
PER_CONNECTION = 10
QUIET_S = 0.7
"""Acknowledgements are read, and the server is quiet."""

Change = Callable[[grpc.Channel, int], int]
"""Makes the change of a number, whose mark is seen once in each watch's event; gives its revision."""


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


def registered(channel: grpc.Channel, number: int) -> int:
    """The one instance, with another label."""
    instance = common_pb2.Instance(
        namespace=NAMESPACE,
        service=SERVICE,
        id="one",
        endpoints=[common_pb2.Endpoint(host="10.0.0.1", port=8080)],
        labels={"mark": marked(number)},
    )
    request = registry_pb2.RegisterRequest(instance=instance, lease_secret=b"secret of a storm")
    request.ttl.FromSeconds(300)
    return registry_pb2_grpc.RegistryServiceStub(channel).Register(request, timeout=30).modified_revision


def ruled(channel: grpc.Channel, number: int) -> int:
    """The service's policy, with another subset."""
    subset = policy_pb2.Subset(name="marked", labels={"mark": marked(number)})
    policy = policy_pb2.TrafficPolicy(namespace=NAMESPACE, service=SERVICE, subsets=[subset])
    request = traffic_pb2.ApplyPolicyRequest(policy=policy)
    return traffic_pb2_grpc.TrafficServiceStub(channel).ApplyPolicy(request, timeout=30).policy.revision


def marked(number: int) -> str:
    """What a watch's event is known by."""
    return f"{MARK.decode()}{number:016x}"


def storms(address: str, change: Change, connections: int, changes: int) -> list[float]:
    """Milliseconds from a change to the last watch that hears of it."""
    with grpc.insecure_channel(address) as channel:
        revision = change(channel, 0)
        held = Held(connections=connections, path=WATCH, says=[opened()], each=connections * PER_CONNECTION)
        with holding(address, held) as watches:
            watches.told_at(0, within_s=90)
            found = []
            for number in range(1, changes + 1):
                watches.say([applied(revision)])
                time.sleep(QUIET_S)
                began = time.perf_counter()
                revision = change(channel, number)
                found.append(1_000 * (watches.told_at(number, within_s=30) - began))
            return found


def rows(quick: bool) -> list[Row]:
    """The change is durable before it is told."""
    os.sched_setaffinity(0, {LOAD_CORE})
    connections, changes = (200, 5) if quick else (1_000, 11)
    watches = f"{connections * PER_CONNECTION:,} watches on {connections:,} connections, {called(NATIVE)}"
    found = []
    for call, change in (("Register", registered), ("ApplyPolicy", ruled)):
        with scratch_folder() as folder, running(Server(folder, core=SERVER_CORE)) as server:
            took_ms = storms(server.ready(), change, connections, changes)
        what = f"{call} to the last of {watches}"
        found.append(row("watch-storm", what, took_ms, "ms", gate="value <= 100 ms", goal="value <= 40 ms"))
    return found
